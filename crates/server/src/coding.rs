//! Bodies that come compressed, as zstd (RFC 8878). The format is the `ruzstd` crate's, the limits are ours: what a body unpacks to
//! counts like one that was sent as it is.

use std::io::Read;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use ruzstd::decoding::StreamingDecoder;

use crate::error::{ApiError, Result};

/// How far back a frame may refer, which is memory that its first bytes ask for. What RFC 9659 sets for HTTP.
const MAX_WINDOW: u64 = 8 << 20;

/// What stands between a body's bytes and its JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    None,
    Zstd,
}

impl Coding {
    /// The coding that the headers name.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self> {
        let named: Vec<&[u8]> = headers.get_all(header::CONTENT_ENCODING).iter().map(HeaderValue::as_bytes).collect();
        match named[..] {
            [] => Ok(Coding::None),
            [name] if name.eq_ignore_ascii_case(b"identity") => Ok(Coding::None),
            [name] if name.eq_ignore_ascii_case(b"zstd") => Ok(Coding::Zstd),
            _ => {
                let message = "this Content-Encoding is not supported: send the body as it is, or as zstd";
                Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, None, message))
            }
        }
    }

    /// The body that `bytes` stand for, of at most `limit` bytes.
    pub(crate) fn decoded(self, bytes: Vec<u8>, limit: usize) -> Result<Vec<u8>> {
        match self {
            Coding::None => Ok(bytes),
            Coding::Zstd => unpacked(&bytes, limit),
        }
    }
}

/// The error for a body of more than `limit` bytes.
pub(crate) fn too_large(limit: usize) -> ApiError {
    let message = format!("body is larger than {limit} bytes");
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, Some("request_too_large"), message)
}

/// All frames of `packed`. Stops at the first byte too many, whatever the frames say of their size.
fn unpacked(mut packed: &[u8], limit: usize) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    while !packed.is_empty() {
        let frame = StreamingDecoder::new_with_max_window_size(&mut packed, MAX_WINDOW);
        let mut frame = frame.map_err(|error| malformed(&error))?;
        let most = (limit - out.len()) as u64 + 1;
        frame.by_ref().take(most).read_to_end(&mut out).map_err(|error| malformed(&error))?;
        if out.len() > limit {
            return Err(too_large(limit));
        }
        let frame = frame.into_frame_decoder();
        if frame.get_checksum_from_data().is_some_and(|sum| frame.get_calculated_checksum() != Some(sum)) {
            return Err(malformed(&"the checksum is another one"));
        }
    }
    Ok(out)
}

fn malformed(reason: &dyn std::fmt::Display) -> ApiError {
    ApiError::malformed(format!("body is not valid zstd: {reason}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    /// `{"a":1}` by the reference compressor, with a checksum.
    const REFERENCE: [u8; 20] = [
        0x28, 0xb5, 0x2f, 0xfd, 0x04, 0x58, 0x39, 0x00, 0x00, 0x7b, 0x22, 0x61, 0x22, 0x3a, 0x31, 0x7d, 0x48, 0x8b,
        0xfc, 0x32,
    ];

    fn packed(bytes: &[u8]) -> Vec<u8> {
        compress_to_vec(bytes, CompressionLevel::Fastest)
    }

    fn status(packed: &[u8], limit: usize) -> u16 {
        unpacked(packed, limit).expect_err("no body").status.as_u16()
    }

    #[test]
    fn frames_are_one_body_and_their_checksums_hold() {
        assert_eq!(unpacked(&REFERENCE, 7).expect("a body"), br#"{"a":1}"#);
        assert_eq!(unpacked(&[REFERENCE, REFERENCE].concat(), 14).expect("a body"), br#"{"a":1}{"a":1}"#);
        let mut wrong = REFERENCE;
        wrong[12] ^= 1;
        assert_eq!(status(&wrong, 100), 400);
        assert_eq!(status(&REFERENCE[..15], 100), 400, "cut off");
        assert_eq!(status(b"{}", 100), 400);
        assert_eq!(unpacked(b"", 100).expect("nothing"), b"");
    }

    #[test]
    fn more_than_the_limit_is_refused_by_what_comes_and_not_by_what_is_said() {
        let bomb = packed(&vec![b' '; 4 << 20]);
        assert!(bomb.len() < 1 << 12, "{} bytes", bomb.len());
        assert_eq!(unpacked(&bomb, 4 << 20).expect("a body").len(), 4 << 20);
        assert_eq!((status(&bomb, (4 << 20) - 1), status(&bomb, 0)), (413, 413));
        assert_eq!(status(&[&REFERENCE[..], &bomb].concat(), 1 << 20), 413, "all frames together");
    }

    #[test]
    fn a_frame_that_asks_for_much_memory_is_refused_at_its_head() {
        // A window of 1 GiB (exponent 20), then an empty last block.
        let wide = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 20 << 3, 0x01, 0x00, 0x00];
        assert_eq!(status(&wide, 1 << 30), 400);
        let mut narrow = wide;
        narrow[5] = 13 << 3;
        assert_eq!(unpacked(&narrow, 0).expect("8 MiB are allowed"), b"");
    }

    proptest! {
        #[test]
        fn any_body_comes_back(body in prop::collection::vec(any::<u8>(), 0..3000)) {
            prop_assert_eq!(unpacked(&packed(&body), body.len()).expect("a body"), body);
        }

        #[test]
        fn damaged_bodies_are_bodies_or_errors(
            body in "[a-c]{0,400}", flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        ) {
            let mut packed = packed(body.as_bytes());
            for (at, byte) in flips {
                let at = at.index(packed.len());
                packed[at] = byte;
            }
            if let Ok(out) = unpacked(&packed, 1000) {
                prop_assert!(out.len() <= 1000);
            }
        }
    }
}
