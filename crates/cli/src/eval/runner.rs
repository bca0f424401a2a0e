//! Rows through the engine: workers that take rows, send requests, and report. One worker keeps one slot busy; the engine
//! evaluates all of them together.

use std::collections::HashMap;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ds4_engine::{Cancel, Event, ReplyBudget, Request, SamplingParams, StopReason};
use ds4_text::{Detokenizer, Tokenizer};

use super::board::{Attempt, Closed, Update};
use super::case::Case;
use super::gate::Gate;
use super::grade::{Outcome, Reply};
use super::options::Settings;
use super::queue::Queue;
use crate::conversation::Encoded;
use crate::device::Loaded;

/// A case in one of its repetitions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) case: usize,
    /// From 0.
    pub(super) run: u32,
}

/// Everything that is run, fixed before the first request.
pub(crate) struct Plan {
    pub(super) cases: Vec<Case>,
    pub(super) prompts: Vec<Encoded>,
    pub(super) rows: Vec<Row>,
    pub(super) settings: Settings,
    /// Common beginnings of the prompts of each document that is asked about more than once.
    prefixes: HashMap<String, Vec<u32>>,
}

/// Shorter common beginnings are not worth a request of their own.
const LEAST_PREFIX: usize = 64;

impl Plan {
    pub(super) fn new(
        cases: Vec<Case>,
        repeat: u32,
        settings: Settings,
        tokenizer: &Tokenizer,
    ) -> anyhow::Result<Self> {
        let encode = |case: &Case| case.encode(tokenizer, settings.thinking);
        let prompts = cases.iter().map(encode).collect::<anyhow::Result<Vec<_>>>()?;
        let rows = (0..repeat).flat_map(|run| (0..cases.len()).map(move |case| Row { case, run })).collect();
        let mut prefixes: HashMap<String, (usize, Vec<u32>)> = HashMap::new();
        for (case, prompt) in cases.iter().zip(&prompts) {
            let Some(document) = &case.document else { continue };
            let (count, prefix) = prefixes.entry(document.clone()).or_insert_with(|| (0, prompt.ids.clone()));
            *count += 1;
            let common = prefix.iter().zip(&prompt.ids).take_while(|(a, b)| a == b).count();
            prefix.truncate(common);
        }
        prefixes.retain(|_, (count, prefix)| *count > 1 && prefix.len() >= LEAST_PREFIX);
        let prefixes = prefixes.into_iter().map(|(document, (_, prefix))| (document, prefix)).collect();
        Ok(Self { cases, prompts, rows, settings, prefixes })
    }

    pub(super) fn case(&self, row: usize) -> &Case {
        &self.cases[self.rows[row].case]
    }

    /// Tokens of the longest prompt and the most that may be drawn after it.
    pub(super) fn context(&self) -> u32 {
        let longest = self.prompts.iter().map(|prompt| prompt.ids.len()).max().unwrap_or(0) as u32;
        let tokens = self.settings.tokens.saturating_mul(if self.settings.retry_incomplete { 2 } else { 1 });
        longest.saturating_add(tokens)
    }
}

/// What the screen and the signals do to a run.
pub(super) struct Control {
    queue: Mutex<Queue>,
    /// Rows under way. `None` once the run is to end: nothing begins any more.
    running: Mutex<Option<HashMap<usize, Cancel>>>,
    pub(super) gate: Gate,
    workers: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Control {
    pub(super) fn new(plan: &Plan, workers: usize, gate: Gate) -> Self {
        let documents = (0..plan.rows.len()).map(|row| plan.case(row).document.clone()).collect();
        let queue = Mutex::new(Queue::new(documents, workers));
        Self { queue, running: Mutex::new(Some(HashMap::new())), gate, workers }
    }

    /// Makes a row the next one.
    pub(super) fn hurry(&self, row: usize) {
        lock(&self.queue).hurry(row);
    }

    /// Ends a row, or takes it out before it begins; then nobody else reports it and `true` is returned.
    pub(super) fn skip(&self, row: usize) -> bool {
        if let Some(cancel) = lock(&self.running).as_ref().and_then(|running| running.get(&row)) {
            cancel.cancel();
            // A closed gate would keep the engine from seeing it.
            self.gate.open();
        }
        lock(&self.queue).skip(row)
    }

    /// Ends everything that runs and begins nothing more.
    pub(super) fn stop(&self) {
        lock(&self.queue).clear();
        for cancel in lock(&self.running).take().into_iter().flat_map(HashMap::into_values) {
            cancel.cancel();
        }
        self.gate.open();
    }

    fn is_stopped(&self) -> bool {
        lock(&self.running).is_none()
    }

    /// A row for this worker, and what ends it.
    fn take(&self, worker: usize) -> Option<(usize, Cancel)> {
        let row = lock(&self.queue).take(worker)?;
        let cancel = Cancel::default();
        lock(&self.running).as_mut()?.insert(row, cancel.clone());
        Some((row, cancel))
    }

    fn release(&self, row: usize) {
        if let Some(running) = lock(&self.running).as_mut() {
            running.remove(&row);
        }
    }
}

/// Runs the plan. `follow` gets the news and returns when there is no more, or when it has enough.
pub(super) fn run<T>(
    loaded: &Loaded,
    plan: &Plan,
    control: &Control,
    follow: impl FnOnce(Receiver<Update>) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    thread::scope(|scope| {
        let (sender, updates) = mpsc::channel();
        for worker in 0..control.workers {
            let news = sender.clone();
            let mut worker = Worker { loaded, plan, control, number: worker, news, read: None };
            scope.spawn(move || worker.run());
        }
        drop(sender);
        let followed = follow(updates);
        control.stop();
        followed
    })
}

struct Worker<'a> {
    loaded: &'a Loaded,
    plan: &'a Plan,
    control: &'a Control,
    number: usize,
    news: Sender<Update>,
    /// Document whose beginning this worker has had evaluated.
    read: Option<String>,
}

/// What one request brought.
struct Drawn {
    attempt: Attempt,
    /// Stopped, or broken.
    cut: bool,
}

impl Worker<'_> {
    fn run(&mut self) {
        while let Some((row, cancel)) = self.control.take(self.number) {
            self.read_document(row, &cancel);
            let first = self.attempt(row, &cancel, self.plan.settings.tokens);
            let incomplete = first.verdict.as_ref().is_some_and(|v| v.outcome == Outcome::Incomplete);
            let attempt = if incomplete && self.plan.settings.retry_incomplete {
                Attempt { retried: true, ..self.attempt(row, &cancel, self.plan.settings.tokens.saturating_mul(2)) }
            } else {
                first
            };
            self.control.release(row);
            if self.news.send(Update::Finished { row, attempt: Box::new(attempt) }).is_err() {
                return;
            }
            self.rest();
        }
    }

    /// Waits between two rows, but not for a run that is over.
    fn rest(&self) {
        let since = Instant::now();
        while since.elapsed() < self.plan.settings.pause && !self.control.is_stopped() {
            thread::sleep(Duration::from_millis(20).min(self.plan.settings.pause));
        }
    }

    /// Evaluates what the questions about a document have in common, so that the slot can always go back to its end.
    fn read_document(&mut self, row: usize, cancel: &Cancel) {
        let document = &self.plan.case(row).document;
        if *document == self.read {
            return;
        }
        self.read.clone_from(document);
        let Some(prefix) = document.as_ref().and_then(|document| self.plan.prefixes.get(document)) else { return };
        let (events, news) = mpsc::channel();
        let total = self.plan.prompts[self.plan.rows[row].case].ids.len() as u32;
        let request = Request { max_tokens: 0, cancel: cancel.clone(), ..Request::new(prefix.clone(), events) };
        // Nothing is lost if this fails: the row itself says what is wrong.
        if self.loaded.engine.submit(request).is_ok() {
            for event in news {
                if let Event::Prefill { done, .. } = event {
                    let _ = self.news.send(Update::Prefill { row, done, total });
                }
            }
        }
    }

    fn attempt(&self, row: usize, cancel: &Cancel, tokens: u32) -> Attempt {
        let Row { case, run } = self.plan.rows[row];
        let settings = &self.plan.settings;
        let prompt = &self.plan.prompts[case];
        let seed = settings.sampling.seed.wrapping_add(u64::from(run));
        let (events, news) = mpsc::channel();
        let request = Request {
            sampling: SamplingParams { seed, ..settings.sampling },
            max_tokens: tokens,
            thinking: prompt.thinking,
            reply_budget: if prompt.thinking { settings.budget } else { ReplyBudget::default() },
            tools_offered: !self.plan.cases[case].tools.is_empty(),
            cancel: cancel.clone(),
            ..Request::new(prompt.ids.clone(), events)
        };
        let before = self.control.gate.elapsed();
        let mut drawn = match self.loaded.engine.submit(request) {
            Ok(()) => self.collect(row, news),
            Err(error) => Drawn { attempt: Attempt { error: Some(error.to_string()), ..Attempt::new() }, cut: true },
        };
        let attempt = &mut drawn.attempt;
        attempt.seconds = self.control.gate.elapsed().saturating_sub(before).as_secs_f64();
        (attempt.prompt, attempt.seed) = (prompt.ids.len() as u32, seed);
        if !drawn.cut {
            let reply = Reply {
                text: &attempt.text,
                thinking: prompt.thinking,
                ended: attempt.ended,
                closed: attempt.closed.map(|closed| closed.by),
            };
            attempt.verdict = Some(self.plan.cases[case].expect.grade(&reply));
        }
        drawn.attempt
    }

    /// Follows one request to its end.
    fn collect(&self, row: usize, events: Receiver<Event>) -> Drawn {
        let tokenizer = &self.loaded.file.tokenizer;
        let special = tokenizer.special();
        let mut drawn = Drawn { attempt: Attempt::new(), cut: true };
        let mut text = Detokenizer::new();
        let mut ids = Vec::new();
        for event in events {
            // Whether anyone follows is noticed between rows.
            match event {
                Event::Prefill { done, total, .. } => {
                    let _ = self.news.send(Update::Prefill { row, done, total });
                }
                Event::Token { id, reasoning, .. } if id != special.eos => {
                    ids.push(id);
                    let closes = reasoning && id == special.think_end;
                    let shown = if closes { String::new() } else { text.push(tokenizer.token_bytes(id)) };
                    let _ = self.news.send(Update::Token { row, reasoning, text: shown });
                }
                Event::ReasoningClosed { by, rank } => {
                    drawn.attempt.closed = Some(Closed { by, at: (ids.len() as u32).saturating_sub(1), rank });
                }
                Event::Done { reason, usage, .. } => {
                    drawn.cut = reason == StopReason::Cancelled;
                    drawn.attempt.ended = matches!(reason, StopReason::EndOfTurn | StopReason::ToolCalls);
                    drawn.attempt.generated = usage.completion;
                }
                Event::Failed(error) => drawn.attempt.error = Some(error.to_string()),
                // Nothing is taken back here, as no tools are offered.
                Event::Token { .. } | Event::TakenBack { .. } | Event::Delta(_) | Event::Matched(_) => {}
            }
        }
        drawn.attempt.text = String::from_utf8_lossy(&tokenizer.decode(&ids)).into_owned();
        drawn
    }
}

impl Attempt {
    fn new() -> Self {
        Self {
            verdict: None,
            error: None,
            text: String::new(),
            prompt: 0,
            generated: 0,
            seconds: 0.0,
            closed: None,
            seed: 0,
            ended: false,
            retried: false,
        }
    }
}
