//! The measurement: prefill of an interval, then greedy decode of one sequence or of copies side by side. Taking a state and
//! putting it back is outside all timings.

use std::time::{Duration, Instant};

use anyhow::bail;
use ds4_model::{Batch, Best, LogitRows, Model, SlotId, Span};

/// A model, a text, and how far slot 0 is in it.
pub(super) struct Runner<'a> {
    model: Box<dyn Model>,
    text: &'a [u32],
    /// Whether to stop; asked between steps.
    stop: &'a dyn Fn() -> bool,
}

/// Stopped from outside.
#[derive(Debug, thiserror::Error)]
#[error("stopped")]
pub(super) struct Stopped;

impl<'a> Runner<'a> {
    pub(super) fn new(model: Box<dyn Model>, text: &'a [u32], stop: &'a dyn Fn() -> bool) -> Runner<'a> {
        Runner { model, text, stop }
    }

    /// Serialised size of the state of the first `at` tokens.
    pub(super) fn state_bytes(&self, at: u32) -> u64 {
        self.model.state_bytes(0..at)
    }

    /// What `from..to` of the text takes, and the logits behind it.
    pub(super) fn prefill(&mut self, from: u32, to: u32) -> anyhow::Result<(Duration, Vec<f32>)> {
        let rows = self.model.limits().max_rows;
        let mut logits = vec![0.0; self.model.shape().n_vocab];
        let started = Instant::now();
        let mut pos = from;
        while pos < to {
            self.check_stop()?;
            let len = rows.min(to - pos);
            let last = pos + len == to;
            let (wanted, out) = if last { (LogitRows::Last, &mut logits[..]) } else { (LogitRows::None, &mut [][..]) };
            let tokens = &self.text[pos as usize..(pos + len) as usize];
            self.model.forward(&Batch { tokens, spans: &[Span { slot: 0, pos, len, logits: wanted }] }, out)?;
            pos += len;
        }
        let taken = started.elapsed();
        finite(Best::of(&logits))?;
        Ok((taken, logits))
    }

    /// The state at `at` of slot 0, as far as later tokens overwrite it.
    pub(super) fn snapshot(&mut self, at: u32) -> anyhow::Result<Vec<u8>> {
        let mut state = Vec::new();
        self.model.save(0, at..at, &mut state)?;
        Ok(state)
    }

    /// Puts slot 0 back to `at`.
    pub(super) fn restore(&mut self, at: u32, state: &[u8]) -> anyhow::Result<()> {
        Ok(self.model.load(0, at..at, &mut &*state)?)
    }

    /// Makes slots 0 to `copies - 1` equal.
    pub(super) fn fork(&mut self, at: u32, copies: u32) -> anyhow::Result<()> {
        for slot in 1..copies {
            self.model.copy(0, slot, at)?;
        }
        Ok(())
    }

    /// What each of `n` greedy steps takes behind `at`. Every copy begins with another of the best tokens, so that they do
    /// not all choose the same experts. The end of a turn is a token like any other: all rows have the same length.
    pub(super) fn decode(&mut self, at: u32, n: u32, copies: u32, logits: &[f32]) -> anyhow::Result<Vec<Duration>> {
        let mut tokens = best_first(logits, copies as usize);
        let mut best = vec![Best::default(); tokens.len()];
        let mut steps = Vec::with_capacity(n as usize);
        for step in 0..n {
            self.check_stop()?;
            let started = Instant::now();
            let span = |slot: SlotId| Span { slot, pos: at + step, len: 1, logits: LogitRows::Last };
            let spans: Vec<Span> = (0..copies).map(span).collect();
            self.model.forward_best(&Batch { tokens: &tokens, spans: &spans }, &mut best)?;
            tokens.iter_mut().zip(&best).for_each(|(token, best)| *token = best.id);
            steps.push(started.elapsed());
            best.iter().try_for_each(|&best| finite(best))?;
        }
        Ok(steps)
    }

    fn check_stop(&self) -> anyhow::Result<()> {
        if (self.stop)() { Err(Stopped.into()) } else { Ok(()) }
    }
}

/// The `n` best tokens, best first; from the first again if there are not so many.
fn best_first(logits: &[f32], n: usize) -> Vec<u32> {
    let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
    ids.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]));
    ids.into_iter().cycle().take(n).collect()
}

fn finite(best: Best) -> anyhow::Result<()> {
    if best.logit.is_finite() { Ok(()) } else { bail!("logit {} is {}, expected a finite number", best.id, best.logit) }
}

/// Tokens a second of prefill and of decode of a walk over the whole vocabulary, so that routing is not flattered by
/// repetition.
pub(crate) fn speed(model: Box<dyn Model>, prompt: u32, n: u32) -> anyhow::Result<(f64, f64)> {
    let n_vocab = model.shape().n_vocab as u64;
    let text: Vec<u32> = (0..u64::from(prompt)).map(|i| (i * 7919 % n_vocab) as u32).collect();
    let mut runner = Runner::new(model, &text, &|| false);
    let (prefill, logits) = runner.prefill(0, prompt)?;
    let decode: Duration = runner.decode(prompt, n, 1, &logits)?.iter().sum();
    Ok((f64::from(prompt) / prefill.as_secs_f64(), f64::from(n) / decode.as_secs_f64()))
}
