//! Connections: how many there may be, how long they may take, and the loop that turns bytes into requests. A connection that
//! ends takes the request under way with it, and so cancels its answer.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;

use crate::config::ServerConfig;
use crate::gate::Gate;
use crate::listen::Listener;

/// Bytes of a request's head.
const MAX_HEAD: usize = 64 << 10;
const MAX_HEADERS: usize = 100;
/// Rest after a failed accept, when the system is out of something.
const PAUSE: Duration = Duration::from_millis(50);

/// What all connections have in common.
#[derive(Clone)]
pub(crate) struct Connections {
    gate: Arc<Gate>,
    free: Arc<Semaphore>,
    http: http1::Builder,
}

impl Connections {
    pub(crate) fn new(config: &ServerConfig, gate: Arc<Gate>) -> Self {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(config.idle_timeout);
        http.max_headers(MAX_HEADERS).max_buf_size(MAX_HEAD);
        Self { gate, free: Arc::new(Semaphore::new(config.max_connections)), http }
    }

    /// Serves a socket for ever. Beyond the most connections the next ones wait in the system's queue.
    pub(crate) async fn accept(self, listener: Listener) {
        loop {
            let Ok(place) = Arc::clone(&self.free).acquire_owned().await else { return };
            let of_one = self.clone();
            match &listener {
                Listener::Tcp(listener, _) => match listener.accept().await {
                    Ok((stream, _)) => {
                        // Events are small and wanted at once.
                        let _ = stream.set_nodelay(true);
                        tokio::spawn(async move {
                            of_one.serve(stream).await;
                            drop(place);
                        });
                    }
                    Err(_) => tokio::time::sleep(PAUSE).await,
                },
                #[cfg(unix)]
                Listener::Unix(listener, _) => match listener.accept().await {
                    Ok((stream, _)) => {
                        tokio::spawn(async move {
                            of_one.serve(stream).await;
                            drop(place);
                        });
                    }
                    Err(_) => tokio::time::sleep(PAUSE).await,
                },
            }
        }
    }

    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let gate = self.gate;
        let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
            let gate = Arc::clone(&gate);
            async move { Ok::<_, Infallible>(gate.answer(request.map(Body::new)).await) }
        });
        // What went wrong on the wire is the client's to know.
        let _ = self.http.serve_connection(TokioIo::new(stream), service).await;
    }
}
