//! Memory that stages use among themselves, allocated once for the most rows a step can have.

use std::sync::Arc;

use ds4_model::{HC, Limits, Result, Shape};

use crate::backend::SMALL;
use crate::dense::packed_bytes;
use crate::device::{Buffer, Device};

/// Most rows of logits of one step (model/src/workspace.rs).
const LOGIT_ROWS: usize = 64;

pub(crate) struct Scratch {
    /// Sums of products before the stage that made them finishes them.
    pub(crate) sums: Buffer,
    /// Attention's output between its two products, `[rows][n_out_group * out_lora_dim]`.
    pub(crate) low: Buffer,
    /// What a sublayer adds to the streams, `[rows][n_embd]`.
    pub(crate) y: Buffer,
    /// Rows of a product of few rows, packed.
    pub(crate) packed: Buffer,
    /// Inputs of the vocabulary projection, `[logits][n_embd]`.
    pub(crate) head: Buffer,
}

impl Scratch {
    pub(crate) fn new(device: &Arc<Device>, s: &Shape, limits: Limits, draft: bool) -> Result<Scratch> {
        let rows = limits.max_rows as usize;
        // Compressed layers with an indexer have most products of the attention input.
        let projected = s.q_lora_dim + s.head_dim + 4 * s.head_dim + 4 * s.index_dim + s.n_index_head;
        let routed = s.n_expert + 2 * s.ff_dim;
        let drafted = if draft { HC * s.n_embd } else { 0 };
        let widest = projected.max(routed);
        // Short steps leave up to four sums for each output.
        let sums = (rows.min(SMALL) * (4 * widest).max(drafted)).max(rows * widest.max(drafted));
        let floats = |n: usize| device.alloc(4 * n);
        Ok(Scratch {
            sums: floats(sums)?,
            low: floats(rows * (s.n_out_group * s.out_lora_dim).max(s.n_embd))?,
            y: floats(rows * s.n_embd)?,
            packed: device
                .alloc(packed_bytes((s.n_head * s.head_dim).max(HC * s.n_embd).max(s.n_out_group * s.out_lora_dim)))?,
            head: floats(LOGIT_ROWS * s.n_embd)?,
        })
    }
}
