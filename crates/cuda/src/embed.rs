//! Stage `embed`.

use bytemuck::{Pod, Zeroable};
use ds4_model::{Result, Step};

use crate::backend::Cuda;
use crate::device::Buffer;
use crate::launch::Grid;
use crate::weight::Weight;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct EmbedArgs {
    step: u64,
    table: u64,
    streams: u64,
}
const _: () = assert!(size_of::<EmbedArgs>() == 24);

pub(crate) fn embed(cuda: &mut Cuda, step: &Step<Buffer>, table: &Weight, streams: &Buffer) -> Result<()> {
    let args = EmbedArgs { step: step.rows.ptr(), table: table.ptr(), streams: streams.ptr() };
    cuda.launch("embed", Grid::new(step.n as u32, 1, 256), &args)
}
