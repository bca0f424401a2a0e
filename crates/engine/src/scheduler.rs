//! The loop of the one thread that owns the model: take in, give slots, evaluate one step of everything that runs, hand
//! the logits out. Which rows a step holds is `plan`'s business, what happens to logits that of `generation` and `score`.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use ds4_model::{Batch, Limits, Model, SlotId, Span};
use ds4_text::Tokenizer;

use crate::generation::{Flow, Generation};
use crate::handle::{Control, Message, Queued, Shared, Sink};
use crate::kvstore::{Image, Key, KvStore};
use crate::pace::Pace;
use crate::plan::{Budget, Demand, Kind, plan};
use crate::saves::Trail;
use crate::score::Scoring;
use crate::{
    EngineConfig, Error, Event, KvStoreConfig, LiveMatch, Request, Result, ScoreEvent, ScoreRequest, Session,
    SlotStatus, Source, StopReason,
};

mod stored;

/// Everything the thread owns.
pub(crate) struct Scheduler {
    seats: Vec<Seat>,
    waiting: VecDeque<Entry>,
    inbox: Receiver<Message>,
    logits: Vec<f32>,
    tokenizer: Arc<Tokenizer>,
    config: EngineConfig,
    limits: Limits,
    shared: Arc<Shared>,
    pace: Pace,
    /// Steps so far: the clock by which slots grow old.
    step: u64,
    /// Told to stop, or nobody is left who could send anything.
    closing: bool,
    /// Entries so far.
    tickets: u64,
    kv: Option<KvStore>,
    model: Box<dyn Model>,
}

/// A slot with its history and the request that runs in it.
struct Seat {
    session: Session,
    job: Option<Job>,
    used: u64,
    /// Whose sequence it is: nobody else goes on from it.
    tenant: u64,
    trail: Trail,
    /// Where its state came from, until a token was drawn from it.
    restored: Option<Key>,
    /// A state that came from the store and did not work.
    refused: Option<Key>,
}

/// A running request.
struct Job {
    /// The history to be evaluated; the session holds its beginning.
    tokens: Vec<u32>,
    task: Task,
    /// Its listener has enough for now.
    paused: bool,
}

enum Task {
    /// `prompt` tokens are given, those after them were drawn.
    Generate {
        prompt: u32,
        generation: Box<Generation>,
    },
    Score(Scoring),
}

/// A request in the queue.
struct Entry {
    waiting: Waiting,
    ticket: u64,
    stored: Stored,
    /// Tokens that a slot held when the store was asked.
    live: u32,
    /// The store was asked twice.
    again: bool,
}

/// What the store has of a prompt.
enum Stored {
    Unasked,
    Asked,
    Known(Option<Box<Image>>),
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
        kv: Option<KvStore>,
    ) -> Self {
        let limits = model.limits();
        let seat = |slot| Seat::new(Session::new(slot, config.checkpoints));
        Scheduler {
            seats: (0..limits.slots).map(seat).collect(),
            waiting: VecDeque::new(),
            inbox,
            logits: Vec::new(),
            tokenizer,
            config,
            limits,
            shared,
            pace: Pace::default(),
            step: 0,
            closing: false,
            tickets: 0,
            kv,
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
            self.tell();
            self.receive();
            self.sweep();
            self.admit()?;
            self.tell();
            if self.is_working() {
                self.advance()?;
            } else if self.closing {
                return Ok(());
            }
        }
    }

    /// Puts what the slots hold where others can see it.
    fn tell(&self) {
        let running = self.seats.iter().filter(|seat| seat.job.is_some()).count();
        let held = self.seats.iter().map(|seat| u64::from(seat.session.position())).sum();
        self.shared.occupied(running, held);
    }

    /// Something can go on now.
    fn is_working(&self) -> bool {
        self.seats.iter().any(|seat| seat.job.as_ref().is_some_and(|job| !job.paused))
    }

    /// Takes in what has arrived; waits for something if there is nothing else to do.
    fn receive(&mut self) {
        let free = self.seats.iter().any(|seat| seat.job.is_none());
        let busy = self.is_working() || (free && self.waiting.iter().any(Entry::is_ready));
        let mut next = if busy || self.closing {
            self.inbox.try_recv()
        } else if self.waiting.is_empty() && self.seats.iter().all(|seat| seat.job.is_none()) {
            self.inbox.recv().map_err(|_| TryRecvError::Disconnected)
        } else {
            // Who waits for the store or for a listener may be cancelled or heard meanwhile, which sends no message.
            self.inbox.recv_timeout(LOOK).map_err(|error| match error {
                RecvTimeoutError::Timeout => TryRecvError::Empty,
                RecvTimeoutError::Disconnected => TryRecvError::Disconnected,
            })
        };
        loop {
            match next {
                Ok(Message::Generate(queued)) => self.enqueue(Waiting::Generate(queued)),
                Ok(Message::Score(queued)) => self.enqueue(Waiting::Score(queued)),
                Ok(Message::Fetched(ticket, image)) => self.fetched(ticket, image),
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

    fn enqueue(&mut self, waiting: Waiting) {
        self.tickets += 1;
        let asks = self.kv.is_some() && matches!(waiting, Waiting::Generate(_));
        let stored = if asks { Stored::Unasked } else { Stored::Known(None) };
        self.waiting.push_back(Entry { waiting, ticket: self.tickets, stored, live: 0, again: false });
    }

    fn control(&mut self, control: Control) {
        // Whoever asked may have gone; then nobody misses the answer.
        match control {
            Control::Slots(reply) => drop(reply.send(self.seats.iter().map(Seat::status).collect())),
            Control::Clear(slot, reply) => drop(reply.send(self.idle_seat(slot).map(|(seat, _)| seat.clear()))),
            Control::Snapshot(slot, reply) => {
                let taken = self.idle_seat(slot).and_then(|(seat, model)| seat.session.snapshot(model));
                drop(reply.send(taken));
            }
            Control::Restore(slot, bytes, reply) => {
                let done = self.idle_seat(slot).and_then(|(seat, model)| {
                    seat.session.restore(model, &bytes)?;
                    (seat.trail, seat.tenant) = (Trail::default(), 0);
                    Ok(())
                });
                drop(reply.send(done));
            }
            Control::DraftAgreement(request, reply) => {
                let at = choose_seat(&self.seats, &request.prompt, 0, self.limits.rewind).ok_or(Error::SlotBusy(0));
                let measured = at.and_then(|at| {
                    let seat = &mut self.seats[at];
                    seat.give_to(0);
                    seat.trail = Trail::scratch();
                    seat.used = self.step;
                    seat.session.draft_agreement(self.model.as_mut(), &request)
                });
                drop(reply.send(measured));
            }
            Control::Stop => self.cancel_all(),
            Control::Shutdown(until, reply) => {
                self.cancel_all();
                let _ = reply.send(self.save_all(until));
            }
        }
    }

    fn cancel_all(&mut self) {
        self.closing = true;
        self.waiting.drain(..).for_each(|entry| entry.waiting.cancel());
        for seat in &mut self.seats {
            seat.end(StopReason::Cancelled);
        }
    }

    fn idle_seat(&mut self, slot: SlotId) -> Result<(&mut Seat, &mut dyn Model)> {
        match self.seats.get_mut(slot as usize) {
            None => Err(Error::NoSuchSlot { found: slot, slots: self.limits.slots }),
            Some(seat) if seat.job.is_some() => Err(Error::SlotBusy(slot)),
            Some(seat) => Ok((seat, self.model.as_mut())),
        }
    }

    /// Ends what was cancelled, running or waiting, and looks whose listener has enough for now. An engine that closes waits
    /// for nobody.
    fn sweep(&mut self) {
        for seat in &mut self.seats {
            let Some(job) = &mut seat.job else { continue };
            job.paused = !self.closing && job.is_full();
            if job.is_cancelled() {
                seat.end(StopReason::Cancelled);
            }
        }
        if self.waiting.iter().any(|entry| entry.waiting.is_cancelled()) {
            let (cancelled, waiting) = self.waiting.drain(..).partition(|entry| entry.waiting.is_cancelled());
            self.waiting = waiting;
            let cancelled: VecDeque<Entry> = cancelled;
            cancelled.into_iter().for_each(|entry| entry.waiting.cancel());
        }
    }

    /// Gives idle slots to those who wait, first come, first served; who still waits for the store holds nobody up.
    fn admit(&mut self) -> Result<()> {
        self.look_up();
        while let Some(next) = self.waiting.iter().position(Entry::is_ready) {
            if self.seats.iter().filter(|seat| seat.job.is_some()).count() >= self.config.max_active as usize {
                return Ok(());
            }
            let Waited { tokens, tenant } = self.waiting[next].waiting.history();
            let Some(at) = choose_seat(&self.seats, tokens, tenant, self.limits.rewind) else { return Ok(()) };
            let mut entry = self.waiting.remove(next).expect("it was looked at");
            if self.ask_again(at, &mut entry) {
                self.waiting.insert(next, entry);
                self.look_up();
                continue;
            }
            let image = if let Stored::Known(image) = entry.stored { image } else { None };
            let started = match entry.waiting {
                Waiting::Generate(queued) => {
                    let (request, events, submitted) = queued.admit();
                    self.start(at, request, events, submitted, image)
                }
                Waiting::Score(queued) => {
                    let (request, events, _) = queued.admit();
                    self.start_scoring(at, request, events)
                }
            };
            self.seats[at].used = self.step;
            started?;
            self.look_up();
        }
        Ok(())
    }

    /// Puts a generation into a seat. Only what ends the engine is an error here.
    fn start(
        &mut self,
        at: usize,
        request: Request,
        events: Sink<Event>,
        submitted: Instant,
        image: Option<Box<Image>>,
    ) -> Result<()> {
        if request.explain {
            let own = self.seats.iter().filter(|seat| seat.tenant == request.tenant);
            events.send(Event::Matched(LiveMatch::of(own.map(|seat| seat.session.tokens()), &request.prompt)));
        }
        let tokens = request.prompt.clone();
        let prompt = tokens.len() as u32;
        let (cached, source) = match self.take_seat(at, &request, image) {
            Ok(taken) => taken,
            Err(error) => {
                events.fail(error.clone());
                return fatal(error);
            }
        };
        let seat = &mut self.seats[at];
        let tokenizer = Arc::clone(&self.tokenizer);
        let mut generation = Generation::new(request, events, tokenizer, self.limits.context, cached, submitted);
        generation.reuses(cached, source);
        if !generation.prefilled(cached) {
            return Ok(());
        }
        seat.job =
            Some(Job { tokens, task: Task::Generate { prompt, generation: Box::new(generation) }, paused: false });
        if cached == prompt {
            // The whole prompt is there, its logits too.
            let logits = seat.session.logits().map(<[f32]>::to_vec).unwrap_or_default();
            seat.sample(&logits);
        }
        Ok(())
    }

    fn start_scoring(&mut self, at: usize, request: ScoreRequest, events: Sink<ScoreEvent>) -> Result<()> {
        let (tokens, scoring) = Scoring::new(request, events);
        let before = &tokens[..scoring.first_row() as usize];
        let shared = if self.seats[at].tenant == 0 { self.seats[at].session.common_prefix(before) } else { 0 };
        self.keep_what_goes(at, shared);
        let seat = &mut self.seats[at];
        seat.give_to(0);
        seat.trail = Trail::scratch();
        let keep = seat.session.common_prefix(before);
        match seat.session.rewind_near(self.model.as_mut(), keep) {
            Ok(_) => {
                seat.job = Some(Job { tokens, task: Task::Score(scoring), paused: false });
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
        let kv = self.kv.as_ref().map(KvStore::config);
        let demands: Vec<Demand> = self.in_turn().filter_map(|at| self.seats[at].demand(kv)).collect();
        let decodes = demands.iter().filter(|demand| demand.kind == Kind::Decode).count() as u32;
        let budget = Budget {
            rows: self.limits.max_rows,
            quantum: self.pace.quantum(decodes, self.config.prefill_quantum.max(1)),
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
        let begun = Instant::now();
        if let Err(error) = self.model.forward(&batch, &mut self.logits) {
            let error = Error::from(error);
            for span in &spans {
                self.seats[span.slot as usize].fail(error.clone());
                self.save_on_the_way(span.slot as usize);
            }
            return fatal(error);
        }
        let decodes = decodes.min(tokens.len() as u32);
        self.pace.took(decodes, tokens.len() as u32 - decodes, begun.elapsed());
        self.shared.stepped(tokens.len());
        let mut rest = &self.logits[..];
        for span in &spans {
            let (rows, later) = rest.split_at(span.logit_rows() * n_vocab);
            rest = later;
            let seat = &mut self.seats[span.slot as usize];
            seat.used = self.step;
            seat.take(span, rows, self.limits.rewind);
        }
        for span in &spans {
            self.save_on_the_way(span.slot as usize);
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
    fn new(session: Session) -> Self {
        Seat { session, job: None, used: 0, tenant: 0, trail: Trail::default(), restored: None, refused: None }
    }

    fn clear(&mut self) {
        *self = Seat { used: self.used, ..Seat::new(self.session.emptied()) };
    }

    /// Nobody goes on from another tenant's sequence.
    fn give_to(&mut self, tenant: u64) {
        if self.tenant != tenant {
            self.clear();
            self.tenant = tenant;
        }
        self.restored = None;
    }

    /// Tokens of a tenant's prompt that would not have to be evaluated again.
    fn reusable(&self, prompt: &[u32], tenant: u64, rewind: u32) -> u32 {
        if self.tenant == tenant { self.session.reusable(prompt, rewind) } else { 0 }
    }

    fn status(&self) -> SlotStatus {
        SlotStatus {
            slot: self.session.slot(),
            tokens: self.session.tokens().to_vec(),
            busy: self.job.is_some(),
            checkpoint_bytes: self.session.checkpoint_bytes(),
        }
    }

    /// What it could evaluate now. With a store a prompt pauses where it is to be saved.
    fn demand(&self, kv: Option<&KvStoreConfig>) -> Option<Demand> {
        let job = self.job.as_ref().filter(|job| !job.paused)?;
        let pos = self.session.position();
        let kind = match &job.task {
            Task::Generate { prompt, .. } if pos >= *prompt => Kind::Decode,
            Task::Generate { .. } => Kind::Prefill,
            Task::Score(scoring) => Kind::Score { from: scoring.first_row() },
        };
        let pause = match (kv, kind) {
            (Some(kv), Kind::Prefill) => self.trail.until_stop(kv, pos),
            _ => u32::MAX,
        };
        Some(Demand { slot: self.session.slot(), pos, len: (job.tokens.len() as u32 - pos).min(pause), kind })
    }

    fn pending(&self, span: &Span) -> &[u32] {
        let job = self.job.as_ref().expect("spans are planned for running jobs");
        &job.tokens[span.pos as usize..(span.pos + span.len) as usize]
    }

    /// The evaluated rows of `span` with their logits.
    fn take(&mut self, span: &Span, rows: &[f32], rewind: u32) {
        let Seat { session, job, .. } = self;
        let Some(Job { tokens, task, .. }) = job else { return };
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
        let Some(Job { tokens, task: Task::Generate { generation, .. }, .. }) = &mut self.job else { return };
        match generation.advance(logits) {
            Ok(flow) => {
                self.restored = None;
                match flow {
                    Flow::Next(id) => tokens.push(id),
                    Flow::Stop(reason) => self.end(reason),
                }
            }
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

    /// Ends the request with an error. Nothing is known of the slot's state then, unless only the constraint failed. If that
    /// state came from the store, which is reason enough to doubt it, the request starts again from nothing instead.
    fn fail(&mut self, error: Error) {
        let constraint = matches!(error, Error::Constraint(_));
        if !constraint {
            self.session.clear();
            self.trail = Trail::default();
        }
        let device = matches!(error, Error::Device(_));
        if let (Some(key), Some(Job { task: Task::Generate { generation, .. }, .. }), false) =
            (self.restored.take(), &mut self.job, device || constraint)
        {
            self.refused = Some(key);
            generation.reuses(0, Source::None);
            generation.prefilled(0);
            return;
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

    fn is_full(&self) -> bool {
        matches!(&self.task, Task::Generate { generation, .. } if generation.is_full())
    }
}

impl Entry {
    fn is_ready(&self) -> bool {
        matches!(self.stored, Stored::Known(_))
    }
}

/// Tokens to go on from, and whose they are.
struct Waited<'a> {
    tokens: &'a [u32],
    tenant: u64,
}

impl Waiting {
    fn history(&self) -> Waited<'_> {
        match self {
            Waiting::Generate(queued) => Waited { tokens: &queued.request.prompt, tenant: queued.request.tenant },
            Waiting::Score(queued) => Waited { tokens: &queued.request.tokens, tenant: 0 },
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
fn choose_seat(seats: &[Seat], tokens: &[u32], tenant: u64, rewind: u32) -> Option<usize> {
    let idle = seats.iter().enumerate().filter(|(_, seat)| seat.job.is_none());
    let rank = |seat: &Seat| {
        let held = seat.session.position();
        let shared = if seat.tenant == tenant { seat.session.common_prefix(tokens) } else { 0 };
        let kept = seat.reusable(tokens, tenant, rewind);
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

/// How soon a request that waits for the store or its listener notices what it is not told.
const LOOK: Duration = Duration::from_millis(20);
