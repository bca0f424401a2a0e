//! The inner seam: one device. A stage enqueues its work and returns; nothing in it reads back, waits, or takes
//! a token, position or length from the host. So a step can be run, recorded in one submission, or captured once as a
//! graph and replayed, by the same text.

use ds4_gguf::Tensor;

use crate::{
    AttnOutputWeights, Best, Class, Compressed, CompressorWeights, DraftEmbedWeights, ExpertWeights, GraphKey,
    HeadWeights, HyperConnection, LayerKv, LowRank, ProjectWeights, Queries, QueryWeights, Result, RouteWeights,
    Routing, Rows, Step,
};

/// The stages, in the order a layer runs them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the methods of `Backend` of the same names document them")]
pub enum Stage {
    Embed,
    HcPre,
    Project,
    Query,
    Compress,
    Select,
    Attend,
    AttnOutput,
    Route,
    Experts,
    Head,
    KeepStreams,
    DraftEmbed,
}

/// A device: memory, the eleven stages of model.md, and two more for a draft block. Activations are float32,
/// `[rows][width]`; arguments are the step, weights, inputs, then outputs. A backend is opened for one [`crate::Shape`] and one [`crate::Numerics`].
pub trait Backend: Send + Sized {
    /// Most rows of a step whose rows come out the same, bit for bit, in whatever company: with other rows or without. Longer
    /// steps may round differently. Rows that decode are never put into a longer step.
    const SMALL_STEP: usize = usize::MAX;

    /// Device memory: activations, cache rows, step parameters.
    type Buffer: Send + Sync;
    /// One tensor in the layout this device likes best.
    type Weight: Send + Sync;

    /// Zeroed memory.
    fn alloc(&mut self, bytes: usize) -> Result<Self::Buffer>;
    /// Brings a tensor to the device in the layout that suits its role; the view keeps the mapped file alive as long as it is
    /// held.
    fn upload(&mut self, tensor: &Tensor, class: Class) -> Result<Self::Weight>;
    /// Writes `src` at byte `at`, ordered before everything submitted later.
    fn write(&mut self, dst: &mut Self::Buffer, at: usize, src: &[u8]) -> Result<()>;
    /// Waits for everything submitted, then copies bytes from `at` on.
    fn read(&mut self, src: &Self::Buffer, at: usize, dst: &mut [u8]) -> Result<()>;
    /// Copies `len` bytes at `from` to `at` of the same buffer, where they do not overlap; ordered like [`Backend::write`]. A
    /// device that can do so by itself spares the way through the host.
    fn copy(&mut self, buffer: &mut Self::Buffer, from: usize, at: usize, len: usize) -> Result<()> {
        let mut bytes = vec![0; len];
        self.read(buffer, from, &mut bytes)?;
        self.write(buffer, at, &bytes)
    }
    /// Waits for everything submitted, then brings [`Best::of`] each of the first `best.len()` rows of `logits`, the `[rows][n_vocab]`
    /// that [`Backend::head`] wrote. A device that can choose by itself spares the logits the way to the host.
    fn best(&mut self, logits: &Self::Buffer, n_vocab: usize, best: &mut [Best]) -> Result<()> {
        let mut rows = vec![0f32; best.len() * n_vocab];
        self.read(logits, 0, bytemuck::cast_slice_mut(&mut rows))?;
        best.iter_mut().zip(rows.chunks(n_vocab)).for_each(|(best, row)| *best = Best::of(row));
        Ok(())
    }
    /// Runs one step. With a key the device may record once and replay; `record` is then not called again.
    fn submit(&mut self, key: Option<GraphKey>, record: impl FnOnce(&mut Self) -> Result<()> + Send) -> Result<()>;

    /// The token's row, copied into each hyper-connection stream: `streams [rows][HC][n_embd]` (model.md 3).
    fn embed(&mut self, step: &Step<Self::Buffer>, table: &Self::Weight, streams: &mut Self::Buffer) -> Result<()>;

    /// Collapses the streams and norms the result: `x [rows][n_embd]`; what the matching post step needs goes to
    /// `mix [rows][HC + HC * HC]`, post weights then the Sinkhorn matrix (model.md 3).
    fn hc_pre(
        &mut self,
        step: &Step<Self::Buffer>,
        w: &HyperConnection<Self::Weight>,
        streams: &Self::Buffer,
        x: &mut Self::Buffer,
        mix: &mut Self::Buffer,
    ) -> Result<()>;

    /// Every product of the attention input: the normed low-rank query, the ring rows of the window (norm, rotation,
    /// rounding), both compressors' values and gates, the indexer's head weights (model.md 5.1, 6.1, 7).
    fn project(
        &mut self,
        step: &Step<Self::Buffer>,
        w: &ProjectWeights<Self::Weight>,
        x: &Self::Buffer,
        low: &mut LowRank<Self::Buffer>,
        window: &mut Rows<Self::Buffer>,
    ) -> Result<()>;

    /// Every product of the low-rank query: normed and rotated heads; rotated, transformed and rounded indexer heads.
    /// The latter only for rows that have something to select.
    fn query(
        &mut self,
        step: &Step<Self::Buffer>,
        w: &QueryWeights<Self::Weight>,
        low: &LowRank<Self::Buffer>,
        q: &mut Queries<Self::Buffer>,
    ) -> Result<()>;

    /// Appends the rows whose windows close in this step and carries the open windows in the frontiers (model.md 6).
    fn compress(
        &mut self,
        step: &Step<Self::Buffer>,
        w: &CompressorWeights<Self::Weight>,
        low: &LowRank<Self::Buffer>,
        out: &mut Compressed<Self::Buffer>,
    ) -> Result<()>;

    /// Lightning-indexer scores and exact top-k of each row's visible rows, ascending; ties go to the lower row. Rows
    /// that see at most `index_top_k` rows are left alone: everything is selected (model.md 7).
    /// `selected [rows][index_top_k]` u32.
    fn select(
        &mut self,
        step: &Step<Self::Buffer>,
        low: &LowRank<Self::Buffer>,
        q: &Queries<Self::Buffer>,
        rows: &Compressed<Self::Buffer>,
        selected: &mut Self::Buffer,
    ) -> Result<()>;

    /// Attention over window, compressed and selected rows with sinks, and the inverse rotation of its output:
    /// `heads [rows][n_head * head_dim]` (model.md 5.2, 5.3).
    fn attend(
        &mut self,
        step: &Step<Self::Buffer>,
        sinks: &Self::Weight,
        q: &Queries<Self::Buffer>,
        kv: &LayerKv<Self::Buffer>,
        selected: &Self::Buffer,
        heads: &mut Self::Buffer,
    ) -> Result<()>;

    /// Grouped low-rank output and the hyper-connection post step into `streams` (model.md 5.4, 3).
    fn attn_output(
        &mut self,
        step: &Step<Self::Buffer>,
        w: &AttnOutputWeights<Self::Weight>,
        heads: &Self::Buffer,
        mix: &Self::Buffer,
        streams: &mut Self::Buffer,
    ) -> Result<()>;

    /// Chosen experts and their weights, and the shared expert's gated middle (also products of `x`) (model.md 8).
    fn route(
        &mut self,
        step: &Step<Self::Buffer>,
        w: &RouteWeights<Self::Weight>,
        x: &Self::Buffer,
        routing: &mut Routing<Self::Buffer>,
    ) -> Result<()>;

    /// Routed experts, the shared expert's down projection, their sum, and the hyper-connection post step into
    /// `streams` (model.md 8, 3).
    fn experts(
        &mut self,
        step: &Step<Self::Buffer>,
        w: &ExpertWeights<Self::Weight>,
        x: &Self::Buffer,
        routing: &Routing<Self::Buffer>,
        mix: &Self::Buffer,
        streams: &mut Self::Buffer,
    ) -> Result<()>;

    /// Collapse, norm and vocabulary projection of the rows that want logits: `logits [wanted][n_vocab]` (model.md 9).
    /// `output` is the vocabulary matrix, which the main model and its draft block share.
    fn head(
        &mut self,
        step: &Step<Self::Buffer>,
        w: &HeadWeights<Self::Weight>,
        output: &Self::Weight,
        streams: &Self::Buffer,
        logits: &mut Self::Buffer,
    ) -> Result<()>;

    /// Copies the streams of each row to the ring row of its `StepRow::state`. Of a span longer than the ring only the last
    /// rows are kept: those with `end - pos` at most `hidden.per_slot`.
    fn keep_streams(
        &mut self,
        step: &Step<Self::Buffer>,
        streams: &Self::Buffer,
        hidden: &mut Rows<Self::Buffer>,
    ) -> Result<()>;

    /// The draft block's input: the normed and projected row of the token, added to each normed and projected stream of the
    /// state kept for `pos`: `streams [rows][HC][n_embd]` (model.md 12.1).
    fn draft_embed(
        &mut self,
        step: &Step<Self::Buffer>,
        w: &DraftEmbedWeights<Self::Weight>,
        table: &Self::Weight,
        hidden: &Rows<Self::Buffer>,
        streams: &mut Self::Buffer,
    ) -> Result<()>;
}
