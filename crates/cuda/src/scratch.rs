//! Memory that stages use among themselves, allocated once for the most rows a step can have.

use ds4_model::{HC, Limits, Result, Shape};

use crate::backend::SMALL;
use crate::dense::packed_bytes;
use crate::device::Buffer;
use crate::{attention, best, experts, gemm, hc, indexer};

/// Floats that alignment between sums can cost.
const SLACK: usize = 64;
/// Most rows of logits of one step (model/src/workspace.rs).
pub(crate) const LOGIT_ROWS: usize = 64;

pub(crate) struct Scratch<Buf = Buffer> {
    /// Sums of products before the stage that made them finishes them.
    pub(crate) sums: Buf,
    /// Attention's output between its two products, `[rows][n_out_group * out_lora_dim]`.
    pub(crate) low: Buf,
    /// Sums of the mixing products.
    pub(crate) partial: Buf,
    /// What a sublayer adds to the streams, `[rows][n_embd]`.
    pub(crate) y: Buf,
    /// Rows of a product of few rows, packed.
    pub(crate) packed: Buf,
    /// Rows of long products, packed as f16.
    pub(crate) packed_rows: Buf,
    /// Gated middles of the routed experts: `[pairs][ff_dim]` float32 of short steps, packed f16 of long ones.
    pub(crate) mid: Buf,
    /// What each routed expert adds, `[pairs][n_embd]`.
    pub(crate) down: Buf,
    /// Groups of a short step's tokens by expert.
    pub(crate) groups: Buf,
    /// Of a long step: number of tiles and packed rows; pairs, their weights, tiles.
    pub(crate) tile_head: Buf,
    pub(crate) order: Buf,
    pub(crate) route: Buf,
    pub(crate) tiles: Buf,
    /// Unnormed sums of attention by part, `[part][n_head][head_dim]`, and their maxima and totals.
    pub(crate) parts: Buf,
    pub(crate) stats: Buf,
    /// Indexer scores, how many there may be, best rows of their slices, packed queries.
    pub(crate) scores: Buf,
    pub(crate) n_scores: usize,
    pub(crate) candidates: Buf,
    pub(crate) packed_queries: Buf,
    /// Inputs of the vocabulary projection, `[logits][n_embd]`.
    pub(crate) head: Buf,
    /// Best tokens of the rows of logits, and what their parts leave.
    pub(crate) best: Buf,
    pub(crate) best_parts: Buf,
}

impl<Buf> Scratch<Buf> {
    /// Asks `alloc` for every buffer; the argument is a size in bytes. `draft` says whether there is a draft block.
    pub(crate) fn allocate(
        s: &Shape,
        limits: Limits,
        draft: bool,
        alloc: &mut dyn FnMut(usize) -> Result<Buf>,
    ) -> Result<Scratch<Buf>> {
        let rows = limits.max_rows as usize;
        // Compressed layers with an indexer have most products of the attention input.
        let projected = s.q_lora_dim + s.head_dim + 4 * s.head_dim + 4 * s.index_dim + s.n_index_head;
        let routed = 2 * s.n_expert + 2 * s.ff_dim;
        let drafted = if draft { HC * s.n_embd } else { 0 };
        let widest = projected.max(routed);
        // Short steps leave up to four sums for each output.
        let sums = (rows.min(SMALL) * (4 * widest).max(drafted)).max(rows * widest.max(drafted)) + SLACK;
        let (pairs, few) = (rows * s.n_expert_used, rows.min(SMALL) * s.n_expert_used);
        let packed_rows = experts::packed_rows(s, rows);
        let widest_input = (s.n_head * s.head_dim).max(s.n_out_group * s.out_lora_dim).max(HC * s.n_embd);
        let dense_packed = 2 * widest_input * rows.next_multiple_of(gemm::PADDING);
        let parts = attention::most_parts(s) * s.n_head;
        let (n_scores, candidates, packed_queries) = indexer::scratch(s, limits);
        Ok(Scratch {
            sums: alloc(4 * sums)?,
            low: alloc(4 * rows * (s.n_out_group * s.out_lora_dim).max(s.n_embd))?,
            partial: alloc(4 * hc::partial_floats(s.n_embd, rows))?,
            y: alloc(4 * rows * s.n_embd)?,
            packed_rows: alloc(dense_packed.max(2 * packed_rows * s.n_embd))?,
            mid: alloc((4 * few * s.ff_dim).max(2 * packed_rows * s.ff_dim))?,
            down: alloc(4 * pairs * s.n_embd)?,
            groups: alloc(experts::groups_bytes(s))?,
            tile_head: alloc(8)?,
            order: alloc(4 * packed_rows)?,
            route: alloc(4 * packed_rows)?,
            tiles: alloc(16 * experts::tile_count(s, rows))?,
            parts: alloc(4 * parts * s.head_dim)?,
            stats: alloc(4 * 2 * parts)?,
            scores: alloc(4 * n_scores)?,
            n_scores,
            candidates: alloc(4 * candidates)?,
            packed_queries: alloc(packed_queries)?,
            packed: alloc(packed_bytes(
                (s.n_head * s.head_dim).max(HC * s.n_embd).max(s.n_out_group * s.out_lora_dim),
            ))?,
            head: alloc(4 * LOGIT_ROWS * s.n_embd)?,
            best: alloc(best::BEST)?,
            best_parts: alloc(best::PARTS_BYTES)?,
        })
    }
}
