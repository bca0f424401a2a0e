//! Activations as 8-bit blocks of 256, and their products with the stored block formats (GGUF spec section 6, Q8_K).
//! A runtime format that never lies in a file. Owns the rounding and the exact integer formulas.

use half::f16;

use crate::dequant::{iq2_xxs_group, q2_k_code, q4_k_scale};

/// 256 activations: `x = d * q`.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub struct Block {
    pub d: f32,
    pub q: [i8; LEN],
    /// Sums of `q` over each 16 elements.
    pub bsums: [i16; LEN / 16],
}

/// Elements per block.
pub const LEN: usize = 256;

const _: () = assert!(size_of::<Block>() == 292);

impl Block {
    /// All zero.
    pub const ZERO: Self = Self { d: 0.0, q: [0; LEN], bsums: [0; LEN / 16] };

    /// Rounds 256 values. The one with the largest magnitude (the first of equals) becomes -127 exactly.
    pub fn quantize(x: &[f32; LEN]) -> Self {
        let largest = x.iter().fold(0.0_f32, |m, &v| if v.abs() > m.abs() { v } else { m });
        if largest == 0.0 {
            return Self::ZERO;
        }
        let inverse = -127.0 / largest;
        let mut block = Self { d: 1.0 / inverse, ..Self::ZERO };
        for (q, &v) in block.q.iter_mut().zip(x) {
            *q = (v * inverse).round_ties_even().clamp(-128.0, 127.0) as i8;
        }
        for (sum, q) in block.bsums.iter_mut().zip(block.q.as_chunks::<16>().0) {
            *sum = q.iter().map(|&q| i16::from(q)).sum();
        }
        block
    }

    /// The rounded values.
    pub fn dequantize(&self, out: &mut [f32; LEN]) {
        for (y, &q) in out.iter_mut().zip(&self.q) {
            *y = self.d * f32::from(q);
        }
    }
}

/// Rounds a row into `out`, one block per 256 values.
///
/// # Panics
/// If `x` is not exactly `out.len()` blocks long.
pub fn quantize(x: &[f32], out: &mut [Block]) {
    assert_eq!(x.len(), out.len() * LEN, "a row is whole blocks");
    for (x, block) in x.as_chunks().0.iter().zip(out) {
        *block = Block::quantize(x);
    }
}

/// Product with one `Q2_K` block (84 bytes).
pub fn dot_q2_k(w: &[u8; 84], x: &Block) -> f32 {
    let (mut sum, mut min) = (0, 0);
    for (j, q) in x.q.as_chunks::<16>().0.iter().enumerate() {
        let products = q.iter().enumerate().map(|(i, &q)| i32::from(q2_k_code(&w[16..80], 16 * j + i)) * i32::from(q));
        sum += i32::from(w[j] & 15) * products.sum::<i32>();
        min += i32::from(w[j] >> 4) * i32::from(x.bsums[j]);
    }
    x.d * half_at(w, 80) * sum as f32 - x.d * half_at(w, 82) * min as f32
}

/// Product with one `Q4_K` block (144 bytes).
pub fn dot_q4_k(w: &[u8; 144], x: &Block) -> f32 {
    let (mut sum, mut min) = (0, 0);
    for (g, q) in x.q.as_chunks::<32>().0.iter().enumerate() {
        let (scale, minimum) = q4_k_scale(&w[4..16], g);
        let codes = w[16 + 32 * (g / 2)..].iter().map(|&b| (b >> (4 * (g % 2))) & 15);
        sum += i32::from(scale) * codes.zip(q).map(|(c, &q)| i32::from(c) * i32::from(q)).sum::<i32>();
        min += i32::from(minimum) * (i32::from(x.bsums[2 * g]) + i32::from(x.bsums[2 * g + 1]));
    }
    x.d * half_at(w, 0) * sum as f32 - x.d * half_at(w, 2) * min as f32
}

/// Product with one `IQ2_XXS` block (66 bytes).
pub fn dot_iq2_xxs(w: &[u8; 66], x: &Block) -> f32 {
    let mut sum = 0;
    for (g, q) in x.q.as_chunks::<32>().0.iter().enumerate() {
        let (values, scale) = iq2_xxs_group(w, g);
        let products = values.iter().zip(q).map(|(&v, &q)| i32::from(v) * i32::from(q));
        sum += (2 * i32::from(scale) + 1) * products.sum::<i32>();
    }
    0.125 * half_at(w, 0) * x.d * sum as f32
}

fn half_at(b: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([b[at], b[at + 1]]).to_f32()
}

#[cfg(test)]
mod tests;
