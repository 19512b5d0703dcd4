//! Remarks on a query: warnings (the result may be wrong) and infos (something to know).

use std::collections::HashSet;

/// Where in the query a remark belongs, ready to print.
#[derive(Clone, Debug)]
pub(crate) struct Place(pub(crate) String);

/// Remarks without duplicates, in the order they came up.
#[derive(Clone, Debug, Default)]
pub(crate) struct Annotations {
    warnings: Remarks,
    infos: Remarks,
}

#[derive(Clone, Debug, Default)]
struct Remarks {
    texts: Vec<String>,
    seen: HashSet<String>,
}

impl Remarks {
    fn add(&mut self, text: String) {
        if self.seen.insert(text.clone()) {
            self.texts.push(text);
        }
    }
}

/// Distinct remarks that are kept of each kind: a query over many series must not answer mostly remarks.
const REMARKS_MAX: usize = 1_000;

impl Annotations {
    pub(crate) fn warn(&mut self, text: &str, place: &Place) {
        if self.warnings.texts.len() < REMARKS_MAX {
            self.warnings.add(format!("PromQL warning: {text} ({})", place.0));
        }
    }

    pub(crate) fn info(&mut self, text: &str, place: &Place) {
        if self.infos.texts.len() < REMARKS_MAX {
            self.infos.add(format!("PromQL info: {text} ({})", place.0));
        }
    }

    pub(crate) fn merge(&mut self, other: Annotations) {
        for text in other.warnings.texts {
            self.warnings.add(text);
        }
        for text in other.infos.texts {
            self.infos.add(text);
        }
    }

    pub(crate) fn into_texts(self) -> (Vec<String>, Vec<String>) {
        (self.warnings.texts, self.infos.texts)
    }
}

/// ` for metric name "x"`, or nothing where the name is not known.
pub(crate) fn for_metric(name: &str) -> String {
    if name.is_empty() { String::new() } else { format!(" for metric name {}", crate::quote::go_quote(name)) }
}
