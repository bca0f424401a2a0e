//! `ds4 bench stages`: how long each stage of a step takes, the weights it reads, and how near that is to what the memory gives.
//! Owns the steps and the table; who takes the time is `device.rs`'s business.

use std::ffi::OsString;
use std::fmt;
use std::io::Write;

use ds4_gguf::Gguf;
use ds4_model::{Batch, Limits, LogitRows, RouteChoice, Shape, Span, Stage, TensorSpec, Weights};

use crate::args::{Args, Item};
use crate::config::{self, Backend, ModelSource, Runtime, Surroundings};
use crate::device::{self, open_file};
use crate::flags::Flags;
use crate::{help, terminal};

use super::bandwidth;
use super::options::copies;

/// Steps of one kind: the first ones warm up, the others are averaged.
const WARM: usize = 2;
const TIMED: usize = 4;

/// Stages in the order they ran, and the seconds of each.
pub(crate) type StageTimes = Vec<(Stage, f64)>;

/// A model whose stages are timed.
pub(crate) trait Timed {
    /// Runs a step.
    fn forward(&mut self, batch: &Batch<'_>, logits: &mut [f32]) -> ds4_model::Result<()>;
    /// Makes slot `to` equal to slot 0.
    fn fork(&mut self, to: u32, n: u32) -> ds4_model::Result<()>;
    /// Stages since the last call.
    fn take(&mut self) -> ds4_model::Result<StageTimes>;
    /// Runs a step that nobody looks into, and tells what it consists of where a device counts that.
    fn whole(&mut self, batch: &Batch<'_>, logits: &mut [f32]) -> ds4_model::Result<Option<StepCounts>>;
}

/// What a whole step consists of.
pub(crate) struct StepCounts {
    pub(crate) dispatches: usize,
    pub(crate) submits: usize,
    pub(crate) seconds: f64,
}

struct Options {
    model: ModelSource,
    context: u32,
    rows: Vec<u32>,
    runtime: Runtime,
}

fn parse(words: impl Iterator<Item = OsString>) -> anyhow::Result<Option<Options>> {
    let mut args = Args::new(words, "try 'ds4 bench --help'");
    let (mut common, mut context, mut rows) = (Flags::default(), 2048, vec![1, 8, 32]);
    while let Some(item) = args.next()? {
        let flag = match item {
            Item::Free(word) => return Err(args.unexpected(&word)),
            Item::Flag(flag) => flag,
        };
        match flag.as_str() {
            "-h" | "--help" => return Ok(None),
            "--ctx" => context = args.int(&flag, 1..=1 << 24)? as u32,
            "--rows" => rows = copies(&flag, &args.text(&flag)?)?,
            "-m" | "--model" | "-t" | "--threads" | "--prefill-chunk" if common.runtime(&flag, &mut args)? => {}
            _ if common.place(&flag, &mut args)? => {}
            _ => return Err(args.unknown(&flag)),
        }
    }
    let runtime = config::runtime(&common)?;
    Ok(Some(Options { model: ModelSource::resolve(common.model, &Surroundings::look()), context, rows, runtime }))
}

pub(super) fn main(words: impl Iterator<Item = OsString>, out: &mut dyn Write) -> anyhow::Result<()> {
    let Some(mut options) = parse(words)? else { return terminal::show(out, help::BENCH) };
    device::settle(&options.model, &mut options.runtime, false)?;
    let file = open_file(&options.model, false)?;
    let slots = options.rows.iter().copied().max().unwrap_or(1);
    let steps = (WARM + TIMED) as u32 * options.rows.len() as u32;
    let limits = Limits {
        context: options.context + steps,
        slots,
        max_rows: device::max_rows(&options.runtime).min(options.context).max(slots),
        ..Limits::default()
    };
    let (mut model, card) = device::timed(&file.gguf, limits, &options.runtime)?;
    let bytes = StageBytes::of(&file.gguf, &file.shape)?;
    let host = || bandwidth::read_bandwidth(device::threads(options.runtime.threads));
    let ceiling = match (card, &options.runtime.backend) {
        (Some(card), _) => Some((card, "read and written by a copy")),
        // The host's memory says nothing about a GPU's.
        (None, Backend::Gpu(_)) => None,
        (None, _) => Some((host(), "read by all threads")),
    };
    if let Some((speed, how)) = ceiling {
        writeln!(out, "memory: {:.0} GB/s {how}", speed / 1e9)?;
    }
    let ceiling = ceiling.map(|(speed, _)| speed);
    let mut logits = vec![0.0; file.shape.n_vocab * slots as usize];
    // A GPU raises its clocks while it has something to do: it reads the prompt once before it is timed.
    let prompts = if options.runtime.backend == Backend::Cpu { 1 } else { 2 };
    for left in (0..prompts).rev() {
        let mut at = 0;
        while at < options.context {
            let len = limits.max_rows.min(options.context - at);
            let span = Span { slot: 0, pos: at, len, logits: LogitRows::Last };
            step(model.as_mut(), &file.shape, &[span], &mut logits)?;
            at += len;
            let times = model.take()?;
            if at == options.context && left == 0 {
                table(out, &format!("prefill of {len} rows up to {at}"), &[times], &bytes, len, ceiling)?;
            }
        }
    }
    for &rows in &options.rows {
        for slot in 1..rows {
            model.fork(slot, options.context)?;
        }
        let (mut runs, mut counts) = (Vec::new(), String::new());
        for i in 0..WARM + TIMED {
            let pos = options.context + i as u32;
            let spans: Vec<Span> = (0..rows).map(|slot| Span { slot, pos, len: 1, logits: LogitRows::Last }).collect();
            if i < WARM {
                let told = run(&file.shape, &spans, &mut logits, |batch, logits| model.whole(batch, logits))?;
                counts = told.map_or_else(String::new, |step| step.to_string());
                model.take()?;
                continue;
            }
            step(model.as_mut(), &file.shape, &spans, &mut logits)?;
            runs.push(model.take()?);
        }
        table(out, &format!("decode of {rows} rows at {}{counts}", options.context), &runs, &bytes, rows, ceiling)?;
    }
    Ok(())
}

impl fmt::Display for StepCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, ", whole {:.2} ms, {} dispatches, {} submits", self.seconds * 1e3, self.dispatches, self.submits)
    }
}

fn step(model: &mut dyn Timed, shape: &Shape, spans: &[Span], logits: &mut [f32]) -> anyhow::Result<()> {
    run(shape, spans, logits, |batch, logits| model.forward(batch, logits))
}

/// Tokens of a walk over the vocabulary, so that rows go to different experts.
fn run<T>(
    shape: &Shape,
    spans: &[Span],
    logits: &mut [f32],
    forward: impl FnOnce(&Batch<'_>, &mut [f32]) -> ds4_model::Result<T>,
) -> anyhow::Result<T> {
    let token = |slot: u32, pos: u32| (pos.wrapping_mul(7919).wrapping_add(slot * 104_729)) % shape.n_vocab as u32;
    let tokens: Vec<u32> =
        spans.iter().flat_map(|span| (span.pos..span.pos + span.len).map(|pos| token(span.slot, pos))).collect();
    let wanted: usize = spans.iter().map(Span::logit_rows).sum();
    Ok(forward(&Batch { tokens: &tokens, spans }, &mut logits[..wanted * shape.n_vocab])?)
}

/// Bytes of weights in the file that all calls of a stage in one step read; of experts, those of one.
struct StageBytes {
    stages: Vec<(Stage, u64)>,
    expert: u64,
    n_expert: f64,
    n_used: f64,
}

impl StageBytes {
    fn of(file: &Gguf, shape: &Shape) -> anyhow::Result<Self> {
        let size = |spec: TensorSpec| Ok(file.tensor(&spec.name).map_or(0, |tensor| tensor.data.len() as u64));
        let w: Weights<u64> = Weights::bind(shape, &mut { size })?;
        let mut stages = Vec::new();
        let mut add = |stage, bytes: u64| stages.push((stage, bytes));
        let mut experts = 0;
        for l in &w.layers {
            add(Stage::HcPre, l.hc_attn.mix + l.hc_ffn.mix);
            let p = &l.project;
            let pooled = p.pooled.as_ref().map_or(0, |c| c.kv + c.gate);
            let index = p.index.as_ref().map_or(0, |i| i.proj + i.pooled.kv + i.pooled.gate);
            add(Stage::Project, p.q_a + p.kv + pooled + index);
            add(Stage::Query, l.query.q_b + l.query.index_q_b.unwrap_or(0));
            add(Stage::AttnOutput, l.attn_output.a + l.attn_output.b);
            let bias = match &l.route.choice {
                RouteChoice::Biased(bytes) => *bytes,
                RouteChoice::Hashed(_) => 0,
            };
            add(Stage::Route, l.route.gate + l.route.shared_gate + l.route.shared_up + bias);
            add(Stage::Experts, l.experts.shared_down);
            experts += l.experts.gate + l.experts.up + l.experts.down;
        }
        add(Stage::Head, w.output + w.head.mix);
        let n_expert = shape.n_expert as f64;
        Ok(Self { stages, expert: experts / shape.n_expert as u64, n_expert, n_used: shape.n_expert_used as f64 })
    }

    /// Experts are those that so many tokens touch if they choose evenly.
    fn read(&self, stage: Stage, rows: u32) -> f64 {
        let dense: u64 = self.stages.iter().filter(|(own, _)| *own == stage).map(|(_, bytes)| bytes).sum();
        let touched = self.n_expert * (1.0 - (1.0 - self.n_used / self.n_expert).powi(rows as i32));
        dense as f64 + if stage == Stage::Experts { touched * self.expert as f64 } else { 0.0 }
    }
}

/// One line a stage: calls, microseconds each, milliseconds of the step, bytes of weights, their speed.
fn table(
    out: &mut dyn Write,
    name: &str,
    runs: &[StageTimes],
    bytes: &StageBytes,
    rows: u32,
    ceiling: Option<f64>,
) -> anyhow::Result<()> {
    let mut sums: Vec<(Stage, usize, f64)> = Vec::new();
    for (stage, seconds) in runs.iter().flatten() {
        match sums.iter_mut().find(|(own, ..)| own == stage) {
            Some((_, calls, sum)) => (*calls, *sum) = (*calls + 1, *sum + seconds),
            None => sums.push((*stage, 1, *seconds)),
        }
    }
    let n = runs.len() as f64;
    let total: f64 = sums.iter().map(|(_, _, sum)| sum / n).sum();
    writeln!(out, "\n{name}: {:.2} ms, kernel by kernel", total * 1e3)?;
    writeln!(
        out,
        "{:<14}{:>6}{:>10}{:>9}{:>7}{:>10}{:>9}{:>7}",
        "stage",
        "calls",
        "us each",
        "ms",
        "share",
        "MB",
        "GB/s",
        ceiling.map_or("", |_| "of it")
    )?;
    for (stage, calls, sum) in sums {
        let (calls, seconds) = (calls as f64 / n, sum / n);
        let read = bytes.read(stage, rows);
        write!(
            out,
            "{:<14}{calls:>6.0}{:>10.1}{:>9.3}{:>6.1}%",
            format!("{stage:?}"),
            seconds / calls * 1e6,
            seconds * 1e3,
            seconds / total * 100.0
        )?;
        if read > 0.0 {
            let speed = read / seconds;
            write!(out, "{:>10.1}{:>9.0}", read / 1e6, speed / 1e9)?;
            if let Some(ceiling) = ceiling {
                write!(out, "{:>6.0}%", speed / ceiling * 100.0)?;
            }
        }
        writeln!(out)?;
    }
    Ok(())
}
