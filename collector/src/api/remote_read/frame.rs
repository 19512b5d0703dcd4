//! Frames of a streamed answer: the length of a message, its checksum, the message.
//! Source: storage/remote/chunked.go of Prometheus describes the format.

use std::io::{self, Write};

/// Writes one frame.
pub(super) fn write(out: &mut (impl Write + ?Sized), message: &[u8]) -> io::Result<()> {
    let mut head = Vec::with_capacity(14);
    let mut length = message.len();
    while length >= 0x80 {
        head.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    head.push(length as u8);
    head.extend(crc32c(message).to_be_bytes());
    out.write_all(&head)?;
    out.write_all(message)
}

/// The polynomial of Castagnoli, bits reversed.
const POLYNOMIAL: u32 = 0x82f6_3b78;

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut value = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            value = (value >> 1) ^ if value & 1 == 1 { POLYNOMIAL } else { 0 };
            bit += 1;
        }
        table[byte] = value;
        byte += 1;
    }
    table
};

pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, &byte: &u8| (crc >> 8) ^ TABLE[usize::from(crc as u8 ^ byte)];
    !bytes.iter().fold(!0, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_castagnoli() {
        // The test value that every catalogue of checksums gives.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        let mut out = Vec::new();
        write(&mut out, &[7; 300]).unwrap();
        assert_eq!(out[..2], [0xac, 0x02]);
        assert_eq!(out[2..6], crc32c(&[7; 300]).to_be_bytes());
        assert_eq!(out.len(), 306);
    }
}
