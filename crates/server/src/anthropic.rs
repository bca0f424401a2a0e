//! `POST /v1/messages` and the counting of its tokens (server.md 9).

mod request;
mod stream;

use std::sync::Arc;

use axum::body::Body;
use axum::http::Response;
use ds4_engine::Usage;
use serde_json::{Map, Value, json};

use crate::app::{App, fresh_id};
use crate::error::Result;
use crate::fields::Fields;
use crate::job::{Call, Finish, Job, Outcome, Piece, Trade};
use crate::order::Order;
use crate::reply;
use crate::sse;

/// What a response repeats of its request.
struct Head {
    id: String,
    model: String,
    /// The client wants no text of the reasoning, only its signature.
    omit_thinking: bool,
}

/// Answers one request.
pub(crate) async fn handle(app: Arc<App>, body: Map<String, Value>) -> Result<Response<Body>> {
    let fields = Fields::root(&body);
    let mut order = request::read(&fields, &app)?;
    app.constrain(&mut order, Trade::Messages)?;
    let omit_thinking = request::omits_thinking(&fields)?;
    let ids = app.ids(&order, "messages")?;
    let mut job = app.start(&order, ids, 0, Trade::Messages)?;
    let head = Head { id: fresh_id("msg_", 12), model: order.model.clone(), omit_thinking };
    let response = if order.stream {
        sse::stream_pinging(app.config.keepalive, Some(stream::PING), |writer| stream::write(writer, head, job))
    } else {
        while job.next().await? != Piece::Done {}
        reply::json(&message(&head, &job))
    };
    Ok(reply::warned(response, &order.warnings))
}

/// The size of the prompt that `handle` would have.
pub(crate) fn count_tokens(app: &App, body: &Map<String, Value>) -> Result<Response<Body>> {
    Ok(reply::json(&json!({"input_tokens": app.count(&order(app, body)?)?})))
}

/// What the request asks for: `/apply-template`.
pub(crate) fn order(app: &App, body: &Map<String, Value>) -> Result<Order> {
    request::read(&Fields::root(body), app)
}

/// A finished message.
fn message(head: &Head, job: &Job) -> Value {
    let outcome = &job.outcome;
    let finish = outcome.finish();
    let (reason, stop) = stop_reason(&finish);
    let mut message = empty_message(head, outcome.usage);
    message["content"] = content(head, job, outcome);
    message["stop_reason"] = reason.into();
    message["stop_sequence"] = stop.into();
    message
}

/// A message that has said nothing yet.
fn empty_message(head: &Head, usage: Usage) -> Value {
    json!({
        "id": head.id, "type": "message", "role": "assistant", "model": head.model, "content": [],
        "stop_reason": null, "stop_sequence": null, "usage": self::usage(usage),
    })
}

fn content(head: &Head, job: &Job, outcome: &Outcome) -> Value {
    let mut blocks = Vec::new();
    if !outcome.thinking.is_empty() {
        let text = if head.omit_thinking { "" } else { &outcome.thinking };
        blocks.push(json!({"type": "thinking", "thinking": text, "signature": job.sealed_reasoning()}));
    }
    if !outcome.text.is_empty() || outcome.calls.is_empty() {
        blocks.push(json!({"type": "text", "text": outcome.text}));
    }
    blocks.extend(outcome.calls.iter().map(tool_use));
    blocks.into()
}

fn tool_use(call: &Call) -> Value {
    let input: Value = serde_json::from_str(&call.arguments).unwrap_or_else(|_| json!({}));
    json!({"type": "tool_use", "id": call.id, "name": call.name, "input": input})
}

/// Token counts: three disjoint parts of the prompt (server.md 5.12). Everything that was computed is kept for later, so
/// nothing of it is plain input.
fn usage(usage: Usage) -> Value {
    let written = usage.prompt - usage.cached;
    json!({
        "input_tokens": 0,
        "output_tokens": usage.completion,
        "cache_read_input_tokens": usage.cached,
        "cache_creation_input_tokens": written,
        "cache_creation": {"ephemeral_5m_input_tokens": written, "ephemeral_1h_input_tokens": 0},
        "output_tokens_details": {"thinking_tokens": usage.reasoning},
        "server_tool_use": null,
        "service_tier": "standard",
    })
}

/// The reason in Anthropic's words, and the stop sequence.
fn stop_reason(finish: &Finish) -> (&'static str, Option<&str>) {
    match finish {
        Finish::EndOfTurn | Finish::Cancelled => ("end_turn", None),
        Finish::StopString(text) => ("stop_sequence", Some(text)),
        Finish::Length | Finish::ContextFull => ("max_tokens", None),
        Finish::ToolCalls => ("tool_use", None),
    }
}
