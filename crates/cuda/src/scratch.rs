//! Memory that stages use among themselves, allocated once for the most rows a step can have.

use std::sync::Arc;

use ds4_model::{HC, Limits, Result, Shape};

use crate::backend::SMALL;
use crate::dense::packed_bytes;
use crate::device::{Buffer, Device};
use crate::{attention, experts, gemm, hc, indexer};

/// Floats that alignment between sums can cost.
const SLACK: usize = 64;
/// Most rows of logits of one step (model/src/workspace.rs).
const LOGIT_ROWS: usize = 64;

pub(crate) struct Scratch {
    /// Sums of products before the stage that made them finishes them.
    pub(crate) sums: Buffer,
    /// Attention's output between its two products, `[rows][n_out_group * out_lora_dim]`.
    pub(crate) low: Buffer,
    /// Sums of the mixing products.
    pub(crate) partial: Buffer,
    /// What a sublayer adds to the streams, `[rows][n_embd]`.
    pub(crate) y: Buffer,
    /// Rows of a product of few rows, packed.
    pub(crate) packed: Buffer,
    /// Rows of long products, packed as f16.
    pub(crate) packed_rows: Buffer,
    /// Gated middles of the routed experts: `[pairs][ff_dim]` float32 of short steps, packed f16 of long ones.
    pub(crate) mid: Buffer,
    /// What each routed expert adds, `[pairs][n_embd]`.
    pub(crate) down: Buffer,
    /// Groups of a short step's tokens by expert.
    pub(crate) groups: Buffer,
    /// Of a long step: number of tiles and packed rows; pairs, their weights, tiles.
    pub(crate) tile_head: Buffer,
    pub(crate) order: Buffer,
    pub(crate) route: Buffer,
    pub(crate) tiles: Buffer,
    /// Unnormed sums of attention by part, `[part][n_head][head_dim]`, and their maxima and totals.
    pub(crate) parts: Buffer,
    pub(crate) stats: Buffer,
    /// Indexer scores, how many there may be, best rows of their slices, packed queries.
    pub(crate) scores: Buffer,
    pub(crate) n_scores: usize,
    pub(crate) candidates: Buffer,
    pub(crate) packed_queries: Buffer,
    /// Inputs of the vocabulary projection, `[logits][n_embd]`.
    pub(crate) head: Buffer,
}

impl Scratch {
    pub(crate) fn new(device: &Arc<Device>, s: &Shape, limits: Limits, draft: bool) -> Result<Scratch> {
        let rows = limits.max_rows as usize;
        // Compressed layers with an indexer have most products of the attention input.
        let projected = s.q_lora_dim + s.head_dim + 4 * s.head_dim + 4 * s.index_dim + s.n_index_head;
        let routed = 2 * s.n_expert + 2 * s.ff_dim;
        let drafted = if draft { HC * s.n_embd } else { 0 };
        let widest = projected.max(routed);
        // Short steps leave up to four sums for each output.
        let sums = (rows.min(SMALL) * (4 * widest).max(drafted)).max(rows * widest.max(drafted)) + SLACK;
        let floats = |n: usize| device.alloc(4 * n);
        let (pairs, few) = (rows * s.n_expert_used, rows.min(SMALL) * s.n_expert_used);
        let packed_rows = experts::packed_rows(s, rows);
        let widest_input = (s.n_head * s.head_dim).max(s.n_out_group * s.out_lora_dim).max(HC * s.n_embd);
        let dense_packed = 2 * widest_input * rows.next_multiple_of(gemm::PADDING);
        let parts = attention::most_parts(s) * s.n_head;
        let (n_scores, candidates, packed_queries) = indexer::scratch(s, limits);
        Ok(Scratch {
            sums: floats(sums)?,
            low: floats(rows * (s.n_out_group * s.out_lora_dim).max(s.n_embd))?,
            partial: floats(hc::partial_floats(s.n_embd, rows))?,
            y: floats(rows * s.n_embd)?,
            packed_rows: device.alloc(dense_packed.max(2 * packed_rows * s.n_embd))?,
            mid: device.alloc((4 * few * s.ff_dim).max(2 * packed_rows * s.ff_dim))?,
            down: floats(pairs * s.n_embd)?,
            groups: device.alloc(experts::groups_bytes(s))?,
            tile_head: device.alloc(8)?,
            order: floats(packed_rows)?,
            route: floats(packed_rows)?,
            tiles: device.alloc(16 * experts::tile_count(s, rows))?,
            parts: floats(parts * s.head_dim)?,
            stats: floats(2 * parts)?,
            scores: floats(n_scores)?,
            n_scores,
            candidates: floats(candidates)?,
            packed_queries: device.alloc(packed_queries)?,
            packed: device
                .alloc(packed_bytes((s.n_head * s.head_dim).max(HC * s.n_embd).max(s.n_out_group * s.out_lora_dim)))?,
            head: floats(LOGIT_ROWS * s.n_embd)?,
        })
    }
}
