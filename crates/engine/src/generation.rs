//! One request's way from logits to events: draw, count, detokenise, parse, look for ends, report. It owns everything of
//! a request but its state in the model, which is the session's; it calls no model.

use std::sync::Arc;
use std::time::Instant;

use ds4_model::Best;
use ds4_text::{Delta, SamplingState, StreamParser, Tokenizer, ToolCallKind};

use crate::block::{Block, Reader};
use crate::handle::Sink;
use crate::sampler::rank;
use crate::stop::StopFilter;
use crate::{
    ClosedBy, Constraint, Error, Event, Request, Result, Sampler, Source, StopReason, Timings, TokenLogprobs, Usage,
};

/// One running request.
pub(crate) struct Generation {
    request: Request,
    tokenizer: Arc<Tokenizer>,
    sampler: Sampler,
    reader: Reader,
    block: Block,
    /// The form of the block, once it is written again.
    rule: Option<Box<dyn Constraint>>,
    /// How often it was.
    rewritten: u32,
    stop: StopFilter,
    /// Tokens that may be generated, and why no more.
    limit: (u32, StopReason),
    usage: Usage,
    clock: Clock,
    events: Sink<Event>,
}

/// What the model says of the next token.
#[derive(Clone, Copy)]
pub(crate) enum Prediction<'a> {
    /// `[n_vocab]`; for given tokens that are scored, a row behind each.
    Logits(&'a [f32]),
    /// The best of them, where [`Generation::wants_best`] said that it is enough.
    Best(Best),
}

/// What to do after a token.
pub(crate) enum Flow {
    /// Evaluate this id.
    Next(u32),
    /// Go back to before so many of the ids that were to be evaluated, and draw again.
    Again(u32),
    /// Nothing more is wanted.
    Stop(StopReason),
}

/// When a request reached its phases.
#[derive(Clone, Copy, Debug)]
struct Clock {
    submitted: Instant,
    admitted: Instant,
    prefilled: Option<Instant>,
    first: Option<Instant>,
}

impl Generation {
    /// Starts a request whose prompt has `cached` tokens in its slot already; `submitted` is when it was queued.
    pub(crate) fn new(
        mut request: Request,
        events: Sink<Event>,
        tokenizer: Arc<Tokenizer>,
        context: u32,
        cached: u32,
        submitted: Instant,
    ) -> Self {
        let prompt = request.prompt.len() as u32;
        let free = context.saturating_sub(prompt);
        let limit = if request.max_tokens <= free {
            (request.max_tokens, StopReason::Length)
        } else {
            (free, StopReason::ContextFull)
        };
        Generation {
            sampler: Sampler::new(request.sampling).with_bias(std::mem::take(&mut request.logit_bias)),
            reader: Reader::new(request.thinking, request.tools_offered),
            block: Block::default(),
            rule: None,
            rewritten: 0,
            stop: StopFilter::new(std::mem::take(&mut request.stop), request.include_stop),
            limit,
            usage: Usage { prompt, cached, ..Usage::default() },
            clock: Clock { submitted, admitted: Instant::now(), prefilled: None, first: None },
            request,
            tokenizer,
            events,
        }
    }

    /// Reports the end of a request that never got a slot.
    pub(crate) fn unstarted(request: &Request, submitted: Instant, events: Sink<Event>) {
        let usage = Usage { prompt: request.prompt.len() as u32, ..Usage::default() };
        let timings = Timings { queue: submitted.elapsed().as_secs_f64(), ..Timings::default() };
        events.end(Event::Done { reason: StopReason::Cancelled, usage, timings });
    }

    /// Whether the caller asked for the end.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.request.cancel.is_cancelled()
    }

    pub(crate) fn priority(&self) -> i8 {
        self.request.priority
    }

    /// Whether the listener has enough for now.
    pub(crate) fn is_full(&self) -> bool {
        self.events.is_full()
    }

    /// How much of the prompt is reused, and where it was.
    pub(crate) fn reuses(&mut self, cached: u32, source: Source) {
        (self.usage.cached, self.usage.source) = (cached, source);
    }

    /// Reports progress and says whether anyone listens.
    pub(crate) fn prefilled(&mut self, done: u32) -> bool {
        if self.clock.first.is_some() {
            // A part of the answer is evaluated once more.
            return true;
        }
        let Usage { prompt: total, cached, source, .. } = self.usage;
        if done == total {
            self.clock.prefilled = Some(Instant::now());
        }
        self.events.send(Event::Prefill { done, total, cached, source })
    }

    /// Whether the next token is the best one, and nothing else is asked of the logits: then [`Generation::advance`] does the same
    /// with [`Prediction::Best`].
    pub(crate) fn wants_best(&self) -> bool {
        let free = self.rule.is_none() && self.request.constraint.is_none();
        let pressed = self.reader.parser.in_reasoning() && !matches!(self.pressure(), Pressure::None);
        free && !pressed && self.request.logprobs.is_none() && self.sampler.takes_best(self.is_greedy())
    }

    /// Draws a token and reports what it brings.
    pub(crate) fn advance(&mut self, prediction: Prediction<'_>) -> Result<Flow> {
        if self.usage.completion >= self.limit.0 {
            return Ok(Flow::Stop(self.limit.1.clone()));
        }
        let (id, forced) = self.choose(prediction)?;
        self.clock.first.get_or_insert_with(Instant::now);
        let logprobs = match (self.request.logprobs, prediction) {
            (Some(top), Prediction::Logits(logits)) => Some(TokenLogprobs::of(logits, id, top)?),
            _ => None,
        };
        let special = self.tokenizer.special();
        let is_eos = id == special.eos;
        let reasoning = self.reader.parser.in_reasoning();
        let listening = self.events.send(Event::Token { id, reasoning: reasoning && !is_eos, logprobs });
        let constrained = !reasoning && (self.rule.is_some() || self.request.constraint.is_some());
        if is_eos && (constrained || !self.request.ignore_eos) {
            return Ok(self.ended());
        }
        if reasoning && id == special.think_end {
            let by = forced.unwrap_or(ClosedBy::Itself);
            self.events.send(Event::ReasoningClosed { by, rank: prediction.rank(id) });
        }
        self.usage.completion += 1;
        self.usage.reasoning += u32::from(reasoning);
        let complete = match self.rule.as_mut().or(self.request.constraint.as_mut()) {
            Some(constraint) if constrained => constraint.push(id)?,
            _ => false,
        };
        let end = if is_eos { None } else { self.take(id) };
        if !listening {
            return Ok(Flow::Stop(StopReason::Cancelled));
        }
        if let Some(flow) = self.went_wrong(end.as_ref())? {
            return Ok(flow);
        }
        Ok(match end.or(complete.then_some(StopReason::EndOfTurn)) {
            Some(reason) => Flow::Stop(reason),
            None if self.usage.completion >= self.limit.0 => Flow::Stop(self.limit.1.clone()),
            None => Flow::Next(id),
        })
    }

    /// The model ended its turn, which it cannot in a block.
    fn ended(&mut self) -> Flow {
        let eos = self.tokenizer.special().eos;
        if self.reader.parser.is_broken() {
            self.block.push(eos, self.tokenizer.special().dsml, &self.reader);
            if let Some(again) = self.again(false) {
                return again;
            }
        }
        Flow::Stop(StopReason::EndOfTurn)
    }

    /// What to do if the block that `end` closes cannot be read, or one repeats itself.
    fn went_wrong(&mut self, end: Option<&StopReason>) -> Result<Option<Flow>> {
        let loops = end.is_none() && self.block.loops(&self.reader, self.request.block_tokens);
        let broken = end == Some(&StopReason::ToolCalls) && self.reader.parser.is_broken();
        if !loops && !broken {
            return Ok(None);
        }
        if let Some(again) = self.again(loops) {
            return Ok(Some(again));
        }
        match self.reader.parser.shown() {
            _ if !loops => Ok(None),
            (0, _) => Ok(Some(Flow::Stop(StopReason::EndOfTurn))),
            _ => Err(Error::CallLoops(self.block.len())),
        }
    }

    /// Goes back to where the block can be written again, if there is such a place, and a form for it.
    fn again(&mut self, leads_nowhere: bool) -> Option<Flow> {
        let rule = self.request.block.as_deref().filter(|_| self.request.constraint.is_none())?;
        if self.rewritten == REWRITES || self.usage.completion >= self.limit.0 {
            return None;
        }
        let again = self.block.again(&self.reader, rule, &self.tokenizer, leads_nowhere)?;
        self.block.cut(again.dropped);
        (self.reader, self.rule) = (again.reader, Some(again.rule));
        self.rewritten += 1;
        self.events.send(Event::TakenBack { tokens: again.dropped as u32 });
        // The last one was drawn and never evaluated.
        Some(Flow::Again(again.dropped as u32 - 1))
    }

    /// Reports the end, with everything that was held back.
    pub(crate) fn finish(mut self, mut reason: StopReason) {
        // Nothing is shown behind a stop string.
        if !matches!(reason, StopReason::StopString(_)) {
            let tail = self.reader.detokenizer.finish();
            let mut deltas = self.reader.parser.push(&tail);
            let parser = std::mem::replace(&mut self.reader.parser, StreamParser::new(false, false));
            let (last, turn) = parser.finish();
            deltas.extend(last);
            // Calls that only the final parse can see count as well (prompt.md 18.9).
            if reason == StopReason::EndOfTurn && !turn.calls.is_empty() {
                reason = StopReason::ToolCalls;
            }
            if let Some(stopped) = self.show(deltas) {
                reason = stopped;
            } else {
                let held = self.stop.finish();
                self.show_text(held);
            }
        }
        let (usage, timings) = (self.usage, self.clock.timings());
        self.events.end(Event::Done { reason, usage, timings });
    }

    /// Ends the request with an error.
    pub(crate) fn fail(self, error: crate::Error) {
        self.events.fail(error);
    }

    /// The id to go on with, and what forced it: a limit of the reasoning, else nothing.
    fn choose(&mut self, prediction: Prediction<'_>) -> Result<(u32, Option<ClosedBy>)> {
        let logits = match prediction {
            Prediction::Logits(logits) => logits,
            Prediction::Best(best) => return Ok((self.sampler.take(best)?, None)),
        };
        let think_end = self.tokenizer.special().think_end;
        if self.reader.parser.in_reasoning() {
            let forced = match self.pressure() {
                Pressure::Soft { among } if rank(logits, think_end) < among => Some(ClosedBy::Soft),
                Pressure::Hard => Some(ClosedBy::Hard),
                Pressure::Soft { .. } | Pressure::None => None,
            };
            if forced.is_some() {
                self.sampler.count(think_end);
                return Ok((think_end, forced));
            }
        }
        let greedy = self.is_greedy();
        let reasoning = self.reader.parser.in_reasoning();
        let constraint = self.rule.as_deref_mut().or(self.request.constraint.as_deref_mut());
        let constraint = constraint.filter(|_| !reasoning).map(|c| c as &mut dyn Constraint);
        let id = self.sampler.sample_within(logits, greedy, constraint)?;
        // An answer that was demanded must be given: the turn can't end before it.
        if reasoning && id == self.tokenizer.special().eos && self.request.constraint.is_some() {
            return Ok((think_end, Some(ClosedBy::Hard)));
        }
        Ok((id, None))
    }

    /// Whether the text at this point is drawn greedily at every temperature.
    fn is_greedy(&self) -> bool {
        self.request.tools_offered && self.reader.tracker.state() == SamplingState::Greedy
    }

    /// How much the reasoning has to end (server.md 5.4). A limit on tokens that leaves no room for reasoning at all beside
    /// the reply's forced part does not force it: there is nothing to make room for.
    fn pressure(&self) -> Pressure {
        let Request { think_budget_tokens: budget, reply_budget: reply, .. } = self.request;
        let spent = self.usage.reasoning;
        let left = self.limit.0 - self.usage.completion;
        let over = budget.saturating_add((budget / 4).min(1024));
        let reserved = self.limit.0 > reply.hard;
        if (budget > 0 && spent >= over) || (reserved && left <= reply.hard) {
            Pressure::Hard
        } else if budget > 0 && spent >= budget {
            Pressure::Soft { among: SOFT_RANK }
        } else if reserved && left <= reply.soft {
            Pressure::Soft { among: reply.rank }
        } else {
            Pressure::None
        }
    }

    /// The text of a token, on its way to the receiver. A reason if it ends the turn.
    fn take(&mut self, id: u32) -> Option<StopReason> {
        let mut deltas = self.reader.push(self.tokenizer.token_bytes(id));
        self.block.push(id, self.tokenizer.special().dsml, &self.reader);
        let ended = |delta: &Delta| matches!(delta, Delta::ToolCall(call) if call.kind == ToolCallKind::End);
        if self.request.single_call && deltas.iter().any(ended) {
            deltas.extend(self.reader.parser.close_block());
        }
        let stopped = self.show(deltas);
        let closed = self.request.tools_offered && self.reader.parser.block_closed();
        stopped.or(closed.then_some(StopReason::ToolCalls))
    }

    /// Sends deltas, text by way of the stop filter. A reason if a stop string appeared.
    fn show(&mut self, deltas: Vec<Delta>) -> Option<StopReason> {
        for delta in deltas {
            let Delta::Text(text) = delta else {
                // No stop string reaches across reasoning or a call.
                let held = self.stop.finish();
                self.show_text(held);
                self.events.send(Event::Delta(delta));
                continue;
            };
            let (text, stopped) = self.stop.push(&text);
            self.show_text(text);
            if let Some(stop) = stopped {
                return Some(StopReason::StopString(stop));
            }
        }
        None
    }

    fn show_text(&self, text: String) {
        if !text.is_empty() {
            self.events.send(Event::Delta(Delta::Text(text)));
        }
    }
}

impl Prediction<'_> {
    /// Ids that come before `id`, which is the best one if nothing else is known.
    fn rank(self, id: u32) -> u32 {
        if let Prediction::Logits(logits) = self { rank(logits, id) } else { 0 }
    }
}

impl Clock {
    fn timings(&self) -> Timings {
        let now = Instant::now();
        let prefilled = self.prefilled.unwrap_or(now);
        Timings {
            queue: (self.admitted - self.submitted).as_secs_f64(),
            prefill: (prefilled - self.admitted).as_secs_f64(),
            decode: (now - prefilled).as_secs_f64(),
            ttft: self.first.map_or(0.0, |first| (first - self.submitted).as_secs_f64()),
        }
    }
}

enum Pressure {
    None,
    /// Close as soon as the model nearly would.
    Soft {
        among: u32,
    },
    /// Close.
    Hard,
}

/// Under a spent budget `</think>` is taken if fewer ids than this come before it.
const SOFT_RANK: u32 = 3;
/// How often the block of a turn is written again.
const REWRITES: u32 = 2;
