//! Stage `attend`: the queries of a short step are cut in parts that multiprocessors share; those of a long one have one each.

use bytemuck::{Pod, Zeroable};
use ds4_model::{LayerKv, Queries, Result, Shape, Step};

use crate::backend::{Cuda, SMALL, small};
use crate::device::Buffer;
use crate::hc::MixArgs;
use crate::launch::{Grid, Rows};
use crate::weight::Weight;

/// Visible rows of a chunk, and most chunks of a query: beyond that chunks grow (`attention.cu`).
const CHUNK: usize = 32;
const CHUNKS: usize = 33;
/// Heads of a block.
const HEADS: usize = 16;
/// Blocks up to which every chunk has a block of its own: four to a multiprocessor.
const LATENCY_BLOCKS: usize = 528;
/// Chunks of a block where there are many.
const CHUNKS_PER_PART: usize = 4;
const SPLIT_SHARED: usize = 54_912;
const PREFILL_SHARED: usize = 206_880;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct AttendArgs {
    step: u64,
    q: u64,
    sinks: u64,
    frequencies: u64,
    selected: u64,
    window: Rows,
    compressed: Rows,
    heads: u64,
    parts: u64,
    stats: u64,
    n: u32,
    first_row: u32,
    ratio: u32,
    part_stride: u32,
    chunks_per_part: u32,
    pad: u32,
    mix: MixArgs,
}
const _: () = assert!(size_of::<AttendArgs>() == 160);

/// Parts of all queries that a step of few rows can have.
pub(crate) fn most_parts(s: &Shape) -> usize {
    let by_latency = LATENCY_BLOCKS / s.n_head.div_ceil(HEADS);
    by_latency.max(SMALL * CHUNKS.div_ceil(CHUNKS_PER_PART))
}

pub(crate) fn attend(
    cuda: &mut Cuda,
    step: &Step<Buffer>,
    sinks: &Weight,
    q: &Queries<Buffer>,
    kv: &LayerKv<Buffer>,
    selected: &Buffer,
    heads: &Buffer,
) -> Result<()> {
    let ratio = kv.compressed.as_ref().map_or(0, |c| c.ratio);
    let args = AttendArgs {
        step: step.rows.ptr(),
        q: q.heads.ptr(),
        sinks: sinks.ptr(),
        frequencies: cuda.frequencies(ratio),
        selected: selected.ptr(),
        window: (&kv.window).into(),
        compressed: kv.compressed.as_ref().map_or(Rows::zeroed(), |c| (&c.rows).into()),
        heads: heads.ptr(),
        parts: cuda.scratch.parts.ptr(),
        stats: cuda.scratch.stats.ptr(),
        n: step.n as u32,
        ratio,
        ..AttendArgs::zeroed()
    };
    if !small(step.n) && cuda.device.has_wgmma() {
        let grid = Grid::new((step.n as u32).min(cuda.device.sms), 1, 384).shared(PREFILL_SHARED);
        return cuda.launch("attend_prefill", grid, &args);
    }
    for first in (0..step.n).step_by(SMALL) {
        attend_parts(cuda, step.context, first, SMALL.min(step.n - first), args)?;
    }
    Ok(())
}

/// Rows `first .. first + n` in parts, then their sums.
fn attend_parts(cuda: &mut Cuda, context: u32, first: usize, n: usize, args: AttendArgs) -> Result<()> {
    let s = &cuda.shape;
    let compressed = match args.ratio {
        0 => 0,
        4 => (context as usize / 4).min(s.index_top_k),
        ratio => (context / ratio) as usize,
    };
    let visible = (context as usize).min(s.window) + compressed;
    let (chunks, head_blocks) = (visible.div_ceil(CHUNK).min(CHUNKS), s.n_head.div_ceil(HEADS));
    let per_part = if n * chunks * head_blocks <= LATENCY_BLOCKS { 1 } else { CHUNKS_PER_PART };
    let parts = chunks.div_ceil(per_part);
    let args = AttendArgs {
        n: n as u32,
        first_row: first as u32,
        part_stride: parts as u32,
        chunks_per_part: per_part as u32,
        ..args
    };
    let n_head = s.n_head as u32;
    let mix = cuda.mix.take();
    let args = AttendArgs { mix: mix.unwrap_or(MixArgs::zeroed()), ..args };
    let groups = head_blocks as u32 + u32::from(mix.is_some());
    let split = Grid { blocks: (parts as u32, groups, n as u32), ..Grid::new(1, 1, 256) };
    cuda.launch("attend_split", split.shared(SPLIT_SHARED), &args)?;
    cuda.launch("attend_combine", Grid::new(2 * n_head, n as u32, 256), &args)
}
