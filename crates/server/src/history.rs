//! A conversation as clients send it, made into the messages of a prompt (server.md 5.11). Owns what all APIs have in common:
//! where system texts go, that results answer calls, and that nothing is dropped in silence.

use std::collections::HashSet;

use ds4_text::{Content, Exact, Message, Role, ToolCall};
use serde_json::Value;

use crate::app::App;
use crate::call::tenant;
use crate::error::{ApiError, Result};
use crate::fields::{Fields, kind};

/// Messages of one conversation.
pub(crate) const MAX_ITEMS: usize = 100_000;

/// Messages so far.
pub(crate) struct History<'a> {
    system: Vec<String>,
    messages: Vec<Message>,
    calls: HashSet<String>,
    open: bool,
    app: &'a App,
}

impl<'a> History<'a> {
    /// An empty conversation; `app` knows calls that clients leave out.
    pub(crate) fn new(app: &'a App) -> Self {
        History { system: Vec::new(), messages: Vec::new(), calls: HashSet::new(), open: false, app }
    }

    /// System text: at the head it joins the system region, later it is a note in the user turn where it stands. Hoisting it
    /// would change the prompt's beginning, and with it everything that was computed of it.
    pub(crate) fn system(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        if self.messages.is_empty() {
            self.system.push(text.to_owned());
        } else {
            self.user(&format!("<system-note>\n{text}\n</system-note>"));
        }
    }

    pub(crate) fn user(&mut self, text: &str) {
        self.open = false;
        self.messages.push(Message::new(Role::User, text));
    }

    /// What the assistant thought, before what it said of it; `exact` are the ids, if they are known.
    pub(crate) fn reasoning(&mut self, text: &str, exact: Option<Exact>) {
        let turn = self.turn();
        let first = turn.reasoning.is_empty() && turn.sampled.reasoning.is_none();
        turn.sampled.reasoning = if first { exact } else { None };
        turn.reasoning.push_str(text);
    }

    /// What the assistant said. Parts of one turn that come one after another are one turn.
    pub(crate) fn assistant(&mut self, text: &str, calls: Vec<ToolCall>) {
        self.calls.extend(calls.iter().filter_map(|call| call.id.clone()));
        let turn = self.turn();
        let Content::Text(before) = &mut turn.content else { unreachable!("assistants say text") };
        before.push_str(text);
        turn.tool_calls.extend(calls);
    }

    /// The next part of an assistant's turn is a turn of its own.
    pub(crate) fn close(&mut self) {
        self.open = false;
    }

    fn turn(&mut self) -> &mut Message {
        if !self.open {
            self.messages.push(Message::new(Role::Assistant, ""));
        }
        self.open = true;
        self.messages.last_mut().expect("an open turn is the last message")
    }

    /// The result of a call; `param` is where its id stands. A call that the client left out comes from memory.
    pub(crate) fn result(&mut self, id: &str, text: &str, param: String) -> Result<()> {
        if !self.calls.contains(id) {
            if self.messages.is_empty() {
                return Err(ApiError::continuation(param, id));
            }
            let Some(turn) = self.app.replay.call(id, &tenant(&self.app.config)) else {
                let message =
                    format!("{param}: no earlier call has the id {id:?}; resend the full conversation history");
                return Err(ApiError::invalid(param, message));
            };
            let turn = turn.message();
            self.calls.extend(turn.tool_calls.iter().filter_map(|call| call.id.clone()));
            self.messages.push(turn);
        }
        self.open = false;
        let id = Some(id.to_owned());
        self.messages.push(Message { tool_call_id: id, ..Message::new(Role::Tool, text) });
        Ok(())
    }

    /// The last message is the assistant's: it is to be continued.
    pub(crate) fn is_continued(&self) -> bool {
        self.messages.last().is_some_and(|m| m.role == Role::Assistant && m.tool_calls.is_empty())
    }

    /// The messages, system text first.
    pub(crate) fn into_messages(self) -> Vec<Message> {
        let mut messages = self.messages;
        if !self.system.is_empty() {
            messages.insert(0, Message::new(Role::System, self.system.join("\n\n")));
        }
        messages
    }
}

/// The text of a message's content: a string, or parts that are joined. What is no text is an error that names the part.
pub(crate) fn text_content(message: &Fields<'_>, name: &str) -> Result<String> {
    match message.get(name) {
        None => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Array(parts)) => {
            let mut out = String::new();
            for (i, part) in parts.iter().enumerate() {
                if let Value::String(text) = part {
                    out.push_str(text);
                    continue;
                }
                let part = message.item(name, i, part)?;
                out.push_str(text_part(&part)?);
            }
            Ok(out)
        }
        Some(other) => Err(message.wrong(name, &format!("a string or an array of parts, not {}", kind(other)))),
    }
}

/// The text of one part.
pub(crate) fn text_part<'a>(part: &Fields<'a>) -> Result<&'a str> {
    match part.text("type")? {
        None | Some("text" | "input_text" | "output_text" | "summary_text" | "reasoning_text") => {
            part.text("text")?.ok_or_else(|| part.missing("text"))
        }
        Some("refusal") => part.text("refusal")?.ok_or_else(|| part.missing("refusal")),
        Some(other) => {
            let path = part.path("type");
            let message = format!("{path}: content of type {other:?} is not supported: this model reads text only");
            Err(ApiError { code: Some("unsupported_content"), ..ApiError::invalid(path, message) })
        }
    }
}
