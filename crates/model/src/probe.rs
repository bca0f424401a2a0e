//! A backend that looks at another one and copies what its stages wrote. Wraps from outside, so the model text
//! has no hook for it.

use ds4_gguf::Tensor;

use crate::{
    AttnOutputWeights, Backend, Compressed, CompressorWeights, DraftEmbedWeights, ExpertWeights, GraphKey, HeadWeights,
    HyperConnection, LayerKv, LowRank, ProjectWeights, Queries, QueryWeights, Result, RouteWeights, Routing, Rows,
    Stage, Step,
};

/// What to do behind each stage.
pub trait Probe<B: Backend>: Send {
    /// Called after a stage with the buffer it wrote last and the rows of the step.
    fn after(&mut self, backend: &mut B, stage: Stage, out: &B::Buffer, rows: usize) -> Result<()>;
}

/// `B`, probed by `P`. Steps are never replayed, so that every stage is seen.
pub struct Probed<B, P> {
    inner: B,
    /// The probe and what it has gathered.
    pub probe: P,
}

impl<B, P> Probed<B, P> {
    /// Wraps a backend.
    pub fn new(inner: B, probe: P) -> Probed<B, P> {
        Probed { inner, probe }
    }
}

/// Copies the streams after every layer, rows of all steps concatenated per layer.
#[derive(Debug, Default)]
pub struct StreamTrace {
    width: usize,
    n_layer: usize,
    next: usize,
    /// `[layer][row][HC * n_embd]`
    pub layers: Vec<Vec<f32>>,
}

impl StreamTrace {
    /// A trace of a model with `n_layer` layers and streams of `width` values a row.
    pub fn new(n_layer: usize, width: usize) -> StreamTrace {
        StreamTrace { width, n_layer, next: 0, layers: vec![Vec::new(); n_layer] }
    }
}

impl<B: Backend> Probe<B> for StreamTrace {
    fn after(&mut self, backend: &mut B, stage: Stage, out: &B::Buffer, rows: usize) -> Result<()> {
        if stage == Stage::Experts {
            let mut values = vec![0f32; rows * self.width];
            backend.read(out, 0, bytemuck::cast_slice_mut(&mut values))?;
            self.layers[self.next].extend(values);
            self.next = (self.next + 1) % self.n_layer;
        }
        Ok(())
    }
}

impl<B: Backend, P: Probe<B>> Backend for Probed<B, P> {
    type Buffer = B::Buffer;
    type Weight = B::Weight;

    fn alloc(&mut self, bytes: usize) -> Result<B::Buffer> {
        self.inner.alloc(bytes)
    }

    fn upload(&mut self, tensor: &Tensor) -> Result<B::Weight> {
        self.inner.upload(tensor)
    }

    fn write(&mut self, dst: &mut B::Buffer, at: usize, src: &[u8]) -> Result<()> {
        self.inner.write(dst, at, src)
    }

    fn read(&mut self, src: &B::Buffer, at: usize, dst: &mut [u8]) -> Result<()> {
        self.inner.read(src, at, dst)
    }

    fn submit(&mut self, _key: Option<GraphKey>, record: impl FnOnce(&mut Self) -> Result<()> + Send) -> Result<()> {
        record(self)
    }

    fn embed(&mut self, step: &Step<B::Buffer>, table: &B::Weight, streams: &mut B::Buffer) -> Result<()> {
        self.inner.embed(step, table, streams)?;
        self.probe.after(&mut self.inner, Stage::Embed, streams, step.n)
    }

    fn hc_pre(
        &mut self,
        step: &Step<B::Buffer>,
        w: &HyperConnection<B::Weight>,
        streams: &B::Buffer,
        x: &mut B::Buffer,
        mix: &mut B::Buffer,
    ) -> Result<()> {
        self.inner.hc_pre(step, w, streams, x, mix)?;
        self.probe.after(&mut self.inner, Stage::HcPre, x, step.n)
    }

    fn project(
        &mut self,
        step: &Step<B::Buffer>,
        w: &ProjectWeights<B::Weight>,
        x: &B::Buffer,
        low: &mut LowRank<B::Buffer>,
        window: &mut Rows<B::Buffer>,
    ) -> Result<()> {
        self.inner.project(step, w, x, low, window)?;
        self.probe.after(&mut self.inner, Stage::Project, &low.q, step.n)
    }

    fn query(
        &mut self,
        step: &Step<B::Buffer>,
        w: &QueryWeights<B::Weight>,
        low: &LowRank<B::Buffer>,
        q: &mut Queries<B::Buffer>,
    ) -> Result<()> {
        self.inner.query(step, w, low, q)?;
        self.probe.after(&mut self.inner, Stage::Query, &q.heads, step.n)
    }

    fn compress(
        &mut self,
        step: &Step<B::Buffer>,
        w: &CompressorWeights<B::Weight>,
        low: &LowRank<B::Buffer>,
        out: &mut Compressed<B::Buffer>,
    ) -> Result<()> {
        self.inner.compress(step, w, low, out)?;
        self.probe.after(&mut self.inner, Stage::Compress, &out.rows.data, step.n)
    }

    fn select(
        &mut self,
        step: &Step<B::Buffer>,
        low: &LowRank<B::Buffer>,
        q: &Queries<B::Buffer>,
        rows: &Compressed<B::Buffer>,
        selected: &mut B::Buffer,
    ) -> Result<()> {
        self.inner.select(step, low, q, rows, selected)?;
        self.probe.after(&mut self.inner, Stage::Select, selected, step.n)
    }

    fn attend(
        &mut self,
        step: &Step<B::Buffer>,
        sinks: &B::Weight,
        q: &Queries<B::Buffer>,
        kv: &LayerKv<B::Buffer>,
        selected: &B::Buffer,
        heads: &mut B::Buffer,
    ) -> Result<()> {
        self.inner.attend(step, sinks, q, kv, selected, heads)?;
        self.probe.after(&mut self.inner, Stage::Attend, heads, step.n)
    }

    fn attn_output(
        &mut self,
        step: &Step<B::Buffer>,
        w: &AttnOutputWeights<B::Weight>,
        heads: &B::Buffer,
        mix: &B::Buffer,
        streams: &mut B::Buffer,
    ) -> Result<()> {
        self.inner.attn_output(step, w, heads, mix, streams)?;
        self.probe.after(&mut self.inner, Stage::AttnOutput, streams, step.n)
    }

    fn route(
        &mut self,
        step: &Step<B::Buffer>,
        w: &RouteWeights<B::Weight>,
        x: &B::Buffer,
        routing: &mut Routing<B::Buffer>,
    ) -> Result<()> {
        self.inner.route(step, w, x, routing)?;
        self.probe.after(&mut self.inner, Stage::Route, &routing.weights, step.n)
    }

    fn experts(
        &mut self,
        step: &Step<B::Buffer>,
        w: &ExpertWeights<B::Weight>,
        x: &B::Buffer,
        routing: &Routing<B::Buffer>,
        mix: &B::Buffer,
        streams: &mut B::Buffer,
    ) -> Result<()> {
        self.inner.experts(step, w, x, routing, mix, streams)?;
        self.probe.after(&mut self.inner, Stage::Experts, streams, step.n)
    }

    fn head(
        &mut self,
        step: &Step<B::Buffer>,
        w: &HeadWeights<B::Weight>,
        output: &B::Weight,
        streams: &B::Buffer,
        logits: &mut B::Buffer,
    ) -> Result<()> {
        self.inner.head(step, w, output, streams, logits)?;
        self.probe.after(&mut self.inner, Stage::Head, logits, step.n)
    }

    fn keep_streams(
        &mut self,
        step: &Step<B::Buffer>,
        streams: &B::Buffer,
        hidden: &mut Rows<B::Buffer>,
    ) -> Result<()> {
        self.inner.keep_streams(step, streams, hidden)?;
        self.probe.after(&mut self.inner, Stage::KeepStreams, &hidden.data, step.n)
    }

    fn draft_embed(
        &mut self,
        step: &Step<B::Buffer>,
        w: &DraftEmbedWeights<B::Weight>,
        table: &B::Weight,
        hidden: &Rows<B::Buffer>,
        streams: &mut B::Buffer,
    ) -> Result<()> {
        self.inner.draft_embed(step, w, table, hidden, streams)?;
        self.probe.after(&mut self.inner, Stage::DraftEmbed, streams, step.n)
    }
}
