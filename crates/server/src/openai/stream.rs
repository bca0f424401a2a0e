//! Chunks of both APIs, and those of chat completions in the order of server.md 6.

use std::sync::Arc;

use futures_util::future::try_join_all;
use serde_json::{Value, json};

use super::{chat_token, finish_reason, total};
use crate::app::{App, fresh_id, unix_time};
use crate::error::Result;
use crate::fields::Fields;
use crate::job::{Call, Finish, Job, Outcome, Piece};
use crate::order::Order;
use crate::sse::Writer;

/// What every chunk of a response repeats, and what was asked of the stream.
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub(super) struct Head {
    pub(super) id: String,
    /// What a chunk is called.
    object: &'static str,
    pub(super) created: u64,
    pub(super) model: String,
    pub(super) fingerprint: String,
    /// A chunk with the usage ends the stream.
    usage: bool,
    /// Chunks tell how far the prompt is.
    progress: bool,
    pub(super) logprobs: bool,
    pub(super) timings: bool,
    /// Answers a prompt.
    pub(super) n: usize,
}

impl Head {
    /// `prefix` begins the id, `object` names the chunks.
    pub(super) fn new(app: &App, order: &Order, body: &Fields<'_>, prefix: &str, object: &'static str) -> Result<Self> {
        let usage = match body.object("stream_options")? {
            Some(options) => options.flag("include_usage")?.unwrap_or(false),
            None => false,
        };
        Ok(Self {
            id: fresh_id(prefix, 12),
            object,
            created: unix_time(),
            model: order.model.clone(),
            fingerprint: app.fingerprint(),
            usage,
            progress: body.flag("return_progress")?.unwrap_or(false),
            logprobs: order.logprobs.is_some(),
            timings: order.timings,
            n: order.n as usize,
        })
    }

    pub(super) fn chunk(&self, choices: &Value) -> Value {
        let mut chunk = json!({
            "id": self.id, "object": self.object, "created": self.created, "model": self.model,
            "system_fingerprint": self.fingerprint, "choices": choices,
        });
        if self.usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }

    fn delta(&self, index: usize, delta: &Value) -> Value {
        self.chunk(&json!([{"index": index, "delta": delta, "logprobs": null, "finish_reason": null}]))
    }
}

/// Writes the choices of a response side by side, and what ends a stream.
pub(super) async fn side_by_side(
    writer: &Writer,
    head: &Head,
    choices: impl Iterator<Item = impl Future<Output = Result<Outcome>>>,
) {
    let outcomes = match try_join_all(choices).await {
        Ok(outcomes) => outcomes,
        Err(error) => return writer.data(&json!({"error": error.openai()})).await,
    };
    if head.usage {
        let mut last = head.chunk(&json!([]));
        last["usage"] = total(&outcomes, head.n);
        if head.timings {
            last["timings"] = super::timings(&outcomes[0]);
        }
        writer.data(&last).await;
    }
    writer.done();
}

/// Writes the chunks of a chat.
pub(super) async fn write(writer: Arc<Writer>, head: Head, jobs: Vec<Job>) {
    let choices = jobs.into_iter().enumerate().map(|(i, job)| choice(&writer, &head, i, job));
    side_by_side(&writer, &head, choices).await;
}

async fn choice(writer: &Writer, head: &Head, index: usize, mut job: Job) -> Result<Outcome> {
    writer.data(&head.delta(index, &json!({"role": "assistant", "content": ""}))).await;
    loop {
        let chunk = match job.next().await? {
            Piece::Prefill { done, total, cached } => {
                writer.status(format_args!("prefill {done}/{total}"));
                if head.progress && index == 0 {
                    let mut chunk = head.chunk(&json!([]));
                    chunk["prompt_progress"] = json!({"total": total, "cache": cached, "processed": done});
                    writer.data(&chunk).await;
                }
                continue;
            }
            Piece::Thinking(text) => head.delta(index, &json!({"reasoning_content": text})),
            Piece::Text { text, logprobs } => {
                let mut chunk = head.delta(index, &json!({"content": text}));
                if head.logprobs {
                    let tokens: Vec<Value> = logprobs.iter().map(chat_token).collect();
                    chunk["choices"][0]["logprobs"] = json!({"content": tokens, "refusal": null});
                }
                chunk
            }
            Piece::CallStart(i) => head.delta(index, &json!({"tool_calls": [start(i, &job.outcome.calls[i])]})),
            Piece::CallArguments { index: i, fragment } => {
                if job.outcome.calls[i].is_custom() {
                    continue;
                }
                let call = json!({"index": i, "function": {"arguments": fragment}});
                head.delta(index, &json!({"tool_calls": [call]}))
            }
            Piece::CallEnd(i) => {
                let call = &job.outcome.calls[i];
                if !call.is_custom() {
                    continue;
                }
                head.delta(index, &json!({"tool_calls": [{"index": i, "custom": {"input": call.input()}}]}))
            }
            Piece::Done => break,
        };
        writer.status(format_args!("decode {}", job.outcome.ids.len()));
        writer.data(&chunk).await;
    }
    let outcome = std::mem::take(&mut job.outcome);
    let finish = outcome.finish();
    let mut last = head.delta(index, &json!({}));
    last["choices"][0]["finish_reason"] = finish_reason(&finish).into();
    if let Finish::StopString(text) = finish {
        last["choices"][0]["stop_reason"] = text.into();
    }
    writer.data(&last).await;
    Ok(outcome)
}

/// The head of a call: id and name once, no arguments yet.
fn start(index: usize, call: &Call) -> Value {
    if call.is_custom() {
        json!({"index": index, "id": call.id, "type": "custom", "custom": {"name": call.client_name(), "input": ""}})
    } else {
        let function = json!({"name": call.client_name(), "arguments": ""});
        json!({"index": index, "id": call.id, "type": "function", "function": function})
    }
}
