//! Connections: how many there may be, how long they may take, and the loop that turns bytes into requests. A connection that
//! ends takes the request under way with it, and so cancels its answer.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{MissedTickBehavior, interval};

use crate::config::ServerConfig;
use crate::gate::{Gate, Peer};
use crate::lifecycle::Held;
use crate::listen::Listener;
use crate::wire::{Patience, Socket, Watch, Wire};

/// Bytes of a request's head, and headers in it.
const MAX_HEAD: usize = 64 << 10;
const MAX_HEADERS: usize = 100;
/// Rest after a failed accept, when the system is out of something.
const PAUSE: Duration = Duration::from_millis(50);
/// How often a connection is looked at.
const TICK: Duration = Duration::from_millis(100);
/// When the system asks a silent peer whether it is still there.
const SILENCE: Duration = Duration::from_secs(30);

/// What all connections have in common.
#[derive(Clone)]
pub(crate) struct Connections {
    gate: Arc<Gate>,
    free: Arc<Semaphore>,
    http: http1::Builder,
    patience: Patience,
}

impl Connections {
    pub(crate) fn new(config: &ServerConfig, gate: Arc<Gate>) -> Self {
        let mut http = http1::Builder::new();
        http.max_headers(MAX_HEADERS).max_buf_size(MAX_HEAD);
        let free = Arc::new(Semaphore::new(config.max_connections));
        let patience = Patience { head: config.io_timeout, idle: config.idle_timeout };
        Self { gate, free, http, patience }
    }

    /// Serves a socket for ever. Beyond the most connections the next ones wait in the system's queue.
    pub(crate) async fn accept(self, listener: Listener) {
        loop {
            let Ok(place) = Arc::clone(&self.free).acquire_owned().await else { return };
            let accepted = match &listener {
                Listener::Tcp(listener, _) => listener.accept().await.map(|(stream, _)| network(stream)),
                #[cfg(unix)]
                Listener::Unix(listener, _) => {
                    listener.accept().await.map(|(stream, _)| (Socket::Unix(stream), Peer { address: None }))
                }
            };
            match accepted {
                Ok((socket, peer)) => drop(tokio::spawn(self.clone().serve(socket, peer, place))),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    async fn serve(self, socket: Socket, peer: Peer, _place: OwnedSemaphorePermit) {
        let watch = Watch::new(socket);
        let (gate, watched) = (self.gate, Arc::clone(&watch));
        let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
            let (gate, under_way) = (Arc::clone(&gate), UnderWay(Arc::clone(&watched)));
            let head = watched.begin();
            async move {
                let response = gate.answer(request.map(Body::new), peer, head).await;
                Ok::<_, Infallible>(response.map(|body| Held::body(body, under_way)))
            }
        });
        let connection = self.http.serve_connection(TokioIo::new(Wire(Arc::clone(&watch))), service);
        let mut connection = std::pin::pin!(connection);
        let mut clock = interval(TICK);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // What went wrong on the wire is the client's to know.
                _ = connection.as_mut() => break,
                _ = clock.tick() => if watch.is_over(self.patience) { return },
            }
        }
        watch.linger().await;
    }
}

/// A request being answered on a connection.
struct UnderWay(Arc<Watch>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.end();
    }
}

fn network(stream: TcpStream) -> (Socket, Peer) {
    // Events are small and wanted at once; a peer without power says no goodbye. Neither is worth losing a connection for.
    let _ = stream.set_nodelay(true);
    let keepalive = TcpKeepalive::new().with_time(SILENCE);
    #[cfg(unix)]
    let keepalive = keepalive.with_interval(Duration::from_secs(10)).with_retries(3);
    let _ = SockRef::from(&stream).set_tcp_keepalive(&keepalive);
    let local = stream.local_addr().map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.ip().to_canonical());
    (Socket::Tcp(stream), Peer { address: Some(local) })
}
