//! Where a chunked body ends. Bytes flow in, how many of them belong to the body flows out; they are not
//! changed or kept.

/// Longest line with a chunk's size, and longest trailer, bytes.
const LINE_BYTES_MAX: usize = 8 << 10;

/// A place in a chunked body.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    at: At,
}

#[derive(Debug)]
enum At {
    /// In the digits of a chunk's size.
    Size {
        size: u64,
        digits: usize,
    },
    /// Behind them, before the end of the line.
    Extension {
        size: u64,
        bytes: usize,
    },
    Data {
        left: u64,
    },
    /// After a chunk's data, before the end of its line.
    DataEnd,
    /// In the lines after the last chunk; an empty one ends them.
    Trailer {
        line_bytes: usize,
    },
    End,
}

impl Default for At {
    fn default() -> Self {
        At::Size { size: 0, digits: 0 }
    }
}

impl Chunks {
    pub(super) fn is_complete(&self) -> bool {
        matches!(self.at, At::End)
    }

    /// How many of these bytes belong to the body; `None` if it is malformed.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut position = 0;
        while let Some(&byte) = bytes.get(position) {
            match &mut self.at {
                At::End => break,
                At::Data { left } => {
                    let rest = bytes.len() - position;
                    let count = rest.min(usize::try_from(*left).unwrap_or(usize::MAX));
                    position += count;
                    *left -= count as u64;
                    if *left == 0 {
                        self.at = At::DataEnd;
                    }
                    continue;
                }
                at => *at = at.after(byte)?,
            }
            position += 1;
        }
        Some(position)
    }
}

impl At {
    fn after(&self, byte: u8) -> Option<At> {
        Some(match (self, byte) {
            (&At::Size { size, digits }, _) if byte.is_ascii_hexdigit() => {
                let digit = (byte as char).to_digit(16)?;
                At::Size { size: size.checked_mul(16)?.checked_add(u64::from(digit))?, digits: digits + 1 }
            }
            (At::Size { digits: 0, .. }, _) => return None,
            (&At::Size { size, .. } | &At::Extension { size, .. }, b'\n') => match size {
                0 => At::Trailer { line_bytes: 0 },
                left => At::Data { left },
            },
            (&At::Size { size, .. }, b';' | b' ' | b'\t' | b'\r') => At::Extension { size, bytes: 0 },
            (&At::Extension { size, bytes }, _) if bytes < LINE_BYTES_MAX => {
                At::Extension { size, bytes: bytes + 1 }
            }
            (At::DataEnd, b'\r') => At::DataEnd,
            (At::DataEnd, b'\n') => At::default(),
            (At::Trailer { line_bytes: 0 }, b'\n') => At::End,
            (At::Trailer { line_bytes: 0 }, b'\r') => At::Trailer { line_bytes: 0 },
            (At::Trailer { .. }, b'\n') => At::Trailer { line_bytes: 0 },
            (&At::Trailer { line_bytes }, _) if line_bytes < LINE_BYTES_MAX => {
                At::Trailer { line_bytes: line_bytes + 1 }
            }
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_found_wherever_pieces_are_cut() {
        let body = b"4\r\nab\r\n\r\n1A;ext=\"x\"\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\ntrailer: x\r\n\r\n";
        let more = [&body[..], b"GET /"].concat();
        for piece in 1..more.len() {
            let mut chunks = Chunks::default();
            let mut seen = 0;
            for piece in more.chunks(piece) {
                let count = chunks.advance(piece).unwrap();
                seen += count;
                assert_eq!(chunks.is_complete(), count < piece.len() || seen == body.len());
            }
            assert_eq!(seen, body.len());
        }
    }

    #[test]
    fn malformed_sizes_are_none() {
        for body in ["x\r\n", "\r\n", "-1\r\n", "11111111111111111\r\n", "1\r\nabc", "1x\r\n"] {
            assert_eq!(Chunks::default().advance(body.as_bytes()), None, "{body}");
        }
        assert_eq!(Chunks::default().advance(format!("1;{}", "a".repeat(9_000)).as_bytes()), None);
    }
}
