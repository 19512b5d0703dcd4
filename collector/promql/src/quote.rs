//! Strings in quotes as Go writes them (`strconv.Quote`, `%q`), for messages and printed queries.

use std::fmt::Write;

/// A string in double quotes.
pub(crate) fn go_quote(text: &str) -> String {
    go_quote_bytes(text.as_bytes())
}

/// The first `chars` characters of a string in double quotes with `...` behind (`%.10q...`).
pub(crate) fn go_quote_prefix(text: &str, chars: usize) -> String {
    let end = text.char_indices().nth(chars).map_or(text.len(), |(index, _)| index);
    go_quote(&text[..end]) + "..."
}

/// Bytes in double quotes; those that are not UTF-8 as `\xff`.
pub(crate) fn go_quote_bytes(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 2);
    out.push('"');
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            push_escaped(&mut out, c, '"');
        }
        for byte in chunk.invalid() {
            // Writing to a string cannot fail.
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out.push('"');
    out
}

/// A character in single quotes (`%q` of a rune).
pub(crate) fn go_quote_char(c: char) -> String {
    let mut out = String::from("'");
    push_escaped(&mut out, c, '\'');
    out.push('\'');
    out
}

fn push_escaped(out: &mut String, c: char, quote: char) {
    match c {
        c if c == quote || c == '\\' => {
            out.push('\\');
            out.push(c);
        }
        '\x07' => out.push_str("\\a"),
        '\x08' => out.push_str("\\b"),
        '\x0c' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\x0b' => out.push_str("\\v"),
        c if (c as u32) < 0x20 || c as u32 == 0x7f => {
            let _ = write!(out, "\\x{:02x}", c as u32);
        }
        c if is_unprintable(c) => {
            let code = c as u32;
            let _ = if code < 0x1_0000 { write!(out, "\\u{code:04x}") } else { write!(out, "\\U{code:08x}") };
        }
        c => out.push(c),
    }
}

/// Characters that Go does not print as they are: controls, odd spaces, formats, private use.
fn is_unprintable(c: char) -> bool {
    c.is_control()
        || (c.is_whitespace() && c != ' ')
        || matches!(c as u32,
            0xad | 0x200b..=0x200f | 0x202a..=0x202e | 0x2060..=0x2064 | 0x2066..=0x206f | 0xfeff | 0xfff9..=0xfffd
            | 0xe000..=0xf8ff | 0xf_0000..=0x10_ffff)
            && c != '\u{fffd}'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_quoted_as_go_quotes_them() {
        assert_eq!(go_quote("a\"b\\c\n\x01é"), r#""a\"b\\c\n\x01é""#);
        assert_eq!(go_quote_bytes(b"a\xc5z"), r#""a\xc5z""#);
        assert_eq!(go_quote_prefix("abcdefghijklm", 10), r#""abcdefghij"..."#);
        assert_eq!(go_quote_char('\''), r"'\''");
        assert_eq!(go_quote_char('"'), "'\"'");
    }
}
