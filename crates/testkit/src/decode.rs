//! Cache rows and indexer scores in double precision, written from the description of the formats (session.md section 3,
//! model.md 7) and not from a device: what a comparison looks through.

use ds4_model::{Numerics, Shape};
use half::f16;

/// Values of a window or compressed row.
pub(crate) fn row(numerics: Numerics, s: &Shape, bytes: &[u8]) -> Vec<f32> {
    if numerics != Numerics::Stored {
        return floats(bytes);
    }
    let (codes, rest) = bytes.split_at(s.nope_dim());
    let tail = &rest[rest.len() - 2 * s.n_rot..];
    let scaled =
        codes.chunks(64).zip(rest).flat_map(|(block, &e)| block.iter().map(move |&code| e4m3(code) * scale(e)));
    let halves = tail.as_chunks::<2>().0.iter().map(|&half| f16::from_le_bytes(half).to_f32());
    scaled.chain(halves).collect()
}

/// Values of an indexer row.
pub(crate) fn index_row(numerics: Numerics, s: &Shape, bytes: &[u8]) -> Vec<f32> {
    if numerics != Numerics::Stored {
        return floats(bytes);
    }
    let (codes, exponents) = bytes.split_at(s.index_dim / 2);
    let pair = |code: u8, e: u8| [e2m1(code & 15) * scale(e), e2m1(code >> 4) * scale(e)];
    codes.chunks(16).zip(exponents).flat_map(|(block, &e)| block.iter().flat_map(move |&code| pair(code, e))).collect()
}

/// Values of little-endian floats.
pub(crate) fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|&word| f32::from_le_bytes(word)).collect()
}

/// Values of little-endian numbers.
pub(crate) fn ids(bytes: &[u8]) -> Vec<u32> {
    bytes.as_chunks::<4>().0.iter().map(|&word| u32::from_le_bytes(word)).collect()
}

/// `sum_h w_h * max(0, q_h . key)`.
pub(crate) fn score(weights: &[f32], query: &[f32], key: &[f32]) -> f64 {
    let product = |head: &[f32]| head.iter().zip(key).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum::<f64>();
    query.chunks(key.len()).zip(weights).map(|(head, w)| f64::from(*w) * product(head).max(0.0)).sum()
}

fn scale(exponent: u8) -> f32 {
    2f32.powi(i32::from(exponent) - 127)
}

/// Sign, four exponent bits of bias 7, three mantissa bits.
fn e4m3(code: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(code >> 3 & 15), f32::from(code & 7));
    let magnitude =
        if exponent == 0 { mantissa * 2f32.powi(-9) } else { (1.0 + mantissa / 8.0) * 2f32.powi(exponent - 7) };
    if code & 0x80 != 0 { -magnitude } else { magnitude }
}

/// Sign, two exponent bits of bias 1, one mantissa bit.
fn e2m1(code: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(code >> 1 & 3), f32::from(code & 1));
    let magnitude = if exponent == 0 { mantissa / 2.0 } else { (1.0 + mantissa / 2.0) * 2f32.powi(exponent - 1) };
    if code & 8 != 0 { -magnitude } else { magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_the_values_of_their_formats() {
        assert_eq!([0x7e, 0x01, 0x38, 0xb8, 0x08].map(e4m3), [448.0, 2f32.powi(-9), 1.0, -1.0, 2f32.powi(-6)]);
        assert_eq!([0, 1, 2, 3, 4, 5, 6, 7].map(e2m1), [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]);
        assert_eq!(e2m1(15), -6.0);
    }

    #[test]
    fn a_stored_row_is_codes_exponents_and_a_half_precision_tail() {
        let s = Shape::flash();
        let mut bytes = vec![0; Numerics::Stored.row_bytes(&s)];
        bytes[64] = 0x38;
        bytes[s.nope_dim() + 1] = 128;
        let last = bytes.len() - 2;
        bytes[last..].copy_from_slice(&f16::from_f32(0.25).to_le_bytes());
        let values = row(Numerics::Stored, &s, &bytes);
        assert_eq!((values.len(), values[64], values[511]), (512, 2.0, 0.25));
        assert_eq!(values.iter().filter(|x| **x != 0.0).count(), 2);
    }

    #[test]
    fn a_score_counts_positive_products_only() {
        assert_eq!(score(&[2.0, 100.0], &[1.0, 1.0, -1.0, 0.0], &[3.0, 4.0]), 14.0);
    }
}
