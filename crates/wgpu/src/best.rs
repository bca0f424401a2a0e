//! The best token of each row of logits, chosen where the logits are. No part of a step: it follows one that asks for it.

use bytemuck::{Pod, Zeroable};
use ds4_model::{Best, Result};

use crate::backend::Wgpu;
use crate::device::Buffer;
use crate::program::Kernel;
use crate::scratch::LOGIT_ROWS;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Args {
    n_vocab: u32,
    pad: [u32; 3],
}

pub(crate) const PART: Kernel = Kernel::new("best_part", &["PART"]);
pub(crate) const ROW: Kernel = Kernel::new("best_row", &[]);

/// Workgroups that look through one row, as in `best.wgsl`.
const PARTS: usize = 32;

/// Bytes of what they leave, and of the result.
pub(crate) const CANDIDATES: usize = BEST * PARTS;
pub(crate) const BEST: usize = size_of::<Best>() * LOGIT_ROWS;

/// Records the choice for `rows` rows; [`Best`] of each goes to `scratch.best`.
pub(crate) fn best(gpu: &mut Wgpu, logits: &Buffer, n_vocab: usize, rows: usize) -> Result<()> {
    let (candidates, best) = (gpu.scratch.candidates.clone(), gpu.scratch.best.clone());
    let args = Args { n_vocab: n_vocab as u32, pad: [0; 3] };
    gpu.dispatch(PART, [PARTS as u32, rows as u32, 1], &args, &[logits, &candidates])?;
    gpu.dispatch(ROW, [rows as u32, 1, 1], &[0u32; 0], &[&candidates, &best])
}
