//! A response while it grows: pieces of the answer in, events out (server.md 8.4). Whole responses take the same way and leave
//! the events aside, so that both say the same.

use std::sync::Arc;

use serde_json::{Value, json};

use super::object::{
    CallKind, Head, call_item, ending, logprobs, message_item, reasoning_item, summary_part, text_part, usage,
};
use super::store::{Entry, Ticket};
use crate::app::{App, fresh_id, unix_time};
use crate::error::ApiError;
use crate::job::{Finish, Job, Outcome, Piece};
use crate::order::{Order, Source};
use crate::sse::{Status, Writer};

/// Writes a whole response.
pub(super) async fn write(writer: Arc<Writer>, mut output: Output, mut job: Job) {
    output.begin();
    output.flush(&writer).await;
    loop {
        match job.next().await {
            Ok(piece) => {
                let done = piece == Piece::Done;
                match piece {
                    Piece::Prefill { done, total, .. } => writer.status(Status::Prefill { done, total }),
                    _ => writer.status(Status::Decode(job.outcome.ids.len())),
                }
                output.piece(piece, &job);
                output.flush(&writer).await;
                if done {
                    return;
                }
            }
            Err(error) => {
                output.fail(&error);
                return output.flush(&writer).await;
            }
        }
    }
}

/// An item that is not complete.
enum Open {
    Reasoning { shown: bool },
    Message,
    Call(usize),
}

/// The response so far.
pub(super) struct Output {
    head: Head,
    /// As the client gets it.
    pub(super) response: Value,
    /// Complete items with everything that replaying them needs.
    items: Vec<Value>,
    open: Option<(String, Open)>,
    /// The answer begins with reasoning.
    thinks: bool,
    /// The open call has all its arguments; it ends with the next piece, which may say that it was cut off.
    called: bool,
    events: Vec<(&'static str, Value)>,
    sequence: u64,
    app: Arc<App>,
    tenant: String,
    /// The input, if the response is to be kept.
    input: Option<Vec<Arc<Value>>>,
    _ticket: Ticket,
}

impl Output {
    pub(super) fn new(app: &Arc<App>, head: Head, order: &Order, input: Option<Vec<Arc<Value>>>, job: &Job) -> Output {
        let response = head.object.clone();
        Output {
            _ticket: Ticket::new(app, &order.tenant, job.cancel(), &response),
            response,
            head,
            items: Vec::new(),
            open: None,
            thinks: order.thinking.is_on() && matches!(order.source, Source::Chat { continued: false, .. }),
            called: false,
            events: Vec::new(),
            sequence: 0,
            app: Arc::clone(app),
            tenant: order.tenant.clone(),
            input,
        }
    }

    fn begin(&mut self) {
        for name in ["response.created", "response.in_progress"] {
            self.event(name, json!({"response": self.response}));
        }
    }

    async fn flush(&mut self, writer: &Writer) {
        for (name, value) in self.events.drain(..) {
            writer.event(name, &value).await;
        }
    }

    /// Takes one piece of the answer.
    pub(super) fn piece(&mut self, piece: Piece, job: &Job) {
        let outcome = &job.outcome;
        if matches!(piece, Piece::Prefill { .. }) {
            return;
        }
        if std::mem::take(&mut self.thinks) {
            self.open_reasoning();
        }
        if self.called && piece != Piece::Done {
            self.close(job, "completed");
        }
        match piece {
            Piece::Prefill { .. } => {}
            Piece::Thinking { text, .. } => self.thinking(&text),
            Piece::Text { text, logprobs: tokens } => {
                if !matches!(self.open, Some((_, Open::Message))) {
                    self.close(job, "completed");
                    self.open_message();
                }
                let logprobs = logprobs(&tokens, &self.head);
                self.part_event("response.output_text.delta", json!({"delta": text, "logprobs": logprobs}));
            }
            Piece::CallStart(i) => {
                self.close(job, "completed");
                let call = &outcome.calls[i];
                let id = fresh_id(CallKind::of(call).prefix(), 12);
                self.add(&call_item(&id, call, false, "in_progress"), id, Open::Call(i));
            }
            Piece::CallArguments { index, fragment } => {
                if CallKind::of(&outcome.calls[index]) == CallKind::Function {
                    self.item_event("response.function_call_arguments.delta", json!({"delta": fragment}));
                }
            }
            Piece::CallEnd(_) => self.called = true,
            Piece::Done => self.end(job),
        }
    }

    fn end(&mut self, job: &Job) {
        let finish = job.outcome.finish();
        let (status, details, event) = ending(&finish);
        let cut = matches!(finish, Finish::Length | Finish::ContextFull | Finish::Cancelled);
        self.close(job, if cut { "incomplete" } else { "completed" });
        self.response["status"] = status.into();
        self.response["incomplete_details"] = details;
        self.response["completed_at"] = unix_time().into();
        self.response["output"] = self.items.iter().map(|item| self.shown(item)).collect();
        self.response["usage"] = usage(&job.outcome);
        self.event(event, json!({"response": self.response}));
        if let Some(input) = self.input.take() {
            let id = self.response["id"].as_str().unwrap_or_default();
            let entry = Entry::new(&self.tenant, self.response.clone(), input, std::mem::take(&mut self.items));
            self.app.responses.insert(id, entry);
        }
    }

    fn fail(&mut self, error: &ApiError) {
        let code = if error.status.is_server_error() { Some("server_error") } else { error.code };
        self.response["status"] = "failed".into();
        self.response["error"] = json!({"code": code.unwrap_or("invalid_prompt"), "message": error.message});
        self.response["output"] = self.items.iter().map(|item| self.shown(item)).collect();
        self.event("response.failed", json!({"response": self.response}));
    }

    fn open_reasoning(&mut self) {
        let id = fresh_id("rs_", 12);
        let item = reasoning_item(&id, &self.head, "", None, "in_progress");
        self.add(&item, id, Open::Reasoning { shown: false });
    }

    fn thinking(&mut self, text: &str) {
        let Some((_, Open::Reasoning { shown })) = &mut self.open else { return };
        let first = !std::mem::replace(shown, true);
        if self.head.summary {
            if first {
                let part = json!({"summary_index": 0, "part": summary_part("")});
                self.item_event("response.reasoning_summary_part.added", part);
            }
            let delta = json!({"summary_index": 0, "delta": text});
            self.item_event("response.reasoning_summary_text.delta", delta);
        }
        if self.head.raw {
            self.part_event("response.reasoning_text.delta", json!({"delta": text}));
        }
    }

    fn open_message(&mut self) {
        let id = fresh_id("msg_", 12);
        self.add(&message_item(&id, &[], "in_progress"), id, Open::Message);
        let part = text_part(&Outcome::default(), &self.head);
        self.part_event("response.content_part.added", json!({"part": part}));
    }

    /// Ends the open item.
    fn close(&mut self, job: &Job, status: &str) {
        self.called = false;
        let outcome = &job.outcome;
        let item = match &self.open {
            None => return,
            Some((id, Open::Reasoning { shown })) => {
                let (id, shown) = (id.clone(), *shown);
                self.reasoning_done(shown, &outcome.thinking);
                reasoning_item(&id, &self.head, &outcome.thinking, Some(&job.sealed_reasoning()), status)
            }
            Some((id, Open::Message)) => {
                let id = id.clone();
                let part = text_part(outcome, &self.head);
                let text = json!({"text": part["text"], "logprobs": part["logprobs"]});
                self.part_event("response.output_text.done", text);
                self.part_event("response.content_part.done", json!({"part": part}));
                message_item(&id, &[part], status)
            }
            Some((id, Open::Call(i))) => {
                let call = &outcome.calls[*i];
                let item = call_item(id, call, true, status);
                self.call_done(CallKind::of(call), &item);
                item
            }
        };
        let data = json!({"output_index": self.items.len(), "item": self.shown(&item)});
        self.event("response.output_item.done", data);
        self.items.push(item);
        self.open = None;
    }

    fn reasoning_done(&mut self, shown: bool, text: &str) {
        if self.head.summary && shown {
            let done = json!({"summary_index": 0, "text": text});
            self.item_event("response.reasoning_summary_text.done", done);
            let part = json!({"summary_index": 0, "part": summary_part(text)});
            self.item_event("response.reasoning_summary_part.done", part);
        }
        if self.head.raw && shown {
            self.part_event("response.reasoning_text.done", json!({"text": text}));
        }
    }

    fn call_done(&mut self, kind: CallKind, item: &Value) {
        match kind {
            CallKind::Function => {
                let done = json!({"name": item["name"], "arguments": item["arguments"]});
                self.item_event("response.function_call_arguments.done", done);
            }
            CallKind::Custom => {
                self.item_event("response.custom_tool_call_input.delta", json!({"delta": item["input"]}));
                self.item_event("response.custom_tool_call_input.done", json!({"input": item["input"]}));
            }
            CallKind::Search => {}
        }
    }

    /// An item as the client gets it.
    fn shown(&self, item: &Value) -> Value {
        let mut item = item.clone();
        if !self.head.sealed && item["type"] == "reasoning" {
            item["encrypted_content"] = Value::Null;
        }
        item
    }

    /// Opens an item.
    fn add(&mut self, item: &Value, id: String, open: Open) {
        self.event("response.output_item.added", json!({"output_index": self.items.len(), "item": item}));
        self.open = Some((id, open));
    }

    /// An event about the open item.
    fn item_event(&mut self, name: &'static str, data: Value) {
        let id = self.open.as_ref().map_or("", |(id, _)| id);
        let mut value = json!({"item_id": id, "output_index": self.items.len()});
        extend(&mut value, data);
        self.event(name, value);
    }

    /// An event about the one content part of the open item.
    fn part_event(&mut self, name: &'static str, data: Value) {
        let mut value = json!({"content_index": 0});
        extend(&mut value, data);
        self.item_event(name, value);
    }

    fn event(&mut self, name: &'static str, data: Value) {
        let mut value = json!({"type": name, "sequence_number": self.sequence});
        extend(&mut value, data);
        self.sequence += 1;
        self.events.push((name, value));
    }
}

fn extend(value: &mut Value, data: Value) {
    if let (Value::Object(members), Value::Object(more)) = (value, data) {
        members.extend(more);
    }
}
