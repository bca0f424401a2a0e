//! Exact replay (server.md 13): what was sampled comes back as the ids it was sampled as, whatever tokenizing its text would
//! give, so that a resent conversation meets the state that exists. Owns the memory of finished turns; the blobs that carry
//! reasoning through clients are `blob`'s. With a place on disk the memory outlives the process.

mod blob;
mod memory;

use std::sync::{Arc, Mutex, PoisonError};

use ds4_text::{Content, Message, Role, Sampled, Tokenizer, ToolCall, parse};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

pub use blob::load_or_create_key;
pub(crate) use blob::{Seal, vocabulary};
use memory::Memory;

use crate::job::Outcome;
use crate::journal::{Journal, Place};

/// Bytes of all remembered turns.
const MAX_BYTES: usize = 512 << 20;

/// What a conversation said up to some message, and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    tenant: Key,
    said: Key,
}

type Key = [u8; 32];

/// A finished turn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Turn {
    /// Sampled before `</think>`; none if the turn did not think.
    reasoning: Option<Vec<u32>>,
    /// Sampled behind it; none if that is a block of calls cut off inside a call, which no history should show.
    answer: Option<Vec<u32>>,
    /// As clients were told.
    thinking: String,
    text: String,
    /// As histories have them.
    calls: Vec<ToolCall>,
}

impl Turn {
    /// The turn of an answer, unless its ids say something else than its client was told.
    pub(crate) fn of(outcome: &Outcome, thinking: bool, tokenizer: &Tokenizer) -> Option<Turn> {
        let special = tokenizer.special();
        let ids = outcome.ids.strip_suffix(&[special.eos]).unwrap_or(&outcome.ids);
        let (reasoning, answer) = match ids.iter().position(|&id| id == special.think_end) {
            Some(at) if thinking => (Some(&ids[..at]), &ids[at + 1..]),
            None if thinking && outcome.text.is_empty() && outcome.calls.is_empty() => (Some(ids), &ids[..0]),
            // Calls from reasoning that was never closed: the template would close it elsewhere.
            None if thinking => return None,
            _ => (None, ids),
        };
        let calls = outcome.calls.iter().map(|call| ToolCall {
            id: Some(call.id.clone()),
            name: call.name.clone(),
            arguments: Value::String(call.replayed()),
        });
        Some(Turn {
            reasoning: reasoning.map(<[u32]>::to_vec),
            answer: closed(answer, outcome.calls.len(), tokenizer),
            thinking: outcome.thinking.clone(),
            text: outcome.text.clone(),
            calls: calls.collect(),
        })
    }

    /// The turn as a message, for histories in which only its results are left.
    pub(crate) fn message(&self) -> Message {
        Message { tool_calls: self.calls.clone(), ..Message::new(Role::Assistant, self.text.clone()) }
    }

    fn bytes(&self) -> usize {
        let ids = [&self.reasoning, &self.answer].into_iter().flatten().map(Vec::len).sum::<usize>();
        let calls = self.calls.iter().map(|c| c.name.len() + c.arguments.as_str().map_or(0, str::len) + 256);
        4 * ids + self.thinking.len() + self.text.len() + calls.sum::<usize>() + 256
    }

    /// Whether a client's copy says what the turn said: white space at the ends and the spelling of arguments aside.
    fn answers_as(&self, message: &Message) -> bool {
        text_of(message).trim() == self.text.trim()
            && message.tool_calls.len() == self.calls.len()
            && message.tool_calls.iter().zip(&self.calls).all(|(a, b)| a.name == b.name && same_arguments(a, b))
    }

    /// Whether a client's copy says nothing else than the reasoning. Some keep only a piece of it, such as the last that was
    /// streamed (seen with the helpers of OpenAI's SDK for Node).
    fn thinks_as(&self, message: &Message) -> bool {
        self.thinking.contains(message.reasoning.trim())
    }

    /// Puts the ids in place of what the message says, where it says the same.
    fn restore(&self, message: &mut Message, tokenizer: &Tokenizer) {
        if let (Some(ids), true) = (&self.reasoning, self.thinks_as(message)) {
            message.reasoning.clone_from(&self.thinking);
            message.sampled.reasoning = Some(tokenizer.exact(ids));
        }
        message.sampled.answer = self.answer.as_ref().map(|ids| tokenizer.exact(ids));
    }
}

/// Calls of a history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Rendered as they were sampled.
    pub(crate) exact: usize,
    /// Rendered as the client has them, since that is something else.
    pub(crate) canonical: usize,
    /// Not known, and rendered as the client has them.
    pub(crate) missing: usize,
}

/// The memory and the key of one server.
pub(crate) struct Replay {
    memory: Mutex<Memory>,
    pub(crate) seal: Seal,
    /// False: histories are rendered from what clients send.
    exact: bool,
}

impl Replay {
    /// With a place, what an earlier process remembered there is remembered.
    pub(crate) fn new(seal: Seal, max_ids: usize, exact: bool, place: Option<&Place>) -> Replay {
        let memory = Memory::new(max_ids, MAX_BYTES);
        let memory = match place {
            Some(place) if exact => memory.at(place),
            _ => memory,
        };
        Replay { memory: Mutex::new(memory), seal, exact }
    }

    /// Keeps the turn that followed a conversation.
    pub(crate) fn remember(&self, chain: &Chain, turn: Turn) {
        if self.exact {
            self.lock().insert(chain, turn);
        }
    }

    /// The turn of a tenant that made a call.
    pub(crate) fn call(&self, id: &str, tenant: &str) -> Option<Arc<Turn>> {
        if self.exact { self.lock().call(id, &start(tenant).tenant) } else { None }
    }

    /// Where the memory is left for a later process.
    pub(crate) fn journal(&self) -> Journal {
        self.lock().journal().clone()
    }

    /// Gives every turn of a history the ids it was sampled as.
    pub(crate) fn restore(&self, messages: &mut [Message], tenant: &str, tokenizer: &Tokenizer) {
        if !self.exact {
            return messages.iter_mut().for_each(|message| message.sampled = Sampled::default());
        }
        let mut chain = start(tenant);
        for message in messages {
            if message.role == Role::Assistant
                && let Some(turn) = self.found(&chain, message).filter(|turn| turn.answers_as(message))
            {
                turn.restore(message, tokenizer);
            }
            chain = link(&chain, message);
        }
    }

    /// How the calls of a history are rendered.
    pub(crate) fn tally(&self, messages: &[Message], tenant: &str) -> Tally {
        let (mut tally, mut chain) = (Tally::default(), start(tenant));
        for message in messages {
            let calls = message.tool_calls.len();
            if calls > 0 {
                match self.found(&chain, message) {
                    _ if !self.exact => tally.canonical += calls,
                    Some(turn) if turn.answers_as(message) => tally.exact += calls,
                    Some(_) => tally.canonical += calls,
                    None => tally.missing += calls,
                }
            }
            chain = link(&chain, message);
        }
        tally
    }

    /// The turn that a message may be a copy of.
    fn found(&self, chain: &Chain, message: &Message) -> Option<Arc<Turn>> {
        match message.tool_calls.first() {
            Some(call) => self.lock().call(call.id.as_ref()?, &chain.tenant),
            None => self.lock().text(&key(chain, text_of(message))),
        }
    }

    /// What the messages of a new turn say, for `remember`.
    pub(crate) fn chain(messages: &[Message], tenant: &str) -> Chain {
        messages.iter().fold(start(tenant), |chain, message| link(&chain, message))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The ids of an answer, its block of calls closed if the turn ended between two calls; none if it ended inside one.
fn closed(ids: &[u32], calls: usize, tokenizer: &Tokenizer) -> Option<Vec<u32>> {
    let text = tokenizer.exact(ids).text;
    let whole = |text: &str| parse::finish(text, false, true).calls.len() == calls;
    if calls == 0 || whole(&text) {
        return Some(ids.to_vec());
    }
    let end = if text.ends_with('\n') { BLOCK_END.trim_start() } else { BLOCK_END };
    whole(&(text + end)).then(|| [ids, &tokenizer.encode(end)].concat())
}

/// What ends a block of calls.
const BLOCK_END: &str = "\n</｜DSML｜tool_calls>";

fn text_of(message: &Message) -> &str {
    match &message.content {
        Content::Text(text) => text,
        _ => "",
    }
}

fn start(tenant: &str) -> Chain {
    let tenant = Sha256::digest(tenant).into();
    Chain { tenant, said: tenant }
}

/// One message further. Reasoning and the spelling of arguments do not count: clients drop the one and change the other.
fn link(chain: &Chain, message: &Message) -> Chain {
    let mut hash = Sha256::new_with_prefix(chain.said);
    let role = match &message.role {
        Role::System | Role::Developer => "s",
        Role::Assistant => "a",
        Role::Tool => "t",
        _ => "u",
    };
    hash.update(role);
    hash.update(text_of(message).trim());
    for call in &message.tool_calls {
        hash.update([0]);
        hash.update(call.id.as_deref().unwrap_or_default());
    }
    Chain { said: hash.finalize().into(), ..*chain }
}

/// Where a turn without calls is found.
fn key(chain: &Chain, text: &str) -> Key {
    let mut hash = Sha256::new_with_prefix(chain.said);
    hash.update("=");
    hash.update(text.trim());
    hash.finalize().into()
}

fn same_arguments(a: &ToolCall, b: &ToolCall) -> bool {
    let parsed = |call: &ToolCall| match &call.arguments {
        Value::String(text) => serde_json::from_str(text).unwrap_or_else(|_| call.arguments.clone()),
        other => other.clone(),
    };
    same(&parsed(a), &parsed(b))
}

/// Equal as JSON: member order and the spelling of numbers aside.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => {
            x == y || (x.as_i64().zip(y.as_i64()).is_none() && x.as_f64().zip(y.as_f64()).is_some_and(|(x, y)| x == y))
        }
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same(x, y)),
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(name, x)| y.get(name).is_some_and(|y| same(x, y)))
        }
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(id: &str, arguments: &str) -> ToolCall {
        ToolCall { id: Some(id.to_owned()), name: "look".to_owned(), arguments: Value::String(arguments.to_owned()) }
    }

    #[test]
    fn arguments_are_compared_as_json() {
        for (a, b, equal) in [
            (r#"{"a": 1, "b": [true]}"#, r#"{"b":[true],"a":1.0}"#, true),
            (r#"{"a":1}"#, r#"{"a":2}"#, false),
            (r#"{"a":1}"#, r#"{"a":1,"b":2}"#, false),
            (r#"{"a":9007199254740993}"#, r#"{"a":9007199254740992}"#, false),
            ("no json", "no json", true),
            ("no json", "other", false),
        ] {
            assert_eq!(same_arguments(&call("x", a), &call("x", b)), equal, "{a} {b}");
        }
    }

    #[test]
    fn a_piece_of_the_reasoning_stands_for_all_of_it() {
        let turn = Turn {
            reasoning: Some(vec![1]),
            answer: Some(vec![2]),
            thinking: "I need it. ".to_owned(),
            text: String::new(),
            calls: Vec::new(),
        };
        let same = |copy: &str| {
            turn.thinks_as(&Message { reasoning: copy.to_owned(), ..Message::new(Role::Assistant, String::new()) })
        };
        assert!(same("") && same(".") && same("I need it.") && same(" I need it. "));
        assert!(!same("I need nothing."));
    }

    #[test]
    fn reasoning_and_the_spelling_of_arguments_do_not_change_a_conversation() {
        let said = |reasoning: &str, arguments: &str| {
            let message = Message::new(Role::Assistant, "text");
            vec![
                Message::new(Role::User, "hello"),
                Message { reasoning: reasoning.to_owned(), tool_calls: vec![call("x", arguments)], ..message },
            ]
        };
        let chain = |messages: &[Message]| Replay::chain(messages, "");
        assert_eq!(chain(&said("", "{}")), chain(&said("hm", "{ }")));
        assert_ne!(chain(&said("", "{}")), chain(&said("", "{}")[..1]));
        assert_ne!(chain(&said("", "{}")), Replay::chain(&said("", "{}"), "someone else"));
    }
}
