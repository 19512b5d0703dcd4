//! Series that the engine keeps for itself: the parts of native histograms and the columns of start timestamps.
//!
//! Each carries a label that no series from outside may have. What comes in is freed of matchers for these labels,
//! what goes out of the series that have them.

use crate::histogram::PART_LABEL;
use crate::starts::START_LABEL;
use pharos_common::labels::Labels;
use pharos_common::matcher::Matcher;
use std::borrow::Cow;

/// The labels of such series.
pub(crate) const LABELS: [&str; 2] = [PART_LABEL, START_LABEL];

/// Whether no series from outside may have this label.
pub fn is_reserved_label(name: &str) -> bool {
    LABELS.contains(&name)
}

/// Whether a series is one that the engine keeps for itself.
pub fn is_hidden(labels: &Labels) -> bool {
    LABELS.iter().any(|name| labels.get(name).is_some())
}

/// The labels of the series that a hidden one belongs to; `None` for a series that is not hidden.
pub(crate) fn whole(labels: &Labels) -> Option<Labels> {
    is_hidden(labels).then(|| labels.filtered(|name| !is_reserved_label(name)))
}

/// Whether a hidden series does not stand for its whole where series are counted. Of a histogram the part does
/// that tells the count, of which there is one a layout.
pub(crate) fn is_uncounted(labels: &Labels) -> bool {
    let is_inner = |part: &str| part.split('/').nth(1) != Some("n");
    labels.get(START_LABEL).is_some() || labels.get(PART_LABEL).is_some_and(is_inner)
}

/// Matchers as they are meant from outside, where no series has the [`LABELS`]: those that ask for their absence
/// always hold and are left out. `None` if one asks for their presence, which nothing has.
pub(crate) fn from_outside(matchers: &[Matcher]) -> Option<Cow<'_, [Matcher]>> {
    if matchers.iter().all(|matcher| !is_reserved_label(matcher.name())) {
        return Some(Cow::Borrowed(matchers));
    }
    let (of_hidden, others): (Vec<&Matcher>, Vec<&Matcher>) =
        matchers.iter().partition(|matcher| is_reserved_label(matcher.name()));
    of_hidden
        .iter()
        .all(|matcher| matcher.matches_empty())
        .then(|| Cow::Owned(others.into_iter().cloned().collect()))
}
