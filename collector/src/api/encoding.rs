//! How an answer's bytes are compressed: as the request's `Accept-Encoding` allows, zstd before gzip.

use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use flate2::Compression;
use flate2::write::GzEncoder;
use pharos_common::server::accepts_coding;
use std::io::{self, Write};

/// Below this an answer is sent as it is.
pub(crate) const COMPRESS_BYTES_MIN: usize = 1_024;

/// Level of zstd: JSON of numbers gains little from higher ones.
const ZSTD_LEVEL: i32 = 1;

/// A `Content-Encoding`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// As it is.
    #[default]
    Identity,
    Gzip,
    Zstd,
}

impl Encoding {
    /// The best that a request's headers allow.
    pub(crate) fn accepted(headers: &HeaderMap) -> Self {
        if accepts_coding(headers, "zstd") {
            Encoding::Zstd
        } else if accepts_coding(headers, "gzip") {
            Encoding::Gzip
        } else {
            Encoding::Identity
        }
    }

    /// Tells the client.
    pub(crate) fn mark(self, response: &mut Response) {
        let name = match self {
            Encoding::Identity => return,
            Encoding::Gzip => "gzip",
            Encoding::Zstd => "zstd",
        };
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(name));
        headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    }

    /// Has `write` write through the compressor to `out`.
    pub(crate) fn write(
        self,
        out: &mut dyn Write,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        match self {
            Encoding::Identity => write(out),
            Encoding::Gzip => {
                let mut encoder = GzEncoder::new(out, Compression::fast());
                write(&mut encoder)?;
                encoder.finish().map(drop)
            }
            Encoding::Zstd => {
                let mut encoder = zstd::Encoder::new(out, ZSTD_LEVEL)?;
                write(&mut encoder)?;
                encoder.finish().map(drop)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_compressed_only_as_the_client_wants_it() {
        #[track_caller]
        fn check(accepts: &'static str, want: Encoding) {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(accepts));
            assert_eq!(Encoding::accepted(&headers), want, "{accepts}");
        }
        check("deflate, gzip;q=1.0", Encoding::Gzip);
        check("gzip, deflate, br, zstd", Encoding::Zstd);
        check("br, gzip;q=0", Encoding::Identity);
        check("gzip; q=0.000, zstd;q=0.0", Encoding::Identity);
        assert_eq!(Encoding::accepted(&HeaderMap::new()), Encoding::Identity);
    }

    #[test]
    fn what_is_compressed_comes_back() {
        for encoding in [Encoding::Identity, Encoding::Gzip, Encoding::Zstd] {
            let mut bytes = Vec::new();
            encoding.write(&mut bytes, |out| out.write_all(b"pharos")).unwrap();
            let plain = match encoding {
                Encoding::Identity => bytes,
                Encoding::Gzip => {
                    let mut plain = Vec::new();
                    io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&bytes[..]), &mut plain).unwrap();
                    plain
                }
                Encoding::Zstd => zstd::decode_all(&bytes[..]).unwrap(),
            };
            assert_eq!(plain, b"pharos");
        }
    }
}
