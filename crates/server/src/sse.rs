//! Server-sent events. The body of such a response is the work that writes it: it goes on whenever the connection wants
//! more, so a client that reads nothing stops its answer and nobody else's, and what ends the connection ends the work.
//! Keep-alive comments come from the body's own clock, so that nothing that waits can silence them (server.md 14.1).

use std::convert::Infallible;
use std::fmt::{self, Display, Write};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Response, header};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame};
use serde_json::Value;
use tokio::time::{Interval, MissedTickBehavior, interval};

/// Bytes beyond which the work waits until the connection took them.
const ROOM: usize = 16 << 10;

/// The writing end.
pub(crate) struct Writer(Mutex<Buffer>);

#[derive(Default)]
struct Buffer {
    text: String,
    /// Who waits for room.
    waiting: Vec<Waker>,
    /// What the next keep-alive comment says.
    status: Status,
}

/// How far a request is.
#[derive(Clone, Copy, Default)]
pub(crate) enum Status {
    /// It waits for its turn.
    #[default]
    Waiting,
    /// Tokens of its prompt that were evaluated, and all of them.
    Prefill { done: u32, total: u32 },
    /// Tokens that were drawn.
    Decode(usize),
}

impl Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Status::Waiting => f.write_str("waiting"),
            Status::Prefill { done, total } => write!(f, "prefill {done}/{total}"),
            Status::Decode(tokens) => write!(f, "decode {tokens}"),
        }
    }
}

impl Writer {
    /// `data: …` without an event name; JSON on one line.
    pub(crate) async fn data(&self, value: &(impl Display + Sync)) {
        self.append(format_args!("data: {value}\n\n"));
        self.room().await;
    }

    /// `event: …` and `data: …`.
    pub(crate) async fn event(&self, name: &str, value: &Value) {
        self.append(format_args!("event: {name}\ndata: {value}\n\n"));
        self.room().await;
    }

    /// The end mark of the OpenAI streams.
    pub(crate) fn done(&self) {
        self.append(format_args!("data: [DONE]\n\n"));
    }

    /// What the next keep-alive comment says.
    pub(crate) fn status(&self, status: Status) {
        self.lock().status = status;
    }

    fn append(&self, frame: fmt::Arguments<'_>) {
        self.lock().text.write_fmt(frame).expect("a string takes any text");
    }

    /// Waits until there is room for the next frame.
    async fn room(&self) {
        poll_fn(|cx| {
            let mut buffer = self.lock();
            if buffer.text.len() < ROOM {
                return Poll::Ready(());
            }
            buffer.waiting.push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn take(&self) -> Option<Bytes> {
        let mut buffer = self.lock();
        if buffer.text.is_empty() {
            return None;
        }
        buffer.waiting.drain(..).for_each(Waker::wake);
        Some(std::mem::take(&mut buffer.text).into())
    }

    fn lock(&self) -> MutexGuard<'_, Buffer> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A response whose body is what `work` writes.
pub(crate) fn stream<F>(keepalive: Option<Duration>, work: impl FnOnce(Arc<Writer>) -> F) -> Response<Body>
where
    F: Future<Output = ()> + Send + 'static,
{
    stream_pinging(keepalive, None, work)
}

/// As `stream`, where every other sign of life is this frame.
pub(crate) fn stream_pinging<F>(
    keepalive: Option<Duration>,
    ping: Option<&'static str>,
    work: impl FnOnce(Arc<Writer>) -> F,
) -> Response<Body>
where
    F: Future<Output = ()> + Send + 'static,
{
    let writer = Arc::new(Writer(Mutex::new(Buffer::default())));
    let work: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(work(Arc::clone(&writer)));
    let clock = keepalive.map(|period| {
        let mut clock = interval(period);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        clock.reset();
        clock
    });
    let events = Events { work: Some(work), writer, clock, ping, begun: false, pinged: true };
    let mut response = Response::new(Body::new(events.boxed_unsync()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// The body, as hyper wants it.
struct Events {
    /// Until it is done.
    work: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    writer: Arc<Writer>,
    clock: Option<Interval>,
    ping: Option<&'static str>,
    /// Events have been sent: only then may a ping be.
    begun: bool,
    pinged: bool,
}

impl Events {
    /// What shows that the server is alive.
    fn sign(&mut self) -> Bytes {
        self.pinged = !self.pinged;
        match self.ping {
            Some(ping) if self.begun && self.pinged => Bytes::from_static(ping.as_bytes()),
            _ => format!(": {}\n\n", self.writer.lock().status).into(),
        }
    }
}

impl HttpBody for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        if let Some(work) = &mut this.work
            && work.as_mut().poll(cx).is_ready()
        {
            this.work = None;
        }
        if let Some(bytes) = this.writer.take() {
            if let Some(clock) = &mut this.clock {
                clock.reset();
            }
            this.begun = true;
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        if this.work.is_none() {
            return Poll::Ready(None);
        }
        if let Some(clock) = &mut this.clock
            && clock.poll_tick(cx).is_ready()
        {
            return Poll::Ready(Some(Ok(Frame::data(this.sign()))));
        }
        Poll::Pending
    }
}
