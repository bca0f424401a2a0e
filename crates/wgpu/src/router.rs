//! Stage `route`.

use bytemuck::{Pod, Zeroable};
use ds4_model::{Result, RouteChoice, RouteWeights, Routing, Step};

use crate::backend::Wgpu;
use crate::dense::{Finish, Matrix, Out, Product};
use crate::device::Buffer;
use crate::program::{BATCH, Kernel};
use crate::weight::Weight;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Own {
    choice: u32,
    hashed: u32,
    clamp: f32,
    pad: [u32; 5],
}

pub(crate) const ROUTE: Kernel = Kernel::new("route", &[]);
pub(crate) const FUSED: [Kernel; 2] =
    [Kernel::new("dense", &["ROUTE", "FUSED"]), Kernel::new("dense", &["ROUTE", "FUSED", "MANY"]).variant(BATCH)];

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
    let (hashed, choice) = match &w.choice {
        RouteChoice::Hashed(table) => (1, table.at()),
        RouteChoice::Biased(bias) => (0, bias.at()),
    };
    let own = Own { choice, hashed, clamp: w.clamp, pad: [0; 5] };
    let (values, tickets) = (gpu.values.clone(), gpu.scratch.tickets.clone());
    let buffers = [&step.rows, &sums, &values, &routing.ids, &routing.weights, &routing.shared];
    let (input, stride) = (Matrix { data: x, stride: n_embd }, n_expert + 2 * ff);
    if gpu.finishes(step.n, &products) {
        let buffers = &[&buffers[..], &[&tickets]].concat();
        let finish = Finish { kernels: FUSED, own: bytemuck::cast(own), stride, waits: false, buffers };
        return gpu.products(step.n, &products, input, Out::Finished(finish));
    }
    gpu.products(step.n, &products, input, Out::Rows(Matrix { data: &sums, stride }))?;
    gpu.dispatch(ROUTE, [step.n as u32, 1 + ff.div_ceil(128) as u32, 1], &own, &buffers)
}
