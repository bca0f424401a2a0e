//! Stage `select`: lightning-indexer scores and the exact top-k (model.md 7).

use std::cmp::Ordering;

use ds4_model::{Compressed, IndexRows, LowRank, Queries, Step, StepRow, visible_rows};
use rayon::prelude::*;

use crate::{Buffer, Cpu, rows};

/// Rows scored together.
const BLOCK: usize = 32;

pub(crate) fn select(
    cpu: &Cpu,
    step: &Step<Buffer>,
    low: &LowRank<Buffer>,
    q: &Queries<Buffer>,
    compressed: &Compressed<Buffer>,
    selected: &mut Buffer,
) {
    let (s, n) = (&cpu.shape, step.n);
    let index = compressed.index.as_ref().expect("the driver selects in layers with an indexer");
    let width = s.n_index_head * s.index_dim;
    let weights = low.index_weights.floats(n * s.n_index_head);
    let queries = q.index.floats(n * width);
    selected
        .view_mut::<u32>(n * s.index_top_k)
        .par_chunks_mut(s.index_top_k)
        .zip(Cpu::rows(step))
        .zip(weights.par_chunks(s.n_index_head))
        .zip(queries.par_chunks(width))
        .filter(|(((_, row), _), _)| cpu.selects(row.pos))
        .for_each(|(((selected, row), weights), query)| {
            let scores = score(cpu, row, weights, query, index, compressed.ratio);
            best(&scores, selected);
        });
}

/// `sum_h w_h * max(0, q_h . key_c)` for every visible row `c`.
fn score(cpu: &Cpu, row: &StepRow, weights: &[f32], query: &[f32], index: &IndexRows<Buffer>, ratio: u32) -> Vec<f32> {
    let dim = cpu.shape.index_dim;
    let heads: Vec<&[f32]> = query.chunks(dim).collect();
    let mut scores = vec![0f32; visible_rows(row.pos, ratio) as usize];
    scores.par_chunks_mut(BLOCK).with_min_len(8).enumerate().for_each(|(block, scores)| {
        let mut keys = vec![0f32; scores.len() * dim];
        for (i, key) in keys.chunks_mut(dim).enumerate() {
            let at = index.rows.at(row.slot, (block * BLOCK + i) as u32);
            rows::decode_index(cpu.numerics, &index.rows.data.bytes()[at..at + index.rows.row_bytes], key);
        }
        let mut products = vec![0f32; heads.len() * scores.len()];
        cpu.isa.products(&keys, dim, &heads, &mut products);
        for (products, weight) in products.chunks(scores.len()).zip(weights) {
            scores.iter_mut().zip(products).for_each(|(score, product)| *score += weight * product.max(0.0));
        }
    });
    scores
}

/// The rows with the largest scores, ascending; equal scores go to the lower row.
fn best(scores: &[f32], selected: &mut [u32]) {
    let mut rows: Vec<u32> = (0..scores.len() as u32).collect();
    let order = |a: &u32, b: &u32| -> Ordering { scores[*b as usize].total_cmp(&scores[*a as usize]).then(a.cmp(b)) };
    if selected.len() < rows.len() {
        rows.select_nth_unstable_by(selected.len(), order);
    }
    selected.copy_from_slice(&rows[..selected.len()]);
    selected.sort_unstable();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_the_lower_row() {
        let mut selected = [0; 3];
        best(&[1.0, 5.0, 1.0, 1.0, 7.0, 1.0], &mut selected);
        assert_eq!(selected, [0, 1, 4]);
    }
}
