//! Chunks of both APIs, and those of chat completions in the order of server.md 6.

use std::fmt::{self, Write};
use std::sync::Arc;

use futures_util::future::try_join_all;
use serde_json::{Value, json};

use super::{finish_reason, token_lists, total, usage};
use crate::app::{App, fresh_id, unix_time};
use crate::error::Result;
use crate::fields::Fields;
use crate::job::{Call, Finish, Job, Outcome, Piece};
use crate::order::Order;
use crate::sse::{Status, Writer};

/// What every chunk of a response repeats, and what was asked of the stream.
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub(super) struct Head {
    pub(super) id: String,
    /// The members that every chunk begins with, as JSON text without its end.
    start: String,
    pub(super) created: u64,
    pub(super) model: String,
    pub(super) fingerprint: String,
    /// A chunk with the usage ends the stream.
    usage: bool,
    /// Chunks tell how far the prompt is.
    progress: bool,
    pub(super) logprobs: bool,
    pub(super) reasoning_logprobs: bool,
    /// Every chunk tells the usage so far.
    running_usage: bool,
    pub(super) timings: bool,
    /// Answers a prompt.
    pub(super) n: usize,
}

impl Head {
    /// `prefix` begins the id, `object` names the chunks.
    pub(super) fn new(app: &App, order: &Order, body: &Fields<'_>, prefix: &str, object: &'static str) -> Result<Self> {
        let options = body.object("stream_options")?;
        let option =
            |name| options.as_ref().map_or(Ok(None), |options| options.flag(name)).map(|flag| flag == Some(true));
        let (usage, running_usage) = (option("include_usage")?, option("continuous_usage_stats")?);
        let (id, created, model, fingerprint) =
            (fresh_id(prefix, 12), unix_time(), order.model.clone(), app.fingerprint());
        let start = json!({
            "id": id, "object": object, "created": created, "model": model, "system_fingerprint": fingerprint,
        });
        Ok(Self {
            id,
            start: start.to_string().trim_end_matches('}').to_owned(),
            created,
            model,
            fingerprint,
            usage,
            progress: body.flag("return_progress")?.unwrap_or(false),
            logprobs: order.logprobs.is_some(),
            reasoning_logprobs: order.reasoning_logprobs,
            running_usage,
            timings: order.timings,
            n: order.n as usize,
        })
    }

    /// A chunk with these choices, and the members that only it has.
    pub(super) fn chunk(&self, choices: &[Value], more: &[(&str, Value)]) -> String {
        let mut chunk = format!("{},\"choices\":[", self.start);
        let mut write = |what: fmt::Arguments<'_>| chunk.write_fmt(what).expect("a string takes any text");
        choices
            .iter()
            .enumerate()
            .for_each(|(i, choice)| write(format_args!("{}{choice}", if i > 0 { "," } else { "" })));
        write(format_args!("]"));
        more.iter().for_each(|(name, value)| write(format_args!(",\"{name}\":{value}")));
        if self.usage && more.iter().all(|(name, _)| *name != "usage") {
            write(format_args!(",\"usage\":null"));
        }
        chunk.push('}');
        chunk
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
        let mut more = vec![("usage", total(&outcomes, head.n))];
        more.extend(head.timings.then(|| ("timings", super::timings(&outcomes[0]))));
        writer.data(&head.chunk(&[], &more)).await;
    }
    writer.done();
}

/// Writes the chunks of a chat.
pub(super) async fn write(writer: Arc<Writer>, head: Head, jobs: Vec<Job>) {
    let choices = jobs.into_iter().enumerate().map(|(i, job)| choice(&writer, &head, i, job));
    side_by_side(&writer, &head, choices).await;
}

async fn choice(writer: &Writer, head: &Head, index: usize, mut job: Job) -> Result<Outcome> {
    let delta = |delta: Value| json!({"index": index, "delta": delta, "logprobs": null, "finish_reason": null});
    writer.data(&head.chunk(&[delta(json!({"role": "assistant", "content": ""}))], &[])).await;
    loop {
        let choice = match job.next().await? {
            Piece::Prefill { done, total, cached } => {
                writer.status(Status::Prefill { done, total });
                if head.progress && index == 0 {
                    let progress = json!({
                        "total": total, "cache": cached, "processed": done, "time_ms": job.age().as_millis() as u64,
                    });
                    writer.data(&head.chunk(&[], &[("prompt_progress", progress)])).await;
                }
                continue;
            }
            Piece::Thinking { text, logprobs } => {
                let mut choice = delta(json!({"reasoning_content": text}));
                if head.reasoning_logprobs {
                    choice["logprobs"] = token_lists(&[], Some(&logprobs));
                }
                choice
            }
            Piece::Text { text, logprobs } => {
                let mut choice = delta(json!({"content": text}));
                if head.logprobs {
                    choice["logprobs"] = token_lists(&logprobs, None);
                }
                choice
            }
            Piece::CallStart(i) => delta(json!({"tool_calls": [start(i, &job.outcome.calls[i])]})),
            Piece::CallArguments { index: i, fragment } => {
                if job.outcome.calls[i].is_custom() {
                    continue;
                }
                let call = json!({"index": i, "function": {"arguments": fragment}});
                delta(json!({"tool_calls": [call]}))
            }
            Piece::CallEnd(i) => {
                let call = &job.outcome.calls[i];
                if !call.is_custom() {
                    continue;
                }
                delta(json!({"tool_calls": [{"index": i, "custom": {"input": call.input()}}]}))
            }
            Piece::Done => break,
        };
        writer.status(Status::Decode(job.outcome.ids.len()));
        let so_far = head.running_usage.then(|| ("usage", usage(std::slice::from_ref(&job.outcome))));
        writer.data(&head.chunk(&[choice], so_far.as_slice())).await;
    }
    let outcome = std::mem::take(&mut job.outcome);
    let finish = outcome.finish();
    let mut last = delta(json!({}));
    last["finish_reason"] = finish_reason(&finish).into();
    if let Finish::StopString(text) = finish {
        last["stop_reason"] = text.into();
    }
    writer.data(&head.chunk(&[last], &[])).await;
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
