//! Stage `route`: which experts a token goes to and how much each counts, and the shared expert's first half (model.md 8).

use ds4_model::{RouteChoice, RouteWeights, Routing, Step};
use rayon::prelude::*;

use crate::dot::{Out, Product, run};
use crate::norm::{softplus, swiglu};
use crate::{Buffer, Cpu, Weight};

/// Floor of the sum of the chosen scores.
const MIN_TOTAL: f32 = 1.0 / 16_384.0;

pub(crate) fn route(
    cpu: &Cpu,
    step: &Step<Buffer>,
    w: &RouteWeights<Weight>,
    x: &Buffer,
    routing: &mut Routing<Buffer>,
) {
    let (s, n, isa) = (&cpu.shape, step.n, cpu.isa);
    let xs: Vec<&[f32]> = x.floats(n * s.n_embd).chunks(s.n_embd).collect();
    let (mut logits, mut up) = (vec![0f32; n * s.n_expert], vec![0f32; n * s.ff_dim]);
    let shared = routing.shared.floats_mut(n * s.ff_dim);
    run(
        isa,
        &[
            Product::new(w.gate.matrix(), &xs, Out::new(&mut logits, s.n_expert)),
            Product::new(w.shared_gate.matrix(), &xs, Out::new(shared, s.ff_dim)),
            Product::new(w.shared_up.matrix(), &xs, Out::new(&mut up, s.ff_dim)),
        ],
    );
    let shared = routing.shared.floats_mut(n * s.ff_dim);
    shared.par_iter_mut().zip(up).with_min_len(1024).for_each(|(gate, up)| *gate = swiglu(*gate, up, w.clamp));
    let ids = routing.ids.view_mut::<u32>(n * s.n_expert_used);
    let weights = routing.weights.floats_mut(n * s.n_expert_used);
    let rows = Cpu::rows(step).iter().zip(logits.chunks_mut(s.n_expert));
    for ((ids, weights), (row, scores)) in
        ids.chunks_mut(s.n_expert_used).zip(weights.chunks_mut(s.n_expert_used)).zip(rows)
    {
        scores.iter_mut().for_each(|score| *score = softplus(*score).sqrt());
        match &w.choice {
            RouteChoice::Hashed(table) => table.ids(row.token as usize, bytemuck::cast_slice_mut(ids)),
            RouteChoice::Biased(bias) => best(scores, bias.values(isa), ids),
        }
        weigh(scores, ids, s.expert_scale, weights);
    }
}

/// The experts with the largest score plus bias, best first; equal sums go to the lower id. The bias decides which experts
/// win, never how much they weigh.
fn best(scores: &[f32], bias: &[f32], ids: &mut [u32]) {
    let mut sums: Vec<f32> = scores.iter().zip(bias).map(|(score, bias)| score + bias).collect();
    for id in ids {
        let mut winner = 0;
        for (e, sum) in sums.iter().enumerate() {
            if *sum > sums[winner] {
                winner = e;
            }
        }
        *id = winner as u32;
        sums[winner] = f32::NEG_INFINITY;
    }
}

fn weigh(scores: &[f32], ids: &[u32], scale: f32, weights: &mut [f32]) {
    let total = ids.iter().map(|&id| scores[id as usize]).sum::<f32>().max(MIN_TOTAL);
    ids.iter().zip(weights).for_each(|(&id, weight)| *weight = scores[id as usize] / total * scale);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bias_chooses_but_does_not_weigh() {
        let (scores, mut ids, mut weights) = ([1.0, 3.0, 2.0], [0; 2], [0.0; 2]);
        best(&scores, &[5.0, 0.0, 0.0], &mut ids);
        assert_eq!(ids, [0, 1]);
        weigh(&scores, &ids, 1.5, &mut weights);
        assert_eq!(weights, [0.375, 1.125]);
    }
}
