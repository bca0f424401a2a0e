//! Server-sent events: a writer for the task that has something to say, a body for the connection. Keep-alive comments come
//! from the body's own clock, so that nothing that waits can silence them (server.md 14.1).

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Response, header};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame};
use serde_json::Value;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};

/// A client that takes nothing for so long is gone.
const STALL: Duration = Duration::from_secs(30);

/// Frames that wait for the connection.
const FRAMES: usize = 64;

/// The client is gone or reads nothing.
#[derive(Debug)]
pub(crate) struct Gone;

/// The writing end. Every call waits for room; the engine never does.
pub(crate) struct Writer {
    frames: Sender<Bytes>,
    status: Arc<Mutex<String>>,
}

impl Writer {
    /// `data: …` without an event name.
    pub(crate) async fn data(&self, value: &Value) -> Result<(), Gone> {
        self.send(format!("data: {value}\n\n")).await
    }

    /// `event: …` and `data: …`.
    pub(crate) async fn event(&self, name: &str, value: &Value) -> Result<(), Gone> {
        self.send(format!("event: {name}\ndata: {value}\n\n")).await
    }

    /// The end mark of the OpenAI streams.
    pub(crate) async fn done(&self) -> Result<(), Gone> {
        self.send("data: [DONE]\n\n".to_owned()).await
    }

    /// What the next keep-alive comment says.
    pub(crate) fn status(&self, text: String) {
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }

    /// Returns once nobody reads any more.
    pub(crate) async fn gone(&self) {
        self.frames.closed().await;
    }

    async fn send(&self, frame: String) -> Result<(), Gone> {
        match timeout(STALL, self.frames.send(frame.into())).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Gone),
        }
    }
}

/// A response whose body `write` fills from a task of its own. The task ends when the client goes.
pub(crate) fn stream<F>(keepalive: Option<Duration>, write: impl FnOnce(Arc<Writer>) -> F) -> Response<Body>
where
    F: Future<Output = Result<(), Gone>> + Send + 'static,
{
    stream_pinging(keepalive, None, write)
}

/// As `stream`, where every other sign of life is this frame.
pub(crate) fn stream_pinging<F>(
    keepalive: Option<Duration>,
    ping: Option<&'static str>,
    write: impl FnOnce(Arc<Writer>) -> F,
) -> Response<Body>
where
    F: Future<Output = Result<(), Gone>> + Send + 'static,
{
    let (frames, receiver) = channel(FRAMES);
    let status = Arc::new(Mutex::new("waiting".to_owned()));
    let cut = Arc::new(AtomicBool::new(false));
    let writer = Arc::new(Writer { frames, status: Arc::clone(&status) });
    let (work, gave_up) = (write(Arc::clone(&writer)), Arc::clone(&cut));
    tokio::spawn(async move {
        tokio::select! {
            // Dropping the work drops its job, and that cancels it.
            () = writer.gone() => {}
            done = work => gave_up.store(done.is_err(), Ordering::Release),
        }
    });
    let clock = keepalive.map(|period| {
        let mut clock = interval(period);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        clock.reset();
        clock
    });
    let mut response = Response::new(Body::new(
        Frames { receiver, clock, status, ping, begun: false, pinged: true, cut }.boxed_unsync(),
    ));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// The reading end, as hyper wants it.
struct Frames {
    receiver: Receiver<Bytes>,
    clock: Option<Interval>,
    status: Arc<Mutex<String>>,
    ping: Option<&'static str>,
    /// Events have been sent: only then may a ping be.
    begun: bool,
    pinged: bool,
    /// The writer gave up before it had said everything.
    cut: Arc<AtomicBool>,
}

impl Frames {
    /// What shows that the server is alive.
    fn sign(&mut self) -> Bytes {
        self.pinged = !self.pinged;
        match self.ping {
            Some(ping) if self.begun && self.pinged => Bytes::from_static(ping.as_bytes()),
            _ => format!(": {}\n\n", self.status.lock().unwrap_or_else(PoisonError::into_inner)).into(),
        }
    }
}

impl HttpBody for Frames {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = this.receiver.poll_recv(cx) {
            if let Some(clock) = &mut this.clock {
                clock.reset();
            }
            this.begun = true;
            // A last chunk would say that this was all: an error makes the connection end without one.
            let cut = frame.is_none() && this.cut.load(Ordering::Acquire);
            let end = cut.then(|| Err(io::ErrorKind::ConnectionAborted.into()));
            return Poll::Ready(frame.map(|bytes| Ok(Frame::data(bytes))).or(end));
        }
        if let Some(clock) = &mut this.clock
            && clock.poll_tick(cx).is_ready()
        {
            return Poll::Ready(Some(Ok(Frame::data(this.sign()))));
        }
        Poll::Pending
    }
}
