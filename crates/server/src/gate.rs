//! What every request passes before the routes, and every response after them: limits, browser checks, keys, common headers.
//! Until there are routes it says `loading`, and when the server ends it says so.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use serde_json::json;
use tower::ServiceExt;

use crate::call::{Call, request_id};
use crate::error::{ApiError, Family, Result};
use crate::keys::{Keys, Owner};
use crate::lifecycle::{Held, Lifecycle, Stage};
use crate::origin::Origins;
use crate::routes::family;
use crate::{path, reply};

/// Bytes of a request's path with its query.
const MAX_LINE: usize = 8 << 10;
/// Paths that need no key.
const OPEN: &[&str] = &["/health", "/healthz", "/ping"];
/// Paths that are answered while the server ends.
const TO_THE_END: &[&str] = &["/metrics", "/ping", "/version"];

/// Which end of the machine a connection came in by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    /// The address of ours that was called; none for a socket file.
    pub(crate) address: Option<IpAddr>,
}

/// Shared by all connections.
pub(crate) struct Gate {
    router: OnceLock<Router>,
    /// Millionths of the model that are loaded.
    loaded: AtomicU32,
    pub(crate) keys: Keys,
    origins: Origins,
    pub(crate) lifecycle: Lifecycle,
}

impl Gate {
    pub(crate) fn new(keys: Keys, origins: Origins) -> Self {
        let (router, loaded) = (OnceLock::new(), AtomicU32::new(0));
        Self { router, loaded, keys, origins, lifecycle: Lifecycle::default() }
    }

    pub(crate) fn loaded(&self, part: f64) {
        self.loaded.store((part.clamp(0.0, 1.0) * 1e6) as u32, Ordering::Relaxed);
    }

    /// From now on requests go to `router`.
    pub(crate) fn open(&self, router: Router) {
        assert!(self.router.set(router).is_ok(), "a gate is opened once");
    }

    /// The response to a request. `ambiguous`: its head tells two lengths of the body.
    pub(crate) async fn answer(&self, request: Request<Body>, peer: Peer, ambiguous: bool) -> Response<Body> {
        let running = self.lifecycle.request();
        let id = request_id(request.headers());
        let origin = request.headers().get(header::ORIGIN).cloned();
        let preflight = *request.method() == Method::OPTIONS;
        let mut of_family = family(&request);
        let mut response = match self.admit(request, peer, ambiguous) {
            _ if preflight => reply::empty(StatusCode::NO_CONTENT),
            Err(error) => error.response(of_family, &id),
            Ok((request, owner)) => {
                of_family = family(&request);
                let call = Call::new(id.clone(), of_family, request.uri().path().to_owned(), owner);
                let mut response = call.run(self.route(request, &call)).await;
                call.put_headers(response.headers_mut());
                if of_family == Family::OpenAi && call.path.starts_with("/v1/") {
                    let spent = call.started.elapsed().as_millis() as u64;
                    response.headers_mut().insert("openai-processing-ms", spent.into());
                }
                response
            }
        };
        let headers = response.headers_mut();
        let value = HeaderValue::from_str(&id).expect("ids are visible ASCII");
        if of_family == Family::Anthropic {
            headers.insert("request-id", value.clone());
        }
        headers.insert("x-request-id", value);
        headers.insert(header::SERVER, HeaderValue::from_static(concat!("ds4/", env!("CARGO_PKG_VERSION"))));
        self.origins.put_headers(origin.as_ref(), preflight, headers);
        if ambiguous || self.lifecycle.stage() != Stage::Serving {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response.map(|body| Held::body(body, running))
    }

    /// The request as the routes know it, and whose it is.
    fn admit(&self, mut request: Request<Body>, peer: Peer, ambiguous: bool) -> Result<(Request<Body>, Option<Owner>)> {
        if ambiguous {
            let message = "a request has either a Content-Length or a Transfer-Encoding";
            return Err(ApiError::malformed(message));
        }
        if request.uri().to_string().len() > MAX_LINE {
            let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
            return Err(ApiError::new(status, None, format!("path and query are longer than {MAX_LINE} bytes")));
        }
        let headers = request.headers();
        let named = headers.contains_key(header::HOST) || request.uri().authority().is_some();
        if request.version() == Version::HTTP_11 && !named {
            return Err(ApiError::malformed("a request needs a Host header"));
        }
        let Some(uri) = path::normal(request.uri()) else { return Err(ApiError::malformed("path is not UTF-8")) };
        let mut owner = None;
        if self.keys.needed() {
            owner = self.keys.owner(headers);
            if owner.is_none() && !OPEN.contains(&uri.path()) {
                return Err(ApiError::unauthorized());
            }
        } else if let Some(local) = peer.address {
            self.origins.check_host(headers, local)?;
        }
        self.origins.check_origin(request.method(), headers)?;
        *request.uri_mut() = uri;
        Ok((request, owner))
    }

    async fn route(&self, mut request: Request<Body>, call: &Arc<Call>) -> Response<Body> {
        let health = OPEN[..2].contains(&call.path.as_str());
        if self.lifecycle.stage() != Stage::Serving && !TO_THE_END.contains(&call.path.as_str()) {
            return match health {
                true => unhealthy(&json!({"status": "shutting_down"})),
                false => ApiError::shutting_down().response(call.family, &call.id),
            };
        }
        let Some(router) = self.router.get() else {
            let progress = f64::from(self.loaded.load(Ordering::Relaxed)) / 1e6;
            return match health {
                true => unhealthy(&json!({"status": "loading", "progress": progress})),
                false => ApiError::loading().response(call.family, &call.id),
            };
        };
        request.extensions_mut().insert(Arc::clone(call));
        match router.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

fn unhealthy(body: &serde_json::Value) -> Response<Body> {
    reply::with(StatusCode::SERVICE_UNAVAILABLE, "application/json", body.to_string())
}
