//! `ds4 eval`: cases through the same path as users' requests, and grades for their answers. This file owns the order of
//! things and how a run ends.

mod board;
mod case;
mod embedded;
mod extract;
mod gate;
mod grade;
mod options;
mod queue;
mod report;
mod runner;
mod selftest;
mod trace;
mod tui;

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use anyhow::{anyhow, bail};
use ds4_text::Tokenizer;

use board::{Board, Update};
use case::Case;
use gate::{Gate, Gated};
use options::{Asked, MOST_TOKENS, Run, Selection};
use runner::{Control, Plan};
use trace::Trace;

use crate::config::{self, ModelSource, Surroundings};
use crate::device::{Loaded, ModelFile, Seats, Telling, open_file};
use crate::failure::{CasesFailed, usage};
use crate::file::write_whole;
use crate::interrupt::Interrupt;
use crate::lock::Lock;
use crate::{device, help, terminal};

pub(crate) use embedded::dialogues;
pub(crate) use options::Settings;
pub(crate) use report::Score;

/// How often a run looks for signals while nothing happens.
const LOOK_EVERY: Duration = Duration::from_millis(100);

pub(crate) fn main(words: impl Iterator<Item = OsString>, out: &mut dyn Write) -> anyhow::Result<()> {
    match options::parse(words)? {
        Asked::Help => terminal::show(out, help::EVAL),
        Asked::SelfTest => selftest::run(out),
        Asked::Regrade(file) => trace::regrade(&file, out),
        Asked::List(selection) => list(&selection, out),
        Asked::Run(run) => evaluate(&run, out),
    }
}

/// The chosen cases of the named files, or of the program.
fn cases(selection: &Selection) -> anyhow::Result<Vec<Case>> {
    if selection.files.is_empty() {
        return selection.choose(embedded::cases()?);
    }
    let mut cases = Vec::new();
    for file in &selection.files {
        cases.extend(case::read_file(file)?);
    }
    case::check_ids(&cases).map_err(|e| anyhow!("cannot read cases: {e}"))?;
    selection.choose(cases)
}

fn list(selection: &Selection, out: &mut dyn Write) -> anyhow::Result<()> {
    for (at, case) in cases(selection)?.iter().enumerate() {
        let kind = case.grading.get("kind").and_then(|kind| kind.as_str()).unwrap_or_default();
        let title = if case.title.is_empty() { case.asked() } else { &case.title };
        let line = format!("{:>4} {:<14} {:<10} {:<20} {}\n", at + 1, case.suite, kind, case.id, report::short(title));
        terminal::show(out, &line)?;
    }
    Ok(())
}

/// A run from the command line to its exit code.
fn evaluate(run: &Run, out: &mut dyn Write) -> anyhow::Result<()> {
    let interrupt = Interrupt::install()?;
    let cases = cases(&run.selection)?;
    let source = ModelSource::resolve(run.common.model.clone(), &Surroundings::look());
    let file = open_file(&source, run.common.quiet)?;
    let screen = !run.plain && io::stdin().is_terminal() && io::stdout().is_terminal() && !dumb();
    let mut settings = run.settings.clone();
    if !screen {
        settings.pause = Duration::ZERO;
    }
    let plan = Plan::new(cases, run.repeat, settings, &file.tokenizer)?;
    let mut runtime = config::runtime(&run.common)?;
    device::settle(&source, &mut runtime, run.common.quiet)?;
    let _lock = Lock::for_model(&source, &runtime)?;
    let gate = Gate::new();
    let seats = Seats { slots: run.concurrency, ..Seats::default() };
    let loaded = open(file, &plan, runtime, seats, &gate)?;
    let control = Control::new(&plan, run.concurrency as usize, gate);
    let trace = run.trace.as_ref().map(|path| Trace::begin(path, &loaded, &plan)).transpose()?;
    let mut scene =
        Scene { loaded: &loaded, plan: &plan, control: &control, board: Board::new(plan.rows.len()), trace };
    interrupt.begin();
    let ended = runner::run(&loaded, &plan, &control, |news| {
        if screen { tui::follow(&mut scene, &news, &interrupt) } else { scene.follow(&news, &interrupt) }
    });
    let interrupted = interrupt.end();
    let Scene { mut board, trace, .. } = scene;
    board.stop_rest();
    let ending = ended?;
    if let Some(trace) = trace {
        trace.finish(&board)?;
    }
    let runtime = control.gate.elapsed();
    if let Some(path) = &run.json {
        let value = report::json(&plan, &board, runtime, loaded.file.gguf.name());
        write_whole(path, |file| Ok(writeln!(file, "{value}")?))?;
    }
    terminal::show(out, &report::text(&plan, &board, runtime))?;
    if interrupted || ending == Ending::Interrupted {
        return Err(interrupt.ended());
    }
    conclude(&board)
}

/// How the cases were followed to their end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Done,
    /// The user asked for the report.
    Stopped,
    Interrupted,
}

fn conclude(board: &Board) -> anyhow::Result<()> {
    if let Some(error) = board.error() {
        bail!("a case could not be run: {error}");
    }
    if board.passed() == board.lines.len() { Ok(()) } else { Err(CasesFailed.into()) }
}

fn dumb() -> bool {
    std::env::var_os("TERM").is_none_or(|term| term == "dumb")
}

/// Opens the model with the context that the cases need.
fn open(
    file: ModelFile,
    plan: &Plan,
    mut runtime: config::Runtime,
    seats: Seats,
    gate: &Gate,
) -> anyhow::Result<Loaded> {
    let needed = plan.context();
    if needed > MOST_TOKENS {
        return Err(usage(format!("the longest prompt and --tokens need {needed} tokens, at most {MOST_TOKENS}")));
    }
    let trained = file.shape.context;
    if needed > trained {
        let longest = plan.prompts.iter().map(|prompt| prompt.ids.len()).max().unwrap_or(0);
        terminal::warn(format_args!(
            "the model was made for {trained} tokens, the longest prompt ({longest}) and its answer may have {needed}: \
             long answers will be cut, and cases that do not fit not be run"
        ));
    }
    runtime.ctx = Some(needed.min(trained));
    let gate = gate.clone();
    let wrap = move |model| Box::new(Gated { model, gate: gate.clone() }) as Box<dyn ds4_model::Model>;
    Loaded::open_with(file, &runtime, seats, &Telling::Lines, wrap)
}

/// A run under way and everyone who writes about it.
struct Scene<'a> {
    loaded: &'a Loaded,
    plan: &'a Plan,
    control: &'a Control,
    board: Board,
    trace: Option<Trace>,
}

impl Scene<'_> {
    /// Takes in one piece of news.
    fn take(&mut self, update: Update) -> anyhow::Result<()> {
        if let (Update::Finished { row, attempt }, Some(trace)) = (&update, &mut self.trace) {
            trace.case(self.loaded, self.plan, *row, attempt)?;
        }
        self.board.apply(update);
        Ok(())
    }

    /// Without a screen: one line on standard error for every finished row.
    fn follow(&mut self, news: &Receiver<Update>, interrupt: &Interrupt) -> anyhow::Result<Ending> {
        let mut ending = Ending::Done;
        loop {
            let update = match news.recv_timeout(LOOK_EVERY) {
                Ok(update) => Some(update),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return Ok(ending),
            };
            if interrupt.requested() && ending == Ending::Done {
                ending = Ending::Interrupted;
                self.control.stop();
            }
            let Some(update) = update else { continue };
            let finished = if let Update::Finished { row, .. } = &update { Some(*row) } else { None };
            self.take(update)?;
            if let Some(row) = finished {
                self.note(row);
            }
        }
    }

    fn note(&self, row: usize) {
        let line = &self.board.lines[row];
        let Some(attempt) = &line.attempt else { return };
        let speed = f64::from(attempt.generated) / attempt.seconds.max(1e-9);
        terminal::note(format_args!(
            "ds4-eval: {}/{} {} {}: {} + {} tokens, {:.1} s, {speed:.1} t/s",
            self.board.lines.iter().filter(|line| line.attempt.is_some()).count(),
            self.board.lines.len(),
            self.plan.case(row).id,
            line.state.name(),
            attempt.prompt,
            attempt.generated,
            attempt.seconds,
        ));
    }
}

/// Suites of the embedded cases on a model, for `ds4 check eval`: scores in the order of the suites.
pub(crate) fn score_suites(
    file: ModelFile,
    suites: Vec<String>,
    settings: Settings,
    runtime: config::Runtime,
    seats: Seats,
    interrupt: &Interrupt,
) -> anyhow::Result<Vec<Score>> {
    let plan = Plan::new(cases(&Selection::of_suites(suites))?, 1, settings, &file.tokenizer)?;
    let gate = Gate::new();
    let slots = seats.slots as usize;
    let loaded = open(file, &plan, runtime, seats, &gate)?;
    let control = Control::new(&plan, slots, gate);
    let board = Board::new(plan.rows.len());
    let mut scene = Scene { loaded: &loaded, plan: &plan, control: &control, board, trace: None };
    interrupt.begin();
    let ended = runner::run(&loaded, &plan, &control, |news| scene.follow(&news, interrupt));
    let interrupted = interrupt.end();
    if ended? == Ending::Interrupted || interrupted {
        return Err(interrupt.ended());
    }
    if let Some(error) = loaded.engine.failure() {
        return Err(error.into());
    }
    if let Some(error) = scene.board.error() {
        terminal::warn(format_args!("cases that could not be run count as failed: {error}"));
    }
    Ok(report::scores(&plan, &scene.board))
}

/// The embedded prompts of a suite as ids.
pub(crate) fn prompts(suite: &str, tokenizer: &Tokenizer) -> anyhow::Result<Vec<Vec<u32>>> {
    let cases = cases(&Selection::of_suites(vec![suite.to_owned()]))?;
    cases.iter().map(|case| Ok(case.encode(tokenizer, false)?.ids)).collect()
}
