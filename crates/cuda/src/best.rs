//! The best token of each row of logits, chosen where the logits are. No part of a recorded step: it follows one that asks for it.

use bytemuck::{Pod, Zeroable};
use ds4_model::{Best, Result};

use crate::backend::Cuda;
use crate::device::Buffer;
use crate::launch::Grid;
use crate::scratch::LOGIT_ROWS;

/// Blocks that look through one row: enough that one row alone is read at once, from all over the second-level cache.
const PARTS: u32 = 32;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct BestArgs {
    logits: u64,
    candidates: u64,
    best: u64,
    n_vocab: u32,
    parts: u32,
}
const _: () = assert!(size_of::<BestArgs>() == 32 && size_of::<Best>() == 8);

/// Bytes of what the blocks leave to each other, and of the result.
pub(crate) const PARTS_BYTES: usize = 8 * LOGIT_ROWS * PARTS as usize;
pub(crate) const BEST: usize = size_of::<Best>() * LOGIT_ROWS;

/// Enqueues the choice for `rows` rows; [`Best`] of each goes to `scratch.best`.
pub(crate) fn best(cuda: &mut Cuda, logits: &Buffer, n_vocab: usize, rows: usize) -> Result<()> {
    assert!(rows <= LOGIT_ROWS, "a step has no more rows of logits");
    let args = BestArgs {
        logits: logits.ptr(),
        candidates: cuda.scratch.best_parts.ptr(),
        best: cuda.scratch.best.ptr(),
        n_vocab: n_vocab as u32,
        parts: PARTS,
    };
    cuda.launch("best_part", Grid::new(PARTS, rows as u32, 256), &args)?;
    cuda.launch("best_row", Grid::new(rows as u32, 1, 32), &args)
}
