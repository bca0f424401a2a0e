//! Stage `hc_pre` and the post step that ends both sublayers: hyper-connections (model.md 3).

use ds4_model::{HC, HyperConnection, Step};
use rayon::prelude::*;

use crate::dot::{Isa, Out, Product, run};
use crate::norm::{inverse_rms, rms_weighted, sigmoid};
use crate::{Buffer, Cpu, Weight};

/// Post weights and Sinkhorn matrix of one row.
pub(crate) const MIX: usize = HC + HC * HC;

pub(crate) fn hc_pre(
    cpu: &Cpu,
    step: &Step<Buffer>,
    w: &HyperConnection<Weight>,
    streams: &Buffer,
    x: &mut Buffer,
    mix: &mut Buffer,
) {
    let s = &cpu.shape;
    let width = HC * s.n_embd;
    let streams = streams.floats(step.n * width);
    let xs: Vec<&[f32]> = streams.chunks(width).collect();
    let mut products = vec![0f32; step.n * (HC + MIX)];
    run(cpu.isa, &[Product::new(w.mix.matrix(), &xs, Out::new(&mut products, HC + MIX))]);
    let (scale, base, norm) = (w.scale.values(cpu.isa), w.base.values(cpu.isa), w.norm.values(cpu.isa));
    x.floats_mut(step.n * s.n_embd)
        .par_chunks_mut(s.n_embd)
        .zip(mix.floats_mut(step.n * MIX).par_chunks_mut(MIX))
        .zip(products.par_chunks_mut(HC + MIX))
        .zip(xs)
        .for_each(|(((x, mix), m), streams)| {
            let inverse = inverse_rms(cpu.isa, streams, s.rms_eps);
            m.iter_mut().for_each(|m| *m *= inverse);
            let (pre, rest) = m.split_at(HC);
            let pre: [f32; HC] = std::array::from_fn(|i| sigmoid(pre[i] * scale[0] + base[i]) + s.hc_eps);
            collapse(streams, &pre, x);
            rms_weighted(cpu.isa, x, norm, s.rms_eps);
            let (post, comb) = mix.split_at_mut(HC);
            for (i, post) in post.iter_mut().enumerate() {
                *post = 2.0 * sigmoid(rest[i] * scale[1] + base[HC + i]);
            }
            for (i, c) in comb.iter_mut().enumerate() {
                *c = rest[HC + i] * scale[2] + base[2 * HC + i];
            }
            sinkhorn(comb, s.sinkhorn_iters, s.hc_eps);
        });
}

/// Weighted sum of the un-normalised streams.
pub(crate) fn collapse(streams: &[f32], weights: &[f32; HC], x: &mut [f32]) {
    let n = x.len();
    for (d, x) in x.iter_mut().enumerate() {
        *x = (0..HC).fold(0.0, |sum, h| sum + weights[h] * streams[h * n + d]);
    }
}

/// Softmax over destinations, then alternating normalisation that ends on columns. `c [source][destination]`.
fn sinkhorn(c: &mut [f32], iterations: usize, eps: f32) {
    for row in c.chunks_mut(HC) {
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        row.iter_mut().for_each(|c| *c = (*c - max).exp());
        let sum: f32 = row.iter().sum();
        row.iter_mut().for_each(|c| *c = *c / sum + eps);
    }
    let columns = |c: &mut [f32]| {
        for b in 0..HC {
            let sum = (0..HC).map(|a| c[a * HC + b]).sum::<f32>() + eps;
            (0..HC).for_each(|a| c[a * HC + b] /= sum);
        }
    };
    columns(c);
    for _ in 1..iterations {
        for row in c.chunks_mut(HC) {
            let sum = row.iter().sum::<f32>() + eps;
            row.iter_mut().for_each(|c| *c /= sum);
        }
        columns(c);
    }
}

/// `X'[b] = post_b * y + sum_a C[a][b] * X[a]` for every row.
pub(crate) fn hc_post(y: &[f32], mix: &[f32], streams: &mut [f32], n_embd: usize) {
    const BLOCK: usize = 64;
    streams.par_chunks_mut(HC * n_embd).zip(y.par_chunks(n_embd)).zip(mix.par_chunks(MIX)).for_each(
        |((streams, y), mix)| {
            let (post, c) = mix.split_at(HC);
            for start in (0..n_embd).step_by(BLOCK) {
                let len = BLOCK.min(n_embd - start);
                let mut old = [[0f32; BLOCK]; HC];
                for (a, old) in old.iter_mut().enumerate() {
                    old[..len].copy_from_slice(&streams[a * n_embd + start..][..len]);
                }
                for b in 0..HC {
                    let out = &mut streams[b * n_embd + start..][..len];
                    for (d, out) in out.iter_mut().enumerate() {
                        *out = (0..HC).fold(post[b] * y[start + d], |sum, a| sum + c[a * HC + b] * old[a][d]);
                    }
                }
            }
        },
    );
}

/// The collapse weights of the final head: `HC` products of the streams.
pub(crate) fn head_weights(
    isa: Isa,
    m: &[f32],
    streams: &[f32],
    scale: f32,
    base: &[f32],
    eps: (f32, f32),
) -> [f32; HC] {
    let (rms_eps, hc_eps) = eps;
    let inverse = inverse_rms(isa, streams, rms_eps);
    std::array::from_fn(|i| sigmoid(m[i] * inverse * scale + base[i]) + hc_eps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_matrix_matches_the_check_values_of_the_specification() {
        let m = |i: usize| (i as f32 - 12.0) / 8.0;
        let base = |i: usize| 0.1 * ((i % 5) as f32 - 2.0);
        let pre: Vec<f32> = (0..4).map(|i| sigmoid(m(i) * 0.5 + base(i)) + 1e-6).collect();
        let post: Vec<f32> = (4..8).map(|i| 2.0 * sigmoid(m(i) * 0.75 + base(i))).collect();
        let mut c: Vec<f32> = (8..24).map(|i| m(i) * 1.25 + base(i)).collect();
        sinkhorn(&mut c, 20, 1e-6);
        let close = |found: &[f32], expected: &[f32]| {
            for (f, e) in found.iter().zip(expected) {
                assert!((f - e).abs() < 2e-7, "{f} {e}");
            }
        };
        close(&pre, &[0.278_885_82, 0.312_706_72, 0.348_646_13, 0.386_393_92]);
        close(&post, &[0.731_728_82, 0.596_246_85, 0.680_356_49, 0.769_824_29]);
        close(&c[..4], &[0.289_285_54, 0.289_285_60, 0.197_998_01, 0.223_429_85]);
        close(&c[4..8], &[0.256_357_70, 0.256_357_71, 0.289_285_61, 0.197_997_98]);
        close(&c[8..12], &[0.227_177_88, 0.227_177_85, 0.256_357_69, 0.289_285_58]);
        for b in 0..HC {
            let column: f32 = (0..HC).map(|a| c[a * HC + b]).sum();
            assert!((column - 1.0).abs() < 1e-5);
        }
    }
}
