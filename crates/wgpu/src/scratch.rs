//! Memory that stages use among themselves, allocated once for the most rows a step can have.

use ds4_model::{HC, Limits, Result, Shape};

use crate::device::Buffer;
use crate::{attention, best, experts, indexer};

/// Most rows of logits of one step (model/src/workspace.rs).
pub(crate) const LOGIT_ROWS: usize = 64;

pub(crate) struct Scratch<Buf = Buffer> {
    /// Sums of products before the stage that made them finishes them.
    pub(crate) sums: Buf,
    /// Attention's output between its two products, `[rows][n_out_group * out_lora_dim]`; normed tokens of a draft block.
    pub(crate) low: Buf,
    /// Sums of the mixing products, `[rows][HC * n_embd / 1024][32]`.
    pub(crate) partial: Buf,
    /// The shared expert's output or a projected token, `[rows][n_embd]`.
    pub(crate) y: Buf,
    /// Inputs of the routed experts of a long step in float16, `[rows][n_embd]`.
    pub(crate) halves: Buf,
    /// Gated middles of the routed experts, `[pairs][ff_dim]`.
    pub(crate) mid: Buf,
    /// What each routed expert adds, `[pairs][n_embd]`.
    pub(crate) down: Buf,
    /// Of a long step: pairs by expert, and tiles of them.
    pub(crate) order: Buf,
    pub(crate) tiles: Buf,
    /// Sums of attention by part.
    pub(crate) parts: Buf,
    /// Indexer scores.
    pub(crate) scores: Buf,
    /// How many workgroups have arrived where the last goes on; zero between dispatches.
    pub(crate) tickets: Buf,
    /// Inputs of the vocabulary projection, `[logits][n_embd]`.
    pub(crate) head: Buf,
    /// The best tokens of a step, before and after the last choice.
    pub(crate) candidates: Buf,
    pub(crate) best: Buf,
    /// Normed states of a draft block, `[rows][HC][n_embd]`.
    pub(crate) states: Buf,
}

impl<Buf> Scratch<Buf> {
    /// Asks `alloc` for every buffer; the argument is a size in bytes. `draft` says whether there is a draft block, `binding`
    /// how much one buffer may have.
    pub(crate) fn allocate(
        s: &Shape,
        limits: Limits,
        draft: bool,
        binding: u64,
        alloc: &mut dyn FnMut(usize) -> Result<Buf>,
    ) -> Result<Scratch<Buf>> {
        let rows = limits.max_rows as usize;
        let projected = s.q_lora_dim + s.head_dim + 4 * s.head_dim + 4 * s.index_dim + s.n_index_head;
        let routed = s.n_expert + 2 * s.ff_dim;
        let pairs = rows * s.n_expert_used;
        Ok(Scratch {
            sums: alloc(4 * rows * projected.max(routed))?,
            low: alloc(4 * rows * (s.n_out_group * s.out_lora_dim).max(s.n_embd))?,
            partial: alloc(4 * rows * (HC * s.n_embd / 1024) * 32)?,
            y: alloc(4 * rows * s.n_embd)?,
            halves: alloc(2 * rows * s.n_embd)?,
            mid: alloc(4 * pairs * s.ff_dim)?,
            down: alloc(4 * pairs * s.n_embd)?,
            order: alloc(4 * pairs)?,
            tiles: alloc(16 * (1 + experts::most_tiles(s, rows)))?,
            parts: alloc(4 * attention::scratch(s, limits, binding))?,
            scores: alloc(4 * indexer::scratch(limits, binding))?,
            tickets: alloc(4 * rows * (s.n_head + s.n_index_head).max(1 + s.ff_dim / 16))?,
            head: alloc(4 * LOGIT_ROWS.min(rows) * s.n_embd)?,
            candidates: alloc(best::CANDIDATES)?,
            best: alloc(best::BEST)?,
            states: alloc(if draft { 4 * rows * HC * s.n_embd } else { 16 })?,
        })
    }
}
