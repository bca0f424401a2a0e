//! What every request passes before the routes, and every response after them: limits, browser checks, keys, common headers.
//! Until there are routes it says `loading`, and when the server ends it says so.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::app::App;
use crate::call::{self, Call, request_id};
use crate::error::{ApiError, Family, Result};
use crate::keys::{Keys, Owner};
use crate::lifecycle::{Held, Lifecycle, Stage};
use crate::origin::Origins;
use crate::routes::family;
use crate::wire::Head;
use crate::{path, reply};

/// Bytes of a request's path with its query.
const MAX_LINE: usize = 8 << 10;
/// Paths that need no key: the states of the server, and the chat page, which asks for the key.
const OPEN: &[&str] = &["/health", "/healthz", "/ping", "/"];
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
    opened: OnceLock<(Router, Arc<App>)>,
    /// Millionths of the model that are loaded.
    loaded: AtomicU32,
    pub(crate) keys: Keys,
    origins: Origins,
    pub(crate) lifecycle: Lifecycle,
}

impl Gate {
    pub(crate) fn new(keys: Keys, origins: Origins) -> Self {
        let (opened, loaded) = (OnceLock::new(), AtomicU32::new(0));
        Self { opened, loaded, keys, origins, lifecycle: Lifecycle::default() }
    }

    pub(crate) fn loaded(&self, part: f64) {
        self.loaded.store((part.clamp(0.0, 1.0) * 1e6) as u32, Ordering::Relaxed);
    }

    /// From now on requests go to `router`, which counts them in `app`'s metrics; those that are refused are counted here.
    pub(crate) fn open(&self, router: Router, app: Arc<App>) {
        assert!(self.opened.set((router, app)).is_ok(), "a gate is opened once");
    }

    /// The response to a request. `head`: what the connection thinks of it.
    pub(crate) async fn answer(&self, request: Request<Body>, peer: Peer, head: Head) -> Response<Body> {
        let running = self.lifecycle.request();
        let id = request_id(request.headers());
        let origin = request.headers().get(header::ORIGIN).cloned();
        let preflight = *request.method() == Method::OPTIONS;
        let mut of_family = family(&request);
        let mut response = match self.admit(request, peer, head) {
            _ if preflight => reply::empty(StatusCode::NO_CONTENT),
            Err(error) => {
                if let Some((_, app)) = self.opened.get() {
                    app.metrics.http("refused", error.status.as_u16());
                }
                error.response(of_family, &id)
            }
            Ok((request, owner)) => {
                of_family = family(&request);
                let session = call::session(request.headers());
                let call = Call::new(id.clone(), of_family, request.uri().path().to_owned(), owner, session);
                let mut response = call.run(self.route(request, &call)).await;
                call.put_headers(response.headers_mut());
                if of_family == Family::OpenAi && call.path.starts_with("/v1/") {
                    let spent = call.started.elapsed().as_millis() as u64;
                    response.headers_mut().insert("openai-processing-ms", spent.into());
                }
                response
            }
        };
        let status = response.status();
        let headers = response.headers_mut();
        let value = HeaderValue::from_str(&id).expect("ids are visible ASCII");
        if of_family == Family::Anthropic {
            headers.insert("request-id", value.clone());
        }
        headers.insert("x-request-id", value);
        headers.insert(header::SERVER, HeaderValue::from_static(concat!("ds4/", env!("CARGO_PKG_VERSION"))));
        self.origins.put_headers(origin.as_ref(), preflight, headers);
        // Behind these two the rest of a body may be on its way.
        let unread = matches!(status, StatusCode::PAYLOAD_TOO_LARGE | StatusCode::REQUEST_TIMEOUT);
        if unread || head != Head::Fine || self.lifecycle.stage() != Stage::Serving {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response.map(|body| Held::body(body, running))
    }

    /// The request as the routes know it, and whose it is.
    fn admit(&self, mut request: Request<Body>, peer: Peer, head: Head) -> Result<(Request<Body>, Option<Owner>)> {
        if head == Head::Ambiguous {
            let message = "a request has one Host, and one Content-Length or one Transfer-Encoding";
            return Err(ApiError::malformed(message));
        }
        if head == Head::TooLong || request.uri().to_string().len() > MAX_LINE {
            let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
            return Err(ApiError::new(status, None, "the request's head is too long"));
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
            let error = ApiError::shutting_down();
            return away(call, health.then(|| json!({"status": "shutting_down"})), &error);
        }
        let Some((router, _)) = self.opened.get() else {
            let progress = f64::from(self.loaded.load(Ordering::Relaxed)) / 1e6;
            let state = health.then(|| json!({"status": "loading", "progress": progress}));
            return away(call, state, &ApiError::loading());
        };
        request.extensions_mut().insert(Arc::clone(call));
        match router.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

/// Why nobody is served: the state for those who asked for it, an error for all others.
fn away(call: &Call, state: Option<Value>, error: &ApiError) -> Response<Body> {
    match state {
        Some(state) => reply::with(StatusCode::SERVICE_UNAVAILABLE, "application/json", state.to_string()),
        None => error.response(call.family, &call.id),
    }
}
