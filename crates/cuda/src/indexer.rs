//! Stage `select`: lightning-indexer scores and the exact top-k.

use bytemuck::{Pod, Zeroable};
use ds4_model::{Compressed, Limits, LowRank, Queries, Result, Shape, Step};

use crate::backend::{Cuda, SMALL, small};
use crate::device::Buffer;
use crate::launch::{Grid, Rows};

/// Scores that one block chooses from; more are cut in slices first (`indexer.cu`).
const SLICE: usize = 16_384;
/// Keys of a block that scores.
const KEYS: usize = 256;
/// Scores a thread holds.
const PER_THREAD: usize = 16;
/// Rows of a long step that are scored in one launch.
const LAUNCH_ROWS: usize = 2048;
/// Scores of long steps that are held at a time.
const SCORES: usize = 64 << 20;
/// Queries of a block of the long scoring kernel.
const QUERIES: usize = 64;
/// Stages of its ring.
const STAGES: usize = 6;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct SelectArgs {
    step: u64,
    q: u64,
    weights: u64,
    keys: Rows,
    packed: u64,
    scores: u64,
    candidates: u64,
    selected: u64,
    n: u32,
    first_row: u32,
    stride: u32,
    slices: u32,
}
const _: () = assert!(size_of::<SelectArgs>() == 88);

/// Bytes of a packed query: heads in eights.
pub(crate) fn packed_row(s: &Shape) -> usize {
    s.n_index_head.next_multiple_of(8) * 2 * s.index_dim
}

/// Scratch memory for the longest context: floats of scores, candidates, bytes of packed queries.
pub(crate) fn scratch(s: &Shape, limits: Limits) -> (usize, usize, usize) {
    let rows = limits.max_rows as usize;
    let stride = stride(limits.context as usize / 4);
    let scores = (SMALL * stride).max((rows * stride).min(SCORES.max(stride)));
    let candidates = (2 * scores.div_ceil(SLICE) + 2 * SMALL) * s.index_top_k;
    (scores, candidates, rows.min(LAUNCH_ROWS) * packed_row(s))
}

fn stride(keys: usize) -> usize {
    keys.max(1).next_multiple_of(16)
}

pub(crate) fn select(
    cuda: &mut Cuda,
    step: &Step<Buffer>,
    low: &LowRank<Buffer>,
    q: &Queries<Buffer>,
    rows: &Compressed<Buffer>,
    selected: &Buffer,
) -> Result<()> {
    if !cuda.selects(step) {
        return Ok(());
    }
    let index = rows.index.as_ref().expect("the driver selects in layers with an indexer");
    let keys = (step.context / rows.ratio) as usize;
    let stride = stride(keys);
    let args = SelectArgs {
        step: step.rows.ptr(),
        q: q.index.ptr(),
        weights: low.index_weights.ptr(),
        keys: (&index.rows).into(),
        packed: cuda.scratch.packed_queries.ptr(),
        scores: cuda.scratch.scores.ptr(),
        candidates: cuda.scratch.candidates.ptr(),
        selected: selected.ptr(),
        stride: stride as u32,
        slices: keys.div_ceil(SLICE) as u32,
        ..SelectArgs::zeroed()
    };
    let per_launch = if small(step.n) { SMALL } else { (cuda.scratch.n_scores / stride).clamp(1, LAUNCH_ROWS) };
    for first in (0..step.n).step_by(per_launch) {
        let n = per_launch.min(step.n - first);
        let args = SelectArgs { n: n as u32, first_row: first as u32, ..args };
        score(cuda, keys, n, small(step.n), &args)?;
        choose(cuda, keys, n, &args)?;
    }
    Ok(())
}

fn score(cuda: &mut Cuda, keys: usize, n: usize, small: bool, args: &SelectArgs) -> Result<()> {
    let blocks = keys.div_ceil(KEYS);
    if small || !cuda.device.has_wgmma() {
        let each = (2 * cuda.device.sms as usize).div_ceil(n).max(1);
        return cuda.launch("index_score", Grid::new(blocks.min(each) as u32, n as u32, 256), args);
    }
    let stage = packed_row(&cuda.shape);
    cuda.launch("index_pack", Grid::new(n as u32, 1, 256), args)?;
    let grid = Grid::new(blocks as u32, n.div_ceil(QUERIES) as u32, 544).shared(1024 + STAGES * stage + 96);
    cuda.launch("index_score_prefill", grid, args)
}

fn choose(cuda: &mut Cuda, keys: usize, n: usize, args: &SelectArgs) -> Result<()> {
    let slices = args.slices as usize;
    if slices > 1 {
        cuda.launch("index_slice", Grid::new(slices as u32, n as u32, 1024), args)?;
    }
    let left = if slices > 1 { slices * cuda.shape.index_top_k } else { keys };
    let threads = (left.div_ceil(32 * PER_THREAD) * 32).max(128);
    cuda.launch("index_top", Grid::new(n as u32, 1, threads as u32), args)
}
