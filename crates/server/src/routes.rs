//! Which path is whose. Handlers are functions from a body to a response; the rest of HTTP is dealt with here once.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::routing::{get, post};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body as _;
use serde_json::{Map, Value};

use crate::app::App;
use crate::aside::{LONG, aside};
use crate::call::{self, Call, request_id};
use crate::coding::{Coding, too_large};
use crate::error::{ApiError, Family, Result};
use crate::{anthropic, fields, openai, reply, responses, utilities};

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
        .merge(utilities::routes())
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
pub(crate) fn answer(result: Result<Response<Body>>) -> Response<Body> {
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
            get(|State(app): Shared, Path(id): Id| async move {
                answer(responses::get(&app, &call::tenant(&app.config), &id))
            })
            .delete(|State(app): Shared, Path(id): Id| async move {
                answer(responses::delete(&app, &call::tenant(&app.config), &id))
            }),
        )
        .route(
            "/v1/responses/{id}/cancel",
            post(|State(app): Shared, Path(id): Id| async move {
                answer(responses::cancel(&app, &call::tenant(&app.config), &id))
            }),
        )
        .route(
            "/v1/responses/{id}/input_items",
            get(|State(app): Shared, Path(id): Id, uri: Uri| async move {
                answer(responses::input_items(&app, &call::tenant(&app.config), &id, uri.query().unwrap_or_default()))
            }),
        )
}

async fn models(State(app): State<Arc<App>>) -> Response<Body> {
    reply::json(&openai::models::list(&app))
}

async fn model(State(app): State<Arc<App>>, Path(name): Path<String>) -> Response<Body> {
    answer(openai::models::get(&app, &name).map(|model| reply::json(&model)))
}

/// The JSON object of a request's body, within the size limit, packed and unpacked.
pub(crate) async fn body(app: &App, request: Request) -> Result<Map<String, Value>> {
    let (parts, body) = request.into_parts();
    let coding = Coding::of(&parts.headers)?;
    check_content_type(&parts.headers)?;
    let limit = app.config.max_body;
    // A body that says so itself is not waited for.
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large(limit));
    }
    let mut body = Limited::new(body, limit);
    let mut bytes = Vec::new();
    loop {
        match tokio::time::timeout(app.config.io_timeout, body.frame()).await {
            Ok(None) => break,
            Ok(Some(Ok(frame))) => bytes.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
            Ok(Some(Err(error))) if error.downcast_ref::<LengthLimitError>().is_some() => {
                return Err(too_large(limit));
            }
            Ok(Some(Err(error))) => return Err(ApiError::malformed(format!("body could not be read: {error}"))),
            Err(_) => return Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, None, "body took too long")),
        }
    }
    let keep = if app.trace.is_some() { Call::current() } else { None };
    // A few packed bytes may be a long body.
    aside(bytes.len() >= LONG || coding != Coding::None, || {
        let bytes = coding.decoded(bytes, limit)?;
        if let Some(call) = keep {
            call.keep_body(&bytes);
        }
        fields::parse(&bytes)
    })
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

/// The shape of errors, and what every response says of the model.
async fn around(State(app): State<Arc<App>>, request: Request, next: Next) -> Response<Body> {
    let known = request.extensions().get::<Arc<Call>>().map(|call| call.id.clone());
    let id = known.unwrap_or_else(|| request_id(request.headers()));
    let family = family(&request);
    let route = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_owned();
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
    app.metrics.http(&route, response.status().as_u16());
    let headers = response.headers_mut();
    let value = HeaderValue::from_str(&id).expect("ids are visible ASCII");
    if family == Family::Anthropic {
        headers.insert("request-id", value.clone());
    }
    headers.insert("x-request-id", value);
    if let Ok(name) = HeaderValue::from_str(app.config.canonical_name()) {
        headers.insert("x-ds4-model", name);
    }
    response
}

/// The shape of errors: by path, or by the header that only one family sends.
pub(crate) fn family(request: &Request) -> Family {
    let path = request.uri().path();
    let messages = path.starts_with("/v1/messages") || path.starts_with("/messages");
    if messages || request.headers().contains_key("anthropic-version") { Family::Anthropic } else { Family::OpenAi }
}
