//! Stage `compress`: pooled rows of windows that close, and the inputs of open ones.

use bytemuck::{Pod, Zeroable};
use ds4_model::{Compressed, CompressorWeights, LowRank, Result, Step};

use crate::backend::Cuda;
use crate::device::Buffer;
use crate::launch::{Grid, Rows};
use crate::query::QueryArgs;
use crate::weight::Weight;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Pool {
    inputs: u64,
    norm: u64,
    frontier: Rows,
    out: Rows,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct CompressArgs {
    step: u64,
    frequencies: u64,
    attention: Pool,
    index: Pool,
    ratio: u32,
    rms_eps: f32,
}
const _: () = assert!(size_of::<CompressArgs>() == 120);

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct CompressQueryArgs {
    compress: CompressArgs,
    query: QueryArgs,
    kinds: u32,
    pad: u32,
}
const _: () = assert!(size_of::<CompressQueryArgs>() == 168);

pub(crate) fn compress(
    cuda: &mut Cuda,
    step: &Step<Buffer>,
    w: &CompressorWeights<Weight>,
    low: &LowRank<Buffer>,
    out: &Compressed<Buffer>,
) -> Result<()> {
    let mut args = CompressArgs {
        step: step.rows.ptr(),
        frequencies: cuda.frequencies(w.ratio),
        attention: Pool {
            inputs: low.pooled.ptr(),
            norm: w.norm.ptr(),
            frontier: (&out.frontier).into(),
            out: (&out.rows).into(),
        },
        ratio: w.ratio,
        rms_eps: cuda.shape.rms_eps,
        ..CompressArgs::zeroed()
    };
    let mut kinds = 1;
    if let (Some(norm), Some(index)) = (&w.index_norm, &out.index) {
        args.index = Pool {
            inputs: low.index_pooled.ptr(),
            norm: norm.ptr(),
            frontier: (&index.frontier).into(),
            out: (&index.rows).into(),
        };
        kinds = 2;
    }
    let (query, heads) = cuda.query.take().unwrap_or((QueryArgs::zeroed(), 0));
    let args = CompressQueryArgs { compress: args, query, kinds, pad: 0 };
    cuda.launch("compress", Grid::new(step.n as u32, kinds + heads.div_ceil(4), 128), &args)?;
    // A row that far behind the first of its span replaces an input which pooling may still read: those come afterwards.
    let reach = if w.ratio == 4 { 2 * w.ratio } else { w.ratio } as usize;
    if step.n + reach > out.frontier.per_slot {
        cuda.launch("compress_keep", Grid::new(step.n as u32, kinds, 128), &args)?;
    }
    Ok(())
}
