//! Stage `embed`.

use bytemuck::{Pod, Zeroable};
use ds4_model::{Result, Step};

use crate::backend::Wgpu;
use crate::device::Buffer;
use crate::program::Kernel;
use crate::weight::Weight;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Args {
    table: u32,
    first: u32,
    count: u32,
    format: u32,
}

pub(crate) const EMBED: Kernel = Kernel::new("embed", &[]);

pub(crate) fn embed(gpu: &mut Wgpu, step: &Step<Buffer>, table: &Weight, streams: &Buffer) -> Result<()> {
    for part in &table.parts {
        let args =
            Args { table: part.codes, first: part.first as u32, count: part.rows as u32, format: table.format as u32 };
        gpu.dispatch(EMBED, [step.n as u32, 1, 1], &args, &[&step.rows, &part.data, streams])?;
    }
    Ok(())
}
