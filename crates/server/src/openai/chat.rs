//! `POST /v1/chat/completions` (server.md 6).

use std::sync::Arc;

use axum::body::Body;
use axum::http::Response;
use serde_json::{Map, Value, json};

use super::echo::Echo;
use super::stream::{self, Head};
use super::{chat_token, finish_reason, request, token_lists, usage};
use crate::app::App;
use crate::error::{ApiError, Result};
use crate::fields::Fields;
use crate::job::{Call, Finish, Job, Outcome, Trade};
use crate::order::Order;
use crate::reply;
use crate::sse;

/// Answers one request.
pub(crate) async fn handle(app: Arc<App>, body: Map<String, Value>) -> Result<Response<Body>> {
    let mut order = request::read(&body, &app)?;
    app.constrain(&mut order, Trade::Chat)?;
    let ids = app.ids(&order, "messages")?;
    let asked = Fields::root(&body).integer("prompt_logprobs", 0, 20)?;
    if order.stream && asked.is_some() {
        return Err(ApiError::unsupported("prompt_logprobs", "prompt_logprobs is not supported in a stream"));
    }
    let scored = asked.map(|top| Echo::start(&app, &ids, 0, Some(top as usize))).transpose()?;
    let jobs: Vec<Job> = (0..order.n).map(|i| app.start(&order, ids.clone(), i, Trade::Chat)).collect::<Result<_>>()?;
    let head = Head::new(&app, &order, &Fields::root(&body), "chatcmpl-", "chat.completion.chunk")?;
    if order.stream {
        let response = sse::stream(app.config.keepalive, |writer| stream::write(writer, head, jobs));
        return Ok(reply::warned(response, &order.warnings));
    }
    let outcomes = futures_util::future::try_join_all(jobs.into_iter().map(Job::finish)).await?;
    let choices: Vec<Value> = outcomes.iter().enumerate().map(|(i, outcome)| choice(i, outcome, &head)).collect();
    let mut response = json!({
        "id": head.id, "object": "chat.completion", "created": head.created, "model": head.model,
        "system_fingerprint": head.fingerprint, "service_tier": "default", "choices": choices, "usage": usage(&outcomes),
    });
    if head.timings {
        response["timings"] = super::timings(&outcomes[0]);
    }
    if let Some(scored) = scored {
        // Nothing stands before the first one.
        let tokens = scored.await?;
        let rest = tokens.tokens.iter().skip(1).map(chat_token);
        response["prompt_logprobs"] = std::iter::once(Value::Null).chain(rest).collect();
    }
    Ok(reply::warned(reply::json(&response), &order.warnings))
}

/// The prompt that the request would have: `/apply-template`.
pub(crate) fn order(app: &App, body: &Map<String, Value>) -> Result<Order> {
    request::read(body, app)
}

fn choice(index: usize, outcome: &Outcome, head: &Head) -> Value {
    let content =
        if outcome.text.is_empty() && !outcome.calls.is_empty() { Value::Null } else { outcome.text.clone().into() };
    let mut message = json!({"role": "assistant", "content": content, "refusal": null, "annotations": []});
    if !outcome.thinking.is_empty() {
        message["reasoning_content"] = outcome.thinking.clone().into();
    }
    if !outcome.calls.is_empty() {
        message["tool_calls"] = outcome.calls.iter().map(call).collect();
    }
    let logprobs = if head.logprobs {
        token_lists(&outcome.logprobs, head.reasoning_logprobs.then_some(&outcome.reasoning_logprobs))
    } else {
        Value::Null
    };
    let finish = outcome.finish();
    let mut choice =
        json!({"index": index, "message": message, "logprobs": logprobs, "finish_reason": finish_reason(&finish)});
    if let Finish::StopString(text) = finish {
        choice["stop_reason"] = text.into();
    }
    choice
}

fn call(call: &Call) -> Value {
    if call.is_custom() {
        json!({"id": call.id, "type": "custom", "custom": {"name": call.client_name(), "input": call.input()}})
    } else {
        let function = json!({"name": call.client_name(), "arguments": call.arguments});
        json!({"id": call.id, "type": "function", "function": function})
    }
}
