//! Stage `query`: every product of the low-rank query in one dispatch, then norms, rotations and roundings in place.

use ds4_model::{LowRank, Queries, QueryWeights, Result, Step};

use crate::backend::Wgpu;
use crate::dense::{Finish, Matrix, Out, Product};
use crate::device::Buffer;
use crate::program::{BATCH, Kernel};
use crate::weight::Weight;

pub(crate) const QUERY: Kernel = Kernel::new("query", &[]);
pub(crate) const FUSED: [Kernel; 2] =
    [Kernel::new("dense", &["QUERY", "FUSED"]), Kernel::new("dense", &["QUERY", "FUSED", "MANY"]).variant(BATCH)];

pub(crate) fn query(
    gpu: &mut Wgpu,
    step: &Step<Buffer>,
    w: &QueryWeights<Weight>,
    low: &LowRank<Buffer>,
    q: &Queries<Buffer>,
) -> Result<()> {
    let s = &gpu.shape;
    let (heads, index_heads, rank) = (s.n_head, s.n_index_head, s.q_lora_dim);
    let (width, index_width) = (s.n_head * s.head_dim, s.n_index_head * s.index_dim);
    let input = Matrix { data: &low.q, stride: rank };
    // Where nothing can be selected nobody reads the indexer's queries.
    let index = w.index_q_b.as_ref().filter(|_| gpu.selects(step));
    let rope = gpu.rope(w.ratio);
    let tickets = gpu.scratch.tickets.clone();
    let products: Vec<Product<'_>> = [Some((&w.q_b, 0)), index.map(|w| (w, width))]
        .into_iter()
        .flatten()
        .map(|(w, to)| Product::new(w, to))
        .collect();
    if gpu.finishes(step.n, &products) {
        let buffers = &[&step.rows, &rope, &q.heads, &q.index, &tickets];
        // Compressors do not look at queries: in a step of one row for each sequence they come along.
        let waits = gpu.one_row_each && w.ratio != 0;
        let finish = Finish { kernels: FUSED, own: [0; 8], stride: width, waits, buffers };
        return gpu.products(step.n, &products, input, Out::Finished(finish));
    }
    let out = Out::Rows(Matrix { data: &q.heads, stride: width });
    gpu.products(step.n, &[Product::new(&w.q_b, 0)], input, out)?;
    if let Some(index) = index {
        let out = Out::Rows(Matrix { data: &q.index, stride: index_width });
        gpu.products(step.n, &[Product::new(index, 0)], input, out)?;
    }
    let across = if index.is_some() { heads + index_heads } else { heads } as u32;
    gpu.dispatch(QUERY, [step.n as u32, across, 1], &(), &[&step.rows, &rope, &q.heads, &q.index])
}
