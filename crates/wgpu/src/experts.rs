//! Stage `experts`.

use bytemuck::{Pod, Zeroable};
use ds4_model::{ExpertWeights, Result, Routing, Shape, Step};

use crate::backend::{Wgpu, small};
use crate::dense::{Matrix, Out, POST_ROUTED, Product, post_grid};
use crate::device::Buffer;
use crate::program::Kernel;
use crate::weight::{Format, Part, Weight};

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Args {
    first: u32,
    count: u32,
    codes: u32,
    scales: u32,
    other_codes: u32,
    other_scales: u32,
    clamp: f32,
    pairs: u32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct DownArgs {
    codes: u32,
    scales: u32,
    shared_codes: u32,
    shared_scales: u32,
    shared_format: u32,
    pad: [u32; 3],
}

pub(crate) const GATE_UP: Kernel = Kernel::new("experts", &["GATED"]);
pub(crate) const GATE_UP_IQ2: Kernel = Kernel::new("experts_iq2", &[]);
pub(crate) const DOWN: Kernel = Kernel::new("experts", &[]);
pub(crate) const GROUP: Kernel = Kernel::new("experts_group", &["GROUP"]);
pub(crate) const HALVES: Kernel = Kernel::new("experts_halves", &["HALVES"]);
pub(crate) const GATE_UP_ROWS: Kernel = Kernel::new("experts_rows", &["GATED", "NARROW"]);
pub(crate) const DOWN_ROWS: Kernel = Kernel::new("experts_rows", &["NARROW"]);

pub(crate) const DOWN_ALL: Kernel = Kernel::new("experts_down", &[]);

/// Every kernel of experts of a format.
pub(crate) fn kernels(format: Format) -> Vec<Kernel> {
    // Of IQ2_XXS gate and up have one of their own.
    let gated = if format == Format::Iq2 { GATE_UP_IQ2 } else { GATE_UP.format(format) };
    [DOWN, DOWN_ALL, GATE_UP_ROWS, DOWN_ROWS].map(|kernel| kernel.format(format)).into_iter().chain([gated]).collect()
}

/// Outputs of a workgroup: of gate and up and of down; in short steps, in long ones, and there with cooperative matrices.
const FEW: (usize, usize) = (8, 16);
const FEW_IQ2: usize = 32;
const MANY: (usize, usize) = (32, 64);
const MATRIX: (usize, usize) = (64, 128);
/// Pairs of a tile.
const TILE: usize = 64;

/// Outputs of a workgroup in long steps.
fn many(gpu: &Wgpu) -> (usize, usize) {
    if gpu.device.abilities.paths.matrices.is_some() { MATRIX } else { MANY }
}

/// Most tiles of a step.
pub(crate) fn most_tiles(s: &Shape, rows: usize) -> usize {
    let pairs = rows * s.n_expert_used;
    pairs / TILE + s.n_expert.min(pairs)
}

pub(crate) fn experts(
    gpu: &mut Wgpu,
    step: &Step<Buffer>,
    w: &ExpertWeights<Weight>,
    x: &Buffer,
    routing: &Routing<Buffer>,
    (mix, streams): (&Buffer, &Buffer),
) -> Result<()> {
    let (n_embd, ff) = (gpu.shape.n_embd, gpu.shape.ff_dim);
    let (down, y) = (gpu.scratch.down.clone(), gpu.scratch.y.clone());
    gate_up(gpu, step, w, x, routing)?;
    if let (true, [part], [shared]) = (small(step.n), w.down.parts.as_slice(), w.shared_down.parts.as_slice()) {
        return down_all(gpu, step, w, (part, shared), routing, (mix, streams));
    }
    put_down(gpu, step, w, routing)?;
    let input = Matrix { data: &routing.shared, stride: ff };
    gpu.products(step.n, &[Product::new(&w.shared_down, 0)], input, Out::Rows(Matrix { data: &y, stride: n_embd }))?;
    gpu.dispatch(POST_ROUTED, post_grid(n_embd, step.n), &[0u32; 0], &[&y, mix, streams, &down])
}

fn gate_up(
    gpu: &mut Wgpu,
    step: &Step<Buffer>,
    w: &ExpertWeights<Weight>,
    x: &Buffer,
    routing: &Routing<Buffer>,
) -> Result<()> {
    let pairs = step.n * gpu.shape.n_expert_used;
    let (mid, order, tiles) = (gpu.scratch.mid.clone(), gpu.scratch.order.clone(), gpu.scratch.tiles.clone());
    let table = gpu.iq2_grid.clone();
    if !small(step.n) {
        let args = Args { pairs: pairs as u32, ..Args::zeroed() };
        gpu.dispatch(GROUP, [1, 1, 1], &args, &[&routing.ids, &order, &tiles])?;
    }
    let halves = gpu.scratch.halves.clone();
    let x = if !small(step.n) && gpu.device.abilities.paths.matrices.is_some() {
        let grid = [gpu.shape.n_embd.div_ceil(1024) as u32, step.n as u32, 1];
        gpu.dispatch(HALVES, grid, &[0u32; 0], &[x, &halves])?;
        &halves
    } else {
        x
    };
    let iq2 = w.gate.format == Format::Iq2;
    let (kernel, across, grid_y) = match small(step.n) {
        true if iq2 => (GATE_UP_IQ2, FEW_IQ2, pairs),
        true => (GATE_UP.format(w.gate.format), FEW.0, pairs),
        false => (GATE_UP_ROWS.format(w.gate.format), many(gpu).0, most_tiles(&gpu.shape, step.n)),
    };
    let grid = [gpu.shape.ff_dim.div_ceil(across) as u32, grid_y as u32, 1];
    for (gate, up) in w.gate.parts.iter().zip(&w.up.parts) {
        let args = Args { other_codes: up.codes, other_scales: up.scales, clamp: w.clamp, ..of(&w.gate, gate) };
        let mut buffers = if small(step.n) { vec![&routing.ids, x] } else { vec![&order, &tiles, x] };
        match kernel {
            // Codes and scales are of different types.
            GATE_UP_IQ2 => buffers.extend([&gate.data, &gate.data, &mid, &up.data, &up.data, &routing.weights]),
            _ => buffers.extend([&gate.data, &mid, &up.data, &routing.weights]),
        }
        if iq2 {
            buffers.push(&table);
        }
        gpu.dispatch(kernel, grid, &args, &buffers)?;
    }
    Ok(())
}

/// Everything behind the gated middles in one dispatch.
fn down_all(
    gpu: &mut Wgpu,
    step: &Step<Buffer>,
    w: &ExpertWeights<Weight>,
    (part, shared): (&Part, &Part),
    routing: &Routing<Buffer>,
    (mix, streams): (&Buffer, &Buffer),
) -> Result<()> {
    let args = DownArgs {
        codes: part.codes,
        scales: part.scales,
        shared_codes: shared.codes / 4,
        shared_scales: shared.scales,
        shared_format: w.shared_down.format as u32,
        pad: [0; 3],
    };
    let (mid, table) = (gpu.scratch.mid.clone(), gpu.iq2_grid.clone());
    let grid = [gpu.shape.n_embd.div_ceil(4) as u32, step.n as u32, 1];
    let (x, data) = (&routing.shared, &shared.data);
    let mut buffers = vec![&routing.ids, &mid, &part.data, x, data, data, mix, streams];
    if w.down.format == Format::Iq2 {
        buffers.push(&table);
    }
    gpu.dispatch(DOWN_ALL.format(w.down.format), grid, &args, &buffers)
}

fn put_down(gpu: &mut Wgpu, step: &Step<Buffer>, w: &ExpertWeights<Weight>, routing: &Routing<Buffer>) -> Result<()> {
    let pairs = step.n * gpu.shape.n_expert_used;
    let (mid, down) = (gpu.scratch.mid.clone(), gpu.scratch.down.clone());
    let (order, tiles, table) = (gpu.scratch.order.clone(), gpu.scratch.tiles.clone(), gpu.iq2_grid.clone());
    let (kernel, across, grid_y) =
        if small(step.n) { (DOWN, FEW.1, pairs) } else { (DOWN_ROWS, many(gpu).1, most_tiles(&gpu.shape, step.n)) };
    let grid = [gpu.shape.n_embd.div_ceil(across) as u32, grid_y as u32, 1];
    for part in &w.down.parts {
        let mut buffers = if small(step.n) { vec![&routing.ids, &mid] } else { vec![&order, &tiles, &mid] };
        buffers.extend([&part.data, &down]);
        if w.down.format == Format::Iq2 {
            buffers.push(&table);
        }
        gpu.dispatch(kernel.format(w.down.format), grid, &of(&w.down, part), &buffers)?;
    }
    Ok(())
}

/// Parameters of a part.
fn of(w: &Weight, part: &Part) -> Args {
    Args {
        first: (part.first / w.each) as u32,
        count: (part.rows / w.each) as u32,
        codes: part.codes,
        scales: part.scales,
        ..Args::zeroed()
    }
}
