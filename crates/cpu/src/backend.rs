//! The CPU as a [`Backend`]: host memory, weights in the mapped file, one thread pool that a whole step runs on.

use std::sync::Arc;

use ds4_gguf::{Gguf, Tensor};
use ds4_model::{
    AttnOutputWeights, Backend, Class, Compressed, CompressorWeights, DraftEmbedWeights, Error, ExpertWeights,
    GraphKey, HeadWeights, HyperConnection, LayerKv, Limits, LowRank, Model, Numerics, ProjectWeights, Queries,
    QueryWeights, Result, RopeTables, RouteWeights, Routing, Rows, Shape, Step, StepRow, Transformer, visible_rows,
};
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::dot::Isa;
use crate::{Buffer, Weight, attention, compressor, draft, embed, experts, hc, head, indexer, project, query, router};

/// How to run a model on the CPU.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Threads; 0 takes every core.
    pub threads: usize,
    /// Rounding and storage of cache rows.
    pub numerics: Numerics,
}

/// The device.
pub struct Cpu {
    pub(crate) shape: Shape,
    pub(crate) isa: Isa,
    pub(crate) numerics: Numerics,
    pub(crate) rope: RopeTables,
    pool: Arc<ThreadPool>,
}

/// Opens a model on the CPU.
pub fn load(file: &Gguf, limits: Limits, options: Options) -> Result<Box<dyn Model>> {
    load_with_draft(file, None, limits, options)
}

/// The same with the draft block of `draft`, if there is one.
pub fn load_with_draft(file: &Gguf, draft: Option<&Gguf>, limits: Limits, options: Options) -> Result<Box<dyn Model>> {
    let cpu = Cpu::new(&Shape::from_gguf(file)?, options)?;
    Ok(Box::new(Transformer::new(cpu, file, draft, limits, options.numerics)?))
}

impl Cpu {
    /// A device for models of this shape.
    pub fn new(shape: &Shape, options: Options) -> Result<Cpu> {
        Cpu::with_isa(shape, options, Isa::detect())
    }

    /// The same with an instruction set of [`Isa::available`].
    pub fn with_isa(shape: &Shape, options: Options, isa: Isa) -> Result<Cpu> {
        let pool = ThreadPoolBuilder::new()
            .num_threads(options.threads)
            .thread_name(|i| format!("ds4-cpu-{i}"))
            .build()
            .map_err(|e| failure(format!("cannot start threads: {e}")))?;
        Ok(Cpu {
            shape: shape.clone(),
            isa,
            numerics: options.numerics,
            rope: RopeTables::new(shape),
            pool: Arc::new(pool),
        })
    }

    pub(crate) fn rows(step: &Step<Buffer>) -> &[StepRow] {
        step.rows.view(step.n)
    }

    /// Whether the query at `pos` sees more indexed rows than it may attend to.
    pub(crate) fn selects(&self, pos: u32) -> bool {
        visible_rows(pos, 4) as usize > self.shape.index_top_k
    }
}

fn failure(what: String) -> Error {
    Error::Device { device: "cpu".to_owned(), what }
}

impl Backend for Cpu {
    type Buffer = Buffer;
    type Weight = Weight;

    fn alloc(&mut self, bytes: usize) -> Result<Buffer> {
        Buffer::zeroed(bytes).ok_or_else(|| failure(format!("cannot allocate {bytes} bytes")))
    }

    fn upload(&mut self, tensor: &Tensor, _class: Class) -> Result<Weight> {
        Ok(Weight::new(tensor))
    }

    fn write(&mut self, dst: &mut Buffer, at: usize, src: &[u8]) -> Result<()> {
        dst.bytes_mut()[at..at + src.len()].copy_from_slice(src);
        Ok(())
    }

    fn read(&mut self, src: &Buffer, at: usize, dst: &mut [u8]) -> Result<()> {
        dst.copy_from_slice(&src.bytes()[at..at + dst.len()]);
        Ok(())
    }

    fn copy(&mut self, buffer: &mut Buffer, from: usize, at: usize, len: usize) -> Result<()> {
        buffer.bytes_mut().copy_within(from..from + len, at);
        Ok(())
    }

    fn submit(&mut self, _key: Option<GraphKey>, record: impl FnOnce(&mut Self) -> Result<()> + Send) -> Result<()> {
        let pool = self.pool.clone();
        pool.install(|| record(self))
    }

    fn embed(&mut self, step: &Step<Buffer>, table: &Weight, streams: &mut Buffer) -> Result<()> {
        embed::embed(self, step, table, streams);
        Ok(())
    }

    fn hc_pre(
        &mut self,
        step: &Step<Buffer>,
        w: &HyperConnection<Weight>,
        streams: &Buffer,
        x: &mut Buffer,
        mix: &mut Buffer,
    ) -> Result<()> {
        hc::hc_pre(self, step, w, streams, x, mix);
        Ok(())
    }

    fn project(
        &mut self,
        step: &Step<Buffer>,
        w: &ProjectWeights<Weight>,
        x: &Buffer,
        low: &mut LowRank<Buffer>,
        window: &mut Rows<Buffer>,
    ) -> Result<()> {
        project::project(self, step, w, x, low, window);
        Ok(())
    }

    fn query(
        &mut self,
        step: &Step<Buffer>,
        w: &QueryWeights<Weight>,
        low: &LowRank<Buffer>,
        q: &mut Queries<Buffer>,
    ) -> Result<()> {
        query::query(self, step, w, low, q);
        Ok(())
    }

    fn compress(
        &mut self,
        step: &Step<Buffer>,
        w: &CompressorWeights<Weight>,
        low: &LowRank<Buffer>,
        out: &mut Compressed<Buffer>,
    ) -> Result<()> {
        compressor::compress(self, step, w, low, out);
        Ok(())
    }

    fn select(
        &mut self,
        step: &Step<Buffer>,
        low: &LowRank<Buffer>,
        q: &Queries<Buffer>,
        rows: &Compressed<Buffer>,
        selected: &mut Buffer,
    ) -> Result<()> {
        indexer::select(self, step, low, q, rows, selected);
        Ok(())
    }

    fn attend(
        &mut self,
        step: &Step<Buffer>,
        sinks: &Weight,
        q: &Queries<Buffer>,
        kv: &LayerKv<Buffer>,
        selected: &Buffer,
        heads: &mut Buffer,
    ) -> Result<()> {
        attention::attend(self, step, sinks, q, kv, selected, heads);
        Ok(())
    }

    fn attn_output(
        &mut self,
        step: &Step<Buffer>,
        w: &AttnOutputWeights<Weight>,
        heads: &Buffer,
        mix: &Buffer,
        streams: &mut Buffer,
    ) -> Result<()> {
        head::attn_output(self, step, w, heads, mix, streams);
        Ok(())
    }

    fn route(
        &mut self,
        step: &Step<Buffer>,
        w: &RouteWeights<Weight>,
        x: &Buffer,
        routing: &mut Routing<Buffer>,
    ) -> Result<()> {
        router::route(self, step, w, x, routing);
        Ok(())
    }

    fn experts(
        &mut self,
        step: &Step<Buffer>,
        w: &ExpertWeights<Weight>,
        x: &Buffer,
        routing: &Routing<Buffer>,
        mix: &Buffer,
        streams: &mut Buffer,
    ) -> Result<()> {
        experts::experts(self, step, w, x, routing, mix, streams);
        Ok(())
    }

    fn head(
        &mut self,
        step: &Step<Buffer>,
        w: &HeadWeights<Weight>,
        output: &Weight,
        streams: &Buffer,
        logits: &mut Buffer,
    ) -> Result<()> {
        head::head(self, step, w, output, streams, logits);
        Ok(())
    }

    fn keep_streams(&mut self, step: &Step<Buffer>, streams: &Buffer, hidden: &mut Rows<Buffer>) -> Result<()> {
        draft::keep_streams(self, step, streams, hidden);
        Ok(())
    }

    fn draft_embed(
        &mut self,
        step: &Step<Buffer>,
        w: &DraftEmbedWeights<Weight>,
        table: &Weight,
        hidden: &Rows<Buffer>,
        streams: &mut Buffer,
    ) -> Result<()> {
        draft::draft_embed(self, step, w, table, hidden, streams);
        Ok(())
    }
}
