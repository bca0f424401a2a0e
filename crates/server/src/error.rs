//! What a client is told when something is wrong: one error, two shapes (server.md 3).

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Map, Value, json};

/// Whose API a route belongs to: it decides the shape of errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    OpenAi,
    Anthropic,
}

/// An error on its way to a client.
#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) code: Option<&'static str>,
    pub(crate) param: Option<String>,
    pub(crate) message: String,
    /// Seconds after which another try may succeed.
    pub(crate) retry_after: Option<u32>,
    /// Prompt and context size, when the prompt is too long: the two families say it in words that clients search for.
    pub(crate) overflow: Option<(usize, u32)>,
}

pub(crate) type Result<T> = std::result::Result<T, ApiError>;

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: Option<&'static str>, message: impl Into<String>) -> Self {
        Self { status, code, param: None, message: message.into(), retry_after: None, overflow: None }
    }

    /// A field that is missing, of the wrong type or out of range.
    pub(crate) fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self { param: Some(param.into()), ..Self::new(StatusCode::BAD_REQUEST, None, message) }
    }

    /// A body that is no request at all.
    pub(crate) fn malformed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, None, message)
    }

    /// A field that would change the answer and cannot be honoured.
    pub(crate) fn unsupported(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: Some("unsupported_parameter"), ..Self::invalid(param, message) }
    }

    /// Results of calls that nothing is known of any more; `param` is where the id stands.
    pub(crate) fn continuation(param: String, id: &str) -> Self {
        let message = format!(
            "{param}: the conversation of call {id:?} is not known any more; resend the full conversation history"
        );
        Self { param: Some(param), ..Self::new(StatusCode::CONFLICT, Some("continuation_unavailable"), message) }
    }

    /// A prompt of `found` tokens for a context of `context`.
    pub(crate) fn overflow(param: &str, found: usize, context: u32) -> Self {
        let message = format!(
            "This model's maximum context length is {context} tokens. However, your prompt resulted in {found} tokens."
        );
        let code = Some("context_length_exceeded");
        Self { code, overflow: Some((found, context)), ..Self::invalid(param, message) }
    }

    pub(crate) fn not_found(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, Some(code), message)
    }

    pub(crate) fn shutting_down() -> Self {
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, Some("shutting_down"), "the server is shutting down");
        Self { retry_after: Some(5), ..error }
    }

    pub(crate) fn forbidden(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, Some(code), message)
    }

    pub(crate) fn unauthorized() -> Self {
        let message = "missing or wrong API key: send it as Authorization: Bearer KEY or X-Api-Key: KEY";
        Self::new(StatusCode::UNAUTHORIZED, Some("invalid_api_key"), message)
    }

    pub(crate) fn timeout(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, Some("timeout"), message)
    }

    pub(crate) fn loading() -> Self {
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, Some("loading"), "the model is loading");
        Self { retry_after: Some(2), ..error }
    }

    pub(crate) fn engine(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, Some("engine_error"), message)
    }

    /// What the door said of a request; `param` is where its prompt came from.
    pub(crate) fn from_engine(error: &ds4_engine::Error, param: &str) -> Self {
        use ds4_engine::Error as E;
        match error {
            E::ContextFull { found, context } => Self::overflow(param, *found, *context),
            E::QueueFull { .. } => {
                let status = StatusCode::TOO_MANY_REQUESTS;
                Self { retry_after: Some(2), ..Self::new(status, Some("queue_full"), error.to_string()) }
            }
            E::Parameter { name, .. } => Self::invalid(*name, error.to_string()),
            E::EmptyPrompt | E::UnknownToken { .. } => Self::invalid(param, error.to_string()),
            _ => Self::engine(error.to_string()),
        }
    }

    fn openai_type(&self) -> &'static str {
        match self.status.as_u16() {
            429 => "rate_limit_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        }
    }

    pub(crate) fn anthropic_type(&self) -> &'static str {
        match self.status.as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            413 => "request_too_large",
            429 => "rate_limit_error",
            503 => "overloaded_error",
            504 => "timeout_error",
            500.. => "api_error",
            _ => "invalid_request_error",
        }
    }

    /// The message in the words of `family`.
    pub(crate) fn message(&self, family: Family) -> String {
        match (family, self.overflow) {
            (Family::Anthropic, Some((found, context))) => {
                format!("prompt is too long: {found} tokens > {context} maximum")
            }
            _ => self.message.clone(),
        }
    }

    /// The inner object of the OpenAI shape.
    pub(crate) fn openai(&self) -> Value {
        let mut inner = Map::new();
        inner.insert("message".into(), self.message(Family::OpenAi).into());
        inner.insert("type".into(), self.openai_type().into());
        inner.insert("param".into(), self.param.clone().into());
        inner.insert("code".into(), self.code.into());
        if let Some((found, context)) = self.overflow {
            inner.insert("n_prompt_tokens".into(), found.into());
            inner.insert("n_ctx".into(), context.into());
        }
        Value::Object(inner)
    }

    /// The inner object of the Anthropic shape.
    pub(crate) fn anthropic(&self) -> Value {
        json!({"type": self.anthropic_type(), "message": self.message(Family::Anthropic)})
    }

    /// The whole body.
    pub(crate) fn body(&self, family: Family, request_id: &str) -> Value {
        match family {
            Family::OpenAi => json!({"error": self.openai()}),
            Family::Anthropic => json!({"type": "error", "error": self.anthropic(), "request_id": request_id}),
        }
    }

    pub(crate) fn response(&self, family: Family, request_id: &str) -> Response<Body> {
        let mut response = Response::new(Body::from(self.body(family, request_id).to_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
