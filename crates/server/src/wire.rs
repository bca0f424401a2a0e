//! The bytes of one connection, watched: when the peer left, when it stopped reading or writing, and whether a request's head
//! says two things about the length of its body.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::time::timeout;

/// A peer that takes nothing of what waits for it for so long is gone.
const STALL: Duration = Duration::from_secs(30);
/// How long a peer that was answered before it had said everything may go on.
const LINGER: Duration = Duration::from_secs(5);
/// Bytes of a head that are looked at.
const MAX_HEAD: usize = 64 << 10;

/// A socket of either kind.
pub(crate) enum Socket {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

macro_rules! either {
    ($socket:expr, $stream:ident => $work:expr) => {
        match $socket {
            Socket::Tcp($stream) => $work,
            #[cfg(unix)]
            Socket::Unix($stream) => $work,
        }
    };
}

/// How long a peer may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// From a head's first byte to its last.
    pub(crate) head: Duration,
    /// Between two requests.
    pub(crate) idle: Duration,
}

/// A connection as both its ends see it.
pub(crate) struct Watch {
    socket: Socket,
    state: Mutex<State>,
}

struct State {
    phase: Phase,
    /// Since when nothing could be written.
    blocked: Option<Instant>,
    head: Vec<u8>,
}

#[derive(Clone, Copy)]
enum Phase {
    /// Nothing of the next request has come.
    Idle(Instant),
    /// Some of its head.
    Head(Instant),
    /// It is being answered.
    Busy,
}

impl Watch {
    pub(crate) fn new(socket: Socket) -> Arc<Self> {
        let state = State { phase: Phase::Idle(Instant::now()), blocked: None, head: Vec::new() };
        Arc::new(Self { socket, state: Mutex::new(state) })
    }

    /// A request's head is complete.
    pub(crate) fn begin(&self) -> Head {
        let mut state = self.lock();
        state.phase = Phase::Busy;
        Head::of(&std::mem::take(&mut state.head))
    }

    /// The request was answered.
    pub(crate) fn end(&self) {
        self.lock().phase = Phase::Idle(Instant::now());
    }

    /// Whether the connection should be given up: its peer is gone, or too slow.
    pub(crate) fn is_over(&self, patience: Patience) -> bool {
        let state = self.lock();
        if state.blocked.is_some_and(|since| since.elapsed() > STALL) {
            return true;
        }
        match state.phase {
            Phase::Idle(since) => since.elapsed() > patience.idle,
            Phase::Head(since) => since.elapsed() > patience.head,
            Phase::Busy => self.has_left(),
        }
    }

    /// Ends a connection whose last answer was sent. What still comes is read and forgotten: a socket that is closed with
    /// bytes unread takes back the answer, too.
    pub(crate) async fn linger(&self) {
        self.shut();
        let mut forgotten = vec![0; 64 << 10];
        let to_the_end = async {
            loop {
                let read = match either!(&self.socket, stream => stream.readable().await) {
                    Ok(()) => either!(&self.socket, stream => stream.try_read(&mut forgotten)),
                    Err(error) => Err(error),
                };
                match read {
                    Ok(0) => return,
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => return,
                    Ok(_) | Err(_) => {}
                }
            }
        };
        // One who goes on for longer does not listen.
        let _ = timeout(LINGER, to_the_end).await;
    }

    fn shut(&self) {
        // A peer that is gone already has nothing to be told.
        let _ = either!(&self.socket, stream => SockRef::from(stream).shutdown(Shutdown::Write));
    }

    /// The peer closed its end, whatever it sent before and we have not read.
    fn has_left(&self) -> bool {
        let ready = either!(&self.socket, stream => stream.ready(Interest::READABLE).now_or_never());
        matches!(ready, Some(Ok(ready)) if ready.is_read_closed())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_read(&self, bytes: &[u8]) {
        let mut state = self.lock();
        if let Phase::Idle(_) = state.phase {
            state.phase = Phase::Head(Instant::now());
        }
        if let Phase::Head(_) = state.phase {
            let room = MAX_HEAD.saturating_sub(state.head.len());
            state.head.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
    }

    fn has_written(&self, result: &Poll<io::Result<usize>>) {
        let mut state = self.lock();
        state.blocked = match result {
            Poll::Pending => state.blocked.or(Some(Instant::now())),
            Poll::Ready(_) => None,
        };
    }

    fn poll_ready(&self, interest: Interest, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if interest == Interest::READABLE {
            either!(&self.socket, stream => stream.poll_read_ready(cx))
        } else {
            either!(&self.socket, stream => stream.poll_write_ready(cx))
        }
    }

    fn poll_write_with(
        &self,
        cx: &mut Context<'_>,
        write: impl Fn(&Socket) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let result = loop {
            match self.poll_ready(Interest::WRITABLE, cx) {
                Poll::Pending => break Poll::Pending,
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) => match write(&self.socket) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    done => break Poll::Ready(done),
                },
            }
        };
        self.has_written(&result);
        result
    }
}

/// What is wrong with a request's head, as far as hyper does not say so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Head {
    Fine,
    /// The host or the body's length is told more than once: what stands between the two ends is anybody's guess.
    Ambiguous,
    TooLong,
}

impl Head {
    /// `bytes` begin with a head and are cut at the most that a head may have.
    fn of(bytes: &[u8]) -> Self {
        let ends = |mark: &[u8]| bytes.windows(mark.len()).position(|found| found == mark);
        let end = ends(b"\r\n\r\n").or_else(|| ends(b"\n\n"));
        let head = &bytes[..end.unwrap_or(bytes.len())];
        let count = |name: &[u8]| {
            let lines = head.split(|&b| b == b'\n').skip(1);
            let names = lines.filter_map(|line| line.split(|&b| b == b':').next());
            names.filter(|found| found.trim_ascii().eq_ignore_ascii_case(name)).count()
        };
        match () {
            () if end.is_none() && bytes.len() >= MAX_HEAD => Head::TooLong,
            () if count(b"host") > 1 || count(b"content-length") + count(b"transfer-encoding") > 1 => Head::Ambiguous,
            () => Head::Fine,
        }
    }
}

/// The end of a connection that hyper holds.
pub(crate) struct Wire(pub(crate) Arc<Watch>);

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.poll_ready(Interest::READABLE, cx))?;
            let room = buf.initialize_unfilled();
            match either!(&self.0.socket, stream => stream.try_read(room)) {
                Ok(n) => {
                    self.0.has_read(&room[..n]);
                    buf.advance(n);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.poll_write_with(cx, |socket| either!(socket, stream => stream.try_write(bytes)))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_write_with(cx, |socket| either!(socket, stream => stream.try_write_vectored(parts)))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.shut();
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::{Head, MAX_HEAD};

    #[test]
    fn heads_that_say_too_much_are_found() {
        let both = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\ncontent-length : 3\r\n\r\nabc";
        assert_eq!(Head::of(both), Head::Ambiguous);
        let body = b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nTransfer-Encoding: chunked\r\n";
        assert_eq!(Head::of(body), Head::Fine);
        let value = b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nX: content-length: 3\r\n\r\n";
        assert_eq!(Head::of(value), Head::Fine);
        assert_eq!(Head::of(&vec![b'a'; MAX_HEAD]), Head::TooLong);
        assert_eq!(Head::of(b""), Head::Fine, "a head that was read with the request before");
    }
}
