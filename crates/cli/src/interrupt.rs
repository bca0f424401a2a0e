//! Ctrl+C and the request to terminate. Owns the one watcher of signals and what it may do; the work that stops on them asks
//! `requested` between steps. Idle (reading a prompt, loading a model, waiting for a line) the program ends at once; busy,
//! the first signal asks the work to stop and the second ends the program, whatever it is doing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use ds4_engine::Cancel;

use crate::failure::{Interrupted, leave};
use crate::terminal::Settings;

/// Shared between the watcher's thread and the work.
#[derive(Clone, Default)]
pub(crate) struct Interrupt {
    busy: Arc<AtomicBool>,
    requested: Arc<AtomicBool>,
    terminated: Arc<AtomicBool>,
}

/// Which signal came.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Signal {
    Interrupt,
    #[cfg(unix)]
    Terminate,
}

impl Interrupt {
    /// Begins to watch. Once per process.
    pub(crate) fn install() -> anyhow::Result<Self> {
        let interrupt = Self::default();
        let watched = interrupt.clone();
        let settings = Settings::take();
        watch(move |signal| watched.signal(signal, &settings)).context("cannot watch for Ctrl+C")?;
        Ok(interrupt)
    }

    fn signal(&self, signal: Signal, settings: &Settings) {
        if signal != Signal::Interrupt {
            self.terminated.store(true, Ordering::SeqCst);
        }
        let again = self.requested.swap(true, Ordering::SeqCst);
        if again || !self.busy.load(Ordering::SeqCst) {
            settings.restore();
            leave(self.code());
        }
    }

    /// Work begins that stops by itself when asked.
    pub(crate) fn begin(&self) {
        self.requested.store(false, Ordering::SeqCst);
        self.busy.store(true, Ordering::SeqCst);
    }

    /// The work is over; whether it had been asked to stop.
    pub(crate) fn end(&self) -> bool {
        self.busy.store(false, Ordering::SeqCst);
        self.requested.swap(false, Ordering::SeqCst)
    }

    pub(crate) fn requested(&self) -> bool {
        self.requested.load(Ordering::SeqCst)
    }

    /// Whether the program itself was asked to end, not only its work.
    pub(crate) fn terminated(&self) -> bool {
        self.terminated.load(Ordering::SeqCst)
    }

    /// The end of a program whose work was stopped.
    pub(crate) fn ended(&self) -> anyhow::Error {
        Interrupted { code: self.code() }.into()
    }

    /// 128 and the number of the signal, as shells report it.
    fn code(&self) -> u8 {
        if self.terminated() { 143 } else { 130 }
    }

    /// The flag itself, for the engine to look at between steps.
    pub(crate) fn cancel(&self) -> Cancel {
        Cancel::from(Arc::clone(&self.requested))
    }
}

/// Calls `act` for every signal, on a thread of its own.
#[cfg(unix)]
fn watch(act: impl Fn(Signal) + Send + 'static) -> anyhow::Result<()> {
    use signal_hook::consts::{SIGINT, SIGTERM};

    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            act(if signal == SIGTERM { Signal::Terminate } else { Signal::Interrupt });
        }
    })?;
    Ok(())
}

/// Calls `act` for every Ctrl+C.
#[cfg(not(unix))]
fn watch(act: impl Fn(Signal) + Send + 'static) -> anyhow::Result<()> {
    Ok(ctrlc::set_handler(move || act(Signal::Interrupt))?)
}
