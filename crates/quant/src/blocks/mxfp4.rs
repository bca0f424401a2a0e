//! MXFP4: 32 values, a power of two, four-bit floats. The source's own FP4 experts are re-arranged without rounding.

use ds4_gguf::tables::MXFP4_VALUES;

/// Halves of an FP4 code table: 0, .5, 1, 1.5, 2, 3, 4, 6.
const MAGNITUDES: usize = 8;

/// The scale puts the largest magnitude between 4 and 8; each value becomes the nearest code, the smaller on ties.
pub(super) fn encode(x: &[f32; 32]) -> [u8; 17] {
    let largest = x.iter().fold(0.0_f32, |m, x| if x.abs() > m { x.abs() } else { m });
    let mut out = [0; 17];
    let exponent = exponent(largest);
    out[0] = exponent;
    let scale = if exponent == 0 { f32::from_bits(1 << 22) } else { f32::from_bits(u32::from(exponent) << 23) };
    for j in 0..16 {
        out[1 + j] = code(x[j], scale) | code(x[j + 16], scale) << 4;
    }
    out
}

/// Two below the binary exponent, biased, as far down as the format goes.
fn exponent(largest: f32) -> u8 {
    if largest <= 0.0 {
        return 0;
    }
    let biased = (largest.to_bits() >> 23) as u8;
    biased.saturating_sub(2)
}

fn code(x: f32, scale: f32) -> u8 {
    let magnitude = x.abs();
    let (mut best, mut code) = (f32::INFINITY, 0);
    for (i, value) in (0_u8..).zip(&MXFP4_VALUES[..MAGNITUDES]) {
        let error = (magnitude - value * scale).abs();
        if error < best {
            (best, code) = (error, i);
        }
    }
    // Zero has one spelling.
    if x < 0.0 && code != 0 { code | 8 } else { code }
}

/// Packed FP4 (byte k: elements 2k and 2k + 1) with its scales, as MXFP4 (byte j: elements j and j + 16).
pub(super) fn rearrange(packed: &[u8], scales: &[u8], out: &mut [u8]) {
    let blocks = packed.as_chunks::<16>().0.iter().zip(scales);
    for ((packed, &scale), out) in blocks.zip(out.as_chunks_mut::<17>().0) {
        let nibble = |e: usize| packed[e / 2] >> (4 * (e % 2)) & 15;
        out[0] = scale;
        for j in 0..16 {
            out[1 + j] = nibble(j) | nibble(j + 16) << 4;
        }
    }
}
