//! Which path is whose. Handlers are functions from a body to a response; the rest of HTTP is dealt with here once.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::routing::{get, post};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::{Map, Value, json};

use crate::app::{App, fresh_id};
use crate::error::{ApiError, Family, Result};
use crate::{anthropic, fields, openai, reply, responses};

/// All routes, with what surrounds them.
pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(chat))
        .route("/v1/completions", post(completions))
        .route("/v1/messages", post(messages))
        .route("/v1/messages/count_tokens", post(count_tokens))
        .merge(stored_responses())
        .route("/v1/models", get(models))
        .route("/v1/models/{*name}", get(model))
        .route("/health", get(health))
        .fallback(|uri: Uri| async move {
            Failed(ApiError::not_found("not_found", format!("no such path: {}", uri.path()))).into_response()
        })
        .layer(middleware::from_fn_with_state(Arc::clone(&app), around))
        .with_state(app)
}

/// An error that does not know its family yet: `around` gives it its shape.
#[derive(Clone)]
pub(crate) struct Failed(pub(crate) ApiError);

impl Failed {
    fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.0.status;
        response.extensions_mut().insert(self);
        response
    }
}

/// What a handler made of a request.
fn answer(result: Result<Response<Body>>) -> Response<Body> {
    result.unwrap_or_else(|error| Failed(error).into_response())
}

async fn chat(State(app): State<Arc<App>>, request: Request) -> Response<Body> {
    answer(match body(&app, request).await {
        Ok(body) => openai::chat::handle(app, body).await,
        Err(error) => Err(error),
    })
}

async fn completions(State(app): State<Arc<App>>, request: Request) -> Response<Body> {
    answer(match body(&app, request).await {
        Ok(body) => openai::completions::handle(app, body).await,
        Err(error) => Err(error),
    })
}

async fn messages(State(app): State<Arc<App>>, request: Request) -> Response<Body> {
    answer(match body(&app, request).await {
        Ok(body) => anthropic::handle(app, body).await,
        Err(error) => Err(error),
    })
}

async fn count_tokens(State(app): State<Arc<App>>, request: Request) -> Response<Body> {
    answer(body(&app, request).await.and_then(|body| anthropic::count_tokens(&app, &body)))
}

fn stored_responses() -> Router<Arc<App>> {
    type Id = Path<String>;
    type Shared = State<Arc<App>>;
    Router::new()
        .route(
            "/v1/responses",
            post(|State(app): Shared, request: Request| async move {
                answer(match body(&app, request).await {
                    Ok(body) => responses::handle(app, body).await,
                    Err(error) => Err(error),
                })
            }),
        )
        .route(
            "/v1/responses/input_tokens",
            post(|State(app): Shared, request: Request| async move {
                answer(body(&app, request).await.and_then(|body| responses::input_tokens(&app, &body)))
            }),
        )
        .route("/v1/responses/compact", post(async || answer(Err(responses::compact()))))
        .route(
            "/v1/responses/{id}",
            get(|State(app): Shared, Path(id): Id| async move { answer(responses::get(&app, TENANT, &id)) })
                .delete(|State(app): Shared, Path(id): Id| async move { answer(responses::delete(&app, TENANT, &id)) }),
        )
        .route(
            "/v1/responses/{id}/cancel",
            post(|State(app): Shared, Path(id): Id| async move { answer(responses::cancel(&app, TENANT, &id)) }),
        )
        .route(
            "/v1/responses/{id}/input_items",
            get(|State(app): Shared, Path(id): Id, uri: Uri| async move {
                answer(responses::input_items(&app, TENANT, &id, uri.query().unwrap_or_default()))
            }),
        )
}

/// Everyone, as long as keys do not tell clients apart.
const TENANT: &str = "";

async fn models(State(app): State<Arc<App>>) -> Response<Body> {
    reply::json(&openai::models::list(&app))
}

async fn model(State(app): State<Arc<App>>, Path(name): Path<String>) -> Response<Body> {
    answer(openai::models::get(&app, &name).map(|model| reply::json(&model)))
}

async fn health(State(app): State<Arc<App>>) -> Response<Body> {
    reply::json(&json!({"status": "ok", "queue": app.engine.waiting()}))
}

/// The JSON object of a request's body, within the size limit.
pub(crate) async fn body(app: &App, request: Request) -> Result<Map<String, Value>> {
    let (parts, body) = request.into_parts();
    check_content_type(&parts.headers)?;
    let limit = app.config.max_body;
    let read = tokio::time::timeout(app.config.io_timeout.max(std::time::Duration::from_secs(60)), async {
        Limited::new(body, limit).collect().await
    });
    match read.await {
        Ok(Ok(collected)) => fields::parse(&collected.to_bytes()),
        Ok(Err(error)) if error.downcast_ref::<LengthLimitError>().is_some() => {
            let message = format!("body is larger than {limit} bytes");
            Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, Some("request_too_large"), message))
        }
        Ok(Err(error)) => Err(ApiError::malformed(format!("body could not be read: {error}"))),
        Err(_) => Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, None, "body took too long")),
    }
}

/// JSON, or nothing when no browser speaks.
fn check_content_type(headers: &HeaderMap) -> Result<()> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json")
        || (!headers.contains_key(header::CONTENT_TYPE) && !headers.contains_key(header::ORIGIN))
    {
        return Ok(());
    }
    let message = format!("content type must be application/json, got {kind:?}");
    Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, None, message))
}

/// What every request passes: its id, its family, the shape of errors, common headers.
async fn around(State(app): State<Arc<App>>, request: Request, next: Next) -> Response<Body> {
    let id = request_id(request.headers());
    let family = family(&request);
    let is_head = request.method() == Method::HEAD;
    let mut response = next.run(request).await;
    if let Some(Failed(error)) = response.extensions_mut().remove::<Failed>() {
        response = error.response(family, &id);
    } else if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        let error = ApiError::new(StatusCode::METHOD_NOT_ALLOWED, None, "this path does not take that method");
        let allow = response.headers().get(header::ALLOW).cloned();
        response = error.response(family, &id);
        if let Some(allow) = allow {
            response.headers_mut().insert(header::ALLOW, allow);
        }
    }
    let headers = response.headers_mut();
    let value = HeaderValue::from_str(&id).expect("ids are visible ASCII");
    if family == Family::Anthropic {
        headers.insert("request-id", value.clone());
    }
    headers.insert("x-request-id", value);
    headers.insert(header::SERVER, HeaderValue::from_static(concat!("ds4/", env!("CARGO_PKG_VERSION"))));
    if let Ok(name) = HeaderValue::from_str(app.config.canonical_name()) {
        headers.insert("x-ds4-model", name);
    }
    if is_head {
        *response.body_mut() = Body::empty();
    }
    response
}

/// The caller's id if it is usable, else a fresh one.
fn request_id(headers: &HeaderMap) -> String {
    let usable = |name: &str| {
        let id = headers.get(name)?.to_str().ok()?;
        (1..=128).contains(&id.len()).then_some(id)?.bytes().all(|b| b.is_ascii_graphic()).then(|| id.to_owned())
    };
    usable("x-request-id").or_else(|| usable("x-client-request-id")).unwrap_or_else(|| fresh_id("req_", 12))
}

/// The shape of errors: by path, or by the header that only one family sends.
pub(crate) fn family(request: &Request) -> Family {
    let path = request.uri().path();
    let messages = path.starts_with("/v1/messages") || path.starts_with("/messages");
    if messages || request.headers().contains_key("anthropic-version") { Family::Anthropic } else { Family::OpenAi }
}
