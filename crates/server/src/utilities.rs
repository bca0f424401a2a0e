//! Everything that is no completion (server.md 10): health, versions, slots, tokens, prompts, the page at `/`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, Response, StatusCode, Uri, header};
use axum::routing::{get, post};
use ds4_engine::SamplingParams;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::call::Call;
use crate::config::SlotDetail;
use crate::error::{ApiError, Family, Result};
use crate::fields::Fields;
use crate::routes::{answer, body};
use crate::{anthropic, openai, reply, responses};

/// The chat page: one file without anything from elsewhere.
const PAGE: &str = include_str!("webui/index.html");
/// It may run its own script and speak to its own server.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; \
                      img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const ENDPOINTS: &str = "\
ds4 serves these paths:
  POST /v1/chat/completions  POST /v1/completions  POST /v1/responses  POST /v1/messages
  POST /v1/messages/count_tokens  GET /v1/models
  GET /health /version /props /metrics /slots  POST /tokenize /detokenize /apply-template
";

type Shared = State<Arc<App>>;

pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/", get(page))
        .route("/health", get(health))
        .route("/healthz", get(health))
        .route("/ping", get(async || reply::empty(StatusCode::OK)))
        .route("/version", get(version))
        .route("/metrics", get(metrics))
        .route("/props", get(props))
        .route("/slots", get(slots))
        .route("/tokenize", post(async |State(app): Shared, request: Request| with_body(&app, request, tokenize).await))
        .route("/detokenize", post(async |State(app): Shared, r: Request| with_body(&app, r, detokenize).await))
        .route("/apply-template", post(async |State(app): Shared, r: Request| with_body(&app, r, template).await))
        .route("/v1/requests/{id}/cancel", post(cancel))
        .route("/admin/steering", post(unsupported))
        .route("/v1/embeddings", post(unsupported))
        .route("/rerank", post(unsupported))
        .route("/v1/rerank", post(unsupported))
        .route("/infill", post(unsupported))
}

async fn with_body(
    app: &Arc<App>,
    request: Request,
    handle: impl Fn(&App, &Map<String, Value>) -> Result<Value>,
) -> Response<Body> {
    answer(body(app, request).await.and_then(|body| handle(app, &body)).map(|value| reply::json(&value)))
}

async fn unsupported(uri: Uri) -> Response<Body> {
    let message = format!("{} is not supported by this server", uri.path());
    answer(Err(ApiError::new(StatusCode::NOT_IMPLEMENTED, Some("not_supported"), message)))
}

async fn page(State(app): Shared) -> Response<Body> {
    if !app.config.webui {
        return reply::with(StatusCode::OK, "text/plain; charset=utf-8", ENDPOINTS);
    }
    let mut response = reply::with(StatusCode::OK, "text/html; charset=utf-8", PAGE);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

async fn health(State(app): Shared, uri: Uri) -> Response<Body> {
    let unhealthy = |why: &str| {
        let body = json!({"status": "error", "error": why}).to_string();
        reply::with(StatusCode::SERVICE_UNAVAILABLE, "application/json", body)
    };
    if app.engine.failure().is_some() {
        return unhealthy("the engine has stopped");
    }
    if let Some(error) = app.engine.trouble() {
        return unhealthy(&format!("the device failed and the model is being opened again: {error}"));
    }
    if app.wedged.load(Ordering::Relaxed) {
        return unhealthy("no step was completed for a minute although requests are there");
    }
    let (total, busy) = (app.engine.most_active() as usize, app.engine.activity().running);
    let idle = total.saturating_sub(busy);
    let body = json!({"status": "ok", "slots_idle": idle, "slots_processing": busy, "queue": app.engine.waiting()});
    let wanted = uri.query().unwrap_or_default().split('&').any(|pair| pair == "fail_on_no_slot=1");
    let status = if wanted && idle == 0 { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    reply::with(status, "application/json", body.to_string())
}

async fn version(State(app): Shared) -> Response<Body> {
    reply::json(&json!({
        "version": env!("CARGO_PKG_VERSION"), "commit": option_env!("DS4_COMMIT").unwrap_or("unknown"),
        "backend": app.model.backend, "model": app.model.file, "quant": app.model.quant,
        "build_date": option_env!("DS4_BUILD_DATE").unwrap_or("unknown"),
    }))
}

async fn metrics(State(app): Shared) -> Response<Body> {
    if app.config.metrics_prefix.is_none() {
        return answer(Err(ApiError::not_found("not_found", "metrics are switched off")));
    }
    reply::with(StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", app.metrics.text(&app))
}

async fn props(State(app): Shared) -> Response<Body> {
    let sampling = SamplingParams::default();
    reply::json(&json!({
        "model_path": app.model.file, "model_alias": app.config.canonical_name(),
        "total_slots": app.engine.limits().slots, "n_ctx": app.config.context,
        "default_generation_settings": {
            "n_ctx": app.config.context, "n_predict": app.config.max_tokens, "temperature": sampling.temperature,
            "top_p": sampling.top_p, "top_k": sampling.top_k, "min_p": sampling.min_p,
            "presence_penalty": sampling.presence_penalty, "frequency_penalty": sampling.frequency_penalty,
            "thinking": format!("{:?}", app.config.thinking).to_lowercase(),
        },
        "chat_template": "ds4", "build_info": concat!("ds4 ", env!("CARGO_PKG_VERSION")),
        "modalities": {"vision": false},
    }))
}

/// What slots hold, with what runs in them. Asks the engine, between two of its steps.
async fn slots(State(app): Shared) -> Response<Body> {
    let Some(detail) = app.config.slots else {
        return answer(Err(ApiError::not_found("not_found", "slots are not shown: see --slots")));
    };
    if Call::current().is_none_or(|call| call.owner.is_none()) {
        return answer(Err(ApiError::forbidden("key_needed", "slots are shown to owners of an API key only")));
    }
    let engine = app.engine.clone();
    let found = match tokio::task::spawn_blocking(move || engine.slots()).await {
        Ok(Ok(slots)) => slots,
        Ok(Err(error)) => return answer(Err(ApiError::engine(error.to_string()))),
        Err(_) => return answer(Err(ApiError::engine("the engine did not answer"))),
    };
    let live = app.answers.list();
    let shown = found.iter().map(|slot| {
        let job = live.iter().find(|live| {
            let n = live.prompt.len().min(slot.tokens.len());
            slot.busy && n > 0 && live.phase() != "queued" && live.prompt[..n] == slot.tokens[..n]
        });
        let mut out = json!({
            "id": slot.slot, "state": job.map_or(if slot.busy { "busy" } else { "idle" }, |live| live.phase()),
            "is_processing": slot.busy, "n_ctx": app.config.context, "n_past": slot.tokens.len(),
            "cached": job.map(|live| live.cached.load(Ordering::Relaxed)),
            "decoded": job.map(|live| live.drawn.load(Ordering::Relaxed)),
            "params": job.map(|live| live.parameters.clone()), "request_id": job.map(|live| live.request.clone()),
            "age": job.map(|live| live.started.elapsed().as_secs_f64()),
        });
        if detail == SlotDetail::Texts {
            out["text"] = String::from_utf8_lossy(&app.tokenizer.decode(&slot.tokens)).into();
        }
        out
    });
    reply::json(&shown.collect())
}

fn tokenize(app: &App, body: &Map<String, Value>) -> Result<Value> {
    let fields = Fields::root(body);
    let content = fields.text("content")?.ok_or_else(|| fields.missing("content"))?;
    let special = fields.flag("parse_special")?.unwrap_or(true);
    let mut ids = Vec::new();
    if fields.flag("add_special")?.unwrap_or(false) {
        ids.push(app.tokenizer.special().bos);
    }
    ids.extend(if special { app.tokenizer.encode(content) } else { app.tokenizer.encode_plain(content) });
    if !fields.flag("with_pieces")?.unwrap_or(false) {
        return Ok(json!({"tokens": ids}));
    }
    let piece = |id: &u32| {
        let bytes = app.tokenizer.token_bytes(*id);
        let piece = std::str::from_utf8(bytes).map_or_else(|_| json!(bytes), |text| json!(text));
        json!({"id": id, "piece": piece})
    };
    Ok(json!({"tokens": ids.iter().map(piece).collect::<Vec<_>>()}))
}

fn detokenize(app: &App, body: &Map<String, Value>) -> Result<Value> {
    let fields = Fields::root(body);
    let items = fields.list("tokens")?.ok_or_else(|| fields.missing("tokens"))?;
    let known = app.engine.n_vocab() as u64;
    let id = |item: &Value| item.as_u64().filter(|&id| id < known).map(|id| id as u32);
    let ids: Option<Vec<u32>> = items.iter().map(id).collect();
    let ids = ids.ok_or_else(|| fields.wrong("tokens", "an array of token ids of this model"))?;
    Ok(json!({"content": String::from_utf8_lossy(&app.tokenizer.decode(&ids))}))
}

/// The prompt that a request would have, whatever its API.
fn template(app: &App, body: &Map<String, Value>) -> Result<Value> {
    let order = match () {
        () if body.contains_key("input") => responses::order(app, body)?,
        () if is_messages(body) => anthropic::order(app, body)?,
        () => openai::chat::order(app, body)?,
    };
    let prompt = app.prompt(&order)?.ok_or_else(|| ApiError::malformed("the request has no messages"))?;
    let tokens = app.tokenizer.encode_prompt(&prompt).len();
    Ok(json!({"prompt": prompt.text(), "tokens": tokens}))
}

/// Whether it is a body of the messages API: the client says so, or there is something that chats do not have.
fn is_messages(body: &Map<String, Value>) -> bool {
    let items = |name: &str| body.get(name).and_then(Value::as_array).into_iter().flatten();
    let mut blocks = items("messages").filter_map(|message| message["content"].as_array()).flatten();
    Call::current().is_some_and(|call| call.family == Family::Anthropic)
        || body.contains_key("system")
        || items("tools").any(|tool| tool.get("input_schema").is_some())
        || blocks.any(|block| matches!(block["type"].as_str(), Some("tool_use" | "tool_result" | "thinking")))
}

/// Stops the answers to one request, if it is the caller's own.
async fn cancel(State(app): Shared, Path(id): Path<String>) -> Response<Body> {
    let tenant = Call::current().and_then(|call| call.owner.clone()).map(|owner| owner.tenant);
    let mine: Vec<_> =
        app.answers.list().into_iter().filter(|live| live.request == id && live.tenant == tenant).collect();
    if mine.is_empty() {
        return answer(Err(ApiError::not_found("not_found", format!("no running request has the id {id:?}"))));
    }
    mine.iter().for_each(|live| live.cancel.cancel());
    reply::json(&json!({"id": id, "object": "request.cancelled", "cancelled": mine.len()}))
}
