//! Stage `query`: every product of the low-rank query.

use bytemuck::{Pod, Zeroable};
use ds4_model::{LowRank, Queries, QueryWeights, Result, Step};

use crate::backend::{Cuda, small};
use crate::dense::{Family, Inputs, Product};
use crate::device::Buffer;
use crate::launch::Grid;
use crate::weight::Weight;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct QueryArgs {
    step: u64,
    frequencies: u64,
    heads: u64,
    index: u64,
    rms_eps: f32,
    pad: u32,
}
const _: () = assert!(size_of::<QueryArgs>() == 40);

pub(crate) fn query(
    cuda: &mut Cuda,
    step: &Step<Buffer>,
    w: &QueryWeights<Weight>,
    low: &LowRank<Buffer>,
    q: &Queries<Buffer>,
) -> Result<()> {
    let width = cuda.shape.q_lora_dim;
    // Below the first position that has something to select nobody reads the indexer's queries.
    let index = w.index_q_b.as_ref().filter(|_| cuda.selects(step));
    let mut products = vec![Product::new(&w.q_b, q.heads.ptr())];
    products.extend(index.map(|w| Product::new(w, q.index.ptr())));
    let inputs = Inputs { x: low.q.ptr(), width };
    cuda.dense(Family::Lora, inputs, &products, step.n, small(step.n))?;
    let args = QueryArgs {
        step: step.rows.ptr(),
        frequencies: cuda.frequencies(w.ratio),
        heads: q.heads.ptr(),
        index: index.map_or(0, |_| q.index.ptr()),
        rms_eps: cuda.shape.rms_eps,
        pad: 0,
    };
    // A warp takes a head; heads of both kinds follow each other.
    let heads = cuda.shape.n_head + index.map_or(0, |_| cuda.shape.n_index_head);
    if cuda.recording && w.ratio != 0 {
        cuda.query = Some((args, heads as u32));
        return Ok(());
    }
    cuda.launch("query_finish", Grid::new(step.n as u32, heads.div_ceil(4) as u32, 128), &args)
}
