//! One running answer: engine events on one side, what an API has to say on the other. Owns the call ids, what has been said
//! so far, and the promise that an answer nobody waits for is cancelled.

use std::sync::Arc;
use std::time::Duration;

use ds4_engine::{Cancel, Delta, Event, StopReason, Timings, TokenLogprobs, Usage};
use ds4_text::{Tokenizer, ToolCallDelta, ToolCallKind};

use crate::app::{App, fresh_id};
use crate::error::{ApiError, Result};
use crate::follow::Follow;
use crate::mailbox::Mailbox;
use crate::order::{Order, Source, Tool};
use crate::replay::{Chain, Replay, Turn};

/// What differs between APIs while an answer runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trade {
    Chat,
    Completions,
    Responses,
    Messages,
}

impl Trade {
    /// The field that holds the prompt.
    pub(crate) fn param(self) -> &'static str {
        match self {
            Trade::Chat | Trade::Messages => "messages",
            Trade::Completions => "prompt",
            Trade::Responses => "input",
        }
    }

    fn call_prefix(self) -> &'static str {
        match self {
            Trade::Messages => "toolu_",
            Trade::Chat | Trade::Completions | Trade::Responses => "call_",
        }
    }
}

/// News of an answer, in order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Piece {
    /// Prompt tokens whose state exists.
    Prefill { done: u32, total: u32, cached: u32 },
    /// More of the reasoning, with what was asked about its tokens.
    Thinking { text: String, logprobs: Vec<Token> },
    /// More of the answer, with what was asked about the tokens that released it.
    Text { text: String, logprobs: Vec<Token> },
    /// A call began: `outcome.calls[index]` has its id and name.
    CallStart(usize),
    /// More of the arguments of call `index`, a JSON object without white space.
    CallArguments { index: usize, fragment: String },
    /// Call `index` is complete.
    CallEnd(usize),
    /// Nothing more: `outcome` is whole.
    Done,
}

/// A token of the answer as log-probabilities report it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Token {
    pub(crate) bytes: Vec<u8>,
    pub(crate) logprob: f32,
    pub(crate) top: Vec<(Vec<u8>, f32)>,
}

impl Token {
    /// What was found of a token; `bytes` spells ids.
    pub(crate) fn of(found: &TokenLogprobs, bytes: impl Fn(u32) -> Vec<u8>) -> Self {
        let top = found.top.iter().map(|candidate| (bytes(candidate.id), candidate.logprob)).collect();
        Token { bytes: bytes(found.chosen.id), logprob: found.chosen.logprob, top }
    }
}

/// A call of the answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Call {
    pub(crate) id: String,
    /// As the model wrote it.
    pub(crate) name: String,
    /// A JSON object without white space, as far as it has come.
    pub(crate) arguments: String,
    /// The declared tool, if there is one of this name.
    pub(crate) tool: Option<Tool>,
    pub(crate) complete: bool,
}

impl Call {
    /// The name the client declared, without its namespace.
    pub(crate) fn client_name(&self) -> &str {
        self.tool.as_ref().and_then(|t| t.namespace.as_ref()).map_or(&self.name, |(_, name)| name)
    }

    pub(crate) fn namespace(&self) -> Option<&str> {
        self.tool.as_ref().and_then(|t| t.namespace.as_ref()).map(|(space, _)| space.as_str())
    }

    /// The arguments as a history has them.
    pub(crate) fn replayed(&self) -> String {
        if self.is_custom() { serde_json::json!({"input": self.input()}).to_string() } else { self.arguments.clone() }
    }

    pub(crate) fn is_custom(&self) -> bool {
        self.tool.as_ref().is_some_and(|t| t.custom)
    }

    /// The free text of a custom tool's call: its one string argument.
    pub(crate) fn input(&self) -> String {
        match serde_json::from_str::<serde_json::Value>(&self.arguments) {
            Ok(serde_json::Value::Object(map)) if map.len() == 1 => match map.into_values().next() {
                Some(serde_json::Value::String(text)) => text,
                Some(other) => other.to_string(),
                None => String::new(),
            },
            _ => self.arguments.clone(),
        }
    }
}

/// Everything an answer said.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) thinking: String,
    pub(crate) text: String,
    pub(crate) calls: Vec<Call>,
    pub(crate) logprobs: Vec<Token>,
    pub(crate) reasoning_logprobs: Vec<Token>,
    /// Every sampled id, an end-of-sentence included.
    pub(crate) ids: Vec<u32>,
    /// Why it ended; none while it runs.
    pub(crate) reason: Option<StopReason>,
    pub(crate) usage: Usage,
    pub(crate) timings: Timings,
}

/// Why an answer ended, for all APIs (server.md 5.13).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Finish {
    EndOfTurn,
    StopString(String),
    Length,
    ContextFull,
    ToolCalls,
    Cancelled,
}

impl Outcome {
    /// What was sampled before `</think>`, so far.
    pub(crate) fn reasoning_ids(&self, tokenizer: &Tokenizer) -> &[u32] {
        let special = tokenizer.special();
        let end = self.ids.iter().position(|&id| id == special.think_end || id == special.eos);
        &self.ids[..end.unwrap_or(self.ids.len())]
    }

    pub(crate) fn finish(&self) -> Finish {
        match &self.reason {
            // A call that was delivered has to be answered, however the turn went on.
            Some(StopReason::ToolCalls | StopReason::EndOfTurn) if !self.calls.is_empty() => Finish::ToolCalls,
            None | Some(StopReason::EndOfTurn | StopReason::ToolCalls) => Finish::EndOfTurn,
            Some(StopReason::StopString(text)) => Finish::StopString(text.clone()),
            Some(StopReason::Length) => Finish::Length,
            Some(StopReason::ContextFull) => Finish::ContextFull,
            Some(StopReason::Cancelled) => Finish::Cancelled,
        }
    }
}

/// A running answer. Dropping it cancels it.
pub(crate) struct Job {
    app: Arc<App>,
    events: Mailbox,
    follow: Follow,
    trade: Trade,
    tools: Vec<Tool>,
    /// Log-probabilities of tokens whose text has not been released.
    held: Vec<Token>,
    held_reasoning: Vec<Token>,
    /// What the answer is remembered by; none if it is no turn of its own.
    chain: Option<Chain>,
    thinking: bool,
    pub(crate) outcome: Outcome,
}

impl Job {
    pub(crate) fn new(
        app: Arc<App>,
        order: &Order,
        events: Mailbox,
        follow: Follow,
        trade: Trade,
        prompt: u32,
    ) -> Self {
        let usage = Usage { prompt, ..Usage::default() };
        let outcome = Outcome { usage, ..Outcome::default() };
        let (chain, thinking) = match &order.source {
            Source::Chat { messages, continued: false } => {
                (Some(Replay::chain(messages, &order.tenant)), order.thinking.is_on())
            }
            Source::Chat { .. } | Source::Raw(_) => (None, false),
        };
        let tools = order.tools.clone();
        Job {
            app,
            events,
            follow,
            trade,
            tools,
            held: Vec::new(),
            held_reasoning: Vec::new(),
            chain,
            thinking,
            outcome,
        }
    }

    /// Since it was asked for.
    pub(crate) fn age(&self) -> Duration {
        self.follow.age()
    }

    /// What stops the answer.
    pub(crate) fn cancel(&self) -> Cancel {
        self.follow.cancellation()
    }

    /// The reasoning so far, sealed for the client to keep.
    pub(crate) fn sealed_reasoning(&self) -> String {
        self.app.replay.seal.close(self.outcome.reasoning_ids(&self.app.tokenizer))
    }

    /// Keeps the turn, unless the client did not get all of it.
    fn remember(&self) {
        let whole = !matches!(self.outcome.reason, None | Some(StopReason::Cancelled | StopReason::StopString(_)));
        if let (true, Some(chain)) = (whole, &self.chain)
            && let Some(turn) = Turn::of(&self.outcome, self.thinking, &self.app.tokenizer)
        {
            self.app.replay.remember(chain, turn);
        }
    }

    /// The next piece; after `Done` or an error there is none.
    pub(crate) async fn next(&mut self) -> Result<Piece> {
        loop {
            let event = self.follow.hear(&mut self.events).await?;
            match event {
                Event::Prefill { done, total, cached, .. } => {
                    self.outcome.usage.cached = cached;
                    return Ok(Piece::Prefill { done, total, cached });
                }
                Event::Token { id, reasoning, logprobs } => self.token(id, reasoning, logprobs),
                Event::TakenBack { tokens } => self.take_back(tokens as usize),
                Event::ReasoningClosed { .. } | Event::Matched(_) => {}
                Event::Delta(delta) => return Ok(self.delta(delta)),
                Event::Done { reason, usage, timings } => {
                    self.outcome.usage = usage;
                    self.outcome.timings = timings;
                    self.outcome.reason = Some(reason);
                    self.remember();
                    return Ok(Piece::Done);
                }
                Event::Failed(error) => return Err(ApiError::from_engine(&error, self.trade.param())),
            }
        }
    }

    /// Runs to the end.
    pub(crate) async fn finish(mut self) -> Result<Outcome> {
        while self.next().await? != Piece::Done {}
        Ok(std::mem::take(&mut self.outcome))
    }

    fn token(&mut self, id: u32, reasoning: bool, logprobs: Option<TokenLogprobs>) {
        self.outcome.ids.push(id);
        let tokenizer = &self.app.tokenizer;
        if id == tokenizer.special().eos {
            return;
        }
        self.outcome.usage.completion += 1;
        self.outcome.usage.reasoning += u32::from(reasoning);
        if let Some(found) = logprobs {
            let held = if reasoning { &mut self.held_reasoning } else { &mut self.held };
            held.push(Token::of(&found, |id| tokenizer.token_bytes(id).to_vec()));
        }
    }

    /// The last tokens are no part of the answer, and nothing was said of them.
    fn take_back(&mut self, tokens: usize) {
        let ids = &mut self.outcome.ids;
        let taken = ids.split_off(ids.len().saturating_sub(tokens));
        let eos = self.app.tokenizer.special().eos;
        let judged = taken.iter().filter(|&&id| id != eos).count();
        self.held.truncate(self.held.len().saturating_sub(judged));
    }

    fn delta(&mut self, delta: Delta) -> Piece {
        match delta {
            Delta::Thinking(text) => {
                self.outcome.thinking.push_str(&text);
                let logprobs = std::mem::take(&mut self.held_reasoning);
                self.outcome.reasoning_logprobs.extend(logprobs.iter().cloned());
                Piece::Thinking { text, logprobs }
            }
            Delta::Text(text) => {
                self.outcome.text.push_str(&text);
                let logprobs = std::mem::take(&mut self.held);
                self.outcome.logprobs.extend(logprobs.iter().cloned());
                Piece::Text { text, logprobs }
            }
            Delta::ToolCall(ToolCallDelta { index, kind }) => self.call(index, kind),
        }
    }

    fn call(&mut self, index: usize, kind: ToolCallKind) -> Piece {
        match kind {
            ToolCallKind::Start { name } => {
                let tool = self.tools.iter().find(|tool| tool.name == name).cloned();
                let id = fresh_id(self.trade.call_prefix(), 16);
                self.outcome.calls.push(Call { id, name, arguments: String::new(), tool, complete: false });
                Piece::CallStart(index)
            }
            ToolCallKind::Arguments(fragment) => {
                self.outcome.calls[index].arguments.push_str(&fragment);
                Piece::CallArguments { index, fragment }
            }
            ToolCallKind::End => {
                self.outcome.calls[index].complete = true;
                Piece::CallEnd(index)
            }
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.follow.cancel();
    }
}
