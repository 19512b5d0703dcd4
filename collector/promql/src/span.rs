//! Where something stands in the text of a query.

/// A range of bytes in a query, end exclusive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl Span {
    /// From first byte to one past the last.
    pub const fn new(start: usize, end: usize) -> Self {
        Span { start, end }
    }

    /// From the start of this to the end of `other`.
    pub const fn to(self, other: Span) -> Span {
        Span { start: self.start, end: other.end }
    }

    /// The start as `line:column` (both from 1, the column in bytes), as Prometheus writes it before
    /// parse errors and after annotations.
    pub fn locate(self, query: &str) -> String {
        Lines::of(query).locate(self)
    }
}

/// Where the lines of a query end: for many positions of one query.
#[derive(Debug)]
pub(crate) struct Lines {
    breaks: Vec<usize>,
    length: usize,
}

impl Lines {
    pub(crate) fn of(query: &str) -> Self {
        let bytes = query.bytes().enumerate();
        Lines {
            breaks: bytes.filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect(),
            length: query.len(),
        }
    }

    /// See [`Span::locate`].
    pub(crate) fn locate(&self, span: Span) -> String {
        if self.length == 0 {
            return "unknown position".to_owned();
        }
        if span.start > self.length {
            return "invalid position".to_owned();
        }
        let before = self.breaks.partition_point(|&line_break| line_break < span.start);
        let column = match before.checked_sub(1).and_then(|last| self.breaks.get(last)) {
            Some(line_break) => span.start - line_break,
            None => span.start + 1,
        };
        format!("{}:{column}", before + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_and_byte_columns() {
        #[track_caller]
        fn check(query: &str, start: usize, want: &str) {
            assert_eq!(Span::new(start, start + 1).locate(query), want);
        }
        check("", 0, "unknown position");
        check("foo", 0, "1:1");
        check("foo", 3, "1:4");
        check("foo", 4, "invalid position");
        check("a\n+ b", 2, "2:1");
        check("a\n\n+ b", 5, "3:3");
    }
}
