//! Stage `route`.

use bytemuck::{Pod, Zeroable};
use ds4_model::{Result, RouteChoice, RouteWeights, Routing, Step};

use crate::backend::Wgpu;
use crate::dense::{Matrix, Out, Product};
use crate::device::Buffer;
use crate::program::Kernel;
use crate::weight::Weight;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Args {
    choice: u32,
    hashed: u32,
    clamp: f32,
    pad: u32,
}

pub(crate) const ROUTE: Kernel = Kernel::new("route", &[]);

pub(crate) fn route(
    gpu: &mut Wgpu,
    step: &Step<Buffer>,
    w: &RouteWeights<Weight>,
    x: &Buffer,
    routing: &Routing<Buffer>,
) -> Result<()> {
    let (n_embd, n_expert, ff) = (gpu.shape.n_embd, gpu.shape.n_expert, gpu.shape.ff_dim);
    let sums = gpu.scratch.sums.clone();
    let products =
        [Product::new(&w.gate, 0), Product::new(&w.shared_gate, n_expert), Product::new(&w.shared_up, n_expert + ff)];
    let out = Out::Rows(Matrix { data: &sums, stride: n_expert + 2 * ff });
    gpu.products(step.n, &products, Matrix { data: x, stride: n_embd }, out)?;
    let (hashed, choice) = match &w.choice {
        RouteChoice::Hashed(table) => (1, table.at()),
        RouteChoice::Biased(bias) => (0, bias.at()),
    };
    let args = Args { choice, hashed, clamp: w.clamp, pad: 0 };
    let values = gpu.values.clone();
    let grid = [step.n as u32, 1 + ff.div_ceil(256) as u32, 1];
    let buffers = [&step.rows, &sums, &values, &routing.ids, &routing.weights, &routing.shared];
    gpu.dispatch(ROUTE, grid, &args, &buffers)
}
