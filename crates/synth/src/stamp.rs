//! Quant blocks: all bytes random, then the scale fields overwritten from a table of 256 prepared ones. Every code point of
//! the format occurs, and the decoded values have the standard deviation that was asked for.

use std::sync::OnceLock;

use ds4_gguf::{DType, dequant};
use half::f16;

use crate::rng::{Rng, key};

/// The scale fields of 256 blocks; a block picks one by its first random byte.
#[derive(Clone)]
pub(crate) struct Stamps {
    dtype: DType,
    table: Box<[Stamp; 256]>,
}

/// Bytes of the scale fields in the order of the block; short formats use the first few.
type Stamp = [u8; 20];

impl Stamps {
    /// For values of mean 0 and standard deviation `std`. `dtype` is a block format.
    pub(crate) fn new(dtype: DType, std: f32) -> Self {
        if dtype == DType::Mxfp4 {
            return Self { dtype, table: powers_of_two(std / unit_deviation(dtype)) };
        }
        Self::scaled(dtype, std / unit_deviation(dtype))
    }

    /// Block scales spread around `unit`.
    fn scaled(dtype: DType, unit: f32) -> Self {
        let mut rng = Rng::new(0, key("block scales"), u64::from(dtype.id()));
        let table = std::array::from_fn(|_| {
            let d = unit * (0.6 + 0.8 * rng.unit());
            let half = |d| f16::from_f32(d).to_le_bytes();
            let mut stamp = Stamp::default();
            match dtype {
                DType::Q2K => {
                    stamp[..16].copy_from_slice(&q2_k_scales(&mut rng));
                    // The minimum is in the middle of the four codes.
                    stamp[16..].copy_from_slice(&[half(d), half(1.5 * d)].concat());
                }
                DType::Q4K => {
                    stamp[..4].copy_from_slice(&[half(d), half(7.5 * d)].concat());
                    stamp[4..16].copy_from_slice(&q4_k_scales(&mut rng));
                }
                _ => stamp[..2].copy_from_slice(&half(d)),
            }
            stamp
        });
        Self { dtype, table: Box::new(table) }
    }

    /// Fills whole blocks.
    pub(crate) fn fill(&self, rng: &mut Rng, out: &mut [u8]) {
        rng.fill(out);
        match self.dtype {
            DType::Q8_0 => self.each::<34>(out, |block, stamp| {
                // Quantisers use -127..127, and kernels may rely on it.
                block[2..].iter_mut().for_each(|q| *q |= u8::from(*q == 0x80));
                block[..2].copy_from_slice(&stamp[..2]);
            }),
            DType::Q2K => self.each::<84>(out, |block, stamp| {
                block[..16].copy_from_slice(&stamp[..16]);
                block[80..].copy_from_slice(&stamp[16..]);
            }),
            DType::Q4K => self.each::<144>(out, |block, stamp| block[..16].copy_from_slice(&stamp[..16])),
            DType::Iq2Xxs => self.each::<66>(out, |block, stamp| block[..2].copy_from_slice(&stamp[..2])),
            DType::Mxfp4 => self.each::<17>(out, |block, stamp| block[0] = stamp[0]),
            DType::F32 | DType::F16 | DType::Bf16 | DType::I32 => unreachable!("{} has no blocks", self.dtype),
        }
    }

    #[inline(always)]
    fn each<const N: usize>(&self, out: &mut [u8], apply: impl Fn(&mut [u8; N], &Stamp)) {
        for block in out.as_chunks_mut::<N>().0 {
            let stamp = &self.table[usize::from(block[0])];
            apply(block, stamp);
        }
    }
}

/// Sixteen scales of four bits with minimums that differ by at most one.
fn q2_k_scales(rng: &mut Rng) -> [u8; 16] {
    std::array::from_fn(|_| {
        let scale = 4 + rng.below(12);
        let min = (scale + rng.below(3) - 1).min(15);
        (scale | min << 4) as u8
    })
}

/// Eight scales and minimums of six bits, packed as the format wants them.
fn q4_k_scales(rng: &mut Rng) -> [u8; 12] {
    let mut q = [0; 12];
    for g in 0..8 {
        let scale = 12 + rng.below(52);
        let min = (scale + rng.below(9) - 4).min(63);
        let (scale, min) = (scale as u8, min as u8);
        if g < 4 {
            q[g] |= scale;
            q[g + 4] |= min;
        } else {
            q[g + 4] = (scale & 15) | (min & 15) << 4;
            q[g - 4] |= scale >> 4 << 6;
            q[g] |= min >> 4 << 6;
        }
    }
    q
}

/// MXFP4 scales are powers of two: the two around `scale`, mixed so that the mean square is right.
fn powers_of_two(scale: f32) -> Box<[Stamp; 256]> {
    let exponent = (scale.to_bits() >> 23) as u8;
    let mantissa = scale / f32::from_bits(u32::from(exponent) << 23);
    let larger = ((mantissa * mantissa - 1.0) / 3.0 * 256.0) as usize;
    Box::new(std::array::from_fn(|i| {
        let mut stamp = Stamp::default();
        stamp[0] = exponent + u8::from(i < larger);
        stamp
    }))
}

/// Standard deviation of decoded values when block scales are spread around 1, measured once per format.
fn unit_deviation(dtype: DType) -> f32 {
    static MEASURED: [OnceLock<f32>; DType::ALL.len()] = [const { OnceLock::new() }; DType::ALL.len()];
    let place = DType::ALL.iter().position(|&t| t == dtype).expect("ALL holds every type");
    *MEASURED[place].get_or_init(|| {
        let unit = match dtype {
            DType::Mxfp4 => Stamps { dtype, table: powers_of_two(1.0) },
            _ => Stamps::scaled(dtype, 1.0),
        };
        let n_block = 1024;
        let mut bytes = vec![0; n_block * dtype.block_bytes()];
        unit.fill(&mut Rng::new(0, key("unit deviation"), 0), &mut bytes);
        let mut values = vec![0.0; n_block * dtype.block_len()];
        dequant::row(dtype, &bytes, &mut values);
        let power: f64 = values.iter().map(|&y| f64::from(y) * f64::from(y)).sum();
        (power / values.len() as f64).sqrt() as f32
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_have_the_spread_asked_for_and_no_offset() {
        for dtype in [DType::Q8_0, DType::Q2K, DType::Q4K, DType::Iq2Xxs, DType::Mxfp4] {
            for std in [2.0_f32.powi(-6), 0.02, 0.09] {
                let mut bytes = vec![0; 4096 * dtype.block_bytes()];
                Stamps::new(dtype, std).fill(&mut Rng::new(7, 1, 2), &mut bytes);
                let mut values = vec![0.0; 4096 * dtype.block_len()];
                dequant::row(dtype, &bytes, &mut values);
                let n = values.len() as f64;
                let mean = values.iter().map(|&y| f64::from(y)).sum::<f64>() / n / f64::from(std);
                let spread = (values.iter().map(|&y| f64::from(y).powi(2)).sum::<f64>() / n).sqrt() / f64::from(std);
                assert!((spread - 1.0).abs() < 0.02 && mean.abs() < 0.03, "{dtype} {std}: {spread} {mean}");
            }
        }
    }

    #[test]
    fn q8_0_codes_stay_symmetric() {
        let mut bytes = vec![0; 34 * 4096];
        Stamps::new(DType::Q8_0, 1.0).fill(&mut Rng::new(0, 0, 0), &mut bytes);
        let codes = bytes.as_chunks::<34>().0.iter().flat_map(|b| &b[2..]);
        assert!(
            codes.clone().all(|&q| q != 0x80) && codes.clone().any(|&q| q == 0x81) && codes.clone().any(|&q| q == 0x7f)
        );
    }
}
