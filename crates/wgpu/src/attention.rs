//! Stage `attend`: sums of parts of the visible rows, then their combination.

use bytemuck::{Pod, Zeroable};
use ds4_model::{LayerKv, Limits, Queries, Result, Shape, Step, visible_rows};

use crate::backend::{Wgpu, small};
use crate::device::Buffer;
use crate::program::Kernel;
use crate::weight::Weight;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Args {
    ratio: u32,
    parts: u32,
    first_row: u32,
    per_part: u32,
    window_per_slot: u32,
    rows_per_slot: u32,
    sinks: u32,
    rope: u32,
}

pub(crate) const ATTEND: Kernel = Kernel::new("attend", &["SPLIT"]);
pub(crate) const COMBINE: Kernel = Kernel::new("attend_combine", &["COMBINE"]);

pub(crate) const FUSED: Kernel = Kernel::new("attend", &["SPLIT", "COMBINE", "FUSED"]);

pub(crate) const ROWS: Kernel = Kernel::new("attend_rows", &[]);

/// Most parts of a row in a small step, and the fewest visible rows of one; in a long step a row's heads are enough work to
/// share out. How many there are follows from the row's position (`part_rows` in `attention.wgsl`).
const PARTS: usize = 32;
const PART: usize = 16;
/// Sums that are held at a time, if one row has not more.
const FLOATS: usize = 32 << 20;
/// Heads of a workgroup, and of one of the kernel with cooperative matrices.
const HEADS: usize = 4;
const MATRIX_HEADS: usize = 32;

/// Rows that a query at the end of the context sees.
fn visible(s: &Shape, ratio: u32, context: u32) -> usize {
    let compressed = visible_rows(context - 1, ratio) as usize;
    let window = s.window.min(context as usize);
    window + if ratio == 4 { compressed.min(s.index_top_k) } else { compressed }
}

fn row_floats(s: &Shape, parts: usize) -> usize {
    parts * s.n_head * (s.head_dim + 4)
}

/// Floats of sums for the longest context.
pub(crate) fn scratch(s: &Shape, limits: Limits, binding: u64) -> usize {
    let longest = s.ratios.iter().map(|&ratio| visible(s, ratio, limits.context)).max().unwrap_or(1);
    let one = row_floats(s, longest.div_ceil(PART).clamp(1, PARTS));
    (limits.max_rows as usize * one).min(FLOATS.min((binding / 4) as usize).max(one))
}

pub(crate) fn attend(
    gpu: &mut Wgpu,
    step: &Step<Buffer>,
    sinks: &Weight,
    q: &Queries<Buffer>,
    kv: &LayerKv<Buffer>,
    (selected, heads): (&Buffer, &Buffer),
) -> Result<()> {
    let ratio = kv.compressed.as_ref().map_or(0, |c| c.ratio);
    let longest = visible(&gpu.shape, ratio, step.context);
    let (parts, per_part) = if small(step.n) { (longest.div_ceil(PART).min(PARTS), 0) } else { (1, longest) };
    let groups = gpu.shape.n_head.div_ceil(HEADS) as u32;
    let sums = gpu.scratch.parts.clone();
    let at_once = (sums.bytes / 4 / row_floats(&gpu.shape, parts)).max(1);
    let rows = kv.compressed.as_ref().map_or(&kv.window, |c| &c.rows);
    let (values, rope) = (gpu.values.clone(), gpu.rope(ratio));
    let args = |first: usize| Args {
        ratio,
        parts: parts as u32,
        first_row: first as u32,
        per_part: per_part as u32,
        window_per_slot: kv.window.per_slot as u32,
        rows_per_slot: rows.per_slot as u32,
        sinks: sinks.at(),
        rope: 0,
    };
    if !small(step.n) && gpu.device.abilities.paths.matrices.is_some() {
        let grid = [gpu.shape.n_head.div_ceil(MATRIX_HEADS) as u32, step.n as u32, 1];
        let buffers = [&step.rows, &q.heads, &kv.window.data, &rows.data, selected, &values, &rope, heads];
        return gpu.dispatch(ROWS, grid, &args(0), &buffers);
    }
    for first in (0..step.n).step_by(at_once) {
        let n = at_once.min(step.n - first) as u32;
        let args = args(first);
        let grid = [parts as u32, groups, n];
        let mut buffers = vec![&step.rows, &q.heads, &kv.window.data, &rows.data, selected, &sums];
        if gpu.device.abilities.coherent {
            let tickets = gpu.scratch.tickets.clone();
            buffers.extend([&values, &rope, heads, &tickets]);
            gpu.dispatch(FUSED, grid, &args, &buffers)?;
            continue;
        }
        gpu.dispatch(ATTEND, grid, &args, &buffers)?;
        gpu.dispatch(COMBINE, [groups, n, 1], &args, &[&step.rows, &sums, &values, &rope, heads])?;
    }
    Ok(())
}
