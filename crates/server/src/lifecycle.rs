//! The stages of the server's life and what they mean for requests: who counts as running, who is sent away, who is cut off.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::watch;

/// Stages in order; there is no way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Requests are taken, once there is a model.
    Serving,
    /// What runs is finished, what waits or comes is sent away.
    Draining,
    /// What still runs ends with an error.
    Cutting,
}

/// Shared by everything that has to know.
#[derive(Clone)]
pub(crate) struct Lifecycle {
    stage: Arc<watch::Sender<Stage>>,
    running: Arc<AtomicUsize>,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self { stage: Arc::new(watch::Sender::new(Stage::Serving)), running: Arc::default() }
    }
}

impl Lifecycle {
    pub(crate) fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    pub(crate) fn enter(&self, stage: Stage) {
        self.stage.send_modify(|now| *now = stage.max(*now));
    }

    /// Returns once the server has come to `stage`.
    pub(crate) async fn reached(&self, stage: Stage) {
        // The sender lives as long as this does.
        let _ = self.stage.subscribe().wait_for(|&now| now >= stage).await;
    }

    /// Counts a request until the guard is dropped.
    pub(crate) fn request(&self) -> Running {
        self.running.fetch_add(1, Ordering::SeqCst);
        Running(Arc::clone(&self.running))
    }

    /// Requests whose answer is not finished.
    pub(crate) fn running(&self) -> usize {
        self.running.load(Ordering::SeqCst)
    }
}

/// A request under way.
pub(crate) struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A body that keeps something until it is sent or given up.
pub(crate) struct Held<G> {
    body: Body,
    _held: G,
}

impl<G: Send + Unpin + 'static> Held<G> {
    pub(crate) fn body(body: Body, held: G) -> Body {
        Body::new(Held { body, _held: held })
    }
}

impl<G: Unpin> HttpBody for Held<G> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
