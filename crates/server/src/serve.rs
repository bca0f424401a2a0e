//! Sockets: listening, connections, the end.

use std::io;
use std::sync::Arc;

use ds4_engine::EngineHandle;
use ds4_text::Tokenizer;
use tokio::net::TcpListener;

use crate::app::{App, ModelInfo};
use crate::config::ServerConfig;
use crate::routes;

/// All routes, without sockets.
pub fn router(config: ServerConfig, engine: EngineHandle, tokenizer: Arc<Tokenizer>, model: ModelInfo) -> axum::Router {
    routes::router(App::new(engine, tokenizer, config, model))
}

/// Serves until asked to stop. `ready` hears the addresses once they listen.
///
/// # Errors
/// If an address cannot be listened on.
pub fn serve(
    config: ServerConfig,
    engine: EngineHandle,
    tokenizer: Arc<Tokenizer>,
    model: ModelInfo,
    ready: impl FnOnce(&[std::net::SocketAddr]),
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async move {
        let mut listeners = Vec::new();
        for address in &config.addresses {
            listeners.push(TcpListener::bind(address).await?);
        }
        let bound: Vec<_> = listeners.iter().map(TcpListener::local_addr).collect::<io::Result<_>>()?;
        ready(&bound);
        let app = App::new(engine, tokenizer, config, model);
        let router = routes::router(app);
        let serving = listeners.into_iter().map(|listener| {
            let router = router.clone();
            async move { axum::serve(listener, router).with_graceful_shutdown(stopped()).await }
        });
        futures_util::future::try_join_all(serving).await.map(drop)
    })
}

/// Returns when the process is asked to end.
async fn stopped() {
    let interrupt = tokio::signal::ctrl_c();
    #[cfg(unix)]
    {
        let Ok(mut terminate) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) else {
            let _ = interrupt.await;
            return;
        };
        tokio::select! { _ = interrupt => {}, _ = terminate.recv() => {} }
    }
    #[cfg(not(unix))]
    let _ = interrupt.await;
}
