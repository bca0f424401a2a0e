//! The process's HTTP side from before the model is loaded until the last answer is sent: sockets first, then a gate that
//! says `loading`, then the routes.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use ds4_engine::EngineHandle;
use ds4_text::Tokenizer;
use tokio::runtime::{Builder, Runtime};

use crate::app::{App, ModelInfo};
use crate::config::ServerConfig;
use crate::connection::Connections;
use crate::gate::Gate;
use crate::listen::{self, Listener};
use crate::routes;

/// All routes, without sockets.
pub fn router(config: ServerConfig, engine: EngineHandle, tokenizer: Arc<Tokenizer>, model: ModelInfo) -> axum::Router {
    routes::router(App::new(engine, tokenizer, config, model))
}

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address that cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// As it was given.
        address: String,
        /// The system's reason.
        source: io::Error,
    },
    /// No threads for the sockets.
    #[error("cannot start")]
    System(#[from] io::Error),
}

/// A server whose sockets are open. Until `run` it answers that the model is loading.
pub struct Server {
    runtime: Runtime,
    gate: Arc<Gate>,
    config: ServerConfig,
    addresses: Vec<SocketAddr>,
}

impl Server {
    /// Opens the sockets and begins to answer.
    ///
    /// # Errors
    /// If an address cannot be listened on.
    pub fn bind(config: ServerConfig) -> Result<Self, StartError> {
        let runtime = Builder::new_multi_thread().worker_threads(2).thread_name("ds4-http").enable_all().build()?;
        let gate = Arc::new(Gate::default());
        let entered = runtime.enter();
        let listeners = listen::open(&config)?;
        let addresses = listeners.iter().filter_map(Listener::address).collect();
        let connections = Connections::new(&config, Arc::clone(&gate));
        for listener in listeners {
            runtime.spawn(connections.clone().accept(listener));
        }
        drop(entered);
        Ok(Self { runtime, gate, config, addresses })
    }

    /// Where it listens.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Takes the part of the model that is loaded, 0 to 1, from any thread.
    pub fn progress(&self) -> impl Fn(f64) + Send + Sync + 'static {
        let gate = Arc::clone(&self.gate);
        move |part| gate.loaded(part)
    }

    /// Serves until asked to stop. `ready` is called once requests are taken.
    ///
    /// # Errors
    /// If signals cannot be watched.
    pub fn run(
        self,
        engine: EngineHandle,
        tokenizer: Arc<Tokenizer>,
        model: ModelInfo,
        ready: impl FnOnce(),
    ) -> io::Result<()> {
        let app = App::new(engine, tokenizer, self.config, model);
        self.gate.open(routes::router(app));
        ready();
        self.runtime.block_on(stopped())
    }
}

/// Returns when the process is asked to end.
async fn stopped() -> io::Result<()> {
    #[cfg(unix)]
    {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! { done = tokio::signal::ctrl_c() => done, _ = terminate.recv() => Ok(()) }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}
