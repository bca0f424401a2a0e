//! Stage `experts`.

use bytemuck::{Pod, Zeroable};
use ds4_model::{ExpertWeights, Result, Routing, Step};

use crate::backend::Wgpu;
use crate::dense::{Matrix, Out, Product};
use crate::device::Buffer;
use crate::program::Kernel;
use crate::weight::{Format, Weight};

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
    pad: u32,
}

pub(crate) const GATE_UP: Kernel = Kernel::new("experts", &["GATED"]);
pub(crate) const DOWN: Kernel = Kernel::new("experts", &[]);
pub(crate) const SUM: Kernel = Kernel::new("experts_sum", &["SUM"]);

/// Outputs of a workgroup, of gate and up or of down.
const GATED_ROWS: usize = 8;
const DOWN_ROWS: usize = 16;

pub(crate) fn experts(
    gpu: &mut Wgpu,
    step: &Step<Buffer>,
    w: &ExpertWeights<Weight>,
    x: &Buffer,
    routing: &Routing<Buffer>,
    (mix, streams): (&Buffer, &Buffer),
) -> Result<()> {
    let (n_embd, ff) = (gpu.shape.n_embd, gpu.shape.ff_dim);
    let pairs = (step.n * gpu.shape.n_expert_used) as u32;
    let (mid, down, y) = (gpu.scratch.mid.clone(), gpu.scratch.down.clone(), gpu.scratch.y.clone());
    for (gate, up) in w.gate.parts.iter().zip(&w.up.parts) {
        let args = Args {
            first: (gate.first / w.gate.each) as u32,
            count: (gate.rows / w.gate.each) as u32,
            codes: gate.codes,
            scales: gate.scales,
            other_codes: up.codes,
            other_scales: up.scales,
            clamp: w.clamp,
            pad: 0,
        };
        let grid = [ff.div_ceil(GATED_ROWS) as u32, pairs, 1];
        let mut buffers = vec![&routing.ids, x, &gate.data, &mid, &up.data, &routing.weights];
        let table = gpu.iq2_grid.clone();
        if w.gate.format == Format::Iq2 {
            buffers.push(&table);
        }
        gpu.dispatch(GATE_UP.format(w.gate.format), grid, &args, &buffers)?;
    }
    for part in &w.down.parts {
        let args = Args {
            first: (part.first / w.down.each) as u32,
            count: (part.rows / w.down.each) as u32,
            codes: part.codes,
            scales: part.scales,
            other_codes: 0,
            other_scales: 0,
            clamp: w.clamp,
            pad: 0,
        };
        let grid = [n_embd.div_ceil(DOWN_ROWS) as u32, pairs, 1];
        let mut buffers = vec![&routing.ids, &mid, &part.data, &down];
        let table = gpu.iq2_grid.clone();
        if w.down.format == Format::Iq2 {
            buffers.push(&table);
        }
        gpu.dispatch(DOWN.format(w.down.format), grid, &args, &buffers)?;
    }
    let input = Matrix { data: &routing.shared, stride: ff };
    gpu.products(step.n, &[Product::new(&w.shared_down, 0)], input, Out::Rows(Matrix { data: &y, stride: n_embd }))?;
    let grid = [n_embd.div_ceil(256) as u32, step.n as u32, 1];
    let args = Args { first: 0, count: 0, codes: 0, scales: 0, other_codes: 0, other_scales: 0, clamp: 0.0, pad: 0 };
    gpu.dispatch(SUM, grid, &args, &[&down, &y, mix, streams])
}
