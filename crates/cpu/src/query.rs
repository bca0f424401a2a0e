//! Stage `query`: every product of the low-rank query (model.md 5.1, 7).

use ds4_model::{LowRank, Queries, QueryWeights, Step};
use rayon::prelude::*;

use crate::dot::{Out, Product, run};
use crate::norm::rms;
use crate::{Buffer, Cpu, Weight, rope, round};

pub(crate) fn query(
    cpu: &Cpu,
    step: &Step<Buffer>,
    w: &QueryWeights<Weight>,
    low: &LowRank<Buffer>,
    q: &mut Queries<Buffer>,
) {
    let (s, n, isa) = (&cpu.shape, step.n, cpu.isa);
    let rows = Cpu::rows(step);
    let xs: Vec<&[f32]> = low.q.floats(n * s.q_lora_dim).chunks(s.q_lora_dim).collect();
    let (width, index_width) = (s.n_head * s.head_dim, s.n_index_head * s.index_dim);
    // Below the first position that has something to select nobody reads the indexer's queries.
    let index_q_b = w.index_q_b.as_ref().filter(|_| rows.iter().any(|row| cpu.selects(row.pos)));
    let mut products = vec![Product::new(w.q_b.matrix(), &xs, Out::new(q.heads.floats_mut(n * width), width))];
    if let Some(w) = index_q_b {
        let out = Out::new(q.index.floats_mut(n * index_width), index_width);
        products.push(Product::new(w.matrix(), &xs, out));
    }
    run(isa, &products);
    drop(products);
    let frequencies = cpu.rope.of(w.ratio);
    q.heads.floats_mut(n * width).par_chunks_mut(width).zip(rows).for_each(|(heads, row)| {
        let angles = rope::angles(frequencies, row.pos);
        for head in heads.chunks_mut(s.head_dim) {
            rms(isa, head, s.rms_eps);
            rope::rotate(head, &angles);
        }
    });
    if index_q_b.is_some() {
        q.index.floats_mut(n * index_width).par_chunks_mut(index_width).zip(rows).for_each(|(heads, row)| {
            let angles = rope::angles(frequencies, row.pos);
            for head in heads.chunks_mut(s.index_dim) {
                rope::rotate(head, &angles);
                if cpu.numerics.rounds() {
                    round::hadamard(head);
                    round::e2m1(head);
                }
            }
        });
    }
}
