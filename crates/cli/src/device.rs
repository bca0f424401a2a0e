//! The one place that opens a backend: model file, memory plan, device, engine. Everything above it sees `dyn Model` or the
//! engine's door.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Instant;

use anyhow::{Context, anyhow, bail};
use ds4_cpu::{Cpu, Isa};
use ds4_cuda::{Card, Cuda, StageClock};
use ds4_engine::{EngineConfig, EngineHandle, KvStoreConfig, Reopen};
use ds4_gguf::Gguf;
use ds4_model::{
    Backend as Stages, Batch, HC, Limits, LogitRows, MemoryPlan, Model, Numerics, Probe, Probed, RandomSelect, Shape,
    Span, Stage, Step, StreamTrace, Transformer, validate_draft,
};
use ds4_testkit::{Report, Scope, Script, ScriptedModel, device_suite};
use ds4_text::Tokenizer;
use ds4_wgpu::{Api, Gpu, Wgpu};

use crate::bench::{StageTimes, StepCounts, Timed};
use crate::config::{Backend, DEFAULT_MODEL, ModelSource, Runtime};
use crate::failure::usage;
use crate::file::read_text;
use crate::memory::Room;
use crate::progress::Loading;
use crate::{embedded, memory, state, terminal};

/// A model file with what its metadata says; no weight has been touched.
pub(crate) struct ModelFile {
    pub(crate) gguf: Gguf,
    pub(crate) shape: Shape,
    pub(crate) tokenizer: Arc<Tokenizer>,
}

/// The container alone.
pub(crate) fn open_gguf(source: &ModelSource, quiet: bool) -> anyhow::Result<Gguf> {
    match source {
        ModelSource::File(path) => open_path(path),
        ModelSource::Embedded => {
            if !quiet {
                terminal::note(format_args!(
                    "ds4: no -m, no $DS4_MODEL and no {DEFAULT_MODEL} here: using the miniature inside the program"
                ));
            }
            embedded::miniature()
        }
    }
}

fn open_path(path: &Path) -> anyhow::Result<Gguf> {
    Gguf::open(path).map_err(|e| anyhow::Error::new(e).context("cannot open model"))
}

pub(crate) fn open_file(source: &ModelSource, quiet: bool) -> anyhow::Result<ModelFile> {
    let gguf = open_gguf(source, quiet)?;
    let shape = Shape::from_gguf(&gguf)?;
    let tokenizer = Arc::new(Tokenizer::from_metadata(gguf.metadata())?);
    if tokenizer.n_vocab() != shape.n_vocab {
        bail!("{}: tokenizer has {} tokens, expected {}", gguf.name(), tokenizer.n_vocab(), shape.n_vocab);
    }
    Ok(ModelFile { gguf, shape, tokenizer })
}

/// The draft block of a support file for a model of this shape.
fn open_draft(source: &ModelSource, shape: &Shape) -> anyhow::Result<Gguf> {
    let gguf = match source {
        ModelSource::File(path) => {
            Gguf::open(path).map_err(|e| anyhow::Error::new(e).context("cannot open support file"))?
        }
        ModelSource::Embedded => embedded::draft_block()?,
    };
    validate_draft(&gguf, shape)?;
    Ok(gguf)
}

/// Most rows of a prefill step on a card, which is slow on few; through wgpu, whose bindings are smaller.
const CARD_ROWS: u32 = 4096;
const GPU_ROWS: u32 = 2048;

/// How GPUs are reached where the user has not said it.
pub(crate) const NATIVE: Api = if cfg!(target_vendor = "apple") { Api::Metal } else { Api::Vulkan };

/// Decides where a model runs if the user has not, and makes sure that a card which was asked for is there.
pub(crate) fn settle(model: &ModelSource, runtime: &mut Runtime, quiet: bool) -> anyhow::Result<()> {
    match runtime.backend {
        Backend::Cuda => drop(ds4_cuda::available(runtime.device)?),
        Backend::Gpu(api) => {
            let gpu = ds4_wgpu::available(api, runtime.device)?;
            if gpu.software && !quiet {
                terminal::note(format_args!("ds4: {}: the processor imitates a GPU: --cpu is faster", gpu.name));
            }
        }
        Backend::Auto => {
            let (backend, why) = chosen(model, runtime);
            if let Some(why) = why.filter(|_| !quiet) {
                terminal::note(format_args!("ds4: running on the CPU: {why}"));
            }
            runtime.backend = backend;
        }
        Backend::Cpu | Backend::Stub(_) => {}
    }
    Ok(())
}

/// What a run without a word about it takes, and why not a card or a GPU that is there.
pub(crate) fn chosen(model: &ModelSource, runtime: &Runtime) -> (Backend, Option<String>) {
    let card = || ds4_cuda::has_cards().then(|| ds4_cuda::available(runtime.device));
    // A processor that imitates a GPU is no match for the CPU backend.
    let gpu = || {
        let there = if ds4_wgpu::has_gpus() { ds4_wgpu::adapters(NATIVE) } else { Vec::new() };
        let real = there.get(runtime.device).is_some_and(|gpu| !gpu.software);
        real.then(|| ds4_wgpu::available(NATIVE, runtime.device))
    };
    choose(model, runtime.quality, card, gpu)
}

/// A usable card for a model from a file, else a real GPU, else the CPU; and why not, where somebody might have expected it. `card`
/// and `gpu` are `None` where nobody does.
fn choose(
    model: &ModelSource,
    quality: bool,
    card: impl FnOnce() -> Option<ds4_model::Result<Card>>,
    gpu: impl FnOnce() -> Option<ds4_model::Result<Gpu>>,
) -> (Backend, Option<String>) {
    if *model == ModelSource::Embedded {
        return (Backend::Cpu, None);
    }
    let why = match card() {
        Some(Ok(card)) if quality => return (Backend::Cpu, Some(format!("--quality is not for {}", card.name))),
        Some(Ok(_)) => return (Backend::Cuda, None),
        Some(Err(error)) => Some(error.to_string()),
        None => None,
    };
    match (!quality).then(gpu).flatten() {
        Some(Ok(_)) => (Backend::Gpu(NATIVE), None),
        Some(Err(error)) => (Backend::Cpu, why.or(Some(error.to_string()))),
        None => (Backend::Cpu, why),
    }
}

/// What a model runs on, for people.
pub(crate) struct Hardware {
    pub(crate) name: String,
    /// Of a card.
    pub(crate) uuid: Option<String>,
}

pub(crate) fn hardware(runtime: &Runtime) -> anyhow::Result<Hardware> {
    if runtime.backend == Backend::Cuda {
        let Card { name, uuid, .. } = ds4_cuda::available(runtime.device)?;
        return Ok(Hardware { name, uuid: Some(uuid) });
    }
    if let Backend::Gpu(api) = runtime.backend {
        return Ok(Hardware { name: ds4_wgpu::available(api, runtime.device)?.name, uuid: None });
    }
    let name = format!("{}, {} threads", Isa::detect().name(), threads(runtime.threads));
    Ok(Hardware { name, uuid: None })
}

/// The memory that a model would use.
pub(crate) fn room(runtime: &Runtime) -> anyhow::Result<Room> {
    match runtime.backend {
        Backend::Cuda => {
            let (free, total) = ds4_cuda::memory(runtime.device)?;
            Ok(Room { device: Some(hardware(runtime)?.name), free: Some(free), total, piece: u64::MAX })
        }
        Backend::Gpu(api) => {
            let Gpu { name, memory, .. } = ds4_wgpu::available(api, runtime.device)?;
            Ok(Room { device: Some(name), free: Some(memory.free), total: memory.total, piece: memory.piece })
        }
        _ => Ok(Room { device: None, free: memory::available(), total: 0, piece: u64::MAX }),
    }
}

/// How loading is told of.
pub(crate) enum Telling {
    Silent,
    /// In lines of `ds4`.
    Lines,
    /// In lines of the server, which itself says what memory is for, and as the part that is loaded.
    Server(Arc<dyn Fn(f64) + Send + Sync>),
}

impl Telling {
    fn unless(quiet: bool) -> Self {
        if quiet { Self::Silent } else { Self::Lines }
    }

    /// Who speaks.
    fn name(&self) -> &'static str {
        if matches!(self, Self::Server(_)) { "ds4-server" } else { "ds4" }
    }
}

/// A model behind the engine's door.
pub(crate) struct Loaded {
    pub(crate) file: ModelFile,
    pub(crate) engine: EngineHandle,
    /// Name of what evaluates.
    pub(crate) backend: &'static str,
}

/// Who sits at the engine, beside what the user chooses.
#[derive(Clone, Debug)]
pub(crate) struct Seats {
    /// Requests evaluated together.
    pub(crate) slots: u32,
    /// Requests that may wait for a slot.
    pub(crate) queue: Option<usize>,
    /// Requests that run at once.
    pub(crate) active: Option<u32>,
    /// Prompt rows of a step beside others that decode.
    pub(crate) prefill_quantum: Option<u32>,
    /// Where states are kept that outlive their slot.
    pub(crate) kv: Option<KvStoreConfig>,
    /// Attend to rows drawn at random with this seed instead of those the indexer selects (measurements only).
    pub(crate) random_selection: Option<u64>,
}

impl Default for Seats {
    fn default() -> Self {
        Self { slots: 1, queue: None, active: None, prefill_quantum: None, kv: None, random_selection: None }
    }
}

impl Loaded {
    pub(crate) fn open(file: ModelFile, runtime: &Runtime, quiet: bool) -> anyhow::Result<Self> {
        Self::open_with(file, runtime, Seats::default(), &Telling::unless(quiet), |model| model)
    }

    /// As `open`, for several requests side by side; `wrap` may put something around the model. One whose card fails is loaded
    /// again while its requests wait.
    pub(crate) fn open_with(
        file: ModelFile,
        runtime: &Runtime,
        seats: Seats,
        telling: &Telling,
        wrap: impl Fn(Box<dyn Model>) -> Box<dyn Model> + Send + 'static,
    ) -> anyhow::Result<Self> {
        let limits = Limits { slots: seats.slots, ..limits(&file.shape, runtime)? };
        let mut reopen = None;
        let model = if let Backend::Stub(script) = &runtime.backend {
            wrap(stub(&file, limits, script.as_deref())?)
        } else {
            let draft = runtime.mtp.as_ref().map(|source| open_draft(source, &file.shape)).transpose()?;
            let (gguf, random, runtime) = (file.gguf.clone(), seats.random_selection, runtime.clone());
            let card = runtime.backend.is_card();
            let open =
                move |telling: &Telling| load(&gguf, draft.as_ref(), limits, &runtime, random, telling).map(&wrap);
            let model = open(telling)?;
            if card {
                let again = move || open(&Telling::Silent).map_err(|e| ds4_engine::Error::Device(format!("{e:#}")));
                reopen = Some(Box::new(again) as Reopen);
            }
            model
        };
        let default = EngineConfig::default();
        let config = EngineConfig {
            queue: seats.queue.unwrap_or(default.queue.max(2 * seats.slots as usize)),
            max_active: seats.active.unwrap_or(default.max_active),
            prefill_quantum: seats.prefill_quantum.unwrap_or(default.prefill_quantum),
            kv: seats.kv,
            ..default
        };
        let engine = EngineHandle::start_renewable(model, reopen, Arc::clone(&file.tokenizer), config)?;
        Ok(Self { file, engine, backend: runtime.backend.name() })
    }
}

/// A script with the file's vocabulary.
fn stub(file: &ModelFile, limits: Limits, script: Option<&Path>) -> anyhow::Result<Box<dyn Model>> {
    let script = match script {
        Some(path) => {
            let text = read_text(path, "script")?;
            Script::parse(&text).with_context(|| format!("cannot use script: {}", path.display()))?
        }
        None => Script::default(),
    };
    Ok(Box::new(ScriptedModel::new(file.shape.clone(), limits, Arc::clone(&file.tokenizer), script)))
}

/// The memory of so many sequences of so many tokens; a script needs none.
pub(crate) fn planned(
    file: &ModelFile,
    runtime: &Runtime,
    context: u32,
    slots: u32,
) -> anyhow::Result<Option<MemoryPlan>> {
    if matches!(runtime.backend, Backend::Stub(_)) {
        return Ok(None);
    }
    let limits = Limits { slots, context, ..limits(&file.shape, runtime)? };
    let draft = runtime.mtp.as_ref().map(|source| open_draft(source, &file.shape)).transpose()?;
    plan(&file.gguf, draft.as_ref(), limits, runtime).map(Some)
}

fn limits(shape: &Shape, runtime: &Runtime) -> anyhow::Result<Limits> {
    let context = runtime.context(shape.context)?;
    Ok(Limits { context, slots: 1, max_rows: max_rows(runtime).min(context), ..Limits::default() })
}

/// Most rows of a step.
pub(crate) fn max_rows(runtime: &Runtime) -> u32 {
    let default = match runtime.backend {
        Backend::Cuda => CARD_ROWS,
        Backend::Gpu(_) => GPU_ROWS,
        _ => Limits::default().max_rows,
    };
    runtime.prefill_chunk.unwrap_or(default)
}

pub(crate) fn plan(gguf: &Gguf, draft: Option<&Gguf>, limits: Limits, runtime: &Runtime) -> anyhow::Result<MemoryPlan> {
    match runtime.backend {
        Backend::Cuda => Ok(ds4_cuda::plan(gguf, draft, limits)?),
        Backend::Gpu(_) => Ok(ds4_wgpu::plan(gguf, draft, limits)?),
        _ => Ok(Transformer::<Cpu>::plan(gguf, draft, limits, precision(runtime).numerics())?),
    }
}

/// The model where it is to run, if it fits there; with a seed, one that attends to rows drawn at random.
pub(crate) fn load(
    gguf: &Gguf,
    draft: Option<&Gguf>,
    limits: Limits,
    runtime: &Runtime,
    random: Option<u64>,
    telling: &Telling,
) -> anyhow::Result<Box<dyn Model>> {
    let plan_at = |context| plan(gguf, draft, Limits { context, ..limits }, runtime);
    let plan = plan_at(limits.context)?;
    if let Telling::Lines = telling {
        let backend = match &runtime.backend {
            Backend::Cuda | Backend::Gpu(_) => format!("{} ({})", runtime.backend.name(), hardware(runtime)?.name),
            other => other.name().to_owned(),
        };
        terminal::note(memory::line(&plan, limits.context, &backend));
    }
    room(runtime)?.check(&plan, limits.context, plan_at)?;
    match runtime.backend {
        Backend::Cuda | Backend::Gpu(_) => load_on_card(gguf, draft, limits, runtime, random, telling),
        Backend::Stub(_) => Err(usage("a script cannot be measured: leave out --backend stub")),
        Backend::Cpu | Backend::Auto => {
            if runtime.warm_weights {
                let files = [Some(gguf), draft].into_iter().flatten();
                files.for_each(|gguf| memory::warm(gguf, threads(runtime.threads), |_| ()));
            }
            let precision = precision(runtime);
            let cpu = Cpu::new(&Shape::from_gguf(gguf)?, options(precision, runtime.threads))?;
            assemble(cpu, gguf, draft, limits, precision, random)
        }
    }
}

fn load_on_card(
    gguf: &Gguf,
    draft: Option<&Gguf>,
    limits: Limits,
    runtime: &Runtime,
    random: Option<u64>,
    telling: &Telling,
) -> anyhow::Result<Box<dyn Model>> {
    let bytes = [Some(gguf), draft].into_iter().flatten().flat_map(Gguf::tensors).map(|tensor| tensor.bytes).sum();
    let (name, quiet) = (telling.name(), matches!(telling, Telling::Silent));
    let part = match telling {
        Telling::Server(part) => Some(Arc::clone(part)),
        _ => None,
    };
    // The clock starts when kernels are there.
    let loading = Arc::new(OnceLock::<Loading>::new());
    let heard = Arc::clone(&loading);
    let progress: ds4_wgpu::Progress = Arc::new(move |bytes| {
        let loaded = heard.get().map_or(0.0, |loading| loading.add(bytes));
        if let Some(part) = &part {
            part(loaded);
        }
    });
    let shape = Shape::from_gguf(gguf)?;
    let model = if let Backend::Gpu(api) = runtime.backend {
        let options = ds4_wgpu::Options { progress: Some(progress), ..gpu_options(api, runtime) };
        let gpu = Wgpu::new(&shape, limits, draft.is_some(), options)?;
        loading.get_or_init(|| Loading::new(bytes, quiet));
        assemble(gpu, gguf, draft, limits, Precision::Default, random)?
    } else {
        let mut options = card_options(runtime, name, quiet);
        options.progress = Some(progress);
        let cuda = Cuda::new(&shape, limits, draft.is_some(), options)?;
        loading.get_or_init(|| Loading::new(bytes, quiet));
        assemble(cuda, gguf, draft, limits, Precision::Default, random)?
    };
    if let Some(loading) = loading.get() {
        loading.finish(name);
    }
    Ok(model)
}

/// The card that was chosen, and where its kernels are kept.
fn card_options(runtime: &Runtime, name: &'static str, quiet: bool) -> ds4_cuda::Options {
    let notice = move |what: &str| terminal::note(format_args!("{name}: {what}"));
    ds4_cuda::Options {
        device: runtime.device,
        cache: state::cache().map(|folder| folder.join("kernels")),
        notice: if quiet { None } else { Some(Arc::new(notice)) },
        ..ds4_cuda::Options::default()
    }
}

fn gpu_options(api: Api, runtime: &Runtime) -> ds4_wgpu::Options {
    ds4_wgpu::Options { device: runtime.device, ..ds4_wgpu::Options::new(api) }
}

fn assemble<B: Stages + 'static>(
    backend: B,
    gguf: &Gguf,
    draft: Option<&Gguf>,
    limits: Limits,
    precision: Precision,
    random: Option<u64>,
) -> anyhow::Result<Box<dyn Model>> {
    let numerics = precision.numerics();
    let Some(seed) = random else { return Ok(Box::new(Transformer::new(backend, gguf, draft, limits, numerics)?)) };
    let probe = RandomSelect::new(Shape::from_gguf(gguf)?.index_top_k, seed);
    Ok(Box::new(Transformer::new(Probed::new(backend, probe), gguf, draft, limits, numerics)?))
}

fn precision(runtime: &Runtime) -> Precision {
    if runtime.quality { Precision::Quality } else { Precision::Default }
}

/// Arithmetic of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Precision {
    /// What users get.
    Default,
    /// Trained roundings, float32 everywhere else.
    Quality,
    /// Nothing is rounded.
    Plain,
}

impl Precision {
    fn numerics(self) -> Numerics {
        match self {
            Self::Default => Numerics::Stored,
            Self::Quality => Numerics::Qat,
            Self::Plain => Numerics::Plain,
        }
    }
}

/// The file's tokenizer, or the published one.
pub(crate) fn tokenizer(model: Option<&Path>) -> anyhow::Result<Tokenizer> {
    match model {
        Some(path) => Ok(Tokenizer::from_metadata(open_path(path)?.metadata())?),
        None => embedded::published_tokenizer(),
    }
}

/// Threads of a run.
pub(crate) fn threads(given: Option<usize>) -> usize {
    given.unwrap_or_else(|| thread::available_parallelism().map_or(1, std::num::NonZero::get))
}

fn options(precision: Precision, threads: Option<usize>) -> ds4_cpu::Options {
    ds4_cpu::Options { threads: self::threads(threads), numerics: precision.numerics() }
}

/// A model on the CPU for exactly `context` tokens fed in chunks of at most `chunk`; what it was made for does not limit it.
pub(crate) fn load_for_test(
    gguf: &Gguf,
    context: usize,
    chunk: usize,
    precision: Precision,
    threads: Option<usize>,
) -> anyhow::Result<Box<dyn Model>> {
    let cpu = Cpu::new(&Shape::from_gguf(gguf)?, options(precision, threads))?;
    assemble(cpu, gguf, None, test_limits(context, chunk)?, precision, None)
}

fn test_limits(context: usize, rows: usize) -> anyhow::Result<Limits> {
    let context = u32::try_from(context).map_err(|_| anyhow!("{context} tokens, expected fewer than 2^32"))?;
    Ok(Limits { context, slots: 1, max_rows: rows.min(context as usize).max(1) as u32, ..Limits::default() })
}

/// The residual streams after every layer, `[layer][position * streams]`, of one prompt fed at once.
pub(crate) fn trace(
    gguf: &Gguf,
    tokens: &[u32],
    precision: Precision,
    threads: Option<usize>,
) -> anyhow::Result<Vec<Vec<f32>>> {
    let shape = Shape::from_gguf(gguf)?;
    let cpu = Cpu::new(&shape, options(precision, threads))?;
    let probed = Probed::new(cpu, StreamTrace::new(shape.n_layer, HC * shape.n_embd));
    let limits = test_limits(tokens.len(), tokens.len())?;
    let mut model = Transformer::new(probed, gguf, None, limits, precision.numerics())?;
    let span = Span { slot: 0, pos: 0, len: tokens.len() as u32, logits: LogitRows::None };
    model.forward(&Batch { tokens, spans: &[span] }, &mut [])?;
    Ok(std::mem::take(&mut model.backend_mut().probe.layers))
}

/// Takes the time of stages that are over when they return.
struct HostClock {
    times: StageTimes,
    last: Instant,
}

impl Probe<Cpu> for HostClock {
    fn after(
        &mut self,
        _: &mut Cpu,
        stage: Stage,
        _: &Step<ds4_cpu::Buffer>,
        _: &mut ds4_cpu::Buffer,
    ) -> ds4_model::Result<()> {
        self.times.push((stage, self.last.elapsed().as_secs_f64()));
        self.last = Instant::now();
        Ok(())
    }
}

/// A model, its clock, and how to read it.
struct Clocked<B: Stages, P: Probe<B>> {
    model: Transformer<Probed<B, P>>,
    take: fn(&mut P) -> ds4_model::Result<StageTimes>,
    begin: fn(&mut P),
    whole: Whole<B, P>,
}

/// Runs a step that nobody looks into: its dispatches, submissions and seconds, where a device counts them.
type Whole<B, P> = fn(&mut Transformer<Probed<B, P>>, &Batch<'_>, &mut [f32]) -> ds4_model::Result<Option<StepCounts>>;

impl<B: Stages, P: Probe<B>> Timed for Clocked<B, P> {
    fn forward(&mut self, batch: &Batch<'_>, logits: &mut [f32]) -> ds4_model::Result<()> {
        (self.begin)(&mut self.model.backend_mut().probe);
        self.model.forward(batch, logits)
    }

    fn fork(&mut self, to: u32, n: u32) -> ds4_model::Result<()> {
        self.model.copy(0, to, n)
    }

    fn take(&mut self) -> ds4_model::Result<StageTimes> {
        (self.take)(&mut self.model.backend_mut().probe)
    }

    fn whole(&mut self, batch: &Batch<'_>, logits: &mut [f32]) -> ds4_model::Result<Option<StepCounts>> {
        (self.whole)(&mut self.model, batch, logits)
    }
}

/// A model whose stages are timed, and bytes a second of a card's memory, if it runs on one.
pub(crate) fn timed(gguf: &Gguf, limits: Limits, runtime: &Runtime) -> anyhow::Result<(Box<dyn Timed>, Option<f64>)> {
    let shape = Shape::from_gguf(gguf)?;
    match runtime.backend {
        Backend::Cuda => {
            let mut cuda = Cuda::new(&shape, limits, false, card_options(runtime, "ds4", false))?;
            let ceiling = cuda.copy_bandwidth()?;
            let probed = Probed::new(cuda, StageClock::default());
            let model = Transformer::new(probed, gguf, None, limits, Numerics::Stored)?;
            Ok((
                Box::new(Clocked {
                    model,
                    take: StageClock::take,
                    begin: |_| (),
                    whole: |model, batch, logits| model.forward(batch, logits).map(|()| None),
                }),
                Some(ceiling),
            ))
        }
        Backend::Gpu(api) => {
            let gpu = Wgpu::new(&shape, limits, false, gpu_options(api, runtime))?;
            let probed = Probed::new(gpu, ds4_wgpu::StageClock::default());
            let model = Transformer::new(probed, gguf, None, limits, Numerics::Stored)?;
            let take = |clock: &mut ds4_wgpu::StageClock| Ok(std::mem::take(&mut clock.times));
            Ok((Box::new(Clocked { model, take, begin: |_| (), whole: whole_step }), None))
        }
        Backend::Stub(_) => Err(usage("a script cannot be measured: leave out --backend stub")),
        Backend::Cpu | Backend::Auto => {
            let precision = precision(runtime);
            let cpu = Cpu::new(&shape, options(precision, runtime.threads))?;
            let clock = HostClock { times: Vec::new(), last: Instant::now() };
            let model = Transformer::new(Probed::new(cpu, clock), gguf, None, limits, precision.numerics())?;
            let take = |clock: &mut HostClock| Ok(std::mem::take(&mut clock.times));
            let begin = |clock: &mut HostClock| clock.last = Instant::now();
            Ok((
                Box::new(Clocked {
                    model,
                    take,
                    begin,
                    whole: |model, batch, logits| model.forward(batch, logits).map(|()| None),
                }),
                None,
            ))
        }
    }
}

fn whole_step(
    model: &mut Transformer<Probed<Wgpu, ds4_wgpu::StageClock>>,
    batch: &Batch<'_>,
    logits: &mut [f32],
) -> ds4_model::Result<Option<StepCounts>> {
    model.backend_mut().probe.whole = true;
    let outcome = model.forward(batch, logits);
    let clock = &mut model.backend_mut().probe;
    clock.whole = false;
    let (dispatches, submits, seconds) = clock.counts;
    outcome.map(|()| Some(StepCounts { dispatches, submits, seconds }))
}

/// Examines a backend by the testkit's suite; the CPU unless another was asked for.
pub(crate) fn check(runtime: &Runtime, scope: Scope<'_>, progress: &mut dyn FnMut(&str)) -> anyhow::Result<Report> {
    match runtime.backend {
        Backend::Auto | Backend::Cpu => {
            // The best instruction set is the reference. The portable one takes long where others are better: it emulates
            // fused multiply-adds.
            let isa = Isa::available().into_iter().nth(1).unwrap_or(Isa::Portable);
            let options = options(Precision::Default, runtime.threads);
            Ok(device_suite(scope, &mut |shape, _| Cpu::with_isa(shape, options, isa), progress))
        }
        Backend::Cuda => {
            ds4_cuda::available(runtime.device)?;
            // Not `once`: every shape of the suite has kernels of its own.
            let options = card_options(runtime, "ds4", true);
            Ok(device_suite(scope, &mut |shape, limits| Cuda::new(shape, limits, true, options.clone()), progress))
        }
        Backend::Gpu(api) => {
            let options = gpu_options(api, runtime);
            Ok(device_suite(scope, &mut |shape, limits| Wgpu::new(shape, limits, true, options.clone()), progress))
        }
        Backend::Stub(_) => Err(usage("a script has no stages: leave out --backend stub")),
    }
}

#[cfg(test)]
mod tests {
    use ds4_wgpu::Memory;

    use super::*;

    #[test]
    fn a_model_file_runs_on_a_usable_card_and_everything_else_on_the_cpu() {
        let file = ModelSource::File("f".into());
        let card = || {
            let card = Card { name: "NVIDIA H200".to_owned(), capability: (9, 0), uuid: String::new() };
            Some(Ok(card))
        };
        let there = || {
            let memory = Memory { total: 1 << 40, free: 1 << 40, piece: 1 << 32 };
            let (name, subgroups) = ("Arc".to_owned(), (16, 32));
            let (driver, matrices) = (String::new(), Vec::new());
            Some(Ok(Gpu { name, driver, api: NATIVE, software: false, memory, subgroups, f16: true, matrices }))
        };
        let missing = || None;
        assert_eq!(choose(&file, false, card, there), (Backend::Cuda, None));
        let why = "--quality is not for NVIDIA H200".to_owned();
        assert_eq!(choose(&file, true, card, there), (Backend::Cpu, Some(why)));
        assert_eq!(choose(&ModelSource::Embedded, false, card, there), (Backend::Cpu, None));
        assert_eq!(choose(&file, false, || None, missing), (Backend::Cpu, None));
        assert_eq!(choose(&file, false, || None, there), (Backend::Gpu(NATIVE), None));
        assert_eq!(choose(&file, true, || None, there), (Backend::Cpu, None));
        let old = |device: &str| ds4_model::Error::Device { device: device.to_owned(), what: "too old".to_owned() };
        let why = |device: &str| Some(format!("device {device}: too old"));
        assert_eq!(choose(&file, false, || Some(Err(old("cuda:0"))), missing), (Backend::Cpu, why("cuda:0")));
        assert_eq!(choose(&file, false, || None, || Some(Err(old("Arc")))), (Backend::Cpu, why("Arc")));
    }

    #[test]
    fn steps_are_longer_on_a_card_unless_told_otherwise() {
        let of = |backend, prefill_chunk| max_rows(&Runtime { backend, prefill_chunk, ..Runtime::default() });
        assert_eq!((of(Backend::Cpu, None), of(Backend::Cuda, None)), (512, 4096));
        assert_eq!((of(Backend::Cpu, Some(7)), of(Backend::Cuda, Some(7))), (7, 7));
    }

    #[test]
    fn random_rows_change_only_what_comes_after_the_first_selection() {
        let gguf = embedded::miniature().expect("a model");
        let shape = Shape::from_gguf(&gguf).expect("a shape");
        // Row `p` selects once `(p + 1) / 4` rows are more than the best `index_top_k`.
        let first = 4 * (shape.index_top_k + 1) - 1;
        let tokens: Vec<u32> = (0..first as u32 + 40).map(|i| i * 7919 % shape.n_vocab as u32).collect();
        let limits = test_limits(tokens.len(), 64).expect("limits");
        let logits = |mut model: Box<dyn Model>| {
            let mut rows = vec![0.0; tokens.len() * shape.n_vocab];
            for (at, (chunk, out)) in tokens.chunks(64).zip(rows.chunks_mut(64 * shape.n_vocab)).enumerate() {
                let span = Span { slot: 0, pos: 64 * at as u32, len: chunk.len() as u32, logits: LogitRows::All };
                model.forward(&Batch { tokens: chunk, spans: &[span] }, out).expect("a step");
            }
            rows
        };
        let runtime = Runtime { backend: Backend::Cpu, threads: Some(2), ..Runtime::default() };
        let open = |seed| load(&gguf, None, limits, &runtime, seed, &Telling::Silent).expect("a model");
        let own = logits(open(None));
        let random = |seed| logits(open(Some(seed)));
        let (one, same, other) = (random(1), random(1), random(2));
        let (before, after) = own.split_at(first * shape.n_vocab);
        assert!(one[..before.len()] == *before, "nothing is selected before");
        assert!(one[before.len()..] != *after, "something else is selected after");
        assert!(one == same && one != other, "the seed decides");
    }
}
