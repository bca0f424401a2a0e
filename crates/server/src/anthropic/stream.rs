//! The events of a message, in the order of server.md 9.4: blocks one after another, never interleaved.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Head, empty_message, stop_reason, usage};
use crate::job::{Job, Piece};
use crate::sse::{Status, Writer};

/// A sign of life that clients of this API know.
pub(super) const PING: &str = "event: ping\ndata: {\"type\":\"ping\"}\n\n";

/// Writes a whole message.
pub(super) async fn write(writer: Arc<Writer>, head: Head, mut job: Job) {
    let mut blocks = Blocks { writer: &writer, head: &head, begun: false, index: 0, open: None };
    loop {
        match job.next().await {
            Ok(Piece::Done) => return blocks.end(&job).await,
            Ok(piece) => blocks.piece(piece, &job).await,
            Err(error) => {
                let value = json!({"type": "error", "error": error.anthropic()});
                return writer.event("error", &value).await;
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Thinking,
    Text,
    ToolUse,
}

struct Blocks<'a> {
    writer: &'a Writer,
    head: &'a Head,
    begun: bool,
    /// Of the open block, or of the next one.
    index: usize,
    open: Option<Kind>,
}

impl Blocks<'_> {
    async fn piece(&mut self, piece: Piece, job: &Job) {
        self.begin(job).await;
        if !matches!(piece, Piece::Prefill { .. }) {
            self.writer.status(Status::Decode(job.outcome.ids.len()));
        }
        match piece {
            Piece::Prefill { done, total, .. } => self.writer.status(Status::Prefill { done, total }),
            Piece::Thinking { text, .. } => {
                let block = json!({"type": "thinking", "thinking": "", "signature": ""});
                self.ensure(Kind::Thinking, block, job).await;
                if !self.head.omit_thinking {
                    self.delta(json!({"type": "thinking_delta", "thinking": text})).await;
                }
            }
            Piece::Text { text, .. } => {
                self.ensure(Kind::Text, json!({"type": "text", "text": ""}), job).await;
                self.delta(json!({"type": "text_delta", "text": text})).await;
            }
            Piece::CallStart(i) => {
                let call = &job.outcome.calls[i];
                self.close(job).await;
                let block = json!({"type": "tool_use", "id": call.id, "name": call.name, "input": {}});
                self.ensure(Kind::ToolUse, block, job).await;
                self.delta(json!({"type": "input_json_delta", "partial_json": ""})).await;
            }
            Piece::CallArguments { fragment, .. } => {
                self.delta(json!({"type": "input_json_delta", "partial_json": fragment})).await;
            }
            Piece::CallEnd(_) => self.close(job).await,
            Piece::Done => unreachable!("the end is not a piece of a block"),
        }
    }

    async fn begin(&mut self, job: &Job) {
        if self.begun {
            return;
        }
        self.begun = true;
        let message = empty_message(self.head, job.outcome.usage);
        self.event("message_start", json!({"message": message})).await;
        self.event("ping", json!({})).await;
    }

    async fn end(&mut self, job: &Job) {
        self.begin(job).await;
        let outcome = &job.outcome;
        if outcome.text.is_empty() && outcome.calls.is_empty() {
            self.ensure(Kind::Text, json!({"type": "text", "text": ""}), job).await;
        }
        self.close(job).await;
        let finish = outcome.finish();
        let (reason, stop) = stop_reason(&finish);
        let delta = json!({"stop_reason": reason, "stop_sequence": stop});
        self.event("message_delta", json!({"delta": delta, "usage": usage(outcome.usage)})).await;
        self.event("message_stop", json!({})).await;
    }

    /// Opens a block unless one of this kind is open.
    async fn ensure(&mut self, kind: Kind, block: Value, job: &Job) {
        if self.open == Some(kind) {
            return;
        }
        self.close(job).await;
        self.open = Some(kind);
        self.event("content_block_start", json!({"index": self.index, "content_block": block})).await;
    }

    async fn delta(&self, delta: Value) {
        self.event("content_block_delta", json!({"index": self.index, "delta": delta})).await;
    }

    async fn close(&mut self, job: &Job) {
        let Some(kind) = self.open.take() else { return };
        if kind == Kind::Thinking {
            self.delta(json!({"type": "signature_delta", "signature": job.sealed_reasoning()})).await;
        }
        self.event("content_block_stop", json!({"index": self.index})).await;
        self.index += 1;
    }

    /// An event, whose type stands in its data as well.
    async fn event(&self, name: &str, data: Value) {
        let mut value = json!({"type": name});
        let Value::Object(members) = data else { unreachable!("events are objects") };
        value.as_object_mut().expect("it was made as one").extend(members);
        self.writer.event(name, &value).await;
    }
}
