//! What goes through the door and what comes back: requests, events, usage and timings. Plain data; the rules are in
//! `generation` and `scheduler`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;

use ds4_model::SlotId;
use ds4_text::Delta;

use crate::{Constraint, Error, LiveMatch, Result, SamplingParams, TokenLogprobs};

/// One generation: ids in, events out. A listener that nobody hears cancels it within one step, as does `cancel`.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches of the APIs")]
pub struct Request {
    /// The whole history, first token first. What a slot already holds of it is not computed again.
    pub prompt: Vec<u32>,
    /// How ids are drawn.
    pub sampling: SamplingParams,
    /// Added to the logits of these ids before an id is drawn. -100 to 100 each.
    pub logit_bias: Vec<(u32, f32)>,
    /// The form the answer must have; reasoning is free, but an end-of-sentence in it only closes it. A complete answer ends
    /// the turn, `ignore_eos` or not.
    pub constraint: Option<Box<dyn Constraint>>,
    /// The form of a call block behind the marker that opens it, where the answer is free otherwise: a block that cannot be read
    /// is taken back and written again in this form, twice at most.
    pub block: Option<Box<dyn Constraint>>,
    /// Tokens of a block after which one that only repeats itself is cut.
    pub block_tokens: u32,
    /// Most tokens to generate; the context may end it earlier. 0 evaluates the prompt and stops.
    pub max_tokens: u32,
    /// Texts that end the visible answer, not shown themselves. Not looked for in reasoning and tool calls.
    pub stop: Vec<String>,
    /// Show the stop string that ended the answer after all.
    pub include_stop: bool,
    /// The prompt ends inside reasoning: the output starts there.
    pub thinking: bool,
    /// Reasoning tokens after which `</think>` is taken as soon as it is among the three best, and a quarter more (at
    /// most 1,024) after which it is forced (server.md 5.4). 0: no budget.
    pub think_budget_tokens: u32,
    /// Tokens of `max_tokens` kept for the answer. None by default.
    pub reply_budget: ReplyBudget,
    /// Tools were offered: calls are parsed, their syntax is drawn greedily, and a closed block ends the turn.
    pub tools_offered: bool,
    /// The first call ends the turn, and its block counts as closed.
    pub single_call: bool,
    /// Go on after end-of-sentence (measurements only).
    pub ignore_eos: bool,
    /// Report each token's log-probability and this many best alternatives.
    pub logprobs: Option<usize>,
    /// Report what the slots had of the prompt.
    pub explain: bool,
    /// Whose request it is: states are reused within one tenant only.
    pub tenant: u64,
    /// Higher ones get a slot and the evaluation of their prompt before lower ones. 0 by default.
    pub priority: i8,
    /// The slot to take where several would do equally well.
    pub slot: Option<SlotId>,
    /// Whose conversation the caller says it is. Where several slots would do equally well, the one that last served it is
    /// taken. Never more than that: callers send one name with everything they do at once.
    pub affinity: Option<u64>,
    /// Ends the request early; what exists is delivered and `Done` says `Cancelled`.
    pub cancel: Cancel,
    /// Where events go.
    pub events: Listener<Event>,
}

impl Request {
    /// A request with the defaults of the command line (cli.md 3): sampling defaults, 50,000 tokens, no tools.
    pub fn new(prompt: Vec<u32>, events: impl Into<Listener<Event>>) -> Self {
        Request {
            prompt,
            sampling: SamplingParams::default(),
            logit_bias: Vec::new(),
            constraint: None,
            block: None,
            block_tokens: BLOCK_TOKENS,
            max_tokens: 50_000,
            stop: Vec::new(),
            include_stop: false,
            thinking: false,
            think_budget_tokens: 0,
            reply_budget: ReplyBudget::default(),
            tools_offered: false,
            single_call: false,
            ignore_eos: false,
            logprobs: None,
            explain: false,
            tenant: 0,
            priority: 0,
            slot: None,
            affinity: None,
            cancel: Cancel::default(),
            events: events.into(),
        }
    }
}

/// Tokens that a call block may have before anybody asks whether it repeats itself.
pub const BLOCK_TOKENS: u32 = 8192;

/// The receiving end of a request as the engine sees it: a function that takes an event and says whether anyone still
/// listens. It must not block; the sender of any unbounded channel will do.
#[derive(Clone)]
pub struct Listener<E> {
    hear: Arc<dyn Fn(E) -> bool + Send + Sync>,
    full: Option<Arc<dyn Fn() -> bool + Send + Sync>>,
}

impl<E> Listener<E> {
    /// A listener that calls `hear`.
    pub fn new(hear: impl Fn(E) -> bool + Send + Sync + 'static) -> Self {
        Listener { hear: Arc::new(hear), full: None }
    }

    /// While `full` says so, the request pauses and keeps its slot; others go on.
    #[must_use]
    pub fn pausing(self, full: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Listener { full: Some(Arc::new(full)), ..self }
    }

    /// Passes an event on and says whether anyone still listens.
    pub fn tell(&self, event: E) -> bool {
        (self.hear)(event)
    }

    /// Whether it has enough for now.
    pub fn is_full(&self) -> bool {
        self.full.as_ref().is_some_and(|full| full())
    }
}

impl<E: Send + 'static> From<Sender<E>> for Listener<E> {
    fn from(sender: Sender<E>) -> Self {
        Listener::new(move |event| sender.send(event).is_ok())
    }
}

impl<E> std::fmt::Debug for Listener<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Listener")
    }
}

/// When reasoning has to make room for the answer (cli.md 7, server.md 5.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplyBudget {
    /// With this many tokens left `</think>` is taken as soon as it is among the `rank` best. 0: never.
    pub soft: u32,
    /// How good `</think>` has to be under the soft limit: 1 is the best token only.
    pub rank: u32,
    /// With this many tokens left `</think>` is forced. 0: never.
    pub hard: u32,
}

/// What closed the reasoning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClosedBy {
    /// The model.
    Itself,
    /// A limit under which a good enough `</think>` was taken.
    Soft,
    /// A limit that forced it.
    Hard,
}

/// What a request reports, in this order: `Matched` if it asked, `Prefill` at least once, then per generated token its `Token`, for the token that
/// closes the reasoning a `ReasoningClosed`, and the `Delta`s it releases, for a block that is written again a `TakenBack`, and
/// last exactly one of `Done` and `Failed`.
#[derive(Clone, Debug)]
pub enum Event {
    /// What the slots had of the prompt before the request got one.
    Matched(LiveMatch),
    /// Progress through the prompt.
    Prefill {
        /// Prompt tokens whose state exists, cached ones included.
        done: u32,
        /// Prompt tokens.
        total: u32,
        /// Prompt tokens whose state was there already.
        cached: u32,
        /// Where.
        source: Source,
    },
    /// A token was drawn; an end-of-sentence that ends the turn is reported too.
    Token {
        /// Its id.
        id: u32,
        /// It belongs to the reasoning, the closing tag included.
        reasoning: bool,
        /// Present when the request asked for it.
        logprobs: Option<TokenLogprobs>,
    },
    /// The token just reported is the `</think>` that ends the reasoning.
    ReasoningClosed {
        /// What took it.
        by: ClosedBy,
        /// Ids that came before it in the logits.
        rank: u32,
    },
    /// A call block could not be read: its end, so many of the tokens that were reported last, is no part of the answer. Nothing
    /// of it was shown.
    TakenBack {
        /// How many, an end-of-sentence included.
        tokens: u32,
    },
    /// A piece of output.
    Delta(Delta),
    /// The request ended as it should.
    Done {
        /// Why.
        reason: StopReason,
        /// Token counts.
        usage: Usage,
        /// Times.
        timings: Timings,
    },
    /// The request ended otherwise. Deltas sent before stand.
    Failed(Error),
}

/// Why a generation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The model ended its turn.
    EndOfTurn,
    /// This stop string was about to appear.
    StopString(String),
    /// `max_tokens` were generated.
    Length,
    /// The context is full.
    ContextFull,
    /// A tool-call block closed.
    ToolCalls,
    /// The caller asked for it.
    Cancelled,
}

/// Where the reused part of a prompt came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// Nothing was reused.
    #[default]
    None,
    /// A slot held it.
    Live,
    /// The store had it in host memory.
    Ram,
    /// The store read it from disk.
    Disk,
}

/// What [`crate::EngineHandle::shutdown`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShutdownReport {
    /// Sequences handed to the writer.
    pub saved: u32,
    /// Sequences that would have been, had there been time, memory and room in the queue.
    pub unsaved: u32,
    /// Everything handed over, before and now, was dealt with in time.
    pub complete: bool,
}

/// Token counts of one request (server.md 5.12).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Prompt tokens, cached ones included.
    pub prompt: u32,
    /// Prompt tokens that were not computed again.
    pub cached: u32,
    /// Where those came from.
    pub source: Source,
    /// Every generated token, also of reasoning, tool calls and stop strings, but not the end-of-sentence.
    pub completion: u32,
    /// Generated tokens of the reasoning, the closing tag included.
    pub reasoning: u32,
}

/// Seconds a request took, by phase.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Timings {
    /// From submission until a slot was free.
    pub queue: f64,
    /// From there to the end of the prompt.
    pub prefill: f64,
    /// From there to the last token.
    pub decode: f64,
    /// From submission to the first generated token; 0 if there was none.
    pub ttft: f64,
}

/// Teacher forcing: what the model says of given ids.
#[derive(Clone, Debug)]
pub struct ScoreRequest {
    /// The history.
    pub tokens: Vec<u32>,
    /// First position reported. At least 1 for [`Want::Logprobs`].
    pub from: u32,
    /// What to report.
    pub want: Want,
    /// Ends the request early.
    pub cancel: Cancel,
    /// Where results go.
    pub events: Sender<ScoreEvent>,
}

/// What a [`ScoreRequest`] reports of positions `from..tokens.len()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Log-probability of each token given those before it, and this many best candidates for its place.
    Logprobs {
        /// Candidates per position.
        top: usize,
    },
    /// The logits after each token: what the model expects next. `from = tokens.len() - 1` gives the next token's.
    Logits,
}

/// What a [`ScoreRequest`] sends, in position order, the last one `Done` or `Failed`.
#[derive(Clone, Debug)]
pub enum ScoreEvent {
    /// Tokens evaluated so far.
    Progress {
        /// Positions whose state exists.
        done: u32,
        /// Positions in all.
        total: u32,
    },
    /// Log-probabilities of consecutive tokens.
    Scored {
        /// Position of the first.
        first: u32,
        /// One entry a token.
        tokens: Vec<TokenLogprobs>,
    },
    /// Logits after consecutive tokens, row-major `[rows, n_vocab]`.
    Logits {
        /// Position of the token of the first row.
        first: u32,
        /// The rows.
        rows: Vec<f32>,
    },
    /// Everything was reported.
    Done,
    /// The request ended otherwise.
    Failed(Error),
}

/// A slot as [`crate::EngineHandle::slots`] reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotStatus {
    /// The slot.
    pub slot: SlotId,
    /// Ids whose state it holds, oldest first.
    pub tokens: Vec<u32>,
    /// A request is running in it.
    pub busy: bool,
    /// Bytes of its rewind points in host memory.
    pub checkpoint_bytes: u64,
}

/// A flag that ends a request within one step. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Asks for the end. Safe to call from any thread, any number of times.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the end was asked for.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl From<Arc<AtomicBool>> for Cancel {
    /// Shares a flag that a signal handler sets.
    fn from(flag: Arc<AtomicBool>) -> Self {
        Cancel(flag)
    }
}

/// Ids that a model of `n_vocab` ids and `context` positions can continue: some, all known, one position left.
pub(crate) fn check_history(tokens: &[u32], n_vocab: usize, context: u32) -> Result<()> {
    if tokens.is_empty() {
        return Err(Error::EmptyPrompt);
    }
    if tokens.len() >= context as usize {
        return Err(Error::ContextFull { found: tokens.len(), context });
    }
    check_ids(tokens, n_vocab)
}

/// Every id is one of `n_vocab`.
pub(crate) fn check_ids(tokens: &[u32], n_vocab: usize) -> Result<()> {
    match tokens.iter().find(|&&id| id as usize >= n_vocab) {
        Some(&id) => Err(Error::UnknownToken { id, n_vocab }),
        None => Ok(()),
    }
}

/// Biases of known ids, in range.
pub(crate) fn check_bias(bias: &[(u32, f32)], n_vocab: usize) -> Result<()> {
    if let Some(&(id, _)) = bias.iter().find(|(id, _)| *id as usize >= n_vocab) {
        return Err(Error::UnknownToken { id, n_vocab });
    }
    match bias.iter().find(|(_, bias)| !(-100.0..=100.0).contains(bias)) {
        Some((_, found)) => {
            Err(Error::Parameter { name: "logit_bias", found: found.to_string(), expected: "-100 to 100" })
        }
        None => Ok(()),
    }
}
