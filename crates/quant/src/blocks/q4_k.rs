//! Q4_K: 256 values in 8 groups of 32; four-bit codes, six-bit scales and minimums.

use half::f16;

use super::search::{Asymmetric, ScaleAndMin, nint, scale_and_min, scale_only, sum_of_squares};

const GROUPS: usize = 8;
const TOP: u8 = 15;
const TOP_SCALE: u8 = 63;

/// Block scales and the six-bit codes of the groups.
struct Block {
    d: f16,
    dmin: f16,
    scales: [u8; GROUPS],
    mins: [u8; GROUPS],
}

/// Without importance: larger values weigh more.
pub(super) fn encode(x: &[f32; 256]) -> [u8; 144] {
    let how = Asymmetric { top: TOP, first: -1.0, step: 0.1, steps: 20, absolute: false };
    let fits: [ScaleAndMin<32>; GROUPS] = std::array::from_fn(|g| {
        let x = &x.as_chunks::<32>().0[g];
        let mean = (sum_of_squares(x) / 32.0).sqrt();
        scale_and_min(x, &x.map(|x| mean + x.abs()), &how)
    });
    let (d, scales) = by_largest(&fits, |fit| fit.scale);
    let (dmin, mins) = by_largest(&fits, |fit| fit.min);
    pack(x, &fits, &Block { d, dmin, scales, mins })
}

/// With one weight per column.
pub(super) fn encode_weighted(x: &[f32; 256], v: &[f32; 256]) -> [u8; 144] {
    let how = Asymmetric { top: TOP, first: -0.9, step: 0.05, steps: 36, absolute: false };
    let power = 2.0 * sum_of_squares(x) / 256.0;
    let mut totals = [0.0; GROUPS];
    let fits: [ScaleAndMin<32>; GROUPS] = std::array::from_fn(|g| {
        let (x, v) = (&x.as_chunks::<32>().0[g], &v.as_chunks::<32>().0[g]);
        let w: [f32; 32] = std::array::from_fn(|i| v[i] * (power + x[i] * x[i]).sqrt());
        totals[g] = w.iter().fold(0.0, |sum, w| sum + w);
        scale_and_min(x, &w, &how)
    });
    let (d, scales) = scale_only(&std::array::from_fn(|g| fits[g].scale), &totals, TOP_SCALE);
    let (dmin, mins) = scale_only(&std::array::from_fn(|g| fits[g].min), &totals, TOP_SCALE);
    pack(x, &fits, &Block { d: f16::from_f32(d), dmin: f16::from_f32(dmin), scales, mins })
}

/// The largest becomes 63.
fn by_largest(fits: &[ScaleAndMin<32>], value: impl Fn(&ScaleAndMin<32>) -> f32) -> (f16, [u8; GROUPS]) {
    let largest = fits.iter().map(&value).fold(0.0_f32, |m, s| if s > m { s } else { m });
    let inverse = if largest > 0.0 { f32::from(TOP_SCALE) / largest } else { 0.0 };
    let codes = std::array::from_fn(|g| (nint(inverse * value(&fits[g])) as u8).min(TOP_SCALE));
    (f16::from_f32(largest / f32::from(TOP_SCALE)), codes)
}

fn pack(x: &[f32; 256], fits: &[ScaleAndMin<32>; GROUPS], block: &Block) -> [u8; 144] {
    let mut out = [0; 144];
    out[..2].copy_from_slice(&block.d.to_le_bytes());
    out[2..4].copy_from_slice(&block.dmin.to_le_bytes());
    for g in 0..GROUPS {
        let (s, m) = (block.scales[g], block.mins[g]);
        let packed = &mut out[4..16];
        if g < 4 {
            packed[g] |= s;
            packed[g + 4] |= m;
        } else {
            packed[g + 4] = (s & 15) | (m & 15) << 4;
            packed[g - 4] |= s >> 4 << 6;
            packed[g] |= m >> 4 << 6;
        }
        let codes = recode(&x.as_chunks::<32>().0[g], &fits[g].codes, block, g);
        for (byte, code) in out[16 + 32 * (g / 2)..].iter_mut().zip(codes) {
            *byte |= code << (4 * (g % 2));
        }
    }
    out
}

/// Codes for the scales that the file will really hold; a group without one keeps those of the search.
fn recode(x: &[f32; 32], codes: &[u8; 32], block: &Block, g: usize) -> [u8; 32] {
    let d = block.d.to_f32() * f32::from(block.scales[g]);
    if d == 0.0 {
        return *codes;
    }
    let min = block.dmin.to_f32() * f32::from(block.mins[g]);
    x.map(|x| nint((x + min) / d).clamp(0, i32::from(TOP)) as u8)
}
