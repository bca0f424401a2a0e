//! The response object and its items, with every member that typed clients expect (server.md 8.3).

use serde_json::{Value, json};

use crate::app::{fresh_id, unix_time};
use crate::error::{ApiError, Result};
use crate::fields::Fields;
use crate::job::{Call, Finish, Outcome};
use crate::openai::chat_token;
use crate::order::Order;

/// What a response repeats of its request, and what it is to show.
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub(super) struct Head {
    /// The response before it said anything.
    pub(super) object: Value,
    /// The reasoning is shown as a summary.
    pub(super) summary: bool,
    /// The reasoning is shown as it is.
    pub(super) raw: bool,
    /// Clients get the sealed reasoning.
    pub(super) sealed: bool,
    pub(super) logprobs: bool,
}

impl Head {
    pub(super) fn new(body: &Fields<'_>, order: &Order) -> Result<Head> {
        let included = |name: &str| -> Result<bool> {
            let list = body.list("include")?.unwrap_or_default();
            Ok(list.iter().any(|item| item == name))
        };
        let (effort, summary) = reasoning(body)?;
        Ok(Head {
            object: object(body, order, effort, summary),
            summary: summary.is_some(),
            raw: included("reasoning.content")?,
            sealed: included("reasoning.encrypted_content")?,
            logprobs: order.logprobs.is_some(),
        })
    }
}

/// Effort and summary, as the client wrote them.
fn reasoning<'a>(body: &Fields<'a>) -> Result<(Option<&'a str>, Option<&'a str>)> {
    let Some(Value::Object(map)) = body.get("reasoning") else { return Ok((None, None)) };
    let text = |name: &str| map.get(name).and_then(Value::as_str);
    let summary = text("summary").or(text("generate_summary"));
    match summary {
        None | Some("auto" | "concise" | "detailed") => Ok((text("effort"), summary)),
        Some(_) => {
            let message = "reasoning.summary must be \"auto\", \"concise\" or \"detailed\"";
            Err(ApiError::invalid("reasoning.summary", message))
        }
    }
}

fn object(body: &Fields<'_>, order: &Order, effort: Option<&str>, summary: Option<&str>) -> Value {
    let sent = |name: &str| body.get(name).cloned();
    let given = |name: &str| sent(name).unwrap_or(Value::Null);
    let text = sent("text").unwrap_or_default();
    let format = text.get("format").filter(|v| !v.is_null()).cloned().unwrap_or_else(|| json!({"type": "text"}));
    let verbosity = text.get("verbosity").filter(|v| !v.is_null()).cloned().unwrap_or_else(|| json!("medium"));
    json!({
        "id": fresh_id("resp_", 12),
        "object": "response",
        "created_at": unix_time(),
        "completed_at": null,
        "status": "in_progress",
        "background": false,
        "error": null,
        "incomplete_details": null,
        "instructions": given("instructions"),
        "max_output_tokens": order.max_tokens,
        "max_tool_calls": given("max_tool_calls"),
        "model": order.model,
        "output": [],
        "parallel_tool_calls": order.parallel,
        "previous_response_id": given("previous_response_id"),
        "prompt_cache_key": given("prompt_cache_key"),
        "reasoning": {"effort": effort, "summary": summary},
        "safety_identifier": given("safety_identifier"),
        "service_tier": "default",
        "store": sent("store").unwrap_or(Value::Bool(true)),
        "temperature": sent("temperature").unwrap_or_else(|| json!(1.0)),
        "text": {"format": format, "verbosity": verbosity},
        "tool_choice": sent("tool_choice").unwrap_or_else(|| json!("auto")),
        "tools": sent("tools").unwrap_or_else(|| json!([])),
        "top_logprobs": order.logprobs.unwrap_or(0),
        "top_p": sent("top_p").unwrap_or_else(|| json!(1.0)),
        "truncation": sent("truncation").unwrap_or_else(|| json!("disabled")),
        "usage": null,
        "user": given("user"),
        "metadata": sent("metadata").unwrap_or_else(|| json!({})),
    })
}

/// Status, reason of incompleteness, and the name of the last event.
pub(super) fn ending(finish: &Finish) -> (&'static str, Value, &'static str) {
    match finish {
        Finish::EndOfTurn | Finish::StopString(_) | Finish::ToolCalls => {
            ("completed", Value::Null, "response.completed")
        }
        Finish::Length | Finish::ContextFull => {
            ("incomplete", json!({"reason": "max_output_tokens"}), "response.incomplete")
        }
        Finish::Cancelled => ("cancelled", Value::Null, "response.incomplete"),
    }
}

pub(super) fn usage(outcome: &Outcome) -> Value {
    let usage = outcome.usage;
    json!({
        "input_tokens": usage.prompt,
        "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": usage.prompt - usage.cached},
        "output_tokens": usage.completion,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.prompt + usage.completion,
    })
}

/// A reasoning item; `sealed` is given once it has ended.
pub(super) fn reasoning_item(id: &str, head: &Head, text: &str, sealed: Option<&str>, status: &str) -> Value {
    let summary = if head.summary && !text.is_empty() { json!([summary_part(text)]) } else { json!([]) };
    let content =
        if head.raw && !text.is_empty() { json!([{"type": "reasoning_text", "text": text}]) } else { json!([]) };
    json!({"id": id, "type": "reasoning", "summary": summary, "content": content, "encrypted_content": sealed,
        "status": status})
}

pub(super) fn summary_part(text: &str) -> Value {
    json!({"type": "summary_text", "text": text})
}

pub(super) fn message_item(id: &str, content: &[Value], status: &str) -> Value {
    json!({"id": id, "type": "message", "role": "assistant", "status": status, "content": content})
}

pub(super) fn text_part(outcome: &Outcome, head: &Head) -> Value {
    json!({"type": "output_text", "text": outcome.text, "annotations": [], "logprobs": logprobs(&outcome.logprobs, head)})
}

pub(super) fn logprobs(tokens: &[crate::job::Token], head: &Head) -> Value {
    if head.logprobs { tokens.iter().map(chat_token).collect() } else { json!([]) }
}

/// What kind of item a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallKind {
    Function,
    Custom,
    Search,
}

impl CallKind {
    pub(super) fn of(call: &Call) -> CallKind {
        match &call.tool {
            Some(tool) if tool.search => CallKind::Search,
            Some(tool) if tool.custom => CallKind::Custom,
            _ => CallKind::Function,
        }
    }

    pub(super) fn prefix(self) -> &'static str {
        match self {
            CallKind::Function => "fc_",
            CallKind::Custom => "ctc_",
            CallKind::Search => "tsc_",
        }
    }
}

/// A call; without arguments while it runs.
pub(super) fn call_item(id: &str, call: &Call, whole: bool, status: &str) -> Value {
    let kind = CallKind::of(call);
    let name = match kind {
        CallKind::Function => "function_call",
        CallKind::Custom => "custom_tool_call",
        CallKind::Search => "tool_search_call",
    };
    let mut item = json!({"id": id, "type": name, "status": status, "call_id": call.id});
    match kind {
        CallKind::Search => {
            let parsed = serde_json::from_str(&call.arguments).unwrap_or_else(|_| json!({}));
            item["execution"] = "client".into();
            item["arguments"] = if whole { parsed } else { json!({}) };
            return item;
        }
        CallKind::Function => item["arguments"] = if whole { call.arguments.clone().into() } else { "".into() },
        CallKind::Custom => item["input"] = if whole { call.input().into() } else { "".into() },
    }
    item["name"] = call.client_name().into();
    if let Some(namespace) = call.namespace() {
        item["namespace"] = namespace.into();
    }
    item
}
