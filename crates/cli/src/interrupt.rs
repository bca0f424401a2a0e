//! Ctrl+C and the request to terminate. Owns the one signal handler and what it may do; the work that stops on it asks
//! `requested` between steps. Idle (loading a model, waiting for a line) the program ends at once with code 130; busy, the
//! first signal asks the work to stop and the second ends the program.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use ds4_engine::Cancel;

use crate::terminal::Settings;

/// Shared between the handler's thread and the work.
#[derive(Clone, Default)]
pub(crate) struct Interrupt {
    busy: Arc<AtomicBool>,
    requested: Arc<AtomicBool>,
}

impl Interrupt {
    /// Installs the handler. Once per process.
    pub(crate) fn install() -> anyhow::Result<Self> {
        let interrupt = Self::default();
        let handler = interrupt.clone();
        let settings = Settings::take();
        ctrlc::set_handler(move || handler.signal(&settings)).context("cannot watch for Ctrl+C")?;
        Ok(interrupt)
    }

    fn signal(&self, settings: &Settings) {
        let again = self.requested.swap(true, Ordering::SeqCst);
        if again || !self.busy.load(Ordering::SeqCst) {
            settings.restore();
            std::process::exit(130);
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

    /// The flag itself, for the engine to look at between steps.
    pub(crate) fn cancel(&self) -> Cancel {
        Cancel::from(Arc::clone(&self.requested))
    }
}
