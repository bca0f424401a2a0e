//! `POST /v1/completions` (server.md 7): text in, text out.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::body::Body;
use axum::http::Response;
use ds4_text::Thinking;
use futures_util::FutureExt;
use futures_util::future::{Shared, try_join, try_join_all};
use serde_json::{Map, Value, json};

use super::echo::Echo;
use super::stream::{Head, side_by_side};
use super::{finite, request, timings, total};
use crate::app::App;
use crate::error::{ApiError, Result};
use crate::fields::Fields;
use crate::history::History;
use crate::job::{Finish, Job, Outcome, Piece, Token, Trade};
use crate::order::{Order, Source, output_limit};
use crate::reply;
use crate::sse::{self, Status, Writer};

/// Prompts of one request.
const MAX_PROMPTS: usize = 64;

/// One prompt of a request.
struct Asked {
    order: Order,
    /// Ids in front that the server puts there: they are not repeated.
    own: usize,
}

/// Answers one request.
pub(crate) async fn handle(app: Arc<App>, body: Map<String, Value>) -> Result<Response<Body>> {
    let fields = Fields::root(&body);
    let repeats = fields.flag("echo")?.unwrap_or(false);
    let mut all = read(&app, &fields, repeats)?;
    for asked in &mut all {
        app.constrain(&mut asked.order, Trade::Completions)?;
    }
    let first = &all[0].order;
    let head = Head::new(&app, first, &fields, "cmpl-", "text_completion")?;
    let streams = first.stream;
    let mut jobs = Vec::new();
    let mut echoes = Vec::new();
    for Asked { order, own } in &all {
        let ids = app.ids(order, "prompt")?;
        if repeats {
            echoes.push(Echo::start(&app, &ids, *own, order.logprobs)?);
        }
        for i in 0..order.n {
            jobs.push(app.start(order, ids.clone(), i, Trade::Completions)?);
        }
    }
    if streams {
        let echoes: Vec<_> = echoes.into_iter().map(FutureExt::shared).collect();
        return Ok(sse::stream(app.config.keepalive, |writer| write(writer, head, echoes, jobs)));
    }
    let (echoes, outcomes) = try_join(try_join_all(echoes), try_join_all(jobs.into_iter().map(Job::finish))).await?;
    let choices: Vec<Value> = outcomes
        .iter()
        .enumerate()
        .map(|(i, outcome)| {
            let (mut text, mut lists) = (String::new(), Lists::default());
            if let Some(echo) = echoes.get(i / head.n) {
                text.push_str(&echo.text);
                lists.add_prompt(echo);
            }
            text.push_str(&outcome.thinking);
            lists.add(&outcome.logprobs, text.chars().count());
            text.push_str(&outcome.text);
            let logprobs = head.logprobs.then(|| lists.into_json());
            json!({"text": text, "index": i, "logprobs": logprobs, "finish_reason": reason(outcome)})
        })
        .collect();
    let mut response = json!({
        "id": head.id, "object": "text_completion", "created": head.created, "model": head.model,
        "system_fingerprint": head.fingerprint, "choices": choices, "usage": total(&outcomes, head.n),
    });
    if head.timings {
        response["timings"] = timings(&outcomes[0]);
    }
    Ok(reply::json(&response))
}

/// All prompts of the request.
fn read(app: &App, body: &Fields<'_>, repeats: bool) -> Result<Vec<Asked>> {
    if body.get("suffix").is_some() {
        return Err(ApiError::unsupported("suffix", "suffix is not supported"));
    }
    let n = body.integer("n", 1, 8)?.unwrap_or(1);
    if body.integer("best_of", 1, 8)?.is_some_and(|best| best != n) {
        return Err(ApiError::unsupported("best_of", "best_of other than n is not supported"));
    }
    // Nothing to say is only of use to those who want their prompt back.
    let limit = match body.get("max_tokens").and_then(Value::as_u64) {
        Some(0) if repeats => Some(0),
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
    let mut all = Vec::new();
    for prompt in prompts(app, body)? {
        let own = usize::from(matches!(prompt, Prompt::Text(_)));
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
        all.push(Asked { order: Order { source, thinking, ..order.clone() }, own });
    }
    Ok(all)
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

/// Log-probabilities as lists side by side, offsets in characters of the choice's text.
#[derive(Default)]
struct Lists {
    tokens: Vec<String>,
    logprobs: Vec<Value>,
    top: Vec<Value>,
    offsets: Vec<usize>,
}

impl Lists {
    /// Tokens whose text begins at `offset`.
    fn add(&mut self, tokens: &[Token], mut offset: usize) {
        let name = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        for token in tokens {
            let top: Map<_, _> = token.top.iter().map(|(bytes, logprob)| (name(bytes), finite(*logprob))).collect();
            self.tokens.push(name(&token.bytes));
            self.logprobs.push(finite(token.logprob));
            self.top.push(top.into());
            self.offsets.push(offset);
            // A token may be a part of a character: the one that begins it counts.
            offset += token.bytes.iter().filter(|&&byte| byte & 0xC0 != 0x80).count();
        }
    }

    fn add_prompt(&mut self, echo: &Echo) {
        self.add(&echo.tokens, 0);
        // Nothing was expected at the beginning.
        for list in [&mut self.logprobs, &mut self.top] {
            if let Some(first) = list.first_mut() {
                *first = Value::Null;
            }
        }
    }

    fn into_json(self) -> Value {
        let Lists { tokens, logprobs, top, offsets } = self;
        json!({"tokens": tokens, "token_logprobs": logprobs, "top_logprobs": top, "text_offset": offsets})
    }
}

async fn write<F>(writer: Arc<Writer>, head: Head, echoes: Vec<Shared<F>>, jobs: Vec<Job>)
where
    F: Future<Output = Result<Arc<Echo>>>,
{
    let choices =
        jobs.into_iter().enumerate().map(|(i, job)| choice(&writer, &head, i, echoes.get(i / head.n).cloned(), job));
    side_by_side(&writer, &head, choices).await;
}

async fn choice(
    writer: &Writer,
    head: &Head,
    index: usize,
    echo: Option<impl Future<Output = Result<Arc<Echo>>>>,
    mut job: Job,
) -> Result<Outcome> {
    let one = |text: &str, lists: Lists, reason: Option<&str>| {
        let logprobs = (head.logprobs && !lists.tokens.is_empty()).then(|| lists.into_json());
        let choice = json!({"text": text, "index": index, "logprobs": logprobs, "finish_reason": reason});
        head.chunk(&[choice], &[])
    };
    let mut said = 0;
    let mut early = VecDeque::new();
    if let Some(echo) = echo {
        let echo = ahead(echo, &mut job, &mut early).await?;
        let mut lists = Lists::default();
        lists.add_prompt(&echo);
        said = echo.text.chars().count();
        writer.data(&one(&echo.text, lists, None)).await;
    }
    loop {
        let piece = match early.pop_front() {
            Some(piece) => piece,
            None => job.next().await?,
        };
        let (text, tokens) = match piece {
            Piece::Prefill { done, total, .. } => {
                writer.status(Status::Prefill { done, total });
                continue;
            }
            Piece::Thinking { text, .. } => (text, Vec::new()),
            Piece::Text { text, logprobs } => (text, logprobs),
            Piece::CallStart(_) | Piece::CallArguments { .. } | Piece::CallEnd(_) => continue,
            Piece::Done => break,
        };
        let mut lists = Lists::default();
        lists.add(&tokens, said);
        said += text.chars().count();
        writer.data(&one(&text, lists, None)).await;
    }
    let outcome = std::mem::take(&mut job.outcome);
    writer.data(&one("", Lists::default(), Some(reason(&outcome)))).await;
    Ok(outcome)
}

/// Waits for what comes first in the text. What the answer says meanwhile is kept: it must not wait, or it is given up.
async fn ahead(
    echo: impl Future<Output = Result<Arc<Echo>>>,
    job: &mut Job,
    early: &mut VecDeque<Piece>,
) -> Result<Arc<Echo>> {
    let mut echo = std::pin::pin!(echo);
    loop {
        tokio::select! {
            biased;
            echo = &mut echo => return echo,
            piece = job.next(), if early.back() != Some(&Piece::Done) => early.push_back(piece?),
        }
    }
}
