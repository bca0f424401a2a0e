//! The OpenAI family but Responses: chat completions, completions, models.

pub(crate) mod chat;
pub(crate) mod completions;
mod echo;
pub(crate) mod models;
pub(crate) mod request;
mod stream;

use serde_json::{Map, Value, json};

use crate::job::{Finish, Outcome, Token};

/// Token counts (server.md 5.12) of answers to one prompt, which counts once.
pub(crate) fn usage(outcomes: &[Outcome]) -> Value {
    total(outcomes, outcomes.len().max(1))
}

/// Token counts of `n` answers a prompt.
pub(crate) fn total(outcomes: &[Outcome], n: usize) -> Value {
    let prompts = || outcomes.iter().step_by(n).map(|o| o.usage);
    let (prompt, cached): (u32, u32) = (prompts().map(|u| u.prompt).sum(), prompts().map(|u| u.cached).sum());
    let completion: u32 = outcomes.iter().map(|o| o.usage.completion).sum();
    let reasoning: u32 = outcomes.iter().map(|o| o.usage.reasoning).sum();
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached, "cache_write_tokens": prompt - cached},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
        "prompt_cache_hit_tokens": cached,
        "prompt_cache_miss_tokens": prompt - cached,
    })
}

/// The `timings` extension.
pub(crate) fn timings(outcome: &Outcome) -> Value {
    let (usage, t) = (outcome.usage, outcome.timings);
    let prompt = usage.prompt - usage.cached;
    let rate = |n: u32, seconds: f64| if seconds > 0.0 { f64::from(n) / seconds } else { 0.0 };
    json!({
        "queue_ms": t.queue * 1e3, "cache_n": usage.cached, "prompt_n": prompt, "prompt_ms": t.prefill * 1e3,
        "prompt_per_second": rate(prompt, t.prefill), "predicted_n": usage.completion,
        "predicted_ms": t.decode * 1e3, "predicted_per_second": rate(usage.completion, t.decode),
    })
}

/// The reason in OpenAI's words.
fn finish_reason(finish: &Finish) -> &'static str {
    match finish {
        Finish::EndOfTurn | Finish::StopString(_) | Finish::Cancelled => "stop",
        Finish::Length | Finish::ContextFull => "length",
        Finish::ToolCalls => "tool_calls",
    }
}

/// The log-probabilities of a choice; those of the reasoning where they were asked for.
fn token_lists(content: &[Token], reasoning: Option<&[Token]>) -> Value {
    let list = |tokens: &[Token]| -> Value { tokens.iter().map(chat_token).collect() };
    let mut lists = json!({"content": list(content), "refusal": null});
    if let Some(reasoning) = reasoning {
        lists["reasoning_content"] = list(reasoning);
    }
    lists
}

/// A token as chat log-probabilities list it.
pub(crate) fn chat_token(token: &Token) -> Value {
    let one = |bytes: &[u8], logprob: f32| -> Map<String, Value> {
        let mut map = Map::new();
        map.insert("token".into(), String::from_utf8_lossy(bytes).into());
        map.insert("logprob".into(), finite(logprob));
        map.insert("bytes".into(), bytes.into());
        map
    };
    let mut out = one(&token.bytes, token.logprob);
    let top = token.top.iter().map(|(bytes, logprob)| Value::Object(one(bytes, *logprob))).collect();
    out.insert("top_logprobs".into(), Value::Array(top));
    Value::Object(out)
}

/// JSON has no infinity; clients expect this number in its place.
fn finite(logprob: f32) -> Value {
    if logprob.is_finite() { json!(logprob) } else { json!(-9999.0) }
}
