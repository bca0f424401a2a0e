//! Activations that cross a stage edge, allocated once for the most rows a step can have.

use crate::{HC, Limits, Result, Shape, Step};

/// Most rows of logits one step produces; a batch that asks for more runs as several steps.
pub(crate) const MAX_LOGIT_ROWS: usize = 64;

/// Outputs of stage `project`.
#[derive(Debug)]
pub struct LowRank<Buf> {
    /// Normed low-rank query, `[rows][q_lora_dim]`
    pub q: Buf,
    /// Attention compressor inputs, `[rows][value w][gate w]` with `w = Shape::pooled_dim(ratio, head_dim)`
    pub pooled: Buf,
    /// Indexer compressor inputs, `[rows][value w][gate w]` with `w = Shape::pooled_dim(4, index_dim)`
    pub index_pooled: Buf,
    /// Indexer head weights, scaled, `[rows][n_index_head]`
    pub index_weights: Buf,
}

/// Outputs of stage `query`.
#[derive(Debug)]
pub struct Queries<Buf> {
    /// `[rows][n_head][head_dim]`
    pub heads: Buf,
    /// `[rows][n_index_head][index_dim]`
    pub index: Buf,
}

/// Outputs of stage `route`.
#[derive(Debug)]
pub struct Routing<Buf> {
    /// Expert ids, `[rows][n_expert_used]` u32
    pub ids: Buf,
    /// Expert weights, `[rows][n_expert_used]`
    pub weights: Buf,
    /// Gated middle of the shared expert, `[rows][ff_dim]`
    pub shared: Buf,
}

/// Everything a step writes besides the cache.
#[derive(Debug)]
pub struct Workspace<Buf> {
    /// Rows of the step.
    pub step: Step<Buf>,
    /// `[rows][HC][n_embd]`
    pub streams: Buf,
    /// Collapsed, normed sublayer input, `[rows][n_embd]`
    pub x: Buf,
    /// Post weights and Sinkhorn matrix, `[rows][HC + HC * HC]`
    pub mix: Buf,
    /// Outputs of `project`.
    pub low: LowRank<Buf>,
    /// Outputs of `query`.
    pub q: Queries<Buf>,
    /// Chosen compressed rows, `[rows][index_top_k]` u32
    pub selected: Buf,
    /// Attention output, `[rows][n_head * head_dim]`
    pub heads: Buf,
    /// Outputs of `route`.
    pub routing: Routing<Buf>,
    /// `[MAX_LOGIT_ROWS][n_vocab]`
    pub logits: Buf,
    /// Rows that the step adds to the draft block's window; present if there is one.
    pub prime: Option<Step<Buf>>,
}

impl<Buf> Workspace<Buf> {
    /// Asks `alloc` for every buffer; the argument is a size in bytes. `draft` says whether there is a draft block.
    pub fn allocate(
        s: &Shape,
        limits: Limits,
        draft: bool,
        alloc: &mut dyn FnMut(usize) -> Result<Buf>,
    ) -> Result<Workspace<Buf>> {
        let n = limits.max_rows as usize;
        let mut rows = |width: usize| alloc(4 * n * width);
        let pooled = |width: usize| 2 * Shape::pooled_dim(4, width);
        Ok(Workspace {
            step: Step { rows: rows(8)?, n: 0, logits: 0, context: 0 },
            prime: if draft { Some(Step { rows: rows(8)?, n: 0, logits: 0, context: 0 }) } else { None },
            streams: rows(HC * s.n_embd)?,
            x: rows(s.n_embd)?,
            mix: rows(HC + HC * HC)?,
            low: LowRank {
                q: rows(s.q_lora_dim)?,
                pooled: rows(pooled(s.head_dim))?,
                index_pooled: rows(pooled(s.index_dim))?,
                index_weights: rows(s.n_index_head)?,
            },
            q: Queries { heads: rows(s.n_head * s.head_dim)?, index: rows(s.n_index_head * s.index_dim)? },
            selected: rows(s.index_top_k)?,
            heads: rows(s.n_head * s.head_dim)?,
            routing: Routing { ids: rows(s.n_expert_used)?, weights: rows(s.n_expert_used)?, shared: rows(s.ff_dim)? },
            logits: alloc(4 * n.min(MAX_LOGIT_ROWS) * s.n_vocab)?,
        })
    }

    /// Bytes that [`Workspace::allocate`] asks for.
    pub fn bytes(s: &Shape, limits: Limits, draft: bool) -> u64 {
        let mut total = 0;
        Workspace::allocate(s, limits, draft, &mut |bytes| {
            total += bytes as u64;
            Ok(())
        })
        .expect("counting bytes cannot fail");
        total
    }
}
