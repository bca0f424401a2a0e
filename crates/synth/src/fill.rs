//! Fills a piece of one tensor. Owns the plain formats and the hash tables; blocks are `stamp.rs`.

use std::sync::OnceLock;

use ds4_gguf::{DType, Dims};
use half::{bf16, f16};

use crate::{
    rng::{Rng, key},
    stamp::Stamps,
    values::Values,
};

/// How one tensor's bytes are drawn.
#[derive(Clone)]
pub(crate) enum Fill {
    /// Quant blocks.
    Blocks(Stamps),
    /// 16-bit floats out of a table of equally likely ones: a random word picks four.
    Halves(Box<[[u8; 2]; TABLE]>),
    /// 32-bit floats; the few there are need no haste.
    Floats(Values),
    /// Rows of `n_used` distinct ids below `n_expert`.
    Ids { n_used: usize, n_expert: u32 },
}

/// Elements of a table of halves: fits a core's fastest cache, and 12 bits of a word pick one.
const TABLE: usize = 4096;
/// A piece is at most this long: large enough to write fast, small enough to stay in the cache.
const PIECE: usize = 1 << 20;

impl Fill {
    pub(crate) fn new(dtype: DType, dims: &Dims, values: Values) -> Self {
        match (dtype, values) {
            (_, Values::Experts { n_expert }) => Self::Ids { n_used: dims[0] as usize, n_expert },
            (DType::F32, _) => Self::Floats(values),
            (DType::F16, _) => Self::halves(values, |v| f16::from_f32(v).to_le_bytes()),
            (DType::Bf16, _) => Self::halves(values, |v| bf16::from_f32(v).to_le_bytes()),
            (_, Values::Normal { std, .. }) => Self::Blocks(Stamps::new(dtype, std)),
            (_, Values::Uniform { .. }) => unreachable!("vectors are never stored as {dtype}"),
        }
    }

    fn halves(values: Values, round: fn(f32) -> [u8; 2]) -> Self {
        let z = normal_table();
        Self::Halves(Box::new(std::array::from_fn(|i| {
            round(match values {
                Values::Normal { mean, std } => mean + std * z[i],
                Values::Uniform { low, high } => low + (high - low) * (i as f32 + 0.5) / TABLE as f32,
                Values::Experts { .. } => unreachable!("ids are never stored as halves"),
            })
        })))
    }

    /// Bytes of one piece: whole blocks or rows.
    pub(crate) fn piece(&self, dtype: DType) -> usize {
        let unit = match self {
            Self::Ids { n_used, .. } => n_used * 4,
            _ => dtype.block_bytes(),
        };
        (PIECE / unit).max(1) * unit
    }

    /// Draws a piece.
    pub(crate) fn draw(&self, rng: &mut Rng, out: &mut [u8]) {
        match self {
            Self::Blocks(stamps) => stamps.fill(rng, out),
            Self::Halves(table) => halves(table, rng, out),
            Self::Floats(values) => {
                for b in out.as_chunks_mut().0 {
                    *b = float(*values, rng).to_le_bytes();
                }
            }

            Self::Ids { n_used, n_expert } => {
                let mut row = Vec::with_capacity(*n_used);
                out.chunks_exact_mut(n_used * 4).for_each(|out| ids(*n_expert, &mut row, rng, out));
            }
        }
    }
}

fn float(values: Values, rng: &mut Rng) -> f32 {
    match values {
        Values::Normal { mean, std } => mean + std * rng.normal(),
        Values::Uniform { low, high } => low + (high - low) * rng.unit(),
        Values::Experts { .. } => unreachable!("ids are never stored as floats"),
    }
}

fn halves(table: &[[u8; 2]; TABLE], rng: &mut Rng, out: &mut [u8]) {
    let (groups, rest) = out.as_chunks_mut::<10>();
    let pick = |word: u64, i: usize| table[(word >> (12 * i)) as usize % TABLE];
    for group in groups {
        let word = rng.next();
        for (i, half) in group.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            *half = pick(word, i);
        }
    }
    let word = rng.next();
    for (i, half) in rest.as_chunks_mut::<2>().0.iter_mut().enumerate() {
        *half = pick(word, i);
    }
}

/// One row of distinct ids. A recipe has at least as many experts as a row is long.
fn ids(n_expert: u32, row: &mut Vec<u32>, rng: &mut Rng, out: &mut [u8]) {
    row.clear();
    for slot in out.as_chunks_mut().0 {
        let id = loop {
            let id = rng.below(n_expert);
            if !row.contains(&id) {
                break id;
            }
        };
        row.push(id);
        *slot = id.to_le_bytes();
    }
}

/// Normal draws in pairs of opposite sign, so that no tensor made of them has an offset.
fn normal_table() -> &'static [f32; TABLE] {
    static NORMAL: OnceLock<[f32; TABLE]> = OnceLock::new();
    NORMAL.get_or_init(|| {
        let mut rng = Rng::new(0, key("normal table"), 0);
        let mut table = [0.0; TABLE];
        for pair in table.as_chunks_mut::<2>().0 {
            let z = rng.normal();
            *pair = [z, -z];
        }
        table
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_have_the_spread_asked_for() {
        let fill = Fill::new(DType::F16, &Dims::from([4096]), Values::Normal { mean: 0.0, std: 0.5 });
        let mut bytes = vec![0; 200_002];
        fill.draw(&mut Rng::new(3, 4, 5), &mut bytes);
        let values: Vec<f64> = bytes.as_chunks().0.iter().map(|b| f64::from(f16::from_le_bytes(*b).to_f32())).collect();
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let std = (values.iter().map(|v| v * v).sum::<f64>() / n).sqrt();
        assert!(mean.abs() < 0.01 && (std - 0.5).abs() < 0.02, "{mean} {std}");
    }

    #[test]
    fn a_row_may_use_every_expert() {
        let fill = Fill::new(DType::I32, &Dims::from([6, 50]), Values::Experts { n_expert: 6 });
        let mut bytes = vec![0; 6 * 50 * 4];
        fill.draw(&mut Rng::new(0, 0, 0), &mut bytes);
        for row in bytes.chunks_exact(24) {
            let mut ids: Vec<u32> = row.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
            ids.sort_unstable();
            assert_eq!(ids, [0, 1, 2, 3, 4, 5]);
        }
    }
}
