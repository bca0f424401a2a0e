//! The door: the only thing front ends hold. It checks what enters on the caller's thread and passes it to the one
//! thread that owns the model. It computes nothing.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ds4_model::{Limits, Model, SlotId};
use ds4_text::Tokenizer;

use crate::kvstore::{Counters, Identity, Image, KvStore};
use crate::request::{check_bias, check_history, check_ids};
use crate::scheduler::Scheduler;
use crate::session::CheckpointPolicy;
use crate::{
    Agreement, AgreementRequest, Cancel, Error, Event, KvStats, KvStoreConfig, Listener, Request, Result, ScoreEvent,
    ScoreRequest, ShutdownReport, SlotStatus, Want,
};

/// Settings of the engine thread.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Requests that may wait for a slot.
    pub queue: usize,
    /// Requests that run at once; the other slots keep their sequences.
    pub max_active: u32,
    /// Most prompt rows per step while other sequences decode. A step takes fewer of them if it would make the others wait
    /// for more than three times as long as alone.
    pub prefill_quantum: u32,
    /// Rows of logits that one step of scoring may produce (each `n_vocab` floats).
    pub score_rows: u32,
    /// Rewind points that each slot keeps.
    pub checkpoints: CheckpointPolicy,
    /// Where states are kept that outlive their slot; nowhere by default.
    pub kv: Option<KvStoreConfig>,
}

impl Default for EngineConfig {
    fn default() -> Self {
        EngineConfig {
            queue: 64,
            max_active: u32::MAX,
            prefill_quantum: 256,
            score_rows: 32,
            checkpoints: CheckpointPolicy::default(),
            kv: None,
        }
    }
}

/// Opens the model again after its device has failed: the same weights with the same limits.
pub type Reopen = Box<dyn FnMut() -> Result<Box<dyn Model>> + Send>;

/// The door to one engine thread. Clones share it; when the last one is dropped the thread finishes what runs and ends.
#[derive(Clone)]
pub struct EngineHandle {
    pub(crate) inbox: Sender<Message>,
    shared: Arc<Shared>,
}

impl EngineHandle {
    /// Starts the thread that owns `model`.
    ///
    /// # Errors
    /// If the model's limits admit no work, the system gives no thread, or the store cannot be opened or is in use.
    pub fn start(model: Box<dyn Model>, tokenizer: Arc<Tokenizer>, config: EngineConfig) -> Result<EngineHandle> {
        EngineHandle::start_renewable(model, None, tokenizer, config)
    }

    /// As [`EngineHandle::start`]. If the device fails, what runs ends with its error, and what waits goes on waiting while
    /// `reopen` brings the model back; one that fails again before it has done a step stays failed.
    ///
    /// # Errors
    /// As [`EngineHandle::start`].
    pub fn start_renewable(
        model: Box<dyn Model>,
        reopen: Option<Reopen>,
        tokenizer: Arc<Tokenizer>,
        config: EngineConfig,
    ) -> Result<EngineHandle> {
        let limits = model.limits();
        for (name, found) in [
            ("max_active", config.max_active),
            ("slots", limits.slots),
            ("max_rows", limits.max_rows),
            ("context", limits.context),
        ] {
            if found == 0 {
                return Err(Error::Parameter { name, found: "0".to_owned(), expected: "at least 1" });
            }
        }
        let counters = Arc::new(Counters::default());
        let identity = Identity { fingerprint: model.fingerprint(), variant: model.variant() };
        let open = |kv: &KvStoreConfig| KvStore::start(kv.clone(), identity, Arc::clone(&counters));
        let kv = config.kv.as_ref().map(open).transpose()?;
        let (handle, mut scheduler) = EngineHandle::over(model, tokenizer, config, kv.map(|kv| (kv, counters)));
        scheduler.reopen = reopen;
        let thread = thread::Builder::new()
            .name("ds4-engine".to_owned())
            .spawn(move || scheduler.run_to_end())
            .map_err(|e| Error::Stopped(format!("cannot start its thread: {e}")))?;
        *handle.shared.lock_thread() = Some(thread);
        Ok(handle)
    }

    /// The door, and what is behind it.
    pub(crate) fn over(
        model: Box<dyn Model>,
        tokenizer: Arc<Tokenizer>,
        config: EngineConfig,
        kv: Option<(KvStore, Arc<Counters>)>,
    ) -> (EngineHandle, Scheduler) {
        let (kv, counters) = kv.unzip();
        let shared = Arc::new(Shared {
            kv: counters,
            limits: model.limits(),
            n_vocab: model.shape().n_vocab,
            fingerprint: model.fingerprint(),
            queue: config.queue,
            active: model.limits().slots.min(config.max_active),
            waiting: AtomicUsize::new(0),
            steps: AtomicU64::new(0),
            running: AtomicUsize::new(0),
            held: AtomicU64::new(0),
            sizes: Default::default(),
            trouble: Mutex::new(None),
            failure: OnceLock::new(),
            thread: Mutex::new(None),
        });
        let (inbox, receiver) = mpsc::channel();
        let scheduler = Scheduler::new(model, tokenizer, config, receiver, Arc::clone(&shared), kv);
        (EngineHandle { inbox, shared }, scheduler)
    }

    /// What the model was opened for.
    pub fn limits(&self) -> Limits {
        self.shared.limits
    }

    /// Requests that can run at once.
    pub fn most_active(&self) -> u32 {
        self.shared.active
    }

    /// Ids of the model.
    pub fn n_vocab(&self) -> usize {
        self.shared.n_vocab
    }

    /// Identity of weights and numerics; snapshots are bound to it.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.shared.fingerprint
    }

    /// Why the engine stopped, or nothing while it runs.
    pub fn failure(&self) -> Option<Error> {
        self.shared.failure.get().cloned()
    }

    /// Why the device failed, while the model is being opened again.
    pub fn trouble(&self) -> Option<Error> {
        self.shared.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Requests that wait for a slot.
    pub fn waiting(&self) -> usize {
        self.shared.waiting.load(Ordering::Relaxed)
    }

    /// What the engine is doing, without asking it.
    pub fn activity(&self) -> Activity {
        let Shared { steps, running, held, sizes, .. } = &*self.shared;
        Activity {
            steps: steps.load(Ordering::Relaxed),
            running: running.load(Ordering::Relaxed),
            held: held.load(Ordering::Relaxed),
            sizes: std::array::from_fn(|i| sizes[i].load(Ordering::Relaxed)),
        }
    }

    /// Queues a generation. Its events follow on `request.events`, the last one `Done` or `Failed`.
    ///
    /// # Errors
    /// At once, before anything is queued: a prompt or parameter that cannot work, a full queue, a stopped engine.
    pub fn submit(&self, request: Request) -> Result<()> {
        check_history(&request.prompt, self.shared.n_vocab, self.shared.limits.context)?;
        request.sampling.validate()?;
        check_bias(&request.logit_bias, self.shared.n_vocab)?;
        let ticket = self.ticket()?;
        let events = request.events.clone();
        let wake = self.shared.kv.is_some().then(|| self.inbox.clone());
        let queued = Queued { wake, ..Queued::new(request, events, ticket) };
        self.send(Message::Generate(Box::new(queued)))
    }

    /// Queues a scoring. Results follow on `request.events`.
    ///
    /// # Errors
    /// As [`EngineHandle::submit`].
    pub fn score(&self, request: ScoreRequest) -> Result<()> {
        let Shared { n_vocab, limits, .. } = *self.shared;
        if request.tokens.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        if request.tokens.len() > limits.context as usize {
            return Err(Error::ContextFull { found: request.tokens.len(), context: limits.context });
        }
        check_ids(&request.tokens, n_vocab)?;
        let least = u32::from(matches!(request.want, Want::Logprobs { .. }));
        if request.from < least || request.from as usize >= request.tokens.len() {
            let found = request.from.to_string();
            return Err(Error::Parameter { name: "from", found, expected: "a position of the tokens, not the first" });
        }
        let ticket = self.ticket()?;
        let events = request.events.clone().into();
        self.send(Message::Score(Queued::new(request, events, ticket)))
    }

    /// Logits after the last of `tokens`, waited for.
    ///
    /// # Errors
    /// As [`EngineHandle::score`], and whatever the evaluation ran into.
    pub fn next_logits(&self, tokens: Vec<u32>) -> Result<Vec<f32>> {
        let (events, results) = mpsc::channel();
        let from = (tokens.len() as u32).saturating_sub(1);
        self.score(ScoreRequest { tokens, from, want: Want::Logits, cancel: Cancel::default(), events })?;
        let mut logits = Vec::new();
        for event in results {
            match event {
                ScoreEvent::Logits { rows, .. } => logits = rows,
                ScoreEvent::Failed(error) => return Err(error),
                ScoreEvent::Done => break,
                ScoreEvent::Progress { .. } | ScoreEvent::Scored { .. } => {}
            }
        }
        Ok(logits)
    }

    /// What every slot holds.
    pub fn slots(&self) -> Result<Vec<SlotStatus>> {
        let (reply, answer) = mpsc::channel();
        self.ask(Control::Slots(reply), &answer)
    }

    /// Forgets what an idle slot holds.
    pub fn clear(&self, slot: SlotId) -> Result<()> {
        let (reply, answer) = mpsc::channel();
        self.ask(Control::Clear(slot, reply), &answer)?
    }

    /// A snapshot of an idle slot, in the format of [`crate::Session::snapshot`].
    pub fn snapshot(&self, slot: SlotId) -> Result<Vec<u8>> {
        let (reply, answer) = mpsc::channel();
        self.ask(Control::Snapshot(slot, reply), &answer)?
    }

    /// Puts a snapshot into an idle slot. A refused one leaves the slot as it was.
    pub fn restore(&self, slot: SlotId, snapshot: Vec<u8>) -> Result<()> {
        let (reply, answer) = mpsc::channel();
        self.ask(Control::Restore(slot, snapshot, reply), &answer)?
    }

    /// [`crate::Session::draft_agreement`] in an idle slot. Everything else waits until it is done: it is for evaluation.
    ///
    /// # Errors
    /// `SlotBusy` when no slot is idle, and whatever the measurement ran into.
    pub fn draft_agreement(&self, request: AgreementRequest) -> Result<Agreement> {
        check_history(&request.prompt, self.shared.n_vocab, self.shared.limits.context)?;
        let (reply, answer) = mpsc::channel();
        self.ask(Control::DraftAgreement(request, reply), &answer)?
    }

    /// State and history of the store; nothing without one. Does not ask the engine thread.
    pub fn kv_stats(&self) -> Option<KvStats> {
        self.shared.kv.as_ref().map(|counters| counters.snapshot())
    }

    /// Cancels everything, saves what the slots hold for at most `limit`, and stops as [`EngineHandle::stop`] does. A step
    /// or a single write that is under way is waited for. To let requests finish, wait for them before.
    pub fn shutdown(&self, limit: Duration) -> ShutdownReport {
        let until = Instant::now() + limit;
        let (reply, answer) = mpsc::channel();
        // An engine that is gone has nothing to save.
        let report = self.ask(Control::Shutdown(until, reply), &answer).unwrap_or_default();
        self.stop();
        report
    }

    /// Cancels everything and waits until the model is dropped. What the slots hold is not saved. Later calls fail with `Stopped`.
    pub fn stop(&self) {
        // A thread that is gone already needs no message.
        let _ = self.inbox.send(Message::Control(Control::Stop));
        let thread = self.shared.lock_thread().take();
        if let Some(thread) = thread {
            // Panics were caught and reported by the thread itself.
            let _ = thread.join();
        }
    }

    fn ticket(&self) -> Result<Ticket> {
        let limit = self.shared.queue;
        let found = self.shared.waiting.fetch_add(1, Ordering::Relaxed);
        let ticket = Ticket(Arc::clone(&self.shared));
        if found >= limit { Err(Error::QueueFull { found, limit }) } else { Ok(ticket) }
    }

    fn send(&self, message: Message) -> Result<()> {
        match self.failure() {
            Some(error) => {
                message.discard();
                Err(error)
            }
            None => self.inbox.send(message).map_err(|unsent| {
                unsent.0.discard();
                self.shared.stopped()
            }),
        }
    }

    fn ask<T>(&self, control: Control, answer: &Receiver<T>) -> Result<T> {
        self.send(Message::Control(control))?;
        answer.recv().map_err(|_| self.shared.stopped())
    }
}

impl std::fmt::Debug for EngineHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EngineHandle")
            .field("limits", &self.shared.limits)
            .field("failure", &self.failure())
            .finish_non_exhaustive()
    }
}

/// What the engine did so far and what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// Completed steps.
    pub steps: u64,
    /// Requests that have a slot.
    pub running: usize,
    /// Tokens whose state is in slots.
    pub held: u64,
    /// Completed steps by the tokens they evaluated: entry `i` counts those of more than `2^(i-1)` and at most `2^i`.
    pub sizes: [u64; STEP_SIZES],
}

/// Classes of steps by size; the last one has no upper end.
pub const STEP_SIZES: usize = 16;

/// What handles and thread have in common.
pub(crate) struct Shared {
    limits: Limits,
    n_vocab: usize,
    fingerprint: [u8; 32],
    queue: usize,
    active: u32,
    /// Present if there is a store.
    kv: Option<Arc<Counters>>,
    waiting: AtomicUsize,
    steps: AtomicU64,
    running: AtomicUsize,
    held: AtomicU64,
    sizes: [AtomicU64; STEP_SIZES],
    trouble: Mutex<Option<Error>>,
    failure: OnceLock<Error>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Shared {
    /// What has a slot now, and what all slots hold.
    pub(crate) fn occupied(&self, running: usize, held: u64) {
        self.running.store(running, Ordering::Relaxed);
        self.held.store(held, Ordering::Relaxed);
    }

    /// A step of `tokens` tokens is done.
    pub(crate) fn stepped(&self, tokens: usize) {
        let class = tokens.max(1).next_power_of_two().trailing_zeros() as usize;
        self.sizes[class.min(STEP_SIZES - 1)].fetch_add(1, Ordering::Relaxed);
        self.steps.fetch_add(1, Ordering::Relaxed);
    }

    /// Says what is wrong with the device, or that nothing is any more.
    pub(crate) fn trouble(&self, error: Option<Error>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }

    /// Records why the engine ends; the first reason stays.
    pub(crate) fn fail(&self, error: Error) {
        let _ = self.failure.set(error);
    }

    fn stopped(&self) -> Error {
        self.failure.get().cloned().unwrap_or_else(|| Error::Stopped("its thread has ended".to_owned()))
    }

    fn lock_thread(&self) -> std::sync::MutexGuard<'_, Option<JoinHandle<()>>> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What travels to the thread.
pub(crate) enum Message {
    Generate(Box<Queued<Request, Event>>),
    Score(Queued<ScoreRequest, ScoreEvent>),
    /// What the store found for a waiting request.
    Fetched(u64, Option<Box<Image>>),
    Control(Control),
}

impl Message {
    /// Drops a message that was never accepted: the caller has the error, so its receiver hears nothing.
    fn discard(self) {
        match self {
            Message::Generate(mut queued) => queued.events.ended = true,
            Message::Score(mut queued) => queued.events.ended = true,
            Message::Fetched(..) | Message::Control(_) => {}
        }
    }
}

/// A request that waits for a slot.
pub(crate) struct Queued<R, E: Failure> {
    pub(crate) request: R,
    pub(crate) events: Sink<E>,
    pub(crate) submitted: Instant,
    /// To be told what the store found.
    pub(crate) wake: Option<Sender<Message>>,
    ticket: Ticket,
}

impl<R, E: Failure> Queued<R, E> {
    fn new(request: R, events: Listener<E>, ticket: Ticket) -> Self {
        let events = Sink::new(events, &ticket.0);
        Queued { request, events, submitted: Instant::now(), wake: None, ticket }
    }

    /// Leaves the queue.
    pub(crate) fn admit(self) -> (R, Sink<E>, Instant) {
        drop(self.ticket);
        (self.request, self.events, self.submitted)
    }
}

/// Questions answered between two steps.
pub(crate) enum Control {
    Slots(Sender<Vec<SlotStatus>>),
    Clear(SlotId, Sender<Result<()>>),
    Snapshot(SlotId, Sender<Result<Vec<u8>>>),
    Restore(SlotId, Vec<u8>, Sender<Result<()>>),
    DraftAgreement(AgreementRequest, Sender<Result<Agreement>>),
    Shutdown(Instant, Sender<ShutdownReport>),
    Stop,
}

/// A place in the queue, given back when dropped.
pub(crate) struct Ticket(Arc<Shared>);

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An event that says a request failed.
pub(crate) trait Failure: Sized {
    fn failed(error: Error) -> Self;
}

impl Failure for Event {
    fn failed(error: Error) -> Self {
        Event::Failed(error)
    }
}

impl Failure for ScoreEvent {
    fn failed(error: Error) -> Self {
        ScoreEvent::Failed(error)
    }
}

/// The sending end of a request. However it goes out of scope, a panic included, its receiver hears a last event.
pub(crate) struct Sink<E: Failure> {
    events: Listener<E>,
    shared: Arc<Shared>,
    ended: bool,
}

impl<E: Failure> Sink<E> {
    fn new(events: Listener<E>, shared: &Arc<Shared>) -> Self {
        Sink { events, shared: Arc::clone(shared), ended: false }
    }

    /// Sends and says whether anyone still listens.
    pub(crate) fn send(&self, event: E) -> bool {
        self.events.tell(event)
    }

    /// Whether the listener has enough for now.
    pub(crate) fn is_full(&self) -> bool {
        self.events.is_full()
    }

    /// Sends the last event.
    pub(crate) fn end(mut self, event: E) {
        self.ended = true;
        self.events.tell(event);
    }

    /// Ends with `error`.
    pub(crate) fn fail(self, error: Error) {
        self.end(E::failed(error));
    }
}

impl<E: Failure> Drop for Sink<E> {
    fn drop(&mut self) {
        if !self.ended {
            self.events.tell(E::failed(self.shared.stopped()));
        }
    }
}
