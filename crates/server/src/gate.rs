//! What stands before the routes: nothing but `loading` until there are any.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use serde_json::json;
use tower::ServiceExt;

use crate::app::fresh_id;
use crate::error::ApiError;
use crate::reply;
use crate::routes::family;

/// Shared by all connections.
#[derive(Default)]
pub(crate) struct Gate {
    router: OnceLock<Router>,
    /// Millionths of the model that are loaded.
    loaded: AtomicU32,
}

impl Gate {
    pub(crate) fn loaded(&self, part: f64) {
        self.loaded.store((part.clamp(0.0, 1.0) * 1e6) as u32, Ordering::Relaxed);
    }

    /// From now on requests go to `router`.
    pub(crate) fn open(&self, router: Router) {
        assert!(self.router.set(router).is_ok(), "a gate is opened once");
    }

    pub(crate) async fn answer(&self, request: Request<Body>) -> Response<Body> {
        match self.router.get() {
            Some(router) => match router.clone().oneshot(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            },
            None => self.loading(&request),
        }
    }

    fn loading(&self, request: &Request<Body>) -> Response<Body> {
        if matches!(request.uri().path(), "/health" | "/healthz" | "/v1/health") {
            let progress = f64::from(self.loaded.load(Ordering::Relaxed)) / 1e6;
            let body = json!({"status": "loading", "progress": progress}).to_string();
            return reply::with(StatusCode::SERVICE_UNAVAILABLE, "application/json", body);
        }
        ApiError::loading().response(family(request), &fresh_id("req_", 12))
    }
}
