//! String literals: quotes and escapes off.

/// The bytes that a string token stands for. The lexer has checked its escapes.
pub(super) fn unquote(token: &str) -> Vec<u8> {
    let inner = token.get(1..token.len().saturating_sub(1)).unwrap_or("");
    if token.starts_with('`') {
        return inner.as_bytes().to_vec();
    }
    let mut out = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(backslash) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..backslash]);
        rest = &rest[backslash + 1..];
        rest = unescape(rest, &mut out);
    }
    out.extend_from_slice(rest.as_bytes());
    out
}

/// Appends what the escape at the start of `text` stands for; gives what follows it.
fn unescape<'t>(text: &'t str, out: &mut Vec<u8>) -> &'t str {
    let Some(escape) = text.chars().next() else { return "" };
    let after = &text[escape.len_utf8()..];
    let simple = match escape {
        'a' => 0x07,
        'b' => 0x08,
        'f' => 0x0c,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 0x0b,
        'x' => return numeric(after, 2, 16, true, out),
        'u' => return numeric(after, 4, 16, false, out),
        'U' => return numeric(after, 8, 16, false, out),
        '0'..='7' => return numeric(text, 3, 8, true, out),
        other => {
            let mut buffer = [0; 4];
            out.extend_from_slice(other.encode_utf8(&mut buffer).as_bytes());
            return after;
        }
    };
    out.push(simple);
    after
}

fn numeric<'t>(text: &'t str, digits: usize, base: u32, is_byte: bool, out: &mut Vec<u8>) -> &'t str {
    let (number, rest) = text.split_at_checked(digits).unwrap_or((text, ""));
    let value = u32::from_str_radix(number, base).unwrap_or(0);
    if is_byte {
        out.push(value as u8);
    } else {
        let c = char::from_u32(value).unwrap_or(char::REPLACEMENT_CHARACTER);
        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::unquote;

    #[test]
    fn escapes_stand_for_what_go_says() {
        assert_eq!(unquote(r#""a\n\"\\""#), b"a\n\"\\");
        assert_eq!(unquote(r"'\'\u00e9\x41\101'"), "'éAA".as_bytes());
        assert_eq!(unquote(r#""\xc5""#), b"\xc5");
        assert_eq!(unquote(r"`a\n`"), br"a\n");
    }
}
