//! `ds4 bench`: speed of prefill and decode at growing contexts. Owns the order of things: the text, the model, the frontiers,
//! and what is written when.

mod bandwidth;
mod options;
mod power;
mod report;
mod runner;
mod stages;

use std::ffi::OsString;
use std::fs::{File, create_dir_all};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use ds4_model::{Limits, MemoryPlan};
use ds4_text::Thinking;
use serde_json::json;

use crate::conversation::encode_prompt;
use crate::device::{self, Hardware, ModelFile, Telling, open_file};
use crate::failure::reason;
use crate::file::{read_text, write_whole};
use crate::interrupt::Interrupt;
use crate::{help, terminal};
use options::{Input, Options};
use report::{Facts, Row, Table};
use runner::{Runner, Stopped};

pub(crate) use runner::speed;
pub(crate) use stages::{StageTimes, StepCounts, Timed};

pub(crate) fn main(words: impl Iterator<Item = OsString>, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut words = words.peekable();
    if words.next_if(|word| word == "stages").is_some() {
        return stages::main(words, out);
    }
    let Some(mut options) = options::parse(words)? else { return terminal::show(out, help::BENCH) };
    let interrupt = Interrupt::install()?;
    device::settle(&options.model, &mut options.runtime, false)?;
    let file = open_file(&options.model, false)?;
    let text = read_input(&options, &file)?;
    match &options.csv {
        None => run(&options, &file, &text, &interrupt, out),
        Some(path) => {
            let what = || format!("cannot write file: {}", path.display());
            let mut csv = File::create(path).map_err(|e| anyhow!("{}: {}", what(), reason(&e)))?;
            run(&options, &file, &text, &interrupt, &mut csv)
        }
    }
}

/// The ids of the text, at least as many as the largest context asks for.
fn read_input(options: &Options, file: &ModelFile) -> anyhow::Result<Vec<u32>> {
    let (path, raw) = match &options.input {
        Input::Text(path) => (path, true),
        Input::Chat(path) => (path, false),
    };
    let text = read_text(path, "prompt file")?;
    let ids = encode_prompt(&file.tokenizer, &options.system, Thinking::None, raw, &text)?.ids;
    if ids.len() < options.max as usize {
        bail!("{}: {} tokens, expected at least --ctx-max={}", path.display(), ids.len(), options.max);
    }
    Ok(ids)
}

fn run(
    options: &Options,
    file: &ModelFile,
    text: &[u32],
    interrupt: &Interrupt,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let limits = limits(options);
    let plan = device::plan(&file.gguf, None, limits, &options.runtime)?;
    let hardware = device::hardware(&options.runtime)?;
    let model = device::load(&file.gguf, None, limits, &options.runtime, None, &Telling::Lines)?;
    let facts = facts(options, file, &hardware);
    let mut table = Table::begin(out, options.extended, options.comments.then_some(&facts))?;
    interrupt.begin();
    let stop = || interrupt.requested();
    let runner = Runner::new(model, text, &stop);
    let outcome = measure(options, runner, (&plan, &hardware), &mut table);
    let stopped = outcome.as_ref().is_err_and(anyhow::Error::is::<Stopped>);
    interrupt.end();
    if !stopped {
        outcome?;
    }
    if let Some(path) = &options.json {
        write_whole(path, |out| Ok(serde_json::to_writer(out, &table.json(&facts))?))?;
    }
    if stopped { Err(interrupt.ended()) } else { Ok(()) }
}

fn limits(options: &Options) -> Limits {
    let slots = options.copies.iter().copied().max().unwrap_or(1);
    let max_rows = device::max_rows(&options.runtime).min(options.max).max(slots);
    Limits { context: options.alloc, slots, max_rows, ..Limits::default() }
}

/// Every frontier in turn: the text up to it, then the copies behind it, each from the same state.
fn measure(
    options: &Options,
    mut runner: Runner<'_>,
    (plan, hardware): (&MemoryPlan, &Hardware),
    table: &mut Table<'_>,
) -> anyhow::Result<()> {
    let frontiers = options.frontiers();
    for _ in 0..options.warmup {
        let (_, logits) = runner.prefill(0, frontiers[0])?;
        runner.decode(frontiers[0], options.tokens, 1, &logits)?;
    }
    let (mut from, mut before, mut first) = (0, Vec::new(), Duration::ZERO);
    for to in frontiers {
        let (prefill, logits) = median_prefill(options, &mut runner, (from, to), &before)?;
        first += prefill;
        before = runner.snapshot(to)?;
        if let Some(folder) = &options.logits {
            dump(folder, to, &logits)?;
        }
        for &copies in &options.copies {
            let steps = median_decode(options, &mut runner, to, copies, (&logits, &before))?;
            table.row(Row {
                ctx: to,
                prefill_tokens: to - from,
                prefill,
                first,
                gen_tokens: options.tokens,
                steps,
                copies,
                state_bytes: runner.state_bytes(to),
                device_bytes: plan.weights + plan.kv + plan.scratch,
                // Without the extended columns nobody reads it.
                watts: hardware.uuid.as_deref().filter(|_| options.writes_power()).and_then(power::draw),
            })?;
        }
        from = to;
    }
    Ok(())
}

/// The middle of several runs from the same state; the logits are the same in all of them.
fn median_prefill(
    options: &Options,
    runner: &mut Runner<'_>,
    (from, to): (u32, u32),
    before: &[u8],
) -> anyhow::Result<(Duration, Vec<f32>)> {
    let mut times = Vec::with_capacity(options.repeat);
    let mut logits = Vec::new();
    for _ in 0..options.repeat {
        if from > 0 {
            runner.restore(from, before)?;
        }
        let (taken, found) = runner.prefill(from, to)?;
        times.push(taken);
        logits = found;
    }
    times.sort();
    Ok((times[times.len() / 2], logits))
}

/// The steps of the middle run.
fn median_decode(
    options: &Options,
    runner: &mut Runner<'_>,
    at: u32,
    copies: u32,
    (logits, state): (&[f32], &[u8]),
) -> anyhow::Result<Vec<Duration>> {
    let mut runs = Vec::with_capacity(options.repeat);
    for _ in 0..options.repeat {
        runner.fork(at, copies)?;
        runs.push(runner.decode(at, options.tokens, copies, logits)?);
        runner.restore(at, state)?;
    }
    runs.sort_by_key(|steps| steps.iter().sum::<Duration>());
    let middle = runs.len() / 2;
    Ok(runs.swap_remove(middle))
}

/// As `--dump-logits` writes them, for `ds4 compare`.
fn dump(folder: &Path, at: u32, logits: &[f32]) -> anyhow::Result<()> {
    create_dir_all(folder).with_context(|| format!("cannot make folder: {}", folder.display()))?;
    let value = json!({"prompt_tokens": at, "vocab": logits.len(), "logits": logits});
    write_whole(&folder.join(format!("frontier_{at}.json")), |out| Ok(serde_json::to_writer(out, &value)?))
}

/// What a reader wants to know about the rows. The machine's memory is only looked at if somebody will read it.
fn facts(options: &Options, file: &ModelFile, hardware: &Hardware) -> Facts {
    let mut facts: Facts = vec![
        ("model", json!(file.shape.name)),
        ("file", json!(file.gguf.name())),
        ("quant", json!(file.gguf.tensor("blk.0.ffn_gate_exps.weight").map(|tensor| tensor.dtype.to_string()))),
        ("backend", json!(options.runtime.backend.name())),
        ("device", json!(hardware.name)),
        ("commit", json!(option_env!("DS4_COMMIT").unwrap_or("unknown"))),
        ("date", json!(report::today())),
        ("flags", json!(options.flags)),
    ];
    if let Some(tag) = &options.tag {
        facts.push(("tag", json!(tag)));
    }
    if options.comments || options.json.is_some() {
        facts.push(("token_bytes", json!(bandwidth::token_bytes(&file.gguf, &file.shape))));
        // Weights on a card are not read from this memory.
        if hardware.uuid.is_none() {
            let speed = bandwidth::read_bandwidth(device::threads(options.runtime.threads));
            facts.push(("read_bandwidth", json!(speed.round() as u64)));
        }
    }
    facts
}
