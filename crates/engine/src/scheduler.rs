//! The loop of the one thread that owns the model: take in, give slots, evaluate one step of everything that runs, hand
//! the logits out. Which rows a step holds is `plan`'s business, what happens to logits that of `generation` and `score`.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use ds4_model::{Batch, Best, Limits, Model, SlotId, Span};
use ds4_text::Tokenizer;

use crate::generation::{Generation, Prediction};
use crate::handle::{Control, Message, Reopen, Shared, Sink};
use crate::kvstore::{Image, KvStore};
use crate::pace::Pace;
use crate::plan::{Budget, Demand, Kind, plan};
use crate::saves::Trail;
use crate::score::Scoring;
use crate::{EngineConfig, Error, Event, LiveMatch, Request, Result, ScoreEvent, ScoreRequest, Session, StopReason};

mod placement;
mod queue;
mod seat;
#[cfg(test)]
mod sim;
mod stored;

use placement::{Place, awaited, place};
use queue::{Entry, Stored, Waited, Waiting};
use seat::{Job, Seat, Task};

/// Everything the thread owns.
pub(crate) struct Scheduler {
    seats: Vec<Seat>,
    waiting: VecDeque<Entry>,
    inbox: Receiver<Message>,
    /// What the last step made: logits of all rows that were wanted, or the best token of each.
    logits: Vec<f32>,
    best: Vec<Best>,
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
    /// Brings the model back.
    pub(crate) reopen: Option<Reopen>,
    /// The model has done a step since it was opened.
    proved: bool,
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
            best: Vec::new(),
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
            reopen: None,
            proved: false,
        }
    }

    /// Runs until there is nobody left to serve or the device fails for good. A panic ends it too, but not silently: the reason
    /// is recorded first, then every request that is still open reports it as its sink is dropped.
    pub(crate) fn run_to_end(mut self) {
        let shared = Arc::clone(&self.shared);
        loop {
            let error = match catch_unwind(AssertUnwindSafe(|| self.run())) {
                Ok(Ok(())) => Error::Stopped("it was closed".to_owned()),
                Ok(Err(error)) => error,
                Err(panic) => Error::Stopped(format!("its thread panicked: {}", panic_text(panic.as_ref()))),
            };
            let renewable = matches!(error, Error::Device(_)) && self.proved && !self.closing;
            let Some(reopen) = self.reopen.take_if(|_| renewable) else { return shared.fail(error) };
            let Some(renewed) = self.renewed(reopen, &error) else { return };
            self = renewed;
        }
    }

    /// The same queue before the model opened anew, unless that fails. What ran has ended, what the slots held is gone.
    fn renewed(self, mut reopen: Reopen, error: &Error) -> Option<Self> {
        let Scheduler { mut seats, waiting, inbox, tokenizer, config, shared, kv, model, step, tickets, .. } = self;
        shared.trouble(Some(error.clone()));
        seats.iter_mut().for_each(|seat| seat.fail(error.clone()));
        shared.occupied(0, 0);
        drop((seats, model)); // there is no room for two
        match catch_unwind(AssertUnwindSafe(&mut reopen)) {
            Ok(Ok(model)) => {
                shared.trouble(None);
                let anew = Scheduler::new(model, tokenizer, config, inbox, shared, kv);
                Some(Scheduler { waiting, step, tickets, reopen: Some(reopen), ..anew })
            }
            outcome => {
                let why = outcome.map_or_else(
                    |panic| panic_text(panic.as_ref()).to_owned(),
                    |opened| opened.err().map_or_else(String::new, |error| error.to_string()),
                );
                // Recorded before those who wait are let go, who report it.
                shared.fail(Error::Device(format!("{error}; opened again: {why}")));
                None
            }
        }
    }

    fn run(&mut self) -> Result<()> {
        while self.turn()? {}
        Ok(())
    }

    /// One round: take in, give slots, a step. Says whether there is reason for another one.
    fn turn(&mut self) -> Result<bool> {
        self.tell();
        self.receive();
        self.sweep();
        self.admit()?;
        self.tell();
        if self.is_working() {
            self.advance()?;
            return Ok(true);
        }
        Ok(!self.closing)
    }

    /// Requests that have a slot.
    fn running(&self) -> usize {
        self.seats.iter().filter(|seat| seat.job.is_some()).count()
    }

    /// Puts what the slots hold where others can see it.
    fn tell(&self) {
        let held = self.seats.iter().map(|seat| u64::from(seat.session.position())).sum();
        self.shared.occupied(self.running(), held);
    }

    /// Something can go on now.
    fn is_working(&self) -> bool {
        self.seats.iter().any(|seat| seat.job.as_ref().is_some_and(|job| !job.paused))
    }

    /// Takes in what has arrived; waits for something if there is nothing else to do.
    fn receive(&mut self) {
        let free = self.running() < self.seats.len().min(self.config.max_active as usize);
        let busy = self.is_working() || (free && self.waiting.iter().any(Entry::is_ready));
        let mut next = if busy || self.closing {
            self.inbox.try_recv()
        } else if self.waiting.is_empty() && self.running() == 0 {
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
        let behind = self.waiting.iter().rposition(|entry| entry.waiting.priority() >= waiting.priority());
        let entry = Entry { waiting, ticket: self.tickets, stored, live: 0, again: false };
        self.waiting.insert(behind.map_or(0, |at| at + 1), entry);
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
                    (seat.trail, seat.tenant, seat.opening) = (Trail::default(), 0, seat.session.position());
                    Ok(())
                });
                drop(reply.send(done));
            }
            Control::DraftAgreement(request, reply) => {
                let wanted = Waited::by_nobody(&request.prompt);
                let place = place(&self.seats, &wanted, self.limits.rewind).ok_or(Error::SlotBusy(0));
                let measured = place.and_then(|Place { at, .. }| {
                    let seat = &mut self.seats[at];
                    seat.give_to(0);
                    (seat.trail, seat.opening) = (Trail::scratch(), 0);
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

    /// Gives idle slots to those who wait, first come, first served. Who still waits for the store, or for a prompt that is
    /// being evaluated and begins alike, holds nobody up.
    fn admit(&mut self) -> Result<()> {
        self.look_up();
        self.seats.iter_mut().for_each(|seat| seat.meet = None);
        let mut next = 0;
        while next < self.waiting.len() && self.running() < self.config.max_active as usize {
            let Some(place) = self.place_of(next) else {
                next += 1;
                continue;
            };
            let mut entry = self.waiting.remove(next).expect("it was looked at");
            if self.ask_again(place, &mut entry) {
                self.waiting.insert(next, entry);
                self.look_up();
                continue;
            }
            let image = if let Stored::Known(image) = entry.stored { image } else { None };
            let started = match entry.waiting {
                Waiting::Generate(queued) => {
                    let (request, events, submitted) = queued.admit();
                    self.start(place, request, events, submitted, image)
                }
                Waiting::Score(queued) => {
                    let (request, events, _) = queued.admit();
                    self.start_scoring(place, request, events)
                }
            };
            let seat = &mut self.seats[place.at];
            seat.used = self.step;
            if let Some(job) = &mut seat.job {
                job.order = entry.ticket;
            }
            started?;
            self.look_up();
        }
        Ok(())
    }
    /// Puts a generation into a seat. Only what ends the engine is an error here.
    fn start(
        &mut self,
        place: Place,
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
        let (cached, source) = match self.take_seat(place, &request, image) {
            Ok(taken) => taken,
            Err(error) => {
                events.fail(error.clone());
                return fatal(error);
            }
        };
        let seat = &mut self.seats[place.at];
        let tokenizer = Arc::clone(&self.tokenizer);
        let mut generation = Generation::new(request, events, tokenizer, self.limits.context, cached, submitted);
        generation.reuses(cached, source);
        if !generation.prefilled(cached) {
            generation.finish(StopReason::Cancelled);
            return Ok(());
        }
        seat.job = Some(Job::new(tokens, Task::Generate { prompt, generation: Box::new(generation) }));
        if cached == prompt {
            // The whole prompt is there, its logits too.
            let logits = seat.session.logits().map(<[f32]>::to_vec).unwrap_or_default();
            seat.sample(Prediction::Logits(&logits));
        }
        Ok(())
    }

    fn start_scoring(&mut self, place: Place, request: ScoreRequest, events: Sink<ScoreEvent>) -> Result<()> {
        let (tokens, scoring) = Scoring::new(request, events);
        let before = &tokens[..scoring.first_row() as usize];
        let Place { at, from, .. } = place;
        let shared = if self.seats[at].tenant == 0 { self.seats[at].session.common_prefix(before) } else { 0 };
        self.keep_what_goes(at, shared);
        self.seats[at].give_to(0);
        let begun = if let Some(from) = from {
            let shared = self.seats[from].session.common_prefix(before);
            self.fork(at, from, shared)
        } else {
            let session = &mut self.seats[at].session;
            let keep = session.common_prefix(before);
            session.rewind_near(self.model.as_mut(), keep)
        };
        let seat = &mut self.seats[at];
        (seat.trail, seat.opening) = (Trail::scratch(), 0);
        match begun {
            Ok(_) => {
                seat.job = Some(Job::new(tokens, Task::Score(scoring)));
                Ok(())
            }
            Err(error) => {
                scoring.fail(error.clone());
                fatal(error)
            }
        }
    }

    /// Copies the first `len` tokens of seat `from`, or what can be had of them, into seat `at`, and returns how many it is.
    fn fork(&mut self, at: usize, from: usize, len: u32) -> Result<u32> {
        let [seat, source] = self.seats.get_disjoint_mut([at, from]).expect("a seat is forked into another one");
        seat.trail = source.trail.branch();
        seat.restored = source.restored;
        seat.session.fork(self.model.as_mut(), &source.session, len)
    }

    /// Where the request at `next` of the queue can go now.
    fn place_of(&mut self, next: usize) -> Option<Place> {
        let entry = &self.waiting[next];
        let Stored::Known(image) = &entry.stored else { return None };
        let wanted = entry.waiting.history();
        let place = place(&self.seats, &wanted, self.limits.rewind);
        if place.is_none() && next >= self.seats.len() {
            return None;
        }
        let read = image.as_ref().map_or(0, |image| image.tokens);
        let awaited = awaited(&self.seats, &wanted, read, self.limits.rewind);
        let Some((at, shared)) = awaited else { return place };
        let seat = &mut self.seats[at];
        seat.meet = Some(seat.meet.map_or(shared, |meet| meet.min(shared)));
        None
    }

    /// One forward call for everything that runs.
    fn advance(&mut self) -> Result<()> {
        self.step += 1;
        self.go_back()?;
        let now = Instant::now();
        let kv = self.kv.as_ref().map(KvStore::config);
        let demands: Vec<Demand> = self.in_turn().filter_map(|at| self.seats[at].demand(kv, now)).collect();
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
        let begun = Instant::now();
        if let Err(error) = self.evaluate(&Batch { tokens: &tokens, spans: &spans }) {
            for span in &spans {
                self.seats[span.slot as usize].fail(error.clone());
                self.save_on_the_way(span.slot as usize);
            }
            return fatal(error);
        }
        let decodes = decodes.min(tokens.len() as u32);
        self.pace.took(decodes, tokens.len() as u32 - decodes, begun.elapsed());
        self.shared.stepped(tokens.len());
        self.proved = true;
        self.hand_out(&spans, now);
        for span in &spans {
            self.save_on_the_way(span.slot as usize);
        }
        Ok(())
    }

    /// Runs a step. If nobody wants more of it than the best token of each row, no logits leave the device.
    fn evaluate(&mut self, batch: &Batch<'_>) -> Result<()> {
        let (rows, n_vocab) = (batch.logit_rows(), self.model.shape().n_vocab);
        let mut wanted = batch.spans.iter().filter(|span| span.logit_rows() > 0);
        if wanted.all(|span| self.seats[span.slot as usize].wants_best(span)) {
            self.logits.clear();
            self.best.resize(rows, Best::default());
            self.model.forward_best(batch, &mut self.best)?;
        } else {
            self.best.clear();
            self.logits.resize(rows * n_vocab, 0.0);
            self.model.forward(batch, &mut self.logits)?;
        }
        Ok(())
    }

    /// Gives every span of a step that began at `now` what it has brought.
    fn hand_out(&mut self, spans: &[Span], now: Instant) {
        let n_vocab = self.model.shape().n_vocab;
        let (mut logits, mut best) = (&self.logits[..], self.best.iter());
        for span in spans {
            let seat = &mut self.seats[span.slot as usize];
            seat.used = self.step;
            if let Some(job) = &mut seat.job {
                job.served = now;
            }
            let rows = span.logit_rows();
            let prediction = match if rows > 0 { best.next() } else { None } {
                Some(&best) => Prediction::Best(best),
                None => {
                    Prediction::Logits(logits.split_off(..rows * n_vocab).expect("a step makes what is wanted of it"))
                }
            };
            seat.take(span, prediction, self.limits.rewind);
        }
    }

    /// Takes sequences back whose answers went wrong. The last token that stays is evaluated again, for what comes after it.
    fn go_back(&mut self) -> Result<()> {
        for seat in &mut self.seats {
            let Some(job) = seat.job.as_mut().filter(|job| job.goes_back) else { continue };
            job.goes_back = false;
            let last = job.tokens.len() as u32 - 1;
            match seat.session.rewind_near(self.model.as_mut(), last) {
                Ok(at) => {
                    if let Some(kv) = &self.kv {
                        seat.trail.cut(kv.config(), at);
                    }
                }
                Err(error) => {
                    seat.fail(error.clone());
                    fatal(error)?;
                }
            }
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
