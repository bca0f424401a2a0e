//! The suite that any device has to pass: every stage in lockstep with the CPU, then whole models on the device alone.

use ds4_cpu::{Cpu, Options};
use ds4_gguf::Gguf;
use ds4_model::{Backend, Batch, DraftRow, Limits, LogitRows, Model, Numerics, Result, Shape, Span, Transformer};
use ds4_synth::{Quant, Recipe, build, preset};
use ds4_text::Tokenizer;

use crate::alone::{self, Bench};
use crate::cases::{Sample, samples, token, wide};
use crate::{Lockstep, Report};

/// How much is run, and on what beside synthetic models.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scope<'a> {
    /// One small model and few steps.
    pub quick: bool,
    /// All of it, or a half.
    pub part: Part,
    /// A trained model: its greedy tokens are those of a language, not of chance.
    pub trained: Option<&'a Gguf>,
}

/// The halves of the suite.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// Both.
    #[default]
    All,
    /// Every stage in lockstep with the CPU.
    Stages,
    /// Whole models on the device alone.
    Models,
}

/// Runs it. `open` opens the device for models of a shape; cache rows are held as [`Numerics::Stored`]. `progress` is told
/// what comes next. What fails is in the report, whatever it is; the rest still runs.
pub fn device_suite<D: Backend>(
    scope: Scope<'_>,
    open: &mut dyn FnMut(&Shape, Limits) -> Result<D>,
    progress: &mut dyn FnMut(&str),
) -> Report {
    let mut report = Report::default();
    if scope.part != Part::Models {
        for sample in samples(scope.quick) {
            progress(sample.name);
            if let Err(error) = lockstep(&sample, open, &mut report) {
                report.rule(sample.name.to_owned(), Err(error.to_string()));
            }
        }
    }
    if scope.part != Part::Stages {
        models(scope, open, progress, &mut report);
    }
    report
}

/// Whole models on the device alone.
fn models<D: Backend>(
    scope: Scope<'_>,
    open: &mut dyn FnMut(&Shape, Limits) -> Result<D>,
    progress: &mut dyn FnMut(&str),
    report: &mut Report,
) {
    for (name, recipe) in alone_models(scope.quick) {
        progress(&format!("{name} alone"));
        // On both sides of the change from decode to prefill kernels.
        let prompts: &[u32] = if scope.quick { &[130] } else { &[64, 130] };
        if let Err(error) = by_itself(name, &recipe, prompts, open, report) {
            report.rule(format!("{name} alone"), Err(error.to_string()));
        }
    }
    if let Some(file) = scope.trained {
        progress("the trained model");
        trained(file, open, report);
    }
}

fn synthetic(recipe: &Recipe, name: &str) -> Result<Gguf> {
    let bytes = build(recipe).expect("recipes of the suite describe models");
    Ok(Gguf::from_bytes(name, bytes.into())?)
}

fn cpu(shape: &Shape) -> Result<Cpu> {
    Cpu::new(shape, Options { threads: 0, numerics: Numerics::Stored })
}

/// One sample's script, stage by stage.
fn lockstep<D: Backend>(
    sample: &Sample,
    open: &mut dyn FnMut(&Shape, Limits) -> Result<D>,
    report: &mut Report,
) -> Result<()> {
    let (file, shape) = (synthetic(&sample.recipe, sample.name)?, &sample.recipe.shape);
    let draft = sample.draft.then(|| synthetic(&sample.recipe.clone().mtp(), "draft block")).transpose()?;
    let device = open(shape, sample.limits)?;
    let mut both = Lockstep::new(cpu(shape)?, device, (&file, draft.as_ref()), sample.limits, Numerics::Stored)?;
    let outcome = play(sample, &mut both);
    report.add(both.lines());
    let name = format!("{}: nothing is written outside the outputs", sample.name);
    report.rule(name, outcome.map_err(|error| error.to_string()));
    Ok(())
}

/// Runs the script, then compares all of both caches.
fn play<D: Backend>(sample: &Sample, both: &mut Lockstep<Cpu, D>) -> Result<String> {
    let n_vocab = sample.recipe.shape.n_vocab;
    for step in &sample.script.steps {
        both.label(&format!("{}, {}", sample.name, step.name));
        let tokens: Vec<u32> = step
            .spans
            .iter()
            .flat_map(|span| (span.pos..span.pos + span.len).map(|pos| token(span.slot, pos, n_vocab)))
            .collect();
        let rows: usize = step.spans.iter().map(Span::logit_rows).sum();
        both.forward(&Batch { tokens: &tokens, spans: &step.spans }, &mut vec![0.0; rows * n_vocab])?;
    }
    if sample.draft {
        both.label(&format!("{}, drafts", sample.name));
        drafts(sample, both)?;
    }
    let mut bytes = 0;
    for (slot, &len) in sample.script.len.iter().enumerate() {
        let mut state = Vec::new();
        both.save(slot as u32, 0..len, &mut state)?;
        bytes += state.len();
    }
    Ok(format!("{} steps, {bytes} bytes of cache", sample.script.steps.len()))
}

/// Chains of drafts behind the first sequences, side by side.
fn drafts<D: Backend>(sample: &Sample, both: &mut Lockstep<Cpu, D>) -> Result<()> {
    let n_vocab = sample.recipe.shape.n_vocab;
    for ahead in 0..3 {
        let row = |slot: u32| {
            let pos = sample.script.len[slot as usize] - 1 + ahead;
            DraftRow { slot, pos, token: token(slot, pos + 1, n_vocab) }
        };
        let rows: Vec<DraftRow> = (0..2).map(row).collect();
        both.draft(&rows, &mut vec![0.0; rows.len() * n_vocab])?;
    }
    // The main model takes over what the drafts have written ahead.
    let (slot, pos) = (0, sample.script.len[0]);
    let span = Span { slot, pos, len: 1, logits: LogitRows::Last };
    both.forward(&Batch { tokens: &[token(slot, pos, n_vocab)], spans: &[span] }, &mut vec![0.0; n_vocab])
}

/// Models that the device runs by itself.
fn alone_models(quick: bool) -> Vec<(&'static str, Recipe)> {
    let tiny = preset("tiny").expect("a preset").seed(6);
    let mini = preset("mini").expect("a preset").seed(7);
    if quick {
        return vec![("tiny q2", tiny)];
    }
    vec![
        ("tiny q2", tiny),
        ("mini q2", mini.clone()),
        ("mini q4", mini.quant(Quant::Q4)),
        ("wide q2", wide(Quant::Q2)),
        ("wide mxfp4", wide(Quant::Mxfp4)),
    ]
}

fn alone_limits() -> Limits {
    Limits { context: 512, slots: 32, max_rows: 320, rewind: 8 }
}

fn by_itself<D: Backend>(
    name: &str,
    recipe: &Recipe,
    prompts: &[u32],
    open: &mut dyn FnMut(&Shape, Limits) -> Result<D>,
    report: &mut Report,
) -> Result<()> {
    let (file, limits) = (synthetic(recipe, name)?, alone_limits());
    let mut device = Bench::new(transformer(open(&recipe.shape, limits)?, &file)?);
    for (rule, outcome) in alone::bits(&mut device)? {
        report.rule(format!("{name}: {rule}"), outcome);
    }
    let outcome = alone::odd_choices(&mut open(&recipe.shape, limits)?, recipe.shape.n_vocab)?;
    report.rule(format!("{name}: the best of odd logits is chosen"), outcome);
    let outcome = alone::replay(|| open(&recipe.shape, limits), &file, limits)?;
    report.rule(format!("{name}: replayed steps have the bits of eager ones"), outcome);
    let mut cpu = Bench::new(transformer(cpu(&recipe.shape)?, &file)?);
    for &prompt in prompts {
        let outcome = alone::forward(&mut cpu, &mut device, prompt)?;
        report.rule(format!("{name}: whole forwards of {prompt} tokens and decode"), outcome);
    }
    let prompt: Vec<u32> = (0..150).map(|pos| token(9, pos, recipe.shape.n_vocab)).collect();
    migrations(name, (&mut cpu, &mut device), &prompt, 24, report)
}

fn transformer<B: Backend>(backend: B, file: &Gguf) -> Result<Transformer<B>> {
    Transformer::new(backend, file, None, alone_limits(), Numerics::Stored)
}

fn migrations<R: Model, D: Model>(
    name: &str,
    (cpu, device): (&mut Bench<R>, &mut Bench<D>),
    prompt: &[u32],
    tokens: u32,
    report: &mut Report,
) -> Result<()> {
    let outcome = alone::migrate(cpu, device, prompt, tokens)?;
    report.rule(format!("{name}: a state of the CPU goes on on the device"), outcome);
    let outcome = alone::migrate(device, cpu, prompt, tokens)?;
    report.rule(format!("{name}: a state of the device goes on on the CPU"), outcome);
    Ok(())
}

/// A text that a trained model has something to say about.
const TEXT: &str = "Once upon a time there was a small village by a river. The people of the village were fishermen and \
    farmers, and every evening they met at the old bridge to talk about the day. One evening a stranger came over the \
    bridge with a heavy book under his arm. He sat down beside the miller and opened the book, and said that he would \
    read a story to everyone who could give him a piece of bread. The miller's daughter ran home and came back with a \
    loaf, and the stranger began to read about the sea, about ships and islands, and about a king who wanted to know \
    where the wind comes from.";

/// Saved states of a trained model that go from the CPU to the device and back: a part of [`device_suite`].
pub fn trained_states<D: Backend>(file: &Gguf, open: &mut dyn FnMut(&Shape, Limits) -> Result<D>) -> Report {
    let mut report = Report::default();
    trained(file, open, &mut report);
    report
}

fn trained<D: Backend>(file: &Gguf, open: &mut dyn FnMut(&Shape, Limits) -> Result<D>, report: &mut Report) {
    if let Err(error) = long_answers(file, open, report) {
        report.rule("the trained model".to_owned(), Err(error.to_string()));
    }
}

fn long_answers<D: Backend>(
    file: &Gguf,
    open: &mut dyn FnMut(&Shape, Limits) -> Result<D>,
    report: &mut Report,
) -> Result<()> {
    let shape = Shape::from_gguf(file)?;
    let tokenizer = Tokenizer::from_metadata(file.metadata())
        .map_err(|error| ds4_model::Error::Batch(format!("no tokenizer: {error}")))?;
    let mut prompt = tokenizer.encode(TEXT);
    prompt.truncate(alone_limits().max_rows as usize);
    let mut device = Bench::new(transformer(open(&shape, alone_limits())?, file)?);
    let mut cpu = Bench::new(transformer(cpu(&shape)?, file)?);
    migrations("the trained model", (&mut cpu, &mut device), &prompt, 200, report)
}
