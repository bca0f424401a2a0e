//! `POST /v1/completions` (server.md 7): text in, text out.

use std::sync::Arc;

use axum::body::Body;
use axum::http::Response;
use ds4_text::Thinking;
use serde_json::{Map, Value, json};

use super::{finite, request, usage};
use crate::app::{App, fresh_id, unix_time};
use crate::error::{ApiError, Result};
use crate::fields::Fields;
use crate::history::History;
use crate::job::{Finish, Job, Outcome, Piece, Token, Trade};
use crate::order::{Order, Source, output_limit};
use crate::reply;
use crate::sse::{self, Writer};

/// Prompts of one request.
const MAX_PROMPTS: usize = 64;

/// What the responses repeat.
struct Head {
    id: String,
    created: u64,
    model: String,
    fingerprint: String,
    usage: bool,
    logprobs: bool,
    /// Texts of the prompts, when they are to be repeated.
    echo: Option<Vec<String>>,
    n: usize,
}

/// Answers one request.
pub(crate) async fn handle(app: Arc<App>, body: Map<String, Value>) -> Result<Response<Body>> {
    let fields = Fields::root(&body);
    let mut orders = read(&app, &fields)?;
    for order in &mut orders {
        app.constrain(order)?;
    }
    let first = &orders[0];
    let (n, streams) = (first.n, first.stream);
    let mut jobs = Vec::new();
    let mut prompts = Vec::new();
    for order in &orders {
        let ids = app.ids(order, "prompt")?;
        // The mark of a beginning is ours, not the prompt's.
        let shown = ids.strip_prefix(&[app.tokenizer.special().bos]).unwrap_or(&ids);
        prompts.push(String::from_utf8_lossy(&app.tokenizer.decode(shown)).into_owned());
        for i in 0..n {
            jobs.push(app.start(order, ids.clone(), i, Trade::Completions)?);
        }
    }
    let include = match fields.object("stream_options")? {
        Some(options) => options.flag("include_usage")?.unwrap_or(false),
        None => false,
    };
    let head = Head {
        id: fresh_id("cmpl-", 12),
        created: unix_time(),
        model: first.model.clone(),
        fingerprint: app.fingerprint(),
        usage: include,
        logprobs: first.logprobs.is_some(),
        echo: fields.flag("echo")?.unwrap_or(false).then_some(prompts),
        n: n as usize,
    };
    if streams {
        return Ok(sse::stream(app.config.keepalive, |writer| write(writer, head, jobs)));
    }
    let outcomes = futures_util::future::try_join_all(jobs.into_iter().map(Job::finish)).await?;
    let choices: Vec<Value> = outcomes
        .iter()
        .enumerate()
        .map(|(i, outcome)| {
            let before = head.echo.as_ref().map_or("", |prompts| &prompts[i / head.n]);
            let text = format!("{before}{}{}", outcome.thinking, outcome.text);
            let logprobs =
                if head.logprobs { logprobs(&outcome.logprobs, before.chars().count()) } else { Value::Null };
            json!({"text": text, "index": i, "logprobs": logprobs, "finish_reason": reason(outcome)})
        })
        .collect();
    Ok(reply::json(&json!({
        "id": head.id, "object": "text_completion", "created": head.created, "model": head.model,
        "system_fingerprint": head.fingerprint, "choices": choices, "usage": total(&outcomes, head.n),
    })))
}

/// One order a prompt.
fn read(app: &App, body: &Fields<'_>) -> Result<Vec<Order>> {
    if body.get("suffix").is_some() {
        return Err(ApiError::unsupported("suffix", "suffix is not supported"));
    }
    let n = body.integer("n", 1, 8)?.unwrap_or(1);
    if body.integer("best_of", 1, 8)?.is_some_and(|best| best != n) {
        return Err(ApiError::unsupported("best_of", "best_of other than n is not supported"));
    }
    let limit = match body.integer("max_tokens", 0, i64::from(u32::MAX))? {
        Some(0) => Some(0),
        _ => output_limit(body, &["max_tokens", "max_completion_tokens"])?,
    };
    let mut order = Order::read(body, &app.config, limit)?;
    order.format = request::format(body)?;
    order.logprobs = body.integer("logprobs", 0, 20)?.map(|top| top as usize);
    let chat = match body.text("template")? {
        None => app.config.completions_as_chat,
        Some("raw") => false,
        Some("chat") => true,
        Some(_) => return Err(body.wrong("template", "\"raw\" or \"chat\"")),
    };
    let special = body.flag("parse_special")?.unwrap_or(false);
    let mut orders = Vec::new();
    for prompt in prompts(app, body)? {
        let source = match prompt {
            Prompt::Text(text) if chat => {
                let mut history = History::new(app);
                history.user(&text);
                Source::Chat { messages: history.into_messages(), continued: false }
            }
            Prompt::Text(text) => {
                let tokenizer = &app.tokenizer;
                let mut ids = vec![tokenizer.special().bos];
                ids.extend(if special { tokenizer.encode(&text) } else { tokenizer.encode_plain(&text) });
                Source::Raw(ids)
            }
            Prompt::Ids(ids) => Source::Raw(ids),
        };
        let thinking = if chat { order.thinking } else { Thinking::None };
        orders.push(Order { source, thinking, ..order.clone() });
    }
    Ok(orders)
}

enum Prompt {
    Text(String),
    Ids(Vec<u32>),
}

/// A text, texts, ids, or lists of ids.
fn prompts(app: &App, body: &Fields<'_>) -> Result<Vec<Prompt>> {
    let expected = "a string, an array of strings, an array of token ids or an array of these";
    let wrong = || body.wrong("prompt", expected);
    let ids = |items: &[Value]| -> Result<Vec<u32>> {
        let id = |item: &Value| {
            let id = item.as_u64().filter(|&id| id < app.engine.n_vocab() as u64).map(|id| id as u32);
            id.ok_or_else(|| ApiError::invalid("prompt", format!("prompt: {item} is no token id of this model")))
        };
        items.iter().map(id).collect()
    };
    let prompts = match body.get("prompt") {
        None => return Err(body.missing("prompt")),
        Some(Value::String(text)) => vec![Prompt::Text(text.clone())],
        Some(Value::Array(items)) if items.is_empty() => return Err(wrong()),
        Some(Value::Array(items)) if items[0].is_number() => vec![Prompt::Ids(ids(items)?)],
        Some(Value::Array(items)) => {
            let one = |item: &Value| match item {
                Value::String(text) => Ok(Prompt::Text(text.clone())),
                Value::Array(inner) => Ok(Prompt::Ids(ids(inner)?)),
                _ => Err(wrong()),
            };
            items.iter().map(one).collect::<Result<_>>()?
        }
        Some(_) => return Err(wrong()),
    };
    if prompts.len() > MAX_PROMPTS {
        return Err(ApiError::invalid("prompt", format!("at most {MAX_PROMPTS} prompts, got {}", prompts.len())));
    }
    Ok(prompts)
}

fn reason(outcome: &Outcome) -> &'static str {
    match outcome.finish() {
        Finish::Length | Finish::ContextFull => "length",
        Finish::EndOfTurn | Finish::StopString(_) | Finish::ToolCalls | Finish::Cancelled => "stop",
    }
}

/// Each prompt counts once.
fn total(outcomes: &[Outcome], n: usize) -> Value {
    let mut sum = usage(&outcomes[..0]);
    for group in outcomes.chunks(n) {
        let one = usage(group);
        for (key, value) in sum.as_object_mut().expect("usage is an object") {
            match value {
                Value::Object(inner) => {
                    for (name, value) in inner {
                        *value =
                            json!(value.as_u64().unwrap_or(0) + one[key.as_str()][name.as_str()].as_u64().unwrap_or(0));
                    }
                }
                other => *other = json!(other.as_u64().unwrap_or(0) + one[key.as_str()].as_u64().unwrap_or(0)),
            }
        }
    }
    sum
}

/// Lists side by side, offsets in characters of the choice's text.
fn logprobs(tokens: &[Token], before: usize) -> Value {
    let name = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut offset = before;
    let mut offsets = Vec::new();
    for token in tokens {
        offsets.push(offset);
        offset += name(&token.bytes).chars().count();
    }
    let top: Vec<Value> = tokens
        .iter()
        .map(|t| t.top.iter().map(|(bytes, logprob)| (name(bytes), finite(*logprob))).collect::<Map<_, _>>().into())
        .collect();
    json!({
        "tokens": tokens.iter().map(|t| name(&t.bytes)).collect::<Vec<_>>(),
        "token_logprobs": tokens.iter().map(|t| finite(t.logprob)).collect::<Vec<_>>(),
        "top_logprobs": top, "text_offset": offsets,
    })
}

async fn write(writer: Arc<Writer>, head: Head, jobs: Vec<Job>) {
    let choices = jobs.into_iter().enumerate().map(|(i, job)| choice(&writer, &head, i, job));
    let outcomes = match futures_util::future::try_join_all(choices).await {
        Ok(outcomes) => outcomes,
        Err(error) => return writer.data(&json!({"error": error.openai()})).await,
    };
    if head.usage {
        let mut last = chunk(&head, &json!([]));
        last["usage"] = total(&outcomes, head.n);
        writer.data(&last).await;
    }
    writer.done();
}

fn chunk(head: &Head, choices: &Value) -> Value {
    let mut chunk = json!({
        "id": head.id, "object": "text_completion", "created": head.created, "model": head.model,
        "system_fingerprint": head.fingerprint, "choices": choices,
    });
    if head.usage {
        chunk["usage"] = Value::Null;
    }
    chunk
}

async fn choice(writer: &Writer, head: &Head, index: usize, mut job: Job) -> Result<Outcome> {
    let one = |text: &str, logprobs: Value, reason: Option<&str>| {
        chunk(head, &json!([{"text": text, "index": index, "logprobs": logprobs, "finish_reason": reason}]))
    };
    let mut said = 0;
    if let Some(prompts) = &head.echo {
        let text = &prompts[index / head.n];
        said = text.chars().count();
        writer.data(&one(text, Value::Null, None)).await;
    }
    loop {
        let (text, tokens) = match job.next().await? {
            Piece::Prefill { done, total, .. } => {
                writer.status(format_args!("prefill {done}/{total}"));
                continue;
            }
            Piece::Thinking(text) => (text, Vec::new()),
            Piece::Text { text, logprobs } => (text, logprobs),
            Piece::CallStart(_) | Piece::CallArguments { .. } | Piece::CallEnd(_) => continue,
            Piece::Done => break,
        };
        let found = if head.logprobs { logprobs(&tokens, said) } else { Value::Null };
        said += text.chars().count();
        writer.data(&one(&text, found, None)).await;
    }
    let outcome = std::mem::take(&mut job.outcome);
    writer.data(&one("", Value::Null, Some(reason(&outcome)))).await;
    Ok(outcome)
}
