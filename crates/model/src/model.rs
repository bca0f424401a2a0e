//! The outer seam: a loaded model on some device, one call a step.

use std::io::{Read, Write};
use std::ops::Range;

use crate::{Batch, Best, DraftRow, Error, Part, Result, Shape, SlotId};

/// What a model was opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Tokens a slot can hold.
    pub context: u32,
    /// Sequences the cache holds side by side.
    pub slots: u32,
    /// Most rows of one forward call.
    pub max_rows: u32,
    /// Positions that can be taken back for free: continuing at `m` after positions up to `n - 1` were written is exact
    /// if `n - m <= rewind` and `m` is not before the slot's last [`Model::load`].
    pub rewind: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { context: 32_768, slots: 1, max_rows: 512, rewind: 32 }
    }
}

/// Host or device bytes that a model needs, for the line printed before it loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Tensor data, mapped or uploaded.
    pub weights: u64,
    /// Cache rows and frontiers of all slots.
    pub kv: u64,
    /// Activations of `max_rows` rows.
    pub scratch: u64,
    /// The largest buffer, weights apart, which can be cut; 0 where any size will do.
    pub piece: u64,
}

/// What the quantised variants of one model have in common, and which of them this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Variant {
    /// Equal for variants whose states fit each other: same shape, cache layout and unquantised weights.
    pub family: [u8; 32],
    /// Storage type of the first layer's routed experts, as its GGUF number; 0 if there is nothing to tell.
    pub quant: u8,
}

/// A loaded model. It keeps no positions: the caller says where each span starts.
pub trait Model: Send {
    /// Every dimension of the model.
    fn shape(&self) -> &Shape;

    /// What the cache was built for.
    fn limits(&self) -> Limits;

    /// Runs the batch and writes `batch.logit_rows() * n_vocab` logits, rows in span order. Rejects tokens outside the
    /// vocabulary, spans outside the context, slots that repeat, and more than `max_rows` rows.
    fn forward(&mut self, batch: &Batch<'_>, logits: &mut [f32]) -> Result<()>;

    /// The same step, of which only the best token of each wanted row is asked: `batch.logit_rows()` of them, rows in span
    /// order. They are [`Best::of`] the logits that [`Model::forward`] would have written; a device that can choose by itself
    /// spares those the way to the host. A row with a logit that is not finite is no error here: its [`Best::logit`] tells.
    fn forward_best(&mut self, batch: &Batch<'_>, best: &mut [Best]) -> Result<()> {
        let n_vocab = self.shape().n_vocab;
        let mut logits = vec![0.0; best.len() * n_vocab];
        self.forward(batch, &mut logits)?;
        best.iter_mut().zip(logits.chunks(n_vocab)).for_each(|(best, row)| *best = Best::of(row));
        Ok(())
    }

    /// Writes the state of the first `rows.end` tokens of `slot`; append-only rows from token `rows.start` on.
    /// `0..n` is a whole snapshot, `n..n` the window and the frontiers alone. With a draft block, its window and the state of
    /// the last token are part of both. Exactly [`Model::state_bytes`] bytes.
    fn save(&mut self, slot: SlotId, rows: Range<u32>, out: &mut dyn Write) -> Result<()>;

    /// Inverse of [`Model::save`]; append-only rows of tokens before `rows.start` must still be in the slot. After an
    /// error the slot holds nothing.
    fn load(&mut self, slot: SlotId, rows: Range<u32>, src: &mut dyn Read) -> Result<()>;

    /// Makes the state of the first `n` tokens of slot `from` that of slot `to` too, bit for bit. If `from` could not go on at
    /// `n`, only the append-only rows are worth anything; a [`Model::load`] of `n..n` makes them whole. After an error `to` holds
    /// nothing, and `from` what it held.
    fn copy(&mut self, from: SlotId, to: SlotId, n: u32) -> Result<()> {
        let mut state = Vec::new();
        self.save(from, 0..n, &mut state)?;
        self.load(to, 0..n, &mut state.as_slice())
    }

    /// Size of what [`Model::save`] writes.
    fn state_bytes(&self, rows: Range<u32>) -> u64;

    /// What [`Model::save`] writes for a state that ends at `n`, run by run: the sizes follow by [`Part::bytes`]. Every table of
    /// append-only rows has its run, whatever `n` is.
    fn parts(&self, n: u32) -> Vec<Part>;

    /// Identity of weights and numerics, the draft block's included: states are exchanged only between equal fingerprints.
    fn fingerprint(&self) -> [u8; 32];

    /// Its place among quantised variants of the same model. A model without any is a family of its own.
    fn variant(&self) -> Variant {
        Variant { family: self.fingerprint(), quant: 0 }
    }

    /// Whether a draft block is loaded.
    fn has_draft(&self) -> bool {
        false
    }

    /// Runs the draft block: `rows.len() * n_vocab` logits, one row for each draft. It leaves the state of `pos + 1` in the
    /// slot, so that the next draft of a chain names `pos + 1` and the token drawn here. What drafts leave behind is
    /// overwritten when the main model evaluates those positions; a chain reaches at most [`crate::MAX_DRAFT`] positions past
    /// the last evaluated one. Rejects tokens outside the vocabulary, positions outside the context, slots that repeat, and
    /// any draft when no draft block is loaded.
    fn draft(&mut self, rows: &[DraftRow], logits: &mut [f32]) -> Result<()> {
        let _ = (rows, logits);
        Err(Error::Batch("a draft, but no draft block is loaded".to_owned()))
    }
}
