//! A turn shown while it grows (`spec/prompt.md` 19). Owns what may be shown and what must wait; what the turn says in the end is
//! `finish`'s. Only the official form of a block is shown live: at the first byte outside it the rest waits for the end.

use super::{
    Tags, Turn, finish, is_json, literal,
    strict::{KEY, invoke_name, parameter_head},
    tags::partial_end,
};
use crate::{
    control::{THINK, THINK_END},
    json::{escape, minify},
};

/// A piece of the turn, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delta {
    Thinking(String),
    Text(String),
    ToolCall(ToolCallDelta),
}

/// A piece of one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolCallDelta {
    /// Counts the calls of the turn from 0.
    pub index: usize,
    pub kind: ToolCallKind,
}

/// A call is one `Start`, then any number of `Arguments`, then `End`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToolCallKind {
    Start {
        name: String,
    },
    /// The next piece of the arguments, an object without white space.
    Arguments(String),
    End,
}

/// Turns text that arrives in any cutting into deltas. Joined, they say what [`finish`] says of a well-formed turn, with
/// arguments in the form of [`super::Call::compact_arguments`].
#[derive(Clone, Debug)]
pub struct StreamParser {
    thinking: bool,
    tools_offered: bool,
    /// All text so far.
    text: String,
    /// Everything before has been dealt with.
    at: usize,
    /// No tag that is being looked for begins before.
    searched: usize,
    state: State,
    /// Where the block begins, once there is one.
    block: usize,
    /// Where the block left the official form.
    strayed: Option<usize>,
    tags: &'static Tags,
    /// Calls begun.
    calls: usize,
    /// Arguments of the open call as shown.
    open: Option<String>,
    /// Key of a parameter whose value is not complete.
    pending_key: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the reasoning, which may repeat the opening tag.
    Start,
    Reasoning,
    Text,
    BetweenCalls,
    CallHead,
    CallEnd,
    ParameterHead,
    StringValue,
    JsonValue,
    AfterValue,
    /// In the block, but no longer official.
    Waiting,
    Closed,
}

impl StreamParser {
    /// `thinking`: the generation prompt opened the reasoning. Without offered tools only the official opener, with its two
    /// newlines, begins a block.
    pub fn new(thinking: bool, tools_offered: bool) -> Self {
        Self {
            thinking,
            tools_offered,
            text: String::new(),
            at: 0,
            searched: 0,
            state: if thinking { State::Start } else { State::Text },
            block: 0,
            strayed: None,
            tags: &Tags::FULL,
            calls: 0,
            open: None,
            pending_key: String::new(),
        }
    }

    /// Takes the next characters, without EOS, and returns what can be shown now.
    pub fn push(&mut self, text: &str) -> Vec<Delta> {
        self.text.push_str(text);
        let mut out = Vec::new();
        while self.step(&mut out) {}
        out
    }

    /// Between two calls of a block: drops what has come of the next one and writes the closing tag in its place.
    pub fn close_block(&mut self) -> Vec<Delta> {
        if self.state != State::BetweenCalls {
            return Vec::new();
        }
        self.text.truncate(self.at);
        self.push(&["\n", self.tags.block_end].concat())
    }

    /// Whether the closing tag of the block has come: nothing that follows belongs to the turn.
    pub fn block_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Whether a block has begun and not been closed. A turn that ends so is unfinished.
    pub fn in_block(&self) -> bool {
        !matches!(self.state, State::Start | State::Reasoning | State::Text | State::Closed)
    }

    /// Whether the reasoning has not been closed.
    pub fn in_reasoning(&self) -> bool {
        matches!(self.state, State::Start | State::Reasoning)
    }

    /// Calls begun, and of the arguments of the one that is open what has been shown.
    pub fn shown(&self) -> (usize, Option<&str>) {
        (self.calls, self.open.as_deref())
    }

    /// Bytes of the text before the place where its block left the official form; all if it did not.
    pub fn official(&self) -> usize {
        self.strayed.unwrap_or(self.text.len())
    }

    /// Whether a block began and, if the turn ended here, no call could be read in it, or arguments that no client can read.
    pub fn is_broken(&self) -> bool {
        if !self.in_block() && self.strayed.is_none() {
            return false;
        }
        let turn = finish(&self.text, self.thinking, self.tools_offered);
        turn.calls.is_empty() || turn.calls.iter().any(|call| !is_json(&call.arguments))
    }

    /// The text so far.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What was held back, and the whole turn.
    pub fn finish(mut self) -> (Vec<Delta>, Turn) {
        let turn = finish(&self.text, self.thinking, self.tools_offered);
        let mut out = Vec::new();
        let rest = self.text[self.at..].to_owned();
        match self.state {
            State::Start | State::Reasoning => show(&mut out, Delta::Thinking(rest)),
            State::Text => show(&mut out, Delta::Text(rest)),
            _ if turn.raw_block.is_none() && self.calls == 0 => {
                show(&mut out, Delta::Text(self.text[self.block..].to_owned()));
            }
            _ => self.remaining_calls(&turn, &mut out),
        }
        (out, turn)
    }

    /// Completes the open call and sends whole those that were not shown.
    fn remaining_calls(&mut self, turn: &Turn, out: &mut Vec<Delta>) {
        if let Some(shown) = self.open.take() {
            let whole = turn.calls.get(self.calls - 1).map(super::Call::compact_arguments);
            let rest = whole.and_then(|whole| whole.strip_prefix(shown.as_str()).map(str::to_owned));
            // If they disagree, at least let the client have an object.
            let closed = if self.state == State::StringValue { "\"}" } else { "}" };
            self.call_delta(out, ToolCallKind::Arguments(rest.unwrap_or_else(|| closed.to_owned())));
            self.call_delta(out, ToolCallKind::End);
        }
        for call in turn.calls.iter().skip(self.calls) {
            self.calls += 1;
            self.call_delta(out, ToolCallKind::Start { name: call.name.clone() });
            self.call_delta(out, ToolCallKind::Arguments(call.compact_arguments()));
            self.call_delta(out, ToolCallKind::End);
        }
    }

    fn call_delta(&self, out: &mut Vec<Delta>, kind: ToolCallKind) {
        show(out, Delta::ToolCall(ToolCallDelta { index: self.calls - 1, kind }));
    }

    /// Shows a piece of the open call's arguments.
    fn arguments(&mut self, out: &mut Vec<Delta>, piece: &str) {
        if let Some(shown) = &mut self.open {
            shown.push_str(piece);
        }
        self.call_delta(out, ToolCallKind::Arguments(piece.to_owned()));
    }

    fn end_call(&mut self, out: &mut Vec<Delta>) {
        self.arguments(out, "}");
        self.open = None;
        self.call_delta(out, ToolCallKind::End);
    }

    /// One move; false if nothing more can be done before more text comes.
    fn step(&mut self, out: &mut Vec<Delta>) -> bool {
        match self.state {
            State::Start => self.start(),
            State::Reasoning => self.reasoning(out),
            State::Text => self.content(out),
            State::BetweenCalls => {
                self.next_tag(&[("\n", self.tags.invoke, State::CallHead), ("\n", self.tags.block_end, State::Closed)])
            }
            State::CallHead => self.call_head(out),
            State::CallEnd => self.ended(out, &[("", self.tags.invoke_end, State::BetweenCalls)]),
            State::ParameterHead => self.parameter_head(out),
            State::StringValue => self.string_value(out),
            State::JsonValue => self.json_value(out),
            State::AfterValue => self.ended(
                out,
                &[("\n", self.tags.parameter, State::ParameterHead), ("\n", self.tags.invoke_end, State::BetweenCalls)],
            ),
            State::Waiting => self
                .find(&[self.tags.block_end])
                .is_some_and(|(place, _)| self.go(place + self.tags.block_end.len(), State::Closed)),
            State::Closed => false,
        }
    }

    fn go(&mut self, at: usize, state: State) -> bool {
        if state == State::Waiting {
            self.strayed = Some(at);
        }
        (self.at, self.searched, self.state) = (at, at, state);
        true
    }

    /// The place of the first of these tags and which it is. What has been searched is not searched again.
    fn find(&mut self, tags: &[&str]) -> Option<(usize, usize)> {
        let from = self.searched;
        let found = tags.iter().enumerate().filter_map(|(i, tag)| Some((from + self.text[from..].find(tag)?, i)));
        let first = found.min();
        if first.is_none() {
            self.searched = self.text.len() - partial_end(&self.text[from..], tags);
        }
        first
    }

    fn start(&mut self) -> bool {
        match self.text.as_str() {
            text if text.starts_with(THINK) => self.go(THINK.len(), State::Reasoning),
            text if THINK.starts_with(text) => false,
            _ => self.go(0, State::Reasoning),
        }
    }

    fn reasoning(&mut self, out: &mut Vec<Delta>) -> bool {
        let found = self.find(&[THINK_END]);
        let end = found.map_or(self.searched, |(place, _)| place);
        show(out, Delta::Thinking(self.text[self.at..end].to_owned()));
        self.at = end;
        found.is_some() && self.go(end + THINK_END.len(), State::Text)
    }

    fn content(&mut self, out: &mut Vec<Delta>) -> bool {
        const APART: [&str; 3] = ["\n\n<｜DSML｜tool_calls>", "\n\n<DSML｜tool_calls>", "\n\n<tool_calls>"];
        const OPENERS: [&str; 6] =
            [APART[0], APART[1], APART[2], Tags::ALL[0].block, Tags::ALL[1].block, Tags::ALL[2].block];
        let openers = if self.tools_offered { &OPENERS[..] } else { &APART[..1] };
        let found = self.find(openers);
        let end = found.map_or(self.searched, |(place, _)| place);
        show(out, Delta::Text(self.text[self.at..end].to_owned()));
        self.at = end;
        found.is_some_and(|(place, kind)| {
            (self.block, self.tags) = (place, Tags::ALL[kind % 3]);
            self.go(place + openers[kind].len(), State::BetweenCalls)
        })
    }

    /// Moves behind the tag that follows, if it and what stands before it are one of these; waits for the end if not.
    fn next_tag(&mut self, tags: &[(&str, &str, State)]) -> bool {
        let rest = &self.text[self.at..];
        let mut partial = false;
        for (before, tag, state) in tags {
            let whole = [*before, *tag].concat();
            if rest.starts_with(&whole) {
                return self.go(self.at + whole.len(), *state);
            }
            partial |= whole.starts_with(rest);
        }
        !partial && self.go(self.at, State::Waiting)
    }

    /// As `next_tag`, where the end of the call may follow.
    fn ended(&mut self, out: &mut Vec<Delta>, tags: &[(&str, &str, State)]) -> bool {
        let moved = self.next_tag(tags);
        if moved && self.state == State::BetweenCalls {
            self.end_call(out);
        }
        moved
    }

    fn call_head(&mut self, out: &mut Vec<Delta>) -> bool {
        let invoke_end = self.tags.invoke_end.trim_end_matches('>');
        let Some((place, kind)) = self.find(&[self.tags.parameter, invoke_end]) else { return false };
        let Some(name) = invoke_name(&self.text[self.at..place]).map(str::to_owned) else {
            return self.go(self.at, State::Waiting);
        };
        self.calls += 1;
        self.open = Some(String::new());
        self.call_delta(out, ToolCallKind::Start { name });
        self.arguments(out, "{");
        if kind == 0 {
            self.go(place + self.tags.parameter.len(), State::ParameterHead)
        } else {
            self.go(place, State::CallEnd)
        }
    }

    fn parameter_head(&mut self, out: &mut Vec<Delta>) -> bool {
        let rest = &self.text[self.at..];
        let closes = rest.find(self.tags.parameter_end);
        let head = parameter_head(rest).filter(|head| closes.is_none_or(|end| head.len <= end));
        let Some(head) = head else {
            let hopeless = closes.is_some() || !(rest.starts_with(KEY) || KEY.starts_with(rest));
            return hopeless && self.go(self.at, State::Waiting);
        };
        let first = self.open.as_deref() == Some("{");
        let quote = if head.string { "\"" } else { "" };
        let piece = format!("{}{}:{quote}", if first { "" } else { "," }, literal(head.key));
        let (at, state) = (self.at + head.len, if head.string { State::StringValue } else { State::JsonValue });
        // The key of a value that may yet turn out not to be JSON waits with it.
        if head.string {
            self.arguments(out, &piece);
        } else {
            self.pending_key = piece;
        }
        self.go(at, state)
    }

    fn string_value(&mut self, out: &mut Vec<Delta>) -> bool {
        let tags = [self.tags.parameter_end, self.tags.escaped_parameter_end];
        let found = self.find(&tags);
        let end = found.map_or(self.searched, |(place, _)| place);
        let mut piece = String::new();
        escape(&self.text[self.at..end], &mut piece);
        self.at = end;
        let moved = match found {
            None => false,
            Some((place, 0)) => {
                piece.push('"');
                self.go(place + tags[0].len(), State::AfterValue)
            }
            Some((place, _)) => {
                escape(tags[0], &mut piece);
                self.go(place + tags[1].len(), State::StringValue)
            }
        };
        self.arguments(out, &piece);
        moved
    }

    /// A value that is not a string is shown whole: a client must not be given what is not JSON.
    fn json_value(&mut self, out: &mut Vec<Delta>) -> bool {
        let Some((place, _)) = self.find(&[self.tags.parameter_end]) else { return false };
        let value = &self.text[self.at..place];
        if !is_json(value) {
            return self.go(self.at, State::Waiting);
        }
        let piece = std::mem::take(&mut self.pending_key) + &minify(value);
        self.arguments(out, &piece);
        self.go(place + self.tags.parameter_end.len(), State::AfterValue)
    }
}

/// Appends a delta; empty pieces of text say nothing.
fn show(out: &mut Vec<Delta>, delta: Delta) {
    let empty = match &delta {
        Delta::Thinking(text) | Delta::Text(text) => text.is_empty(),
        Delta::ToolCall(call) => call.kind == ToolCallKind::Arguments(String::new()),
    };
    if !empty {
        out.push(delta);
    }
}
