//! The loop of the one thread that owns the model: take in, give slots, evaluate one step of everything that runs, hand
//! the logits out. Which rows a step holds is `plan`'s business, what happens to logits that of `generation` and `score`.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Instant;

use ds4_model::{Batch, Limits, Model, SlotId, Span};
use ds4_text::Tokenizer;

use crate::generation::{Flow, Generation};
use crate::handle::{Control, Message, Queued, Shared, Sink};
use crate::plan::{Budget, Demand, Kind, plan};
use crate::score::Scoring;
use crate::{EngineConfig, Error, Event, Request, Result, ScoreEvent, ScoreRequest, Session, SlotStatus, StopReason};

/// Everything the thread owns.
pub(crate) struct Scheduler {
    seats: Vec<Seat>,
    waiting: VecDeque<Waiting>,
    inbox: Receiver<Message>,
    logits: Vec<f32>,
    tokenizer: Arc<Tokenizer>,
    config: EngineConfig,
    limits: Limits,
    shared: Arc<Shared>,
    /// Steps so far: the clock by which slots grow old.
    step: u64,
    /// Told to stop, or nobody is left who could send anything.
    closing: bool,
    model: Box<dyn Model>,
}

/// A slot with its history and the request that runs in it.
struct Seat {
    session: Session,
    job: Option<Job>,
    used: u64,
}

/// A running request.
struct Job {
    /// The history to be evaluated; the session holds its beginning.
    tokens: Vec<u32>,
    task: Task,
}

enum Task {
    /// `prompt` tokens are given, those after them were drawn.
    Generate {
        prompt: u32,
        generation: Box<Generation>,
    },
    Score(Scoring),
}

enum Waiting {
    Generate(Box<Queued<Request, Event>>),
    Score(Queued<ScoreRequest, ScoreEvent>),
}

impl Scheduler {
    pub(crate) fn new(
        model: Box<dyn Model>,
        tokenizer: Arc<Tokenizer>,
        config: EngineConfig,
        inbox: Receiver<Message>,
        shared: Arc<Shared>,
    ) -> Self {
        let limits = model.limits();
        let seat = |slot| Seat { session: Session::new(slot, config.checkpoints), job: None, used: 0 };
        Scheduler {
            seats: (0..limits.slots).map(seat).collect(),
            waiting: VecDeque::new(),
            inbox,
            logits: Vec::new(),
            tokenizer,
            config,
            limits,
            shared,
            step: 0,
            closing: false,
            model,
        }
    }

    /// Runs until there is nobody left to serve or the device fails. A panic ends it too, but not silently: the reason is
    /// recorded first, then every request that is still open reports it as its sink is dropped.
    pub(crate) fn run_to_end(mut self) {
        let error = match catch_unwind(AssertUnwindSafe(|| self.run())) {
            Ok(Ok(())) => Error::Stopped("it was closed".to_owned()),
            Ok(Err(error)) => error,
            Err(panic) => Error::Stopped(format!("its thread panicked: {}", panic_text(panic.as_ref()))),
        };
        self.shared.fail(error);
    }

    fn run(&mut self) -> Result<()> {
        loop {
            self.receive();
            self.sweep();
            self.admit()?;
            if self.seats.iter().any(|seat| seat.job.is_some()) {
                self.advance()?;
            } else if self.closing {
                return Ok(());
            }
        }
    }

    /// Takes in what has arrived; waits for something if there is nothing else to do.
    fn receive(&mut self) {
        let idle = self.waiting.is_empty() && self.seats.iter().all(|seat| seat.job.is_none());
        let mut next = if idle && !self.closing {
            self.inbox.recv().map_err(|_| TryRecvError::Disconnected)
        } else {
            self.inbox.try_recv()
        };
        loop {
            match next {
                Ok(Message::Generate(queued)) => self.waiting.push_back(Waiting::Generate(queued)),
                Ok(Message::Score(queued)) => self.waiting.push_back(Waiting::Score(queued)),
                Ok(Message::Control(control)) => self.control(control),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => {
                    self.closing = true;
                    return;
                }
            }
            next = self.inbox.try_recv();
        }
    }

    fn control(&mut self, control: Control) {
        // Whoever asked may have gone; then nobody misses the answer.
        match control {
            Control::Slots(reply) => drop(reply.send(self.seats.iter().map(Seat::status).collect())),
            Control::Clear(slot, reply) => drop(reply.send(self.idle_seat(slot).map(|(seat, _)| seat.session.clear()))),
            Control::Snapshot(slot, reply) => {
                let taken = self.idle_seat(slot).and_then(|(seat, model)| seat.session.snapshot(model));
                drop(reply.send(taken));
            }
            Control::Restore(slot, bytes, reply) => {
                let done = self.idle_seat(slot).and_then(|(seat, model)| seat.session.restore(model, &bytes));
                drop(reply.send(done));
            }
            Control::DraftAgreement(request, reply) => {
                let at = choose_seat(&self.seats, &request.prompt, self.limits.rewind).ok_or(Error::SlotBusy(0));
                let measured = at.and_then(|at| {
                    let seat = &mut self.seats[at];
                    seat.used = self.step;
                    seat.session.draft_agreement(self.model.as_mut(), &request)
                });
                drop(reply.send(measured));
            }
            Control::Stop => {
                self.closing = true;
                self.waiting.drain(..).for_each(Waiting::cancel);
                for seat in &mut self.seats {
                    seat.end(StopReason::Cancelled);
                }
            }
        }
    }

    fn idle_seat(&mut self, slot: SlotId) -> Result<(&mut Seat, &mut dyn Model)> {
        match self.seats.get_mut(slot as usize) {
            None => Err(Error::NoSuchSlot { found: slot, slots: self.limits.slots }),
            Some(seat) if seat.job.is_some() => Err(Error::SlotBusy(slot)),
            Some(seat) => Ok((seat, self.model.as_mut())),
        }
    }

    /// Ends what was cancelled, running or waiting.
    fn sweep(&mut self) {
        for seat in &mut self.seats {
            if seat.job.as_ref().is_some_and(Job::is_cancelled) {
                seat.end(StopReason::Cancelled);
            }
        }
        if self.waiting.iter().any(Waiting::is_cancelled) {
            let (cancelled, waiting) = self.waiting.drain(..).partition(Waiting::is_cancelled);
            self.waiting = waiting;
            let cancelled: VecDeque<Waiting> = cancelled;
            cancelled.into_iter().for_each(Waiting::cancel);
        }
    }

    /// Gives idle slots to those who wait, first come, first served.
    fn admit(&mut self) -> Result<()> {
        while let Some(next) = self.waiting.front() {
            let Some(at) = choose_seat(&self.seats, next.history(), self.limits.rewind) else { return Ok(()) };
            let next = self.waiting.pop_front().expect("it was looked at");
            let started = match next {
                Waiting::Generate(queued) => {
                    let (request, events, submitted) = queued.admit();
                    self.start(at, request, events, submitted)
                }
                Waiting::Score(queued) => {
                    let (request, events, _) = queued.admit();
                    self.start_scoring(at, request, events)
                }
            };
            self.seats[at].used = self.step;
            started?;
        }
        Ok(())
    }

    /// Puts a generation into a seat. Only what ends the engine is an error here.
    fn start(&mut self, at: usize, request: Request, events: Sink<Event>, submitted: Instant) -> Result<()> {
        let seat = &mut self.seats[at];
        let tokens = request.prompt.clone();
        let prompt = tokens.len() as u32;
        let cached = match seat.session.reuse(self.model.as_mut(), &tokens) {
            Ok(cached) => cached,
            Err(error) => {
                events.fail(error.clone());
                return fatal(error);
            }
        };
        let tokenizer = Arc::clone(&self.tokenizer);
        let mut generation = Generation::new(request, events, tokenizer, self.limits.context, cached, submitted);
        if !generation.prefilled(cached) {
            return Ok(());
        }
        seat.job = Some(Job { tokens, task: Task::Generate { prompt, generation: Box::new(generation) } });
        if cached == prompt {
            // The whole prompt is there, its logits too.
            let logits = seat.session.logits().map(<[f32]>::to_vec).unwrap_or_default();
            seat.sample(&logits);
        }
        Ok(())
    }

    fn start_scoring(&mut self, at: usize, request: ScoreRequest, events: Sink<ScoreEvent>) -> Result<()> {
        let seat = &mut self.seats[at];
        let (tokens, scoring) = Scoring::new(request, events);
        let before = &tokens[..scoring.first_row() as usize];
        let keep = seat.session.common_prefix(before);
        match seat.session.rewind_near(self.model.as_mut(), keep) {
            Ok(_) => {
                seat.job = Some(Job { tokens, task: Task::Score(scoring) });
                Ok(())
            }
            Err(error) => {
                scoring.fail(error.clone());
                fatal(error)
            }
        }
    }

    /// One forward call for everything that runs.
    fn advance(&mut self) -> Result<()> {
        self.step += 1;
        let demands: Vec<Demand> = self.in_turn().filter_map(|at| self.seats[at].demand()).collect();
        let budget = Budget {
            rows: self.limits.max_rows,
            quantum: self.config.prefill_quantum.max(1),
            score_rows: self.config.score_rows,
        };
        let mut spans = plan(&demands, budget);
        self.keep_checkpoints(&mut spans)?;
        if spans.is_empty() {
            return Ok(());
        }
        let mut tokens = Vec::new();
        for span in &spans {
            tokens.extend_from_slice(self.seats[span.slot as usize].pending(span));
        }
        let batch = Batch { tokens: &tokens, spans: &spans };
        let n_vocab = self.model.shape().n_vocab;
        self.logits.resize(batch.logit_rows() * n_vocab, 0.0);
        if let Err(error) = self.model.forward(&batch, &mut self.logits) {
            let error = Error::from(error);
            for span in &spans {
                self.seats[span.slot as usize].fail(error.clone());
            }
            return fatal(error);
        }
        let mut rest = &self.logits[..];
        for span in &spans {
            let (rows, later) = rest.split_at(span.logit_rows() * n_vocab);
            rest = later;
            let seat = &mut self.seats[span.slot as usize];
            seat.used = self.step;
            seat.take(span, rows, self.limits.rewind);
        }
        Ok(())
    }

    /// Seats, another one first each time: if there are more decode rows than fit, everyone gets a turn.
    fn in_turn(&self) -> impl Iterator<Item = usize> + use<> {
        let n = self.seats.len();
        let first = (self.step % n as u64) as usize;
        (first..n).chain(0..first)
    }

    /// Lets sessions write what the step would put out of reach. A session that cannot loses its request.
    fn keep_checkpoints(&mut self, spans: &mut Vec<Span>) -> Result<()> {
        let mut outcome = Ok(());
        spans.retain(|span| {
            let seat = &mut self.seats[span.slot as usize];
            match seat.session.before(self.model.as_mut(), span.len) {
                Ok(()) => true,
                Err(error) => {
                    seat.fail(error.clone());
                    outcome = std::mem::replace(&mut outcome, Ok(())).and(fatal(error));
                    false
                }
            }
        });
        outcome
    }
}

impl Seat {
    fn status(&self) -> SlotStatus {
        SlotStatus {
            slot: self.session.slot(),
            tokens: self.session.tokens().to_vec(),
            busy: self.job.is_some(),
            checkpoint_bytes: self.session.checkpoint_bytes(),
        }
    }

    fn demand(&self) -> Option<Demand> {
        let job = self.job.as_ref()?;
        let pos = self.session.position();
        let kind = match &job.task {
            Task::Generate { prompt, .. } if pos >= *prompt => Kind::Decode,
            Task::Generate { .. } => Kind::Prefill,
            Task::Score(scoring) => Kind::Score { from: scoring.first_row() },
        };
        Some(Demand { slot: self.session.slot(), pos, len: job.tokens.len() as u32 - pos, kind })
    }

    fn pending(&self, span: &Span) -> &[u32] {
        let job = self.job.as_ref().expect("spans are planned for running jobs");
        &job.tokens[span.pos as usize..(span.pos + span.len) as usize]
    }

    /// The evaluated rows of `span` with their logits.
    fn take(&mut self, span: &Span, rows: &[f32], rewind: u32) {
        let Seat { session, job, .. } = self;
        let Some(Job { tokens, task }) = job else { return };
        let n_vocab = rows.len() / span.logit_rows().max(1);
        let last = if rows.is_empty() { None } else { Some(&rows[rows.len() - n_vocab..]) };
        session.advance(&tokens[span.pos as usize..(span.pos + span.len) as usize], last, rewind);
        let done = session.position();
        match task {
            Task::Score(scoring) => {
                let listening = scoring.take(tokens, span, rows);
                match listening {
                    Err(error) => self.fail(error),
                    Ok(true) if (done as usize) < tokens.len() => {}
                    Ok(_) => self.end(StopReason::EndOfTurn),
                }
            }
            Task::Generate { prompt, generation } => {
                let in_prompt = span.pos < *prompt;
                if in_prompt && done == *prompt {
                    session.mark_prompt_end(rewind);
                }
                if in_prompt && !generation.prefilled(done) {
                    self.end(StopReason::Cancelled);
                } else if done >= *prompt {
                    self.sample(rows);
                }
            }
        }
    }

    /// Draws the next token and goes on with it, or ends.
    fn sample(&mut self, logits: &[f32]) {
        let Some(Job { tokens, task: Task::Generate { generation, .. } }) = &mut self.job else { return };
        match generation.advance(logits) {
            Ok(Flow::Next(id)) => tokens.push(id),
            Ok(Flow::Stop(reason)) => self.end(reason),
            Err(error) => self.fail(error),
        }
    }

    /// Ends the request; what the slot holds stays for the next one.
    fn end(&mut self, reason: StopReason) {
        match self.job.take() {
            Some(Job { task: Task::Generate { generation, .. }, .. }) => generation.finish(reason),
            Some(Job { task: Task::Score(scoring), .. }) if reason == StopReason::Cancelled => {
                scoring.fail(Error::Cancelled);
            }
            Some(Job { task: Task::Score(scoring), .. }) => scoring.finish(),
            None => {}
        }
    }

    /// Ends the request with an error. Nothing is known of the slot's state then, unless only the constraint failed.
    fn fail(&mut self, error: Error) {
        if !matches!(error, Error::Constraint(_)) {
            self.session.clear();
        }
        match self.job.take() {
            Some(Job { task: Task::Generate { generation, .. }, .. }) => generation.fail(error),
            Some(Job { task: Task::Score(scoring), .. }) => scoring.fail(error),
            None => {}
        }
    }
}

impl Job {
    fn is_cancelled(&self) -> bool {
        match &self.task {
            Task::Generate { generation, .. } => generation.is_cancelled(),
            Task::Score(scoring) => scoring.is_cancelled(),
        }
    }
}

impl Waiting {
    fn history(&self) -> &[u32] {
        match self {
            Waiting::Generate(queued) => &queued.request.prompt,
            Waiting::Score(queued) => &queued.request.tokens,
        }
    }

    fn is_cancelled(&self) -> bool {
        match self {
            Waiting::Generate(queued) => queued.request.cancel.is_cancelled(),
            Waiting::Score(queued) => queued.request.cancel.is_cancelled(),
        }
    }

    fn cancel(self) {
        match self {
            Waiting::Generate(queued) => {
                let (request, events, submitted) = queued.admit();
                Generation::unstarted(&request, submitted, events);
            }
            Waiting::Score(queued) => queued.admit().1.fail(Error::Cancelled),
        }
    }
}

/// The idle seat for `tokens`, if there is one. A seat that they continue comes first: one of which they share at least
/// half, most shared first. Then an empty one, so that a short common start does not cost another conversation its
/// state. Then the one that shares most, and among equals the one that was used longest ago.
fn choose_seat(seats: &[Seat], tokens: &[u32], rewind: u32) -> Option<usize> {
    let idle = seats.iter().enumerate().filter(|(_, seat)| seat.job.is_none());
    let rank = |seat: &Seat| {
        let held = seat.session.position();
        let shared = seat.session.common_prefix(tokens);
        let kept = seat.session.reusable(tokens, rewind);
        let class = match () {
            () if kept > 0 && u64::from(shared) * 2 >= u64::from(held) => 2,
            () if held == 0 => 1,
            () => 0,
        };
        (class, kept, std::cmp::Reverse(seat.used), std::cmp::Reverse(seat.session.slot()))
    };
    idle.max_by_key(|(_, seat)| rank(seat)).map(|(at, _)| at)
}

/// A device that failed takes the engine with it; any other error stays with its request.
fn fatal(error: Error) -> Result<()> {
    if matches!(error, Error::Device(_)) { Err(error) } else { Ok(()) }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}
