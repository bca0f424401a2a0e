//! The process's HTTP side from before the model is loaded until the last answer is sent: sockets first, then a gate that
//! says `loading`, then the routes, then an end that lets running answers finish (server.md 15).

use std::io;
use std::net::SocketAddr;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ds4_engine::{EngineHandle, Error as EngineError};
use ds4_text::Tokenizer;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio::time::{interval, sleep, timeout};
use tracing::{error, info, warn};

use crate::app::{App, ModelInfo};
use crate::config::ServerConfig;
use crate::connection::Connections;
use crate::gate::Gate;
use crate::keys::Keys;
use crate::lifecycle::{Lifecycle, Stage};
use crate::listen::{self, Listener};
use crate::origin::Origins;
use crate::signals::{Signal, Signals};
use crate::{log, routes};

/// How often the engine is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// An engine that completes no step for so long, with something to do, is stuck.
const WEDGED: Duration = Duration::from_mins(1);
/// For answers that were cut off to say so.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// For the engine to put away what it holds.
const PUT_AWAY: Duration = Duration::from_secs(20);

/// All routes, without sockets.
///
/// # Panics
/// If the trace cannot be opened.
pub fn router(config: ServerConfig, engine: EngineHandle, tokenizer: Arc<Tokenizer>, model: ModelInfo) -> axum::Router {
    let app = App::new(engine, tokenizer, config, model, Lifecycle::default());
    routes::router(app.expect("a trace that can be opened"))
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
    /// A key file that cannot be used.
    #[error("cannot use API key file: {file}")]
    Keys {
        /// As it was given.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// No threads for the sockets, or no signals.
    #[error("cannot start")]
    System(#[from] io::Error),
}

/// A server whose sockets are open. Until `run` has its model it answers that it is loading.
pub struct Server {
    runtime: Runtime,
    gate: Arc<Gate>,
    config: ServerConfig,
    addresses: Vec<SocketAddr>,
    signals: Signals,
    switch: Switch,
}

/// What a server answers with.
pub struct Service {
    /// The door to the model.
    pub engine: EngineHandle,
    /// Its tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// What is told of it.
    pub model: ModelInfo,
}

/// How a server ended.
#[derive(Debug)]
pub enum End {
    /// It was asked to, and what ran is finished or was told.
    Stopped,
    /// It was asked a second time, and nothing was waited for.
    Forced,
    /// The engine failed.
    Failed(EngineError),
}

/// Asks a server to end, as a signal does.
#[derive(Clone, Default)]
pub struct Switch(Arc<Notify>);

impl Switch {
    /// The first time running answers are finished, the second time they are not.
    pub fn off(&self) {
        self.0.notify_one();
    }
}

impl Server {
    /// Opens the sockets and begins to answer.
    ///
    /// # Errors
    /// If an address cannot be listened on, or the key file holds no keys.
    pub fn bind(config: ServerConfig) -> Result<Self, StartError> {
        // One thread: a second one would be woken for every token and find nothing to do. What takes long is done aside.
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("ds4-http").enable_all().build()?;
        let keys = Keys::load(&config).map_err(|source| StartError::Keys {
            file: config.api_key_file.clone().unwrap_or_default().display().to_string(),
            source,
        })?;
        let entered = runtime.enter();
        let listeners = listen::open(&config)?;
        let addresses: Vec<SocketAddr> = listeners.iter().filter_map(Listener::address).collect();
        if let (Some(open), false) = (addresses.iter().find(|address| !address.ip().is_loopback()), keys.needed()) {
            warn!(address = %open, "anyone who reaches this address may use the server: there is no API key");
        }
        let gate = Arc::new(Gate::new(keys, Origins::new(&config)));
        let signals = Signals::watch()?;
        let connections = Connections::new(&config, Arc::clone(&gate));
        for listener in listeners {
            runtime.spawn(connections.clone().accept(listener));
        }
        drop(entered);
        Ok(Self { runtime, gate, config, addresses, signals, switch: Switch::default() })
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

    /// What ends it from within the process.
    pub fn switch(&self) -> Switch {
        self.switch.clone()
    }

    /// Loads the model, then serves until asked to stop. `ready` is called once requests are taken.
    ///
    /// # Errors
    /// Whatever loading ran into, and a trace that cannot be opened.
    pub fn run<E: From<io::Error> + Send + 'static>(
        mut self,
        load: impl FnOnce() -> Result<Service, E> + Send + 'static,
        ready: impl FnOnce(),
    ) -> Result<End, E> {
        let runtime = self.runtime;
        let load = runtime.spawn_blocking(load);
        let end = runtime.block_on(async {
            let mut asked = Asked { signals: &mut self.signals, switch: &self.switch };
            let service = tokio::select! {
                loaded = load => loaded.unwrap_or_else(|panic| resume_unwind(panic.into_panic()))?,
                () = asked.end(&self.gate, None) => return Ok(End::Stopped),
            };
            let Service { engine, tokenizer, model } = service;
            let app = App::new(engine, tokenizer, self.config, model, self.gate.lifecycle.clone())?;
            self.gate.open(routes::router(Arc::clone(&app)), Arc::clone(&app));
            notify("READY=1");
            ready();
            Ok(live(&self.gate, &app, asked).await)
        });
        // What still loads or hangs is not waited for; listeners are closed and socket files removed.
        runtime.shutdown_timeout(Duration::from_millis(100));
        end
    }
}

/// From the first request to the last.
async fn live(gate: &Gate, app: &Arc<App>, mut asked: Asked<'_>) -> End {
    tokio::select! {
        () = asked.end(gate, Some(app)) => {}
        error = broken(app) => {
            error!(%error, "the engine failed");
            gate.lifecycle.enter(Stage::Draining);
            last_words(gate).await;
            return End::Failed(error);
        }
    }
    let running = gate.lifecycle.running();
    info!(running, "stopping");
    notify("STOPPING=1");
    gate.lifecycle.enter(Stage::Draining);
    let ended = tokio::select! {
        () = drain(gate, app) => End::Stopped,
        () = asked.end(gate, Some(app)) => End::Forced,
    };
    info!(forced = matches!(ended, End::Forced), "stopped");
    ended
}

/// Lets answers finish, then cuts them off; then the engine ends.
async fn drain(gate: &Gate, app: &Arc<App>) {
    if timeout(app.config.drain_timeout, finished(gate)).await.is_err() {
        warn!(running = gate.lifecycle.running(), "cutting off what still runs");
        gate.lifecycle.enter(Stage::Cutting);
        last_words(gate).await;
    }
    let app_of_thread = Arc::clone(app);
    let stopped = tokio::task::spawn_blocking(move || {
        // First, while the directory is locked for this process.
        if !app_of_thread.flush() {
            warn!("turns and responses could not be kept in time");
        }
        app_of_thread.engine.shutdown(PUT_AWAY)
    });
    match timeout(PUT_AWAY + LAST_WORDS, stopped).await {
        Ok(Ok(saved)) if app.engine.kv_stats().is_some() => {
            info!(saved = saved.saved, unsaved = saved.unsaved, complete = saved.complete, "sequences were put away");
        }
        Ok(_) => {}
        Err(_) => warn!("the engine did not end in time"),
    }
}

async fn last_words(gate: &Gate) {
    // Whoever does not read until then has left.
    let _ = timeout(LAST_WORDS, finished(gate)).await;
}

async fn finished(gate: &Gate) {
    while gate.lifecycle.running() > 0 {
        sleep(Duration::from_millis(10)).await;
    }
}

/// Watches the engine; returns if it failed.
async fn broken(app: &App) -> EngineError {
    let mut clock = interval(LOOK);
    let (mut steps, mut since, mut known) = (0, Instant::now(), None);
    loop {
        clock.tick().await;
        if let Some(error) = app.engine.failure() {
            return error;
        }
        let trouble = app.engine.trouble();
        if trouble != known {
            if let Some(error) = &trouble {
                error!(%error, waiting = app.engine.waiting(), "the device failed: opening the model again");
            } else {
                info!("the model is open again");
            }
            known = trouble;
        }
        let activity = app.engine.activity();
        let idle = activity.running == 0 && app.engine.waiting() == 0 && app.answers.list().is_empty();
        if activity.steps != steps || idle {
            (steps, since) = (activity.steps, Instant::now());
        }
        let wedged = since.elapsed() > WEDGED;
        if app.wedged.swap(wedged, Ordering::Relaxed) != wedged {
            warn!(wedged, steps, "whether the engine is stuck has changed");
        }
    }
}

/// Who may ask the server for something.
struct Asked<'a> {
    signals: &'a mut Signals,
    switch: &'a Switch,
}

impl Asked<'_> {
    /// Returns when somebody asks for the end; does what else is asked for meanwhile.
    async fn end(&mut self, gate: &Gate, app: Option<&App>) {
        loop {
            let signal = tokio::select! {
                signal = self.signals.next() => signal,
                () = self.switch.0.notified() => Signal::End,
            };
            match signal {
                Signal::End => return,
                Signal::Reload => reload(gate, app),
                Signal::Dump => dump(gate, app),
            }
        }
    }
}

fn reload(gate: &Gate, app: Option<&App>) {
    log::reopen();
    if let Some(trace) = app.and_then(|app| app.trace.as_ref()) {
        trace.reopen();
    }
    match gate.keys.reload() {
        Ok(()) => info!("API keys, log and trace were opened again"),
        Err(error) => error!(%error, "the API keys stay as they are: their file cannot be used"),
    }
}

/// What the server is doing, for the log.
fn dump(gate: &Gate, app: Option<&App>) {
    let Some(app) = app else {
        info!("dump: loading");
        return;
    };
    let activity = app.engine.activity();
    info!(
        stage = ?gate.lifecycle.stage(), http = gate.lifecycle.running(), running = activity.running,
        waiting = app.engine.waiting(), slots = app.engine.limits().slots, held = activity.held, steps = activity.steps,
        wedged = app.wedged.load(Ordering::Relaxed), "dump"
    );
    for live in app.answers.list() {
        info!(
            request = %live.request, phase = live.phase(), prompt = live.prompt_len,
            done = live.done.load(Ordering::Relaxed), cached = live.cached.load(Ordering::Relaxed),
            tokens = live.drawn.load(Ordering::Relaxed), age = live.started.elapsed().as_secs_f64(), "dump"
        );
    }
}

/// Tells the service manager, if there is one.
#[cfg(unix)]
fn notify(state: &str) {
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Custom(state)]) {
        warn!(%error, "cannot tell the service manager");
    }
}

/// Windows has no socket to tell one on.
#[cfg(not(unix))]
fn notify(_state: &str) {}
