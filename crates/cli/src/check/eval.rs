//! `ds4 check eval`: what the model can do, in one table. Owns the bars and the table; the suites are run by `eval`, the rest
//! by `measure`. Greedy, and without limits that would close the reasoning for the model.

mod measure;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use ds4_engine::{ReplyBudget, SamplingParams};

use crate::args::{Args, Item};
use crate::config::{self, ModelSource, Runtime, Surroundings};
use crate::device::{Seats, open_file};
use crate::eval::{Score, Settings, score_suites};
use crate::failure::{CasesFailed, usage};
use crate::flags::Flags;
use crate::interrupt::Interrupt;
use crate::{device, help, terminal};

/// Suites of the embedded cases, and the share that has to pass, in percent.
const BARS: &[(&str, f64)] = &[
    ("chat", 90.0),
    ("thinking", 98.0),
    ("arithmetic", 95.0),
    ("order", 90.0),
    ("tools", 95.0),
    ("tool-result", 95.0),
    ("json", 90.0),
    ("retrieval-1k", 99.0),
    ("retrieval-4k", 95.0),
    ("retrieval-16k", 80.0),
];
/// What is measured beside the suites.
const MEASURES: &[&str] = &["selection", "draft", "perplexity", "speed"];
const RETRIEVAL: &str = "retrieval-";

pub(super) struct Options {
    model: ModelSource,
    runtime: Runtime,
    /// Names from `BARS` and `MEASURES`.
    wanted: Vec<String>,
    tokens: u32,
    concurrency: u32,
    /// Another model whose perplexity is the measure of ours.
    against: Option<PathBuf>,
    max_ratio: Option<f64>,
    /// Most dialogues that are scored.
    dialogues: usize,
}

/// One row of the table.
struct Entry {
    name: String,
    result: String,
    bar: String,
    /// `None` where there is no bar.
    holds: Option<bool>,
}

pub(super) fn main(words: impl Iterator<Item = OsString>, out: &mut dyn Write) -> anyhow::Result<()> {
    let Some(mut options) = parse(words)? else { return terminal::show(out, help::CHECK_EVAL) };
    let interrupt = Interrupt::install()?;
    device::settle(&options.model, &mut options.runtime, false)?;
    let mut table = Table { out, passed: 0, failed: 0 };
    let suites: Vec<String> = BARS.iter().map(|(suite, _)| (*suite).to_owned()).filter(|s| options.wants(s)).collect();
    let scores = if suites.is_empty() { Vec::new() } else { options.score(suites, None, &interrupt)? };
    for score in &scores {
        let bar = BARS.iter().find(|(suite, _)| *suite == score.suite).map_or(100.0, |(_, bar)| *bar);
        table.add(&entry(score, bar))?;
    }
    if options.wants("selection") {
        measure::selection(&options, &scores, &interrupt)?.iter().try_for_each(|entry| table.add(entry))?;
    }
    if options.wants("draft") {
        table.add(&measure::draft(&options, &interrupt)?)?;
    }
    if options.wants("perplexity") {
        measure::perplexity(&options, &interrupt)?.iter().try_for_each(|entry| table.add(entry))?;
    }
    if options.wants("speed") {
        measure::speed(&options)?.iter().try_for_each(|entry| table.add(entry))?;
    }
    let (passed, failed) = (table.passed, table.failed);
    terminal::show(table.out, &format!("{passed} passed, {failed} failed\n"))?;
    if failed == 0 { Ok(()) } else { Err(CasesFailed.into()) }
}

fn parse(words: impl Iterator<Item = OsString>) -> anyhow::Result<Option<Options>> {
    let mut args = Args::new(words, "try 'ds4 check eval --help'");
    let mut common = Flags::default();
    let mut options = Options {
        model: ModelSource::Embedded,
        runtime: Runtime::default(),
        wanted: Vec::new(),
        tokens: 1024,
        concurrency: 8,
        against: None,
        max_ratio: None,
        dialogues: usize::MAX,
    };
    while let Some(item) = args.next()? {
        let flag = match item {
            Item::Flag(flag) => flag,
            Item::Free(word) => return Err(args.unexpected(&word)),
        };
        match flag.as_str() {
            "-h" | "--help" => return Ok(None),
            "-m" | "--model" => common.model = Some(args.path(&flag)?),
            "--mtp" => common.mtp = Some(args.path(&flag)?),
            "--suite" => options.wanted.extend(args.text(&flag)?.split(',').map(|name| name.trim().to_owned())),
            "-n" | "--tokens" => options.tokens = args.int(&flag, 1..=100_000)? as u32,
            "--concurrency" => options.concurrency = args.int(&flag, 1..=256)? as u32,
            "--against" => options.against = Some(args.path(&flag)?),
            "--max-ratio" => options.max_ratio = Some(f64::from(args.float(&flag, 0.0..=1000.0)?)),
            "--dialogues" => options.dialogues = args.int(&flag, 1..=1 << 20)? as usize,
            "-t" | "--threads" => common.threads = Some(args.int(&flag, 1..=1024)? as usize),
            "--quality" => common.quality = true,
            _ if common.place(&flag, &mut args)? => {}
            _ => return Err(args.unknown(&flag)),
        }
    }
    let known: Vec<&str> = BARS.iter().map(|(suite, _)| *suite).chain(MEASURES.iter().copied()).collect();
    if let Some(unknown) = options.wanted.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(usage(format!("invalid value for --suite: {unknown}: expected some of {}", known.join(", "))));
    }
    if options.max_ratio.is_some() && options.against.is_none() {
        return Err(usage("--max-ratio needs --against"));
    }
    options.runtime = config::runtime(&common)?;
    options.model = ModelSource::resolve(common.model, &Surroundings::look());
    if options.model == ModelSource::Embedded && options.runtime.mtp.is_none() {
        options.runtime.mtp = Some(ModelSource::Embedded);
    }
    Ok(Some(options))
}

impl Options {
    fn wants(&self, name: &str) -> bool {
        self.wanted.is_empty() || self.wanted.iter().any(|wanted| wanted == name)
    }

    /// Scores of suites; with a seed, those of the model that attends to random rows.
    fn score(&self, suites: Vec<String>, random: Option<u64>, interrupt: &Interrupt) -> anyhow::Result<Vec<Score>> {
        let settings = Settings {
            sampling: SamplingParams { temperature: 0.0, ..SamplingParams::default() },
            tokens: self.tokens,
            thinking: true,
            budget: ReplyBudget::default(),
            retry_incomplete: false,
            pause: Duration::ZERO,
        };
        let seats = Seats { slots: self.concurrency, random_selection: random, ..Seats::default() };
        score_suites(
            open_file(&self.model, random.is_some())?,
            suites,
            settings,
            self.runtime.clone(),
            seats,
            interrupt,
        )
    }
}

struct Table<'a> {
    out: &'a mut dyn Write,
    passed: usize,
    failed: usize,
}

impl Table<'_> {
    fn add(&mut self, entry: &Entry) -> anyhow::Result<()> {
        let Entry { name, result, bar, holds } = entry;
        let verdict = match holds {
            Some(true) => "PASS",
            Some(false) => "FAIL",
            None => "",
        };
        self.passed += usize::from(*holds == Some(true));
        self.failed += usize::from(*holds == Some(false));
        let line = format!("{name:<24} {result:<36} {bar:<14} {verdict}");
        terminal::show(self.out, &format!("{}\n", line.trim_end()))
    }
}

fn percent(score: &Score) -> f64 {
    100.0 * score.passed as f64 / score.total.max(1) as f64
}

fn entry(score: &Score, bar: f64) -> Entry {
    let share = percent(score);
    Entry {
        name: score.suite.clone(),
        result: format!("{}/{} {share:.1}%", score.passed, score.total),
        bar: format!(">= {bar}%"),
        holds: Some(share >= bar),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_at_its_bar_passes_and_one_case_less_does_not() {
        let score = |passed| Score { suite: "tools".to_owned(), passed, total: 200 };
        let holds = |passed| entry(&score(passed), 95.0).holds;
        assert_eq!((holds(190), holds(189)), (Some(true), Some(false)));
        assert_eq!(entry(&score(190), 95.0).result, "190/200 95.0%");
    }
}
