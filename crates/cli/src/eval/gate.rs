//! Pausing: a clock that can stand still, and a model that waits while it does. The model is wrapped from outside, so the
//! engine knows nothing of it.

use std::io::{Read, Write};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ds4_model::{Batch, Best, DraftRow, Limits, Model, Part, Result, Shape, SlotId, Variant};

/// Shared between the screen that pauses, the workers that measure and the model that waits.
#[derive(Clone)]
pub(super) struct Gate(Arc<(Mutex<Clock>, Condvar)>);

struct Clock {
    started: Instant,
    /// Time spent paused, except the pause that lasts.
    paused: Duration,
    since: Option<Instant>,
}

impl Gate {
    pub(super) fn new() -> Self {
        let clock = Clock { started: Instant::now(), paused: Duration::ZERO, since: None };
        Self(Arc::new((Mutex::new(clock), Condvar::new())))
    }

    fn clock(&self) -> std::sync::MutexGuard<'_, Clock> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins or ends a pause.
    pub(super) fn toggle(&self) {
        let mut clock = self.clock();
        match clock.since.take() {
            Some(since) => {
                clock.paused += since.elapsed();
                self.0.1.notify_all();
            }
            None => clock.since = Some(Instant::now()),
        }
    }

    pub(super) fn is_paused(&self) -> bool {
        self.clock().since.is_some()
    }

    /// Ends a pause if there is one.
    pub(super) fn open(&self) {
        if self.is_paused() {
            self.toggle();
        }
    }

    /// Time since the start without pauses.
    pub(super) fn elapsed(&self) -> Duration {
        let clock = self.clock();
        let now = clock.since.unwrap_or_else(Instant::now);
        now.duration_since(clock.started).saturating_sub(clock.paused)
    }

    /// Returns when there is no pause.
    pub(super) fn wait(&self) {
        let mut clock = self.clock();
        while clock.since.is_some() {
            clock = self.0.1.wait(clock).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A model whose steps wait while the gate is closed.
pub(super) struct Gated {
    pub(super) model: Box<dyn Model>,
    pub(super) gate: Gate,
}

impl Model for Gated {
    fn shape(&self) -> &Shape {
        self.model.shape()
    }

    fn limits(&self) -> Limits {
        self.model.limits()
    }

    fn forward(&mut self, batch: &Batch<'_>, logits: &mut [f32]) -> Result<()> {
        self.gate.wait();
        self.model.forward(batch, logits)
    }

    fn forward_best(&mut self, batch: &Batch<'_>, best: &mut [Best]) -> Result<()> {
        self.gate.wait();
        self.model.forward_best(batch, best)
    }

    fn save(&mut self, slot: SlotId, rows: Range<u32>, out: &mut dyn Write) -> Result<()> {
        self.model.save(slot, rows, out)
    }

    fn load(&mut self, slot: SlotId, rows: Range<u32>, src: &mut dyn Read) -> Result<()> {
        self.model.load(slot, rows, src)
    }

    fn copy(&mut self, from: SlotId, to: SlotId, n: u32) -> Result<()> {
        self.model.copy(from, to, n)
    }

    fn state_bytes(&self, rows: Range<u32>) -> u64 {
        self.model.state_bytes(rows)
    }

    fn parts(&self, n: u32) -> Vec<Part> {
        self.model.parts(n)
    }

    fn fingerprint(&self) -> [u8; 32] {
        self.model.fingerprint()
    }

    fn variant(&self) -> Variant {
        self.model.variant()
    }

    fn has_draft(&self) -> bool {
        self.model.has_draft()
    }

    fn draft(&mut self, rows: &[DraftRow], logits: &mut [f32]) -> Result<()> {
        self.gate.wait();
        self.model.draft(rows, logits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_stands_still_in_a_pause_and_waiters_go_on_after_it() {
        let gate = Gate::new();
        gate.toggle();
        let before = gate.elapsed();
        let waiter = gate.clone();
        let waiting = std::thread::spawn(move || waiter.wait());
        std::thread::sleep(Duration::from_millis(30));
        assert!(!waiting.is_finished() && gate.is_paused());
        assert_eq!(gate.elapsed(), before);
        gate.open();
        waiting.join().expect("it goes on");
        assert!(gate.elapsed() < before + Duration::from_millis(30));
    }
}
