//! Stage `select`: scores, then the exact best of each row.

use bytemuck::{Pod, Zeroable};
use ds4_model::{Compressed, Limits, LowRank, Queries, Result, Step, visible_rows};

use crate::backend::Wgpu;
use crate::device::Buffer;
use crate::program::Kernel;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Args {
    per_slot: u32,
    stride: u32,
    first_row: u32,
    pad: u32,
}

pub(crate) const SCORE: Kernel = Kernel::new("index_score", &["SCORE"]);
pub(crate) const CHOOSE: Kernel = Kernel::new("index_choose", &["CHOOSE"]);
pub(crate) const FUSED: Kernel = Kernel::new("index_score", &["SCORE", "CHOOSE", "FUSED"]);

/// Keys of a workgroup that scores.
const KEYS: usize = 32;
/// Scores that are held at a time, if one row has not more.
const SCORES: usize = 16 << 20;

fn stride(context: u32) -> usize {
    (visible_rows(context - 1, 4) as usize).max(1).next_multiple_of(KEYS)
}

/// Floats of scores for the longest context.
pub(crate) fn scratch(limits: Limits, binding: u64) -> usize {
    let one = stride(limits.context);
    (limits.max_rows as usize * one).min(SCORES.min((binding / 4) as usize).max(one))
}

pub(crate) fn select(
    gpu: &mut Wgpu,
    step: &Step<Buffer>,
    low: &LowRank<Buffer>,
    q: &Queries<Buffer>,
    rows: &Compressed<Buffer>,
    selected: &Buffer,
) -> Result<()> {
    if !gpu.selects(step) {
        return Ok(());
    }
    let keys = &rows.index.as_ref().expect("the driver selects in layers with an indexer").rows;
    let stride = stride(step.context);
    let scores = gpu.scratch.scores.clone();
    let at_once = (scores.bytes / 4 / stride).max(1);
    for first in (0..step.n).step_by(at_once) {
        let n = at_once.min(step.n - first) as u32;
        let args = Args { per_slot: keys.per_slot as u32, stride: stride as u32, first_row: first as u32, pad: 0 };
        let blocks = (stride / KEYS) as u32;
        let buffers = [&step.rows, &q.index, &low.index_weights, &keys.data, &scores];
        if gpu.device.abilities.coherent {
            let tickets = gpu.scratch.tickets.clone();
            gpu.dispatch(FUSED, [blocks, n, 1], &args, &[&buffers[..], &[selected, &tickets]].concat())?;
            continue;
        }
        gpu.dispatch(SCORE, [blocks, n, 1], &args, &buffers)?;
        gpu.dispatch(CHOOSE, [1, n, 1], &args, &[&step.rows, &scores, selected])?;
    }
    Ok(())
}
