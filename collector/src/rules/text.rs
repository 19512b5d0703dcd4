//! Labels and annotations of rules: Go templates with Prometheus' variables and functions.

use pharos_common::labels::Labels;
use pharos_common::template::{FunctionError, Functions, Template, TemplateError, Value};
use std::sync::{Arc, OnceLock};

/// What Prometheus puts before every template of a rule.
const VARIABLES: &str = "{{$labels := .Labels}}{{$externalLabels := .ExternalLabels}}{{$externalURL := .ExternalURL}}{{$value := .Value}}";

/// A text of a rule: most are plain, and cost nothing to expand.
#[derive(Clone, Debug)]
pub struct RuleText {
    source: String,
    template: Option<Arc<Template>>,
}

impl RuleText {
    /// A text that stands for itself.
    pub fn plain(text: &str) -> Self {
        RuleText { source: text.to_owned(), template: None }
    }

    /// A template.
    ///
    /// # Errors
    /// If it cannot be parsed or calls a function that does not exist.
    pub fn template(text: &str) -> Result<Self, TemplateError> {
        if !text.contains("{{") {
            return Ok(RuleText::plain(text));
        }
        let template = Template::parse(&format!("{VARIABLES}{text}"))?;
        static KNOWN: OnceLock<Functions> = OnceLock::new();
        let known = KNOWN.get_or_init(|| functions("", |_| Err("no query is run here".into())));
        if let Some(name) = template.missing_functions(known).first() {
            return Err(TemplateError { line: 1, message: format!("function {name:?} not defined") });
        }
        Ok(RuleText { source: text.to_owned(), template: Some(Arc::new(template)) })
    }

    /// The text as written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether the text stands for itself.
    pub fn is_plain(&self) -> bool {
        self.template.is_none()
    }

    /// Whether the text is surely the same for every value: plain, or of labels only.
    pub fn is_steady(&self) -> bool {
        let rest = self.source.replace("$labels.", "").replace(".Labels.", "");
        self.template.is_none() || !(rest.contains(['.', '$']) || rest.contains("query"))
    }

    /// The text for one result. What fails is said in the text, as Prometheus does.
    pub fn expand(&self, context: &TextContext<'_>) -> String {
        let Some(template) = &self.template else { return self.source.clone() };
        let map = |labels: &Labels| Value::map(labels.iter());
        let data = Value::object([
            ("Labels", map(context.labels)),
            ("ExternalLabels", map(context.external_labels)),
            ("ExternalURL", Value::from(context.external_url)),
            ("Value", Value::Float(context.value)),
        ]);
        template.render(&data, context.functions).unwrap_or_else(|error| {
            tracing::warn!(%error, template = self.source, "A template of a rule failed");
            format!("<error expanding template: {error}>")
        })
    }
}

/// What a text is expanded with.
#[derive(Debug)]
pub struct TextContext<'a> {
    /// Labels of the result.
    pub labels: &'a Labels,
    /// Value of the result.
    pub value: f64,
    /// Labels of this collector.
    pub external_labels: &'a Labels,
    /// URL of this collector.
    pub external_url: &'a str,
    /// What templates may call.
    pub functions: &'a Functions,
}

/// A result of the template function `query`.
#[derive(Clone, Debug)]
pub struct QueryRow {
    /// Its labels.
    pub labels: Labels,
    /// Its value.
    pub value: f64,
}

/// The functions of rule templates. `query` runs an instant query.
pub fn functions(
    external_url: &str,
    query: impl Fn(&str) -> Result<Vec<QueryRow>, FunctionError> + Send + Sync + 'static,
) -> Functions {
    let mut functions = Functions::standard();
    functions.add("query", move |arguments| {
        let rows = query(text(arguments.first())?)?;
        Ok(Value::list(rows.into_iter().map(|row| {
            Value::object([("Labels", Value::map(row.labels.iter())), ("Value", Value::Float(row.value))])
        })))
    });
    functions.add("first", |arguments| match arguments.first() {
        Some(Value::List(items)) => {
            items.first().cloned().ok_or_else(|| "first() called on vector with no elements".into())
        }
        _ => Err("wants a query result".into()),
    });
    functions.add("value", |arguments| field(arguments.first(), "Value"));
    functions.add("label", |arguments| label(arguments.get(1), text(arguments.first())?));
    functions.add("strvalue", |arguments| label(arguments.first(), "__value__"));
    functions.add("sortByLabel", |arguments| {
        let by = text(arguments.first())?;
        let Some(Value::List(items)) = arguments.get(1) else { return Err("wants a query result".into()) };
        let mut keyed: Vec<(String, Value)> = items
            .iter()
            .map(|item| {
                let key = label(Some(item), by).ok();
                (key.as_ref().and_then(Value::as_str).unwrap_or("").to_owned(), item.clone())
            })
            .collect();
        keyed.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(Value::list(keyed.into_iter().map(|(_, item)| item)))
    });
    functions.add("graphLink", |arguments| Ok(Value::from(link(text(arguments.first())?, 0))));
    functions.add("tableLink", |arguments| Ok(Value::from(link(text(arguments.first())?, 1))));
    let url = external_url.to_owned();
    functions.add("externalURL", move |_| Ok(Value::from(url.as_str())));
    let path = external_url.splitn(4, '/').nth(3).map(|path| format!("/{path}")).unwrap_or_default();
    functions.add("pathPrefix", move |_| Ok(Value::from(path.as_str())));
    functions
}

/// Where a person sees an expression: `g0.tab` 1 is the table.
pub fn link(expression: &str, tab: u8) -> String {
    let mut encoded = String::with_capacity(expression.len() * 2);
    for byte in expression.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => encoded.push(byte as char),
            b' ' => encoded.push('+'),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    format!("/graph?g0.expr={encoded}&g0.tab={tab}")
}

fn text(value: Option<&Value>) -> Result<&str, FunctionError> {
    value.and_then(Value::as_str).ok_or_else(|| "wants a text".into())
}

fn field(value: Option<&Value>, name: &str) -> Result<Value, FunctionError> {
    match value {
        Some(Value::Struct(fields)) => fields.get(name).cloned().ok_or_else(|| "not a query result".into()),
        _ => Err("wants a query result".into()),
    }
}

fn label(value: Option<&Value>, name: &str) -> Result<Value, FunctionError> {
    match field(value, "Labels")? {
        Value::Map(labels) => Ok(labels.get(name).cloned().unwrap_or_else(|| Value::from(""))),
        _ => Err("not a query result".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: &str) {
        let row = || QueryRow { labels: Labels::from_pairs([("job", "b")]), value: 2.0 };
        let functions = functions("http://c:9490/pharos", move |_| Ok(vec![row()]));
        let labels = Labels::from_pairs([("instance", "gpu-1")]);
        let context = TextContext {
            labels: &labels,
            value: 91.27,
            external_labels: &Labels::from_pairs([("cluster", "eu")]),
            external_url: "http://c:9490/pharos",
            functions: &functions,
        };
        assert_eq!(RuleText::template(text).unwrap().expand(&context), want);
    }

    #[test]
    fn texts_expand_as_prometheus_expands_them() {
        check("plain", "plain");
        check("{{ $labels.instance }} at {{ $value | printf \"%.1f\" }} %", "gpu-1 at 91.3 %");
        check("{{ .Labels.instance }} {{ $labels.missing }}.", "gpu-1 .");
        check("{{ humanize 1234567.0 }} {{ $externalLabels.cluster }}", "1.235M eu");
        check("{{ with query \"up\" }}{{ . | first | value }}{{ . | first | label \"job\" }}{{ end }}", "2b");
        check("{{ pathPrefix }}{{ tableLink \"a b>1\" }}", "/pharos/graph?g0.expr=a+b%3E1&g0.tab=1");
    }

    #[test]
    fn texts_of_labels_alone_do_not_change_with_the_value() {
        let steady = |text: &str| RuleText::template(text).unwrap().is_steady();
        assert!(steady("plain 1.5 $"));
        assert!(steady("{{ $labels.instance }}/{{ .Labels.gpu }}"));
        for text in ["{{ $value }}", "{{ .Value }}", "{{ printf \"%v\" . }}", "{{ query \"up\" }}"] {
            assert!(!steady(text), "{text}");
        }
    }

    #[test]
    fn unknown_functions_are_found_when_the_file_is_read() {
        assert!(RuleText::template("{{ frobnicate }}").is_err());
        assert!(RuleText::template("{{ if }").is_err());
    }
}
