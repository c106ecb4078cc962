//! Bodies that are compressed: unpacked within the bound of a body, or refused as a whole.
//!
//! Cut into lines as it came, a compressed body would be settled in shreds: nobody could unpack it afterwards.

use std::io::{self, Read};

use axum::http::{HeaderMap, HeaderValue, header};
use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;
use orchestrator_kernel::foreign_format::ForeignFormat;

use super::problem::{Problem, ProblemKind};

/// What is unpacked, for `Accept-Encoding`.
const TAKEN: HeaderValue = HeaderValue::from_static("gzip, zstd, identity");

/// Packing of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ContentEncoding {
    Identity,
    Gzip,
    Zstd,
}

impl ContentEncoding {
    /// Reads `Content-Encoding`. One coding is taken, not a list of them.
    ///
    /// # Errors
    ///
    /// The problem, with `Accept-Encoding`.
    pub(super) fn from_headers(headers: &HeaderMap) -> Result<Self, Problem> {
        let mut values = headers.get_all(header::CONTENT_ENCODING).iter();
        let (first, further) = (values.next(), values.next());
        let coding = first.map_or("identity", |value| value.to_str().unwrap_or("(not text)").trim());
        match (coding.to_ascii_lowercase().as_str(), further) {
            ("identity" | "", None) => Ok(Self::Identity),
            ("gzip" | "x-gzip", None) => Ok(Self::Gzip),
            ("zstd", None) => Ok(Self::Zstd),
            (_, _) => {
                Err(refused_encoding("Content-Encoding must be gzip, zstd or identity, and only one of them"))
            }
        }
    }

    /// The body as text, of at most `bytes_max` bytes.
    ///
    /// # Errors
    ///
    /// The problem: too large when unpacked, damaged, or in a format that holds no lines.
    pub(super) fn unpack_body(self, body: Bytes, bytes_max: usize) -> Result<Bytes, Problem> {
        let text = match self {
            Self::Identity => body,
            Self::Gzip => read_within(MultiGzDecoder::new(&body[..]), bytes_max)?,
            Self::Zstd => {
                let decoder = zstd::stream::read::Decoder::with_buffer(&body[..]);
                read_within(decoder.map_err(|error| damaged_body(&error))?, bytes_max)?
            }
        };
        match ForeignFormat::recognise_format(&text) {
            None => Ok(text),
            Some(ForeignFormat::Gzip | ForeignFormat::Zstd) if self == Self::Identity => {
                Err(refused_encoding("the body is compressed: say so with Content-Encoding: gzip or zstd"))
            }
            Some(format) => Err(refused_encoding(&format!(
                "the body is {}: send JSON text in UTF-8, one receipt a line",
                format.name()
            ))),
        }
    }
}

/// A body is as large unpacked as it may be plain: a small one must not become a large one here.
fn read_within(decoder: impl Read, bytes_max: usize) -> Result<Bytes, Problem> {
    let mut text = Vec::new();
    let one_more = (bytes_max as u64).saturating_add(1);
    decoder.take(one_more).read_to_end(&mut text).map_err(|error| damaged_body(&error))?;
    if bytes_max < text.len() {
        let detail =
            format!("http.body_bytes_max is {bytes_max}, for the unpacked body too; send smaller batches");
        return Err(Problem::new(ProblemKind::BodyTooLarge, detail).with_member("limit", bytes_max));
    }
    Ok(text.into())
}

fn damaged_body(error: &io::Error) -> Problem {
    Problem::new(
        ProblemKind::BodyUnreadable,
        format!("the body cannot be unpacked ({error}); nothing was stored"),
    )
}

fn refused_encoding(detail: &str) -> Problem {
    Problem::new(ProblemKind::UnsupportedContentType, detail).with_header(header::ACCEPT_ENCODING, TAKEN)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn encoding(values: &[&str]) -> Option<ContentEncoding> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::CONTENT_ENCODING, value.parse().unwrap());
        }
        ContentEncoding::from_headers(&headers).ok()
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn one_known_coding_is_taken_and_nothing_else() {
        assert_eq!(encoding(&[]), Some(ContentEncoding::Identity));
        assert_eq!(encoding(&["identity"]), Some(ContentEncoding::Identity));
        assert_eq!(encoding(&["GZip"]), Some(ContentEncoding::Gzip));
        assert_eq!(encoding(&["x-gzip"]), Some(ContentEncoding::Gzip));
        assert_eq!(encoding(&[" zstd "]), Some(ContentEncoding::Zstd));
        for refused in [&["br"][..], &["deflate"], &["gzip, gzip"], &["gzip", "zstd"], &["gzip\u{e9}"]] {
            assert_eq!(encoding(refused), None, "{refused:?}");
        }
    }

    #[test]
    fn members_and_frames_are_unpacked_to_the_byte() {
        let text = Bytes::from_static(b"{\"a\":1}\n{\"b\":2}\n");
        let members = [gzip(&text[..8]), gzip(&text[8..])].concat();

        let unpacked = ContentEncoding::Gzip.unpack_body(members.into(), text.len()).unwrap();
        assert_eq!(unpacked, text);
        let frame = zstd::encode_all(&text[..], 3).unwrap();
        assert_eq!(ContentEncoding::Zstd.unpack_body(frame.into(), text.len()).unwrap(), text);
    }

    #[test]
    fn what_becomes_too_large_is_torn_or_is_no_text_is_refused_as_a_whole() {
        let zeros = vec![b'0'; 1 << 20];
        for (encoding, body) in [
            (ContentEncoding::Gzip, gzip(&zeros)),
            (ContentEncoding::Zstd, zstd::encode_all(&zeros[..], 3).unwrap()),
            (ContentEncoding::Gzip, gzip(b"{\"a\":1}")[..12].to_vec()),
            (ContentEncoding::Gzip, [gzip(b"{}"), b"more".to_vec()].concat()),
            (ContentEncoding::Gzip, b"{\"a\":1}".to_vec()),
            (ContentEncoding::Zstd, gzip(b"{}")),
            (ContentEncoding::Identity, gzip(b"{}")),
            (ContentEncoding::Identity, b"BZh91AY&".to_vec()),
            (ContentEncoding::Identity, b"\xff\xfe{\0}\0".to_vec()),
            (ContentEncoding::Gzip, gzip(b"{\0}\0")),
        ] {
            assert!(encoding.unpack_body(body.into(), (1 << 20) - 1).is_err(), "{encoding:?}");
        }
    }
}
