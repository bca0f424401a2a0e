//! Q2_K: 256 values in 16 groups of 16; two-bit codes, four-bit scales and minimums.

use half::f16;

use super::search::{Asymmetric, ScaleAndMin, nint, scale_and_min, scale_only, sum_of_squares};

const GROUPS: usize = 16;
const TOP: u8 = 3;
const TOP_SCALE: u8 = 15;

/// Block scales and the four-bit codes of the groups.
struct Block {
    d: f16,
    dmin: f16,
    scales: [u8; GROUPS],
    mins: [u8; GROUPS],
}

/// Without importance: values weigh by magnitude, errors count by magnitude.
pub(super) fn encode(x: &[f32; 256]) -> [u8; 84] {
    let how = Asymmetric { top: TOP, first: -0.5, step: 0.1, steps: 15, absolute: true };
    let fits: [ScaleAndMin<16>; GROUPS] = std::array::from_fn(|g| {
        let x = &x.as_chunks::<16>().0[g];
        scale_and_min(x, &x.map(f32::abs), &how)
    });
    let (d, scales) = by_largest(&fits, |fit| fit.scale);
    let (dmin, mins) = by_largest(&fits, |fit| fit.min);
    pack(x, &fits, &Block { d, dmin, scales, mins })
}

/// With one weight per column.
pub(super) fn encode_weighted(x: &[f32; 256], v: &[f32; 256]) -> [u8; 84] {
    let how = Asymmetric { top: TOP, first: -0.9, step: 0.05, steps: 36, absolute: false };
    let power = sum_of_squares(x) / 256.0;
    let mut totals = [0.0; GROUPS];
    let fits: [ScaleAndMin<16>; GROUPS] = std::array::from_fn(|g| {
        let (x, v) = (&x.as_chunks::<16>().0[g], &v.as_chunks::<16>().0[g]);
        let w: [f32; 16] = std::array::from_fn(|i| v[i] * (power + x[i] * x[i]).sqrt());
        totals[g] = w.iter().fold(0.0, |sum, w| sum + w);
        scale_and_min(x, &w, &how)
    });
    let (d, scales) = scale_only(&std::array::from_fn(|g| fits[g].scale), &totals, TOP_SCALE);
    let (dmin, mins) = scale_only(&std::array::from_fn(|g| fits[g].min), &totals, TOP_SCALE);
    pack(x, &fits, &Block { d: f16::from_f32(d), dmin: f16::from_f32(dmin), scales, mins })
}

/// The largest becomes 15.
fn by_largest(fits: &[ScaleAndMin<16>], value: impl Fn(&ScaleAndMin<16>) -> f32) -> (f16, [u8; GROUPS]) {
    let largest = fits.iter().map(&value).fold(0.0_f32, |m, s| if s > m { s } else { m });
    if largest <= 0.0 {
        return (f16::ZERO, [0; GROUPS]);
    }
    let inverse = f32::from(TOP_SCALE) / largest;
    let codes = std::array::from_fn(|g| nint(inverse * value(&fits[g])).clamp(0, i32::from(TOP_SCALE)) as u8);
    (f16::from_f32(largest / f32::from(TOP_SCALE)), codes)
}

fn pack(x: &[f32; 256], fits: &[ScaleAndMin<16>; GROUPS], block: &Block) -> [u8; 84] {
    let mut out = [0; 84];
    out[80..82].copy_from_slice(&block.d.to_le_bytes());
    out[82..].copy_from_slice(&block.dmin.to_le_bytes());
    for g in 0..GROUPS {
        out[g] = block.scales[g] | block.mins[g] << 4;
        let codes = recode(&x.as_chunks::<16>().0[g], &fits[g].codes, block, g);
        // Element e lies in byte 32 * (e / 128) + e % 32, at bit 2 * (e % 128 / 32).
        let (start, shift) = (32 * (g / 8) + 16 * (g % 2), g % 8 / 2 * 2);
        for (byte, code) in out[16 + start..].iter_mut().zip(codes) {
            *byte |= code << shift;
        }
    }
    out
}

/// Codes for the scales that the file will really hold; a group without one keeps those of the search.
fn recode(x: &[f32; 16], codes: &[u8; 16], block: &Block, g: usize) -> [u8; 16] {
    let d = block.d.to_f32() * f32::from(block.scales[g]);
    if d == 0.0 {
        return *codes;
    }
    let min = block.dmin.to_f32() * f32::from(block.mins[g]);
    x.map(|x| nint((x + min) / d).clamp(0, i32::from(TOP)) as u8)
}
