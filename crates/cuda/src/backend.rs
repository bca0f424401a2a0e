//! One NVIDIA GPU as a [`Backend`]: kernels on one stream, steps that decode replayed as graphs.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use ds4_gguf::Tensor;
use ds4_gguf::tables::IQ2_XXS_GRID;
use ds4_model::{
    AttnOutputWeights, Backend, Best, Class, Compressed, CompressorWeights, DraftEmbedWeights, ExpertWeights, GraphKey,
    HeadWeights, HyperConnection, LayerKv, Limits, LowRank, ProjectWeights, Queries, QueryWeights, Result, RopeTables,
    RouteWeights, Routing, Rows, Shape, Step, visible_rows,
};

use crate::device::{Buffer, Device, Pinned};
use crate::graph::{self, Graph};
use crate::hc::MixArgs;
use crate::program::Program;
use crate::query::QueryArgs;
use crate::scratch::Scratch;
use crate::upload::{Progress, Uploader, copy_wide};
use crate::weight::Weight;
use crate::{attention, best, compressor, draft, embed, experts, hc, head, indexer, project, query, router};

/// Rows of a step that runs on the streaming kernels, whose rows do not depend on each other's company.
pub(crate) const SMALL: usize = 64;

/// Whether a step of `n` rows does.
pub(crate) fn small(n: usize) -> bool {
    n <= SMALL
}

/// Told a line that a waiting user wants to see.
pub type Notice = Arc<dyn Fn(&str) + Send + Sync>;

/// How to run a model on a GPU.
#[derive(Clone, Default)]
pub struct Options {
    /// Number of the card.
    pub device: usize,
    /// Folder that compiled kernels are kept in; none: they are compiled on every start.
    pub cache: Option<PathBuf>,
    /// Told of bytes of weights as they reach the card.
    pub progress: Option<Progress>,
    /// Told what takes long before that: kernels that are compiled.
    pub notice: Option<Notice>,
}

/// The device.
pub struct Cuda {
    pub(crate) shape: Shape,
    pub(crate) device: Arc<Device>,
    pub(crate) program: Program,
    pub(crate) scratch: Scratch,
    /// Largest shared memory granted to each kernel.
    pub(crate) shared: HashMap<usize, u32>,
    pub(crate) uploader: Option<Uploader>,
    pub(crate) progress: Option<Progress>,
    /// The grid of IQ2_XXS, 256 rows of eight magnitudes.
    pub(crate) iq2_grid: Buffer,
    /// The step is recorded: nobody looks at what lies between its stages, and kernels of neighbouring ones may be one.
    pub(crate) recording: bool,
    /// Mixing weights that a later kernel of the sublayer makes.
    pub(crate) mix: Option<MixArgs>,
    /// Heads that the kernel of the next stage finishes, and their number.
    pub(crate) query: Option<(QueryArgs, u32)>,
    rope: [Buffer; 2],
    graphs: HashMap<GraphKey, Graph>,
    landing: Pinned,
}

/// Bytes that one read brings back without a copy through pageable memory.
const LANDING: usize = 64 << 20;

/// Recorded steps that are kept: each holds memory of the card.
const MOST_GRAPHS: usize = 128;

impl Cuda {
    /// A device for models of this shape; cache rows are [`ds4_model::Numerics::Stored`].
    ///
    /// # Errors
    /// No driver, card or compiler, a card that is too old, a shape that the kernels do not fit.
    pub fn new(shape: &Shape, limits: Limits, draft: bool, options: Options) -> Result<Cuda> {
        let device = Device::open(options.device)?;
        check_shape(&device, shape)?;
        let (cache, notice) = (options.cache.as_deref(), options.notice.as_ref());
        let program = Program::load(&device, shape, cache, notice)?;
        let scratch = Scratch::allocate(shape, limits, draft, &mut |bytes| device.alloc(bytes))?;
        let tables = RopeTables::new(shape);
        let iq2_grid = device.alloc(size_of_val(&IQ2_XXS_GRID))?;
        device.write(&iq2_grid, 0, bytemuck::cast_slice(&IQ2_XXS_GRID))?;
        let table = |values: &[f32]| -> Result<Buffer> {
            let buffer = device.alloc(4 * values.len())?;
            device.write(&buffer, 0, bytemuck::cast_slice(values))?;
            Ok(buffer)
        };
        Ok(Cuda {
            shape: shape.clone(),
            program,
            scratch,
            shared: HashMap::new(),
            uploader: None,
            progress: options.progress,
            iq2_grid,
            recording: false,
            mix: None,
            query: None,
            rope: [table(&tables.plain)?, table(&tables.compressed)?],
            graphs: HashMap::new(),
            landing: Pinned::new(&device, LANDING)?,
            device,
        })
    }

    /// Rotary frequencies of a layer with this compression ratio.
    pub(crate) fn frequencies(&self, ratio: u32) -> u64 {
        self.rope[usize::from(ratio != 0)].ptr()
    }

    /// Whether a row of the step can see more indexed rows than it may attend to.
    pub(crate) fn selects(&self, step: &Step<Buffer>) -> bool {
        visible_rows(step.context - 1, 4) as usize > self.shape.index_top_k
    }
}

/// The sizes that kernels are written for.
fn check_shape(device: &Device, s: &Shape) -> Result<()> {
    let rules = [
        (s.head_dim == 512, "head width", s.head_dim, "512"),
        (s.n_rot == 64, "rotated width", s.n_rot, "64"),
        (s.index_dim == 128, "indexer head width", s.index_dim, "128"),
        (s.window == 128, "window", s.window, "128"),
        (s.n_embd.is_multiple_of(256), "width", s.n_embd, "a multiple of 256"),
        (s.ff_dim.is_multiple_of(256), "expert width", s.ff_dim, "a multiple of 256"),
        (s.q_lora_dim.is_multiple_of(64), "query rank", s.q_lora_dim, "a multiple of 64"),
        (s.out_lora_dim.is_multiple_of(16), "output rank", s.out_lora_dim, "a multiple of 16"),
        (s.n_expert_used <= 32, "experts used", s.n_expert_used, "at most 32"),
    ];
    match rules.into_iter().find(|(fits, ..)| !fits) {
        Some((_, what, found, expected)) => {
            Err(device.error(format!("{what} {found}, expected {expected}: use --cpu")))
        }
        None => Ok(()),
    }
}

impl Backend for Cuda {
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
        if src.is_empty() { Ok(()) } else { self.device.write(dst, at, src) }
    }

    fn read(&mut self, src: &Buffer, at: usize, dst: &mut [u8]) -> Result<()> {
        let mut at = at;
        for piece in dst.chunks_mut(LANDING) {
            let landed = &mut self.landing.bytes_mut()[..piece.len()];
            self.device.read(src, at, landed)?;
            copy_wide(landed, piece);
            at += piece.len();
        }
        Ok(())
    }

    fn copy(&mut self, buffer: &mut Buffer, from: usize, at: usize, len: usize) -> Result<()> {
        self.device.copy(buffer, from, at, len)
    }

    fn best(&mut self, logits: &Buffer, n_vocab: usize, best: &mut [Best]) -> Result<()> {
        self.device.bind()?;
        best::best(self, logits, n_vocab, best.len())?;
        let landed = &mut self.landing.bytes_mut()[..size_of_val(best)];
        self.device.read(&self.scratch.best, 0, landed)?;
        bytemuck::cast_slice_mut(best).copy_from_slice(landed);
        Ok(())
    }

    fn submit(&mut self, key: Option<GraphKey>, record: impl FnOnce(&mut Self) -> Result<()> + Send) -> Result<()> {
        self.device.bind()?;
        // Whoever evaluates has all weights.
        self.uploader.take().map_or(Ok(()), Uploader::finish)?;
        let Some(key) = key.filter(|key| small(key.rows as usize)) else { return record(self) };
        if let Some(graph) = self.graphs.get(&key) {
            return graph.launch();
        }
        graph::begin(&self.device)?;
        self.recording = true;
        let recorded = record(self);
        self.recording = false;
        let left = self.mix.take().is_some() | self.query.take().is_some();
        debug_assert!(!left || recorded.is_err(), "a stage left work that no kernel took over");
        // The recording must end, whatever became of it.
        let graph = graph::end(&self.device);
        recorded?;
        let graph = graph?;
        graph.launch()?;
        if self.graphs.len() == MOST_GRAPHS {
            self.graphs.clear();
        }
        self.graphs.insert(key, graph);
        Ok(())
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
        attention::attend(self, step, sinks, q, kv, selected, heads)
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
        experts::experts(self, step, w, x, routing, mix, streams)
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
