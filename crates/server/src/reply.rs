//! Plain responses.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use serde_json::Value;

/// 200 with a JSON body.
pub(crate) fn json(value: &Value) -> Response<Body> {
    with(StatusCode::OK, "application/json", value.to_string())
}

/// The response with what was accepted but is not honoured.
pub(crate) fn warned(mut response: Response<Body>, warnings: &[String]) -> Response<Body> {
    if let (false, Ok(value)) = (warnings.is_empty(), HeaderValue::from_str(&warnings.join("; "))) {
        response.headers_mut().insert("x-ds4-warning", value);
    }
    response
}

/// A body of any type.
pub(crate) fn with(status: StatusCode, kind: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// A status and nothing else.
pub(crate) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}
