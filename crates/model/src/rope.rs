//! Rotary frequencies (model.md 2.2), computed once on the host. Devices form the angle as `f32(pos) * f32(frequency)`
//! and take its sine and cosine in more than float32 precision: keys and queries by the same rule everywhere.

use std::f64::consts::TAU;

use crate::{RopeParams, Shape};

/// Frequencies of the `n_rot / 2` pairs, for both kinds of layer.
#[derive(Clone, Debug)]
pub struct RopeTables {
    /// Layers without compression.
    pub plain: Vec<f32>,
    /// Layers with compression: queries, raw rows, compressed rows, indexer, inverse rotation.
    pub compressed: Vec<f32>,
}

impl RopeTables {
    /// The tables of a model.
    pub fn new(shape: &Shape) -> RopeTables {
        RopeTables {
            plain: plain(shape.n_rot, f64::from(shape.rope.base)).map(|f| f as f32).collect(),
            compressed: frequencies(shape.n_rot, &shape.rope),
        }
    }

    /// The table of a layer with this compression ratio.
    pub fn of(&self, ratio: u32) -> &[f32] {
        if ratio == 0 { &self.plain } else { &self.compressed }
    }
}

fn plain(n_rot: usize, base: f64) -> impl Iterator<Item = f64> {
    (0..n_rot / 2).map(move |i| base.powf(-2.0 * i as f64 / n_rot as f64))
}

/// YaRN frequencies of compressed layers: fast pairs as they are, slow pairs divided by the factor, a ramp between.
/// No magnitude factor is applied anywhere.
fn frequencies(n_rot: usize, rope: &RopeParams) -> Vec<f32> {
    let base = f64::from(rope.compress_base);
    let dim = |turns: f32| {
        n_rot as f64 * (f64::from(rope.yarn_original_context) / (f64::from(turns) * TAU)).ln() / (2.0 * base.ln())
    };
    let low = dim(rope.beta_fast).floor().max(0.0);
    let mut high = dim(rope.beta_slow).ceil().min(n_rot as f64 - 1.0);
    if low == high {
        high += 0.001;
    }
    let blend = |(i, g): (usize, f64)| {
        let keep = 1.0 - ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
        (g * keep + g / f64::from(rope.yarn_factor) * (1.0 - keep)) as f32
    };
    plain(n_rot, base).enumerate().map(blend).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flash_frequencies_are_those_of_the_specification() {
        let table = RopeTables::new(&Shape::flash());
        let expected = [
            (0, 1.0),
            (1, 0.687_656_02),
            (15, 3.635_538_6e-3),
            (16, 2.265_625e-3),
            (20, 2.969_777_8e-4),
            (24, 1.953_125e-5),
            (25, 5.372_312_7e-6),
            (31, 5.680_529e-7),
        ];
        for (i, f) in expected {
            let found: f32 = table.compressed[i];
            assert!((found / f - 1.0).abs() < 1e-6, "{i}: {found} {f}");
        }
        assert_eq!(table.plain[0], 1.0);
        assert!((table.plain[31] / 10_000f32.powf(-62.0 / 64.0) - 1.0).abs() < 1e-6);
    }
}
