//! The measurement: prefill of an interval, then greedy decode of one sequence or of copies side by side. Taking a state and
//! putting it back is outside all timings.

use std::time::{Duration, Instant};

use anyhow::bail;
use ds4_model::{Batch, LogitRows, Model, SlotId, Span};

/// A model, a text, and how far slot 0 is in it.
pub(super) struct Runner<'a> {
    model: Box<dyn Model>,
    text: &'a [u32],
    /// Never generated: rows of different lengths could not be compared.
    eos: Option<u32>,
    /// Whether to stop; asked between steps.
    stop: &'a dyn Fn() -> bool,
}

/// Stopped from outside.
#[derive(Debug, thiserror::Error)]
#[error("stopped")]
pub(super) struct Stopped;

impl<'a> Runner<'a> {
    pub(super) fn new(
        model: Box<dyn Model>,
        text: &'a [u32],
        eos: Option<u32>,
        stop: &'a dyn Fn() -> bool,
    ) -> Runner<'a> {
        Runner { model, text, eos, stop }
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
        finite(&logits)?;
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
    /// not all choose the same experts.
    pub(super) fn decode(&mut self, at: u32, n: u32, copies: u32, logits: &[f32]) -> anyhow::Result<Vec<Duration>> {
        let n_vocab = logits.len();
        let mut tokens = self.best(logits, copies as usize);
        let mut rows = vec![0.0; n_vocab * copies as usize];
        let mut steps = Vec::with_capacity(n as usize);
        for step in 0..n {
            self.check_stop()?;
            let started = Instant::now();
            let span = |slot: SlotId| Span { slot, pos: at + step, len: 1, logits: LogitRows::Last };
            let spans: Vec<Span> = (0..copies).map(span).collect();
            self.model.forward(&Batch { tokens: &tokens, spans: &spans }, &mut rows)?;
            for (token, row) in tokens.iter_mut().zip(rows.chunks(n_vocab)) {
                *token = self.best(row, 1)[0];
            }
            steps.push(started.elapsed());
            finite(&rows)?;
        }
        Ok(steps)
    }

    /// The `n` best tokens, best first, the end of a turn left out.
    fn best(&self, logits: &[f32], n: usize) -> Vec<u32> {
        let allowed = |id: &u32| Some(*id) != self.eos;
        if n == 1 {
            return vec![highest(logits, self.eos)];
        }
        let mut ids: Vec<u32> = (0..logits.len() as u32).filter(allowed).collect();
        ids.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]));
        ids.into_iter().cycle().take(n).collect()
    }

    fn check_stop(&self) -> anyhow::Result<()> {
        if (self.stop)() { Err(Stopped.into()) } else { Ok(()) }
    }
}

/// The first of the highest logits but that of `without`. Part of every timed step, so it goes through memory in whole vectors.
fn highest(logits: &[f32], without: Option<u32>) -> u32 {
    const LANES: usize = 32;
    let top = |part: &[f32]| {
        let (chunks, rest) = part.as_chunks::<LANES>();
        let mut lanes = [f32::NEG_INFINITY; LANES];
        for chunk in chunks {
            lanes.iter_mut().zip(chunk).for_each(|(top, &z)| *top = if z > *top { z } else { *top });
        }
        lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |top, &z| if z > top { z } else { top })
    };
    let cut = without.map_or(logits.len(), |id| (id as usize).min(logits.len()));
    let (before, after) = (&logits[..cut], logits.get(cut + 1..).unwrap_or(&[]));
    let (first, second) = (top(before), top(after));
    let place = |part: &[f32], z: f32| part.iter().position(|&other| other == z);
    let found = if first >= second { place(before, first) } else { None };
    found.or_else(|| place(after, second).map(|at| at + cut + 1)).unwrap_or(0) as u32
}

fn finite(logits: &[f32]) -> anyhow::Result<()> {
    match logits.iter().position(|z| !z.is_finite()) {
        Some(at) => bail!("logit {at} is {}, expected a finite number", logits[at]),
        None => Ok(()),
    }
}

/// Tokens a second of prefill and of decode of a walk over the whole vocabulary, so that routing is not flattered by
/// repetition.
pub(crate) fn speed(model: Box<dyn Model>, prompt: u32, n: u32) -> anyhow::Result<(f64, f64)> {
    let n_vocab = model.shape().n_vocab as u64;
    let text: Vec<u32> = (0..u64::from(prompt)).map(|i| (i * 7919 % n_vocab) as u32).collect();
    let mut runner = Runner::new(model, &text, None, &|| false);
    let (prefill, logits) = runner.prefill(0, prompt)?;
    let decode: Duration = runner.decode(prompt, n, 1, &logits)?.iter().sum();
    Ok((f64::from(prompt) / prefill.as_secs_f64(), f64::from(n) / decode.as_secs_f64()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_logit_is_the_first_of_its_like_and_never_the_one_left_out() {
        let mut logits: Vec<f32> = (0..1000u32).map(|i| (i * 7919 % 997) as f32).collect();
        for (at, without) in [(999, None), (0, None), (500, Some(3)), (33, Some(34)), (34, Some(33))] {
            logits[at] = 2000.0;
            assert_eq!(highest(&logits, without), at as u32);
            logits[at] = 0.0;
        }
        (logits[70], logits[900], logits[5]) = (3000.0, 3000.0, 4000.0);
        assert_eq!(highest(&logits, Some(5)), 70);
        assert_eq!(highest(&[f32::NEG_INFINITY; 3], Some(0)), 1);
    }
}
