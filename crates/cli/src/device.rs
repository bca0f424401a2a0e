//! The one place that opens a backend: model file, memory plan, device, engine. Everything above it sees `dyn Model` or the
//! engine's door.

use std::path::Path;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, anyhow, bail};
use ds4_cpu::{Cpu, Isa};
use ds4_engine::{EngineConfig, EngineHandle, KvStoreConfig};
use ds4_gguf::Gguf;
use ds4_model::{
    Batch, HC, Limits, LogitRows, MemoryPlan, Model, Numerics, Probed, RandomSelect, Shape, Span, StreamTrace,
    Transformer, validate_draft,
};
use ds4_testkit::{Report, Scope, Script, ScriptedModel, device_suite};
use ds4_text::Tokenizer;

use crate::config::{Backend, DEFAULT_MODEL, ModelSource, Runtime};
use crate::failure::usage;
use crate::file::read_text;
use crate::flags::BACKENDS;
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

/// A model behind the engine's door.
pub(crate) struct Loaded {
    pub(crate) file: ModelFile,
    pub(crate) engine: EngineHandle,
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
        Self::open_with(file, runtime, Seats::default(), quiet, |model| model)
    }

    /// As `open`, for several requests side by side; `wrap` may put something around the model.
    pub(crate) fn open_with(
        file: ModelFile,
        runtime: &Runtime,
        seats: Seats,
        quiet: bool,
        wrap: impl FnOnce(Box<dyn Model>) -> Box<dyn Model>,
    ) -> anyhow::Result<Self> {
        let limits = Limits { slots: seats.slots, ..limits(&file.shape, runtime)? };
        let model = match &runtime.backend {
            Backend::Cpu => Self::load(&file, runtime, seats.random_selection, limits, quiet)?,
            Backend::Stub(script) => stub(&file, limits, script.as_deref())?,
        };
        let default = EngineConfig::default();
        let config = EngineConfig {
            queue: seats.queue.unwrap_or(default.queue.max(2 * seats.slots as usize)),
            max_active: seats.active.unwrap_or(default.max_active),
            prefill_quantum: seats.prefill_quantum.unwrap_or(default.prefill_quantum),
            kv: seats.kv,
            ..default
        };
        let engine = EngineHandle::start(wrap(model), Arc::clone(&file.tokenizer), config)?;
        Ok(Self { file, engine })
    }

    /// The model on the CPU, if it fits.
    fn load(
        file: &ModelFile,
        runtime: &Runtime,
        random_selection: Option<u64>,
        limits: Limits,
        quiet: bool,
    ) -> anyhow::Result<Box<dyn Model>> {
        let precision = if runtime.quality { Precision::Quality } else { Precision::Default };
        let draft = runtime.mtp.as_ref().map(|source| open_draft(source, &file.shape)).transpose()?;
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
                .for_each(|gguf| memory::warm(gguf, threads(runtime.threads), |_| ()));
        }
        match random_selection {
            Some(seed) => load_random_selection(&file.gguf, draft, limits, precision, runtime.threads, seed),
            None => load(&file.gguf, draft, limits, precision, runtime.threads),
        }
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
    if runtime.backend != Backend::Cpu {
        return Ok(None);
    }
    let limits = Limits { slots, context, ..limits(&file.shape, runtime)? };
    let draft = runtime.mtp.as_ref().map(|source| open_draft(source, &file.shape)).transpose()?;
    let precision = if runtime.quality { Precision::Quality } else { Precision::Default };
    plan(&file.gguf, draft.as_ref(), limits, precision).map(Some)
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

/// The model with the indexer's choice replaced by a random one.
fn load_random_selection(
    gguf: &Gguf,
    draft: Option<&Gguf>,
    limits: Limits,
    precision: Precision,
    threads: Option<usize>,
    seed: u64,
) -> anyhow::Result<Box<dyn Model>> {
    let shape = Shape::from_gguf(gguf)?;
    let cpu = Cpu::new(&shape, options(precision, threads))?;
    let probed = Probed::new(cpu, RandomSelect::new(shape.index_top_k, seed));
    Ok(Box::new(Transformer::new(probed, gguf, draft, limits, precision.numerics())?))
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

/// Examines a backend by the testkit's suite. A further one is a further arm: how it is opened for a shape and limits.
pub(crate) fn check(
    backend: &str,
    scope: Scope<'_>,
    threads: Option<usize>,
    progress: &mut dyn FnMut(&str),
) -> anyhow::Result<Report> {
    match backend {
        "cpu" => {
            // The best instruction set is the reference. The portable one takes long where others are better: it emulates
            // fused multiply-adds.
            let isa = Isa::available().into_iter().nth(1).unwrap_or(Isa::Portable);
            let options = options(Precision::Default, threads);
            Ok(device_suite(scope, &mut |shape, _| Cpu::with_isa(shape, options, isa), progress))
        }
        other => {
            let known = BACKENDS.join(", ");
            Err(usage(format!("invalid value for --backend: {other}: this build has {known}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let own = logits(load(&gguf, None, limits, Precision::Default, Some(2)).expect("a model"));
        let random = |seed| {
            logits(load_random_selection(&gguf, None, limits, Precision::Default, Some(2), seed).expect("a model"))
        };
        let (one, same, other) = (random(1), random(1), random(2));
        let (before, after) = own.split_at(first * shape.n_vocab);
        assert!(one[..before.len()] == *before, "nothing is selected before");
        assert!(one[before.len()..] != *after, "something else is selected after");
        assert!(one == same && one != other, "the seed decides");
    }
}
