//! Scalar decoding of every stored format: the reference that all faster code must equal bit for bit (GGUF spec section 6).
//! Owns the formulas, one row at a time; no dot products, no threads.

use half::{bf16, f16};

use crate::{
    DType,
    tables::{IQ2_XXS_GRID, IQ2_XXS_SIGNS, MXFP4_VALUES},
};

/// Decodes whole blocks: `bytes` holds exactly the blocks of `out.len()` elements.
///
/// # Panics
/// If `bytes` and `out` do not match, or for `I32`, which is not a number format: see [`i32_row`].
pub fn row(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(
        dtype.row_bytes(out.len()),
        Some(bytes.len()),
        "{} elements of {dtype} in {} bytes",
        out.len(),
        bytes.len()
    );
    match dtype {
        DType::F32 => each(bytes, out, |b| f32::from_le_bytes(*b)),
        DType::F16 => each(bytes, out, |b| f16::from_le_bytes(*b).to_f32()),
        DType::Bf16 => each(bytes, out, |b| bf16::from_le_bytes(*b).to_f32()),
        DType::Q8_0 => blocks(bytes, out, q8_0),
        DType::Q2K => blocks(bytes, out, q2_k),
        DType::Q4K => blocks(bytes, out, q4_k),
        DType::Iq2Xxs => blocks(bytes, out, iq2_xxs),
        DType::Mxfp4 => blocks(bytes, out, mxfp4),
        DType::I32 => panic!("I32 rows hold indices, not numbers"),
    }
}

/// Reads a row of `I32`, four bytes each.
///
/// # Panics
/// If `bytes` and `out` do not match.
pub fn i32_row(bytes: &[u8], out: &mut [i32]) {
    assert_eq!(bytes.len(), out.len() * 4, "{} elements of I32 in {} bytes", out.len(), bytes.len());
    each(bytes, out, |b| i32::from_le_bytes(*b));
}

fn each<const N: usize, T>(bytes: &[u8], out: &mut [T], read: impl Fn(&[u8; N]) -> T) {
    for (y, b) in out.iter_mut().zip(bytes.as_chunks().0) {
        *y = read(b);
    }
}

fn blocks<const BYTES: usize, const LEN: usize>(
    bytes: &[u8],
    out: &mut [f32],
    decode: fn(&[u8; BYTES], &mut [f32; LEN]),
) {
    for (b, y) in bytes.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
        decode(b, y);
    }
}

/// The f16 at byte `at` of a block.
fn half_at(b: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([b[at], b[at + 1]]).to_f32()
}

fn q8_0(b: &[u8; 34], y: &mut [f32; 32]) {
    let d = half_at(b, 0);
    for (y, &q) in y.iter_mut().zip(&b[2..]) {
        *y = d * f32::from(q as i8);
    }
}

fn q4_k(b: &[u8; 144], y: &mut [f32; 256]) {
    let (d, dmin) = (half_at(b, 0), half_at(b, 2));
    for (g, y) in y.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (s, m) = q4_k_scale(&b[4..16], g);
        let (s, m) = (d * f32::from(s), dmin * f32::from(m));
        let shift = 4 * (g % 2);
        for (y, &q) in y.iter_mut().zip(&b[16 + 32 * (g / 2)..]) {
            *y = s * f32::from((q >> shift) & 15) - m;
        }
    }
}

/// The six-bit scale and minimum of group `g` (0..8) out of the twelve packed bytes.
pub(crate) fn q4_k_scale(q: &[u8], g: usize) -> (u8, u8) {
    if g < 4 {
        (q[g] & 63, q[g + 4] & 63)
    } else {
        ((q[g + 4] & 15) | ((q[g - 4] >> 6) << 4), (q[g + 4] >> 4) | ((q[g] >> 6) << 4))
    }
}

fn q2_k(b: &[u8; 84], y: &mut [f32; 256]) {
    let (d, dmin) = (half_at(b, 80), half_at(b, 82));
    for (j, y) in y.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let (s, m) = (d * f32::from(b[j] & 15), dmin * f32::from(b[j] >> 4));
        for (i, y) in y.iter_mut().enumerate() {
            *y = s * f32::from(q2_k_code(&b[16..80], 16 * j + i)) - m;
        }
    }
}

/// The two-bit code of element `e` (0..256) out of the 64 packed bytes.
pub(crate) fn q2_k_code(qs: &[u8], e: usize) -> u8 {
    let (n, k) = (e / 128, e % 128);
    (qs[32 * n + k % 32] >> (2 * (k / 32))) & 3
}

fn iq2_xxs(b: &[u8; 66], y: &mut [f32; 256]) {
    let d = half_at(b, 0);
    for (g, y) in y.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (values, scale) = iq2_xxs_group(b, g);
        let s = d * (0.5 + f32::from(scale)) * 0.25;
        for (y, v) in y.iter_mut().zip(values) {
            *y = s * f32::from(v);
        }
    }
}

/// Group `g` (0..8) of a block: 32 signed magnitudes and the four-bit scale.
pub(crate) fn iq2_xxs_group(b: &[u8; 66], g: usize) -> ([i8; 32], u8) {
    let word = |at: usize| u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
    let (rows, signs) = (word(2 + 8 * g), word(6 + 8 * g));
    let mut values = [0; 32];
    for (k, values) in values.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let magnitudes = IQ2_XXS_GRID[(rows >> (8 * k)) as usize & 255].to_le_bytes();
        let minus = IQ2_XXS_SIGNS[(signs >> (7 * k)) as usize & 127];
        for (i, (v, m)) in values.iter_mut().zip(magnitudes).enumerate() {
            *v = if minus >> i & 1 == 1 { -(m as i8) } else { m as i8 };
        }
    }
    (values, (signs >> 28) as u8)
}

fn mxfp4(b: &[u8; 17], y: &mut [f32; 32]) {
    let scale = power_of_two(b[0]);
    for (j, &q) in b[1..].iter().enumerate() {
        y[j] = MXFP4_VALUES[usize::from(q & 15)] * scale;
        y[j + 16] = MXFP4_VALUES[usize::from(q >> 4)] * scale;
    }
}

/// An E8M0 scale: 2^(e-127), with 0 meaning 2^-127 and 255 meaning NaN.
fn power_of_two(e: u8) -> f32 {
    match e {
        0 => f32::from_bits(1 << 22),
        255 => f32::NAN,
        _ => f32::from_bits(u32::from(e) << 23),
    }
}

#[cfg(test)]
mod tests;
