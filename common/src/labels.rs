//! Label sets: what names a series.
//!
//! A [`Labels`] is sorted by label name, immutable and cheap to clone. It is packed into one shared
//! buffer (`varint length, bytes` for each name and value in turn, as in Prometheus' `stringlabels`), so
//! a series costs one allocation, equality is one `memcmp`, and the packed bytes serve as a hash key.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// The label that holds a metric's name.
pub const METRIC_NAME: &str = "__name__";

/// A sorted, duplicate-free set of labels without empty values.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Labels {
    packed: Arc<[u8]>,
}

impl Labels {
    /// The empty label set.
    pub fn empty() -> Self {
        Labels { packed: Arc::from([]) }
    }

    /// Builds a set from pairs in any order. Empty values are dropped (they mean "no such label"); of
    /// two pairs with one name the last wins.
    pub fn from_pairs<N: AsRef<str>, V: AsRef<str>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let mut builder = LabelsBuilder::default();
        for (name, value) in pairs {
            builder.set(name.as_ref(), value.as_ref());
        }
        builder.build()
    }

    /// Reads a set back from [`Labels::as_bytes`].
    ///
    /// Returns `None` unless the bytes are a well-formed, strictly sorted packing: they may come from a
    /// damaged file.
    pub fn from_bytes(packed: &[u8]) -> Option<Self> {
        let mut rest = packed;
        let mut previous: Option<&str> = None;
        while !rest.is_empty() {
            let name = checked_string(&mut rest)?;
            let value = checked_string(&mut rest)?;
            if value.is_empty() || previous.is_some_and(|previous| previous >= name) {
                return None;
            }
            previous = Some(name);
        }
        Some(Labels { packed: Arc::from(packed) })
    }

    /// The packed form: equal sets have equal bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.packed
    }

    /// Whether the set has no labels.
    pub fn is_empty(&self) -> bool {
        self.packed.is_empty()
    }

    /// Number of labels.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// The labels as `(name, value)`, sorted by name.
    pub fn iter(&self) -> LabelsIter<'_> {
        LabelsIter { rest: &self.packed }
    }

    /// The value of a label, if the set has it.
    pub fn get(&self, name: &str) -> Option<&str> {
        for (candidate, value) in self.iter() {
            match candidate.cmp(name) {
                Ordering::Less => {}
                Ordering::Equal => return Some(value),
                Ordering::Greater => return None,
            }
        }
        None
    }

    /// The metric's name (`__name__`), or `""`.
    pub fn metric_name(&self) -> &str {
        self.get(METRIC_NAME).unwrap_or("")
    }

    /// A builder that starts from this set.
    pub fn to_builder(&self) -> LabelsBuilder {
        LabelsBuilder {
            pairs: self.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        }
    }

    /// The set without `__name__`.
    pub fn without_name(&self) -> Labels {
        if self.get(METRIC_NAME).is_none() {
            return self.clone();
        }
        self.filtered(|name| name != METRIC_NAME)
    }

    /// The labels whose name `keep` accepts. Copies packed bytes; builds no strings.
    pub fn filtered(&self, keep: impl FnMut(&str) -> bool) -> Labels {
        let mut packed = Vec::with_capacity(self.packed.len());
        self.filter_into(keep, &mut packed);
        Labels { packed: packed.into() }
    }

    /// Appends the same in packed form: a key by which maps of sets are looked up without making one.
    pub fn filter_into(&self, mut keep: impl FnMut(&str) -> bool, packed: &mut Vec<u8>) {
        let mut iter = self.iter();
        loop {
            let before = iter.rest;
            let Some((name, _)) = iter.next() else { break };
            if keep(name) {
                packed.extend_from_slice(&before[..before.len() - iter.rest.len()]);
            }
        }
    }

    /// A 64-bit hash of the set (FNV-1a over names and values, `0xff` between), the one that
    /// Prometheus and Alertmanager call *fingerprint* and print in hex.
    pub fn fingerprint(&self) -> u64 {
        const OFFSET: u64 = 14_695_981_039_346_656_037;
        const PRIME: u64 = 1_099_511_628_211;
        let mut hash = OFFSET;
        let mut add = |bytes: &[u8]| {
            for &byte in bytes {
                hash = (hash ^ u64::from(byte)).wrapping_mul(PRIME);
            }
        };
        for (name, value) in self.iter() {
            add(name.as_bytes());
            add(&[0xff]);
            add(value.as_bytes());
            add(&[0xff]);
        }
        hash
    }
}

/// Equal sets have equal packed bytes, and hash as these do.
impl Borrow<[u8]> for Labels {
    fn borrow(&self) -> &[u8] {
        &self.packed
    }
}

impl Default for Labels {
    fn default() -> Self {
        Labels::empty()
    }
}

/// Label by label, as Prometheus sorts series: names first, then values; a prefix sorts first.
impl Ord for Labels {
    fn cmp(&self, other: &Self) -> Ordering {
        if Arc::ptr_eq(&self.packed, &other.packed) {
            return Ordering::Equal;
        }
        // Strings order as their bytes do, so there is no need to look at them as strings.
        let (mut left, mut right): (&[u8], &[u8]) = (&self.packed, &other.packed);
        loop {
            if left.is_empty() || right.is_empty() {
                return left.len().cmp(&right.len());
            }
            match trusted_bytes(&mut left).cmp(trusted_bytes(&mut right)) {
                Ordering::Equal => {}
                order => return order,
            }
        }
    }
}

impl PartialOrd for Labels {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Prometheus' notation, e.g. `up{instance="a:1", job="node"}`.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.metric_name();
        let bare = is_legacy_metric_name(name);
        if bare {
            f.write_str(name)?;
        }
        let mut separator = "";
        let braces = !bare || self.iter().any(|(name, _)| name != METRIC_NAME);
        if braces {
            f.write_str("{")?;
            if !bare && !name.is_empty() {
                write!(f, "{}", Quoted(name))?;
                separator = ", ";
            }
            for (name, value) in self.iter().filter(|(name, _)| *name != METRIC_NAME) {
                f.write_str(separator)?;
                if is_legacy_label_name(name) {
                    f.write_str(name)?;
                } else {
                    write!(f, "{}", Quoted(name))?;
                }
                write!(f, "={}", Quoted(value))?;
                separator = ", ";
            }
            f.write_str("}")?;
        }
        Ok(())
    }
}

impl serde::Serialize for Labels {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

/// A string in double quotes with Go's escapes, as Prometheus prints label values.
#[derive(Clone, Copy)]
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for c in self.0.chars() {
            match c {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                '\x07' => f.write_str("\\a")?,
                '\x08' => f.write_str("\\b")?,
                '\x0b' => f.write_str("\\v")?,
                '\x0c' => f.write_str("\\f")?,
                c if (c as u32) < 0x20 || c as u32 == 0x7f => write!(f, "\\x{:02x}", c as u32)?,
                c => write!(f, "{c}")?,
            }
        }
        f.write_str("\"")
    }
}

/// `[a-zA-Z_:][a-zA-Z0-9_:]*`: a metric name that needs no quotes.
pub fn is_legacy_metric_name(name: &str) -> bool {
    !name.is_empty()
        && !name.as_bytes()[0].is_ascii_digit()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':')
}

/// `[a-zA-Z_][a-zA-Z0-9_]*`: a label name that needs no quotes.
pub fn is_legacy_label_name(name: &str) -> bool {
    is_legacy_metric_name(name) && !name.contains(':')
}

/// Iterates over the labels of a set, sorted by name.
#[derive(Clone)]
pub struct LabelsIter<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for LabelsIter<'a> {
    type Item = (&'a str, &'a str);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let name = trusted_string(&mut self.rest);
        let value = trusted_string(&mut self.rest);
        Some((name, value))
    }
}

/// Collects labels in any order and packs them.
#[derive(Clone, Debug, Default)]
pub struct LabelsBuilder {
    pairs: Vec<(String, String)>,
}

impl LabelsBuilder {
    /// Sets a label, replacing an earlier value. An empty value removes it.
    pub fn set(&mut self, name: &str, value: &str) -> &mut Self {
        if value.is_empty() {
            return self.remove(name);
        }
        match self.pairs.iter_mut().find(|(existing, _)| existing == name) {
            Some((_, existing)) => {
                existing.clear();
                existing.push_str(value);
            }
            None => self.pairs.push((name.to_owned(), value.to_owned())),
        }
        self
    }

    /// Removes a label if it is there.
    pub fn remove(&mut self, name: &str) -> &mut Self {
        self.pairs.retain(|(existing, _)| existing != name);
        self
    }

    /// The value set so far.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(existing, _)| existing == name).map(|(_, value)| value.as_str())
    }

    /// Packs the labels, sorted by name.
    pub fn build(mut self) -> Labels {
        self.pairs.sort_unstable();
        let size = self.pairs.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
        let mut packed = Vec::with_capacity(size);
        for (name, value) in &self.pairs {
            push_label(&mut packed, name, value);
        }
        Labels { packed: packed.into() }
    }
}

/// Appends one label in packed form. Callers that build sets on a hot path append labels strictly
/// sorted by name and hand the buffer to [`Labels::from_bytes`].
pub fn push_label(packed: &mut Vec<u8>, name: &str, value: &str) {
    for text in [name, value] {
        let mut length = text.len();
        while length >= 0x80 {
            packed.push((length as u8) | 0x80);
            length >>= 7;
        }
        packed.push(length as u8);
        packed.extend_from_slice(text.as_bytes());
    }
}

fn read_length(rest: &mut &[u8]) -> Option<usize> {
    let mut length = 0usize;
    for shift in (0..35).step_by(7) {
        let (&byte, tail) = rest.split_first()?;
        *rest = tail;
        length |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(length);
        }
    }
    None
}

fn checked_string<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let length = read_length(rest)?;
    let (text, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    std::str::from_utf8(text).ok()
}

#[inline]
fn trusted_bytes<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    // Every constructor packs or checks lengths, so the fallbacks are never taken.
    let length = match rest.split_first() {
        Some((&length, tail)) if length < 0x80 => {
            *rest = tail;
            usize::from(length)
        }
        _ => read_length(rest).unwrap_or(0),
    };
    let (text, tail) = rest.split_at(length.min(rest.len()));
    *rest = tail;
    text
}

#[inline]
fn trusted_string<'a>(rest: &mut &'a [u8]) -> &'a str {
    let text = trusted_bytes(rest);
    debug_assert!(std::str::from_utf8(text).is_ok());
    #[expect(
        unsafe_code,
        reason = "label strings are read for every series of every query; re-checking them doubles the cost"
    )]
    // SAFETY: `packed` is private and filled only from `&str`s or after `checked_string` accepted them.
    unsafe {
        std::str::from_utf8_unchecked(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn labels_are_sorted_and_free_of_empty_values() {
        let labels = Labels::from_pairs([("b", "2"), ("a", "1"), ("c", ""), ("b", "3")]);
        assert_eq!(labels.iter().collect::<Vec<_>>(), [("a", "1"), ("b", "3")]);
        assert_eq!(labels.get("b"), Some("3"));
        assert_eq!(labels.get("c"), None);
    }

    #[test]
    fn labels_print_as_prometheus_prints_them() {
        #[track_caller]
        fn check(pairs: &[(&str, &str)], want: &str) {
            assert_eq!(Labels::from_pairs(pairs.iter().copied()).to_string(), want);
        }
        check(&[], "{}");
        check(&[("__name__", "up")], "up");
        check(&[("__name__", "up"), ("a", "x\"y\n")], r#"up{a="x\"y\n"}"#);
        check(&[("a", "1"), ("b", "2")], r#"{a="1", b="2"}"#);
        check(&[("__name__", "über"), ("a.b", "1")], r#"{"über", "a.b"="1"}"#);
    }

    #[test]
    fn fingerprint_matches_prometheus() {
        // model.LabelSet{"name": "value"}.Fingerprint() of prometheus/common is FNV-1a with 0xff.
        assert_eq!(Labels::empty().fingerprint(), 0xcbf2_9ce4_8422_2325);
        let one = Labels::from_pairs([("a", "b")]).fingerprint();
        let other = Labels::from_pairs([("ab", "")]).fingerprint();
        assert_ne!(one, other);
    }

    proptest! {
        #[test]
        fn packed_bytes_round_trip(pairs in prop::collection::vec(("[a-z]{1,9}", ".{0,200}"), 0..8)) {
            let labels = Labels::from_pairs(pairs);
            prop_assert_eq!(Labels::from_bytes(labels.as_bytes()), Some(labels));
        }

        #[test]
        fn any_bytes_are_refused_or_read_back_alike(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Some(labels) = Labels::from_bytes(&bytes) {
                prop_assert_eq!(Labels::from_pairs(labels.iter()).to_string(), labels.to_string());
            }
        }
    }
}
