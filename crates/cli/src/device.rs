//! The one place that opens a backend: model file, memory plan, device, engine. Everything above it sees `dyn Model` or the
//! engine's door.

use std::path::Path;
use std::sync::Arc;
use std::thread;

use anyhow::{anyhow, bail};
use ds4_cpu::Cpu;
use ds4_engine::{EngineConfig, EngineHandle};
use ds4_gguf::Gguf;
use ds4_model::{
    Batch, HC, Limits, LogitRows, MemoryPlan, Model, Numerics, Probed, Shape, Span, StreamTrace, Transformer,
    validate_draft,
};
use ds4_text::Tokenizer;

use crate::config::{DEFAULT_MODEL, ModelSource, Runtime};
use crate::{embedded, memory, terminal};

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
            Ok(embedded::miniature()?)
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
fn open_draft(path: &Path, shape: &Shape) -> anyhow::Result<Gguf> {
    let gguf = Gguf::open(path).map_err(|e| anyhow::Error::new(e).context("cannot open support file"))?;
    validate_draft(&gguf, shape)?;
    Ok(gguf)
}

/// A model behind the engine's door.
pub(crate) struct Loaded {
    pub(crate) file: ModelFile,
    pub(crate) engine: EngineHandle,
}

impl Loaded {
    pub(crate) fn open(file: ModelFile, runtime: &Runtime, quiet: bool) -> anyhow::Result<Self> {
        let limits = limits(&file.shape, runtime)?;
        let precision = if runtime.quality { Precision::Quality } else { Precision::Default };
        let draft = runtime.mtp.as_deref().map(|path| open_draft(path, &file.shape)).transpose()?;
        let draft = draft.as_ref();
        let plan = plan(&file.gguf, draft, limits, precision)?;
        if !quiet {
            terminal::note(memory::line(&plan, limits.context));
        }
        memory::check(&plan, limits.context, |context| {
            Ok(self::plan(&file.gguf, draft, Limits { context, ..limits }, precision)?.kv)
        })?;
        if runtime.warm_weights {
            [Some(&file.gguf), draft]
                .into_iter()
                .flatten()
                .for_each(|gguf| memory::warm(gguf, threads(runtime.threads)));
        }
        let model = load(&file.gguf, draft, limits, precision, runtime.threads)?;
        let engine = EngineHandle::start(model, Arc::clone(&file.tokenizer), EngineConfig::default())?;
        Ok(Self { file, engine })
    }
}

fn limits(shape: &Shape, runtime: &Runtime) -> anyhow::Result<Limits> {
    let context = runtime.context(shape.context)?;
    let default = Limits::default();
    Ok(Limits {
        context,
        slots: 1,
        max_rows: runtime.prefill_chunk.unwrap_or(default.max_rows).min(context),
        ..default
    })
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

pub(crate) fn plan(
    gguf: &Gguf,
    draft: Option<&Gguf>,
    limits: Limits,
    precision: Precision,
) -> anyhow::Result<MemoryPlan> {
    Ok(Transformer::<Cpu>::plan(gguf, draft, limits, precision.numerics())?)
}

/// Threads of a run.
pub(crate) fn threads(given: Option<usize>) -> usize {
    given.unwrap_or_else(|| thread::available_parallelism().map_or(1, std::num::NonZero::get))
}

pub(crate) fn load(
    gguf: &Gguf,
    draft: Option<&Gguf>,
    limits: Limits,
    precision: Precision,
    threads: Option<usize>,
) -> anyhow::Result<Box<dyn Model>> {
    Ok(ds4_cpu::load_with_draft(gguf, draft, limits, options(precision, threads))?)
}

fn options(precision: Precision, threads: Option<usize>) -> ds4_cpu::Options {
    ds4_cpu::Options { threads: self::threads(threads), numerics: precision.numerics() }
}

/// A model for exactly `context` tokens fed in chunks of at most `chunk`; what it was made for does not limit it.
pub(crate) fn load_for_test(
    gguf: &Gguf,
    context: usize,
    chunk: usize,
    precision: Precision,
    threads: Option<usize>,
) -> anyhow::Result<Box<dyn Model>> {
    load(gguf, None, test_limits(context, chunk)?, precision, threads)
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
