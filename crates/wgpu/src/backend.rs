//! An adapter as a [`Backend`]: memory, one encoder a step, and the stages.

use std::sync::Arc;

use ds4_gguf::Tensor;
use ds4_gguf::tables::IQ2_XXS_GRID;
use ds4_model::{
    AttnOutputWeights, Backend, Best, Class, Compressed, CompressorWeights, DraftEmbedWeights, ExpertWeights, GraphKey,
    HeadWeights, HyperConnection, LayerKv, Limits, LowRank, ProjectWeights, Queries, QueryWeights, Result, RopeTables,
    RouteWeights, Routing, Rows, Shape, Step, draft_specs, tensor_specs, visible_rows,
};

use crate::dense::Tables;
use crate::device::{Api, Buffer, Device, Without};
use crate::program::{Kernel, Program};
use crate::record::Recorder;
use crate::scratch::Scratch;
use crate::upload::{Progress, Uploader, value_words};
use crate::weight::{Format, Weight};
use crate::{attention, best, compressor, dense, draft, embed, experts, hc, head, indexer, project, query, router};

/// Rows of a step whose rows do not depend on each other's company.
pub(crate) const SMALL: usize = 64;

/// Whether a step of `n` rows is such a step.
pub(crate) fn small(n: usize) -> bool {
    n <= SMALL
}

/// How to run a model on a GPU.
#[derive(Clone)]
pub struct Options {
    /// How the GPU is reached.
    pub api: Api,
    /// Number of the adapter.
    pub device: usize,
    /// Told of bytes of weights as they reach the device.
    pub progress: Option<Progress>,
    /// Do without subgroups, even if the adapter has them: for tests of the other path.
    pub no_subgroups: bool,
    /// Do without cooperative matrices: for tests of the other path.
    pub no_matrices: bool,
    /// Do without memory that workgroups share within a dispatch: for tests of the other path.
    pub no_coherent: bool,
    /// Bind no more than so many bytes of weights at once: for tests of adapters that cannot.
    pub binding: Option<u64>,
}

impl Options {
    /// The first adapter of an API, with all it can do.
    pub fn new(api: Api) -> Options {
        Options {
            api,
            device: 0,
            progress: None,
            no_subgroups: false,
            no_matrices: false,
            no_coherent: false,
            binding: None,
        }
    }
}

/// The device.
pub struct Wgpu {
    pub(crate) shape: Shape,
    pub(crate) device: Arc<Device>,
    pub(crate) program: Program,
    pub(crate) recorder: Recorder,
    pub(crate) tables: Tables,
    pub(crate) scratch: Scratch,
    pub(crate) uploader: Uploader,
    pub(crate) progress: Option<Progress>,
    /// Every norm, bias, scale, base and table of ids.
    pub(crate) values: Buffer,
    pub(crate) values_used: usize,
    /// The grid of IQ2_XXS, 256 rows of eight magnitudes.
    pub(crate) iq2_grid: Buffer,
    /// Whether the step has at most one row of each sequence.
    pub(crate) one_row_each: bool,
    rope: [Buffer; 2],
    pub(crate) landing: wgpu::Buffer,
    bounce: Buffer,
}

/// Bytes that one read brings back, and that a copy moves at a time.
const LANDING: usize = 16 << 20;

/// Every kernel but those of an expert format.
pub(crate) fn kernels() -> Vec<Kernel> {
    let mut all = vec![
        embed::EMBED,
        hc::PRODUCTS,
        hc::PRODUCTS_MANY,
        hc::COLLAPSE,
        hc::HEAD_PRODUCTS,
        hc::HEAD_COLLAPSE,
        hc::FUSED,
        hc::HEAD_FUSED,
        attention::FUSED,
        attention::ROWS,
        project::PROJECT,
        query::QUERY,
        compressor::APPEND,
        compressor::KEEP,
        compressor::BOTH_APPEND,
        compressor::BOTH_KEEP,
        indexer::SCORE,
        indexer::CHOOSE,
        indexer::FUSED,
        attention::ATTEND,
        attention::COMBINE,
        router::ROUTE,
        dense::DENSE,
        dense::DENSE_MANY,
        dense::DENSE_POST,
        dense::DENSE_POST_MANY,
        dense::POST,
        dense::POST_ROUTED,
        experts::GROUP,
        experts::HALVES,
        draft::KEEP,
        draft::NORM,
        draft::ADD,
        best::PART,
        best::ROW,
    ];
    all.extend([Format::Q8, Format::F16, Format::F32].map(|format| dense::ROWS.format(format)));
    all.extend([project::FUSED, query::FUSED, router::FUSED, compressor::JOINED, compressor::BOTH_JOINED].concat());
    all
}

impl Wgpu {
    /// A device for models of this shape; cache rows are [`ds4_model::Numerics::Stored`].
    ///
    /// # Errors
    /// No adapter, one without what the shaders need, a shape that they do not fit, or too little memory.
    pub fn new(shape: &Shape, limits: Limits, draft: bool, options: Options) -> Result<Wgpu> {
        let without = Without {
            subgroups: options.no_subgroups,
            matrices: options.no_matrices,
            coherent: options.no_coherent,
            weights: options.binding,
        };
        let mut device = Device::open(options.api, options.device, without)?;
        let mut program = Program::default();
        // Apple's compiler is met on the user's machine first: what it does not take is done without.
        if device.abilities.paths.matrices.is_some_and(|matrices| matrices.scalars)
            && !program.compiles(&device, shape, &[dense::ROWS.format(Format::Q8), attention::ROWS])?
        {
            device.abilities.paths.matrices = None;
            program = Program::default();
        }
        if let Some(what) = misfit(shape, limits) {
            return Err(device.error(format!("{what}: use --cpu")));
        }
        let binding = device.abilities.binding;
        let scratch = Scratch::allocate(shape, limits, draft, binding, &mut |bytes| device.alloc(bytes))?;
        let table = |bytes: &[u8]| -> Result<Buffer> {
            let buffer = device.alloc(bytes.len())?;
            device.write(&buffer, 0, bytes)?;
            Ok(buffer)
        };
        program.prepare(&device, shape, &kernels())?;
        let frequencies = RopeTables::new(shape);
        let drafted = if draft { value_words(&draft_specs(shape)) } else { 0 };
        Ok(Wgpu {
            shape: shape.clone(),
            program,
            recorder: Recorder::default(),
            tables: Tables::default(),
            scratch,
            uploader: Uploader::default(),
            progress: options.progress,
            values: device.alloc(4 * (value_words(&tensor_specs(shape)) + drafted))?,
            values_used: 0,
            iq2_grid: table(bytemuck::cast_slice(&IQ2_XXS_GRID))?,
            one_row_each: false,
            rope: [
                table(bytemuck::cast_slice(&frequencies.plain))?,
                table(bytemuck::cast_slice(&frequencies.compressed))?,
            ],
            landing: device.landing(LANDING as u64)?,
            bounce: device.alloc(LANDING)?,
            device: Arc::new(device),
        })
    }

    /// Rotary frequencies of a layer with this compression ratio.
    pub(crate) fn rope(&self, ratio: u32) -> Buffer {
        self.rope[usize::from(ratio != 0)].clone()
    }

    /// Whether a row of the step can see more indexed rows than it may attend to.
    pub(crate) fn selects(&self, step: &Step<Buffer>) -> bool {
        visible_rows(step.context - 1, 4) as usize > self.shape.index_top_k
    }

    /// Runs what is recorded and waits for it.
    ///
    /// # Errors
    /// What went wrong on the device.
    pub fn finish(&mut self) -> Result<()> {
        self.flush()?;
        self.device.wait()
    }
}

/// What is not of the sizes that shaders are written for.
fn misfit(s: &Shape, limits: Limits) -> Option<String> {
    let (pairs, ranks) = (limits.max_rows as usize * s.n_expert_used, s.n_out_group * s.out_lora_dim);
    let rules = [
        (s.head_dim == 512, "head width", s.head_dim, "512"),
        (s.n_rot == 64, "rotated width", s.n_rot, "64"),
        (s.index_dim == 128, "indexer head width", s.index_dim, "128"),
        (s.window == 128, "window", s.window, "128"),
        (s.n_embd.is_multiple_of(256), "width", s.n_embd, "a multiple of 256"),
        (s.ff_dim.is_multiple_of(256), "expert width", s.ff_dim, "a multiple of 256"),
        (s.q_lora_dim.is_multiple_of(64), "query rank", s.q_lora_dim, "a multiple of 64"),
        (s.out_lora_dim.is_multiple_of(16), "output rank", s.out_lora_dim, "a multiple of 16"),
        (ranks.is_multiple_of(64), "output ranks of all groups", ranks, "a multiple of 64"),
        (s.n_expert_used <= 32, "experts used", s.n_expert_used, "at most 32"),
        (s.n_expert <= 2048, "experts", s.n_expert, "at most 2048"),
        (pairs <= 65_535, "pairs of row and expert in a step", pairs, "at most 65535 (--prefill-chunk)"),
    ];
    let (_, what, found, expected) = rules.into_iter().find(|(fits, ..)| !fits)?;
    Some(format!("{what} {found}, expected {expected}"))
}

impl Backend for Wgpu {
    const SMALL_STEP: usize = SMALL;
    type Buffer = Buffer;
    type Weight = Weight;

    fn alloc(&mut self, bytes: usize) -> Result<Buffer> {
        self.device.alloc(bytes)
    }

    fn upload(&mut self, tensor: &Tensor, class: Class) -> Result<Weight> {
        self.upload_tensor(tensor, class)
    }

    fn write(&mut self, dst: &mut Buffer, at: usize, src: &[u8]) -> Result<()> {
        // Stages that ran without `submit` come first: a probe reads and writes between them.
        self.flush()?;
        self.device.write(dst, at, src)
    }

    fn read(&mut self, src: &Buffer, at: usize, dst: &mut [u8]) -> Result<()> {
        self.flush()?;
        self.device.read(&self.landing, src, at, dst)
    }

    fn best(&mut self, logits: &Buffer, n_vocab: usize, best: &mut [Best]) -> Result<()> {
        best::best(self, logits, n_vocab, best.len())?;
        let chosen = self.scratch.best.clone();
        self.read(&chosen, 0, bytemuck::cast_slice_mut(best))
    }

    fn copy(&mut self, buffer: &mut Buffer, from: usize, at: usize, len: usize) -> Result<()> {
        self.flush()?;
        let mut encoder = self.device.raw.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        for start in (0..len).step_by(LANDING) {
            let part = LANDING.min(len - start) as u64;
            // One buffer cannot be both ends of a copy.
            encoder.copy_buffer_to_buffer(&buffer.raw, (from + start) as u64, &self.bounce.raw, 0, Some(part));
            encoder.copy_buffer_to_buffer(&self.bounce.raw, 0, &buffer.raw, (at + start) as u64, Some(part));
        }
        self.device.queue.submit([encoder.finish()]);
        self.device.check()
    }

    fn submit(&mut self, key: Option<GraphKey>, record: impl FnOnce(&mut Self) -> Result<()> + Send) -> Result<()> {
        self.device.check()?;
        self.begin(key);
        let recorded = record(self);
        self.one_row_each = false;
        if recorded.is_err() {
            self.discard();
            return recorded;
        }
        self.flush()
    }

    fn embed(&mut self, step: &Step<Buffer>, table: &Weight, streams: &mut Buffer) -> Result<()> {
        embed::embed(self, step, table, streams)
    }

    fn hc_pre(
        &mut self,
        step: &Step<Buffer>,
        w: &HyperConnection<Weight>,
        streams: &Buffer,
        x: &mut Buffer,
        mix: &mut Buffer,
    ) -> Result<()> {
        hc::pre(self, step, w, streams, x, mix)
    }

    fn project(
        &mut self,
        step: &Step<Buffer>,
        w: &ProjectWeights<Weight>,
        x: &Buffer,
        low: &mut LowRank<Buffer>,
        window: &mut Rows<Buffer>,
    ) -> Result<()> {
        project::project(self, step, w, x, low, window)
    }

    fn query(
        &mut self,
        step: &Step<Buffer>,
        w: &QueryWeights<Weight>,
        low: &LowRank<Buffer>,
        q: &mut Queries<Buffer>,
    ) -> Result<()> {
        query::query(self, step, w, low, q)
    }

    fn compress(
        &mut self,
        step: &Step<Buffer>,
        w: &CompressorWeights<Weight>,
        low: &LowRank<Buffer>,
        out: &mut Compressed<Buffer>,
    ) -> Result<()> {
        compressor::compress(self, step, w, low, out)
    }

    fn select(
        &mut self,
        step: &Step<Buffer>,
        low: &LowRank<Buffer>,
        q: &Queries<Buffer>,
        rows: &Compressed<Buffer>,
        selected: &mut Buffer,
    ) -> Result<()> {
        indexer::select(self, step, low, q, rows, selected)
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
        attention::attend(self, step, sinks, q, kv, (selected, heads))
    }

    fn attn_output(
        &mut self,
        step: &Step<Buffer>,
        w: &AttnOutputWeights<Weight>,
        heads: &Buffer,
        mix: &Buffer,
        streams: &mut Buffer,
    ) -> Result<()> {
        head::attn_output(self, step, w, heads, mix, streams)
    }

    fn route(
        &mut self,
        step: &Step<Buffer>,
        w: &RouteWeights<Weight>,
        x: &Buffer,
        routing: &mut Routing<Buffer>,
    ) -> Result<()> {
        router::route(self, step, w, x, routing)
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
        experts::experts(self, step, w, x, routing, (mix, streams))
    }

    fn head(
        &mut self,
        step: &Step<Buffer>,
        w: &HeadWeights<Weight>,
        output: &Weight,
        streams: &Buffer,
        logits: &mut Buffer,
    ) -> Result<()> {
        head::head(self, step, w, output, streams, logits)
    }

    fn keep_streams(&mut self, step: &Step<Buffer>, streams: &Buffer, hidden: &mut Rows<Buffer>) -> Result<()> {
        draft::keep_streams(self, step, streams, hidden)
    }

    fn draft_embed(
        &mut self,
        step: &Step<Buffer>,
        w: &DraftEmbedWeights<Weight>,
        table: &Weight,
        hidden: &Rows<Buffer>,
        streams: &mut Buffer,
    ) -> Result<()> {
        draft::draft_embed(self, step, w, table, hidden, streams)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use ds4_gguf::Gguf;

    use super::*;

    /// The models with golden logits run on the CPU alone, which all tests compare this backend with. Their narrow heads are far
    /// from a matter of counts: rows of a head are cut into lanes, pieces and blocks of codes for 512 values, 64 of them rotated.
    #[test]
    fn the_heads_of_golden_models_are_not_those_that_shaders_are_written_for() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tiny");
        let refusals = |name: &str| {
            let file = Gguf::open(&folder.join(name)).expect("a model");
            let shape = Shape::from_gguf(&file).expect("a shape");
            let wide = Shape { head_dim: 512, ..shape.clone() };
            [shape, wide].map(|shape| misfit(&shape, Limits::default()).unwrap_or_default())
        };
        let narrow = |width| format!("head width {width}, expected 512");
        assert_eq!(refusals("tiny-a.gguf"), [narrow(96), "rotated width 32, expected 64".to_owned()]);
        assert_eq!(refusals("tiny-b.gguf"), [narrow(192), String::new()]);
        assert_eq!(refusals("tiny-c.gguf"), [narrow(96), "rotated width 32, expected 64".to_owned()]);
    }
}
