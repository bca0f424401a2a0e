//! What is asked of a whole model on the device alone, with errors free to grow: how far its logits are from the CPU's, which
//! bits must be equal however a row came about, and that saved states go from device to device.

use ds4_gguf::Gguf;
use ds4_model::{Backend, Batch, Best, LogitRows, Model, Numerics, Result, Shape, Span, Transformer};

use crate::cases::token;
use crate::tally::distance;
use crate::tap::{Role, Tap};

/// Tokens of the sequence that is continued: past the window, past a row of 128 and past the selection limit of small models.
const PROMPT: u32 = 141;
/// Tokens it is continued by: rows of four close.
const STEPS: u32 = 6;

/// A model with tokens of its own for every slot.
pub(crate) struct Bench<M> {
    pub(crate) model: M,
    n_vocab: usize,
}

type Outcome = std::result::Result<String, String>;

impl<M: Model> Bench<M> {
    pub(crate) fn new(model: M) -> Bench<M> {
        let n_vocab = model.shape().n_vocab;
        Bench { model, n_vocab }
    }

    fn tokens(&self, text: u32, pos: u32, len: u32) -> Vec<u32> {
        (pos..pos + len).map(|pos| token(text, pos, self.n_vocab)).collect()
    }

    /// Evaluates `len` tokens of a text in a slot, logits of the last.
    fn feed(&mut self, slot: u32, text: u32, pos: u32, len: u32) -> Result<Vec<f32>> {
        self.feed_ids(slot, pos, &self.tokens(text, pos, len))
    }

    fn feed_ids(&mut self, slot: u32, pos: u32, tokens: &[u32]) -> Result<Vec<f32>> {
        let mut logits = vec![0.0; self.n_vocab];
        let span = Span { slot, pos, len: tokens.len() as u32, logits: LogitRows::Last };
        self.model.forward(&Batch { tokens, spans: &[span] }, &mut logits)?;
        Ok(logits)
    }

    /// Text 0 in slot 0, and what its continuation gives.
    fn prompt(&mut self) -> Result<()> {
        self.feed(0, 0, 0, PROMPT).map(drop)
    }

    /// Logits of the continuation of text 0, token by token.
    fn alone(&mut self, slot: u32) -> Result<Vec<f32>> {
        let mut all = Vec::new();
        for pos in PROMPT..PROMPT + STEPS {
            all.extend(self.feed(slot, 0, pos, 1)?);
        }
        Ok(all)
    }

    /// The same in slot `slot` of `0..n`, the other slots going on with texts of their own.
    fn among(&mut self, slot: u32, n: u32) -> Result<Vec<f32>> {
        let start = |other: u32| if other == slot { PROMPT } else { 3 + 5 * (other % 9) };
        for other in (0..n).filter(|other| *other != slot) {
            self.feed(other, other + 1, 0, start(other))?;
        }
        let mut all = Vec::new();
        for step in 0..STEPS {
            let place = |other: u32| (if other == slot { 0 } else { other + 1 }, start(other) + step);
            let tokens: Vec<u32> = (0..n).map(place).map(|(text, pos)| token(text, pos, self.n_vocab)).collect();
            let span = |other: u32| Span { slot: other, pos: place(other).1, len: 1, logits: LogitRows::Last };
            let spans: Vec<Span> = (0..n).map(span).collect();
            let mut logits = vec![0.0; n as usize * self.n_vocab];
            self.model.forward(&Batch { tokens: &tokens, spans: &spans }, &mut logits)?;
            all.extend(&logits[slot as usize * self.n_vocab..][..self.n_vocab]);
        }
        Ok(all)
    }

    /// A step of `n` sequences, then one of more rows than a device makes logits for at once: with the logits, and once more
    /// with the best tokens.
    fn chosen(&mut self, n: u32) -> Result<Outcome> {
        let start = |slot: u32| 3 + 5 * (slot % 9);
        for slot in 0..n {
            self.feed(slot, slot + 1, 0, start(slot))?;
        }
        let span = |slot: u32| Span { slot, pos: start(slot), len: 1, logits: LogitRows::Last };
        let side_by_side: Vec<Span> = (0..n).map(span).collect();
        let long = Span { slot: n - 1, pos: 0, len: 70, logits: LogitRows::All };
        let mut rows = 0;
        for spans in [&side_by_side[..], &[long]] {
            let tokens: Vec<u32> =
                spans.iter().flat_map(|span| self.tokens(span.slot + 1, span.pos, span.len)).collect();
            let batch = Batch { tokens: &tokens, spans };
            let mut logits = vec![0.0; batch.logit_rows() * self.n_vocab];
            let mut best = vec![Best::default(); batch.logit_rows()];
            self.model.forward(&batch, &mut logits)?;
            self.model.forward_best(&batch, &mut best)?;
            if let Err(wrong) = choices(&best, &logits) {
                return Ok(Err(wrong));
            }
            rows += best.len();
        }
        Ok(Ok(format!("{rows} rows")))
    }

    fn saved(&mut self, slot: u32, len: u32) -> Result<Vec<u8>> {
        let mut state = Vec::new();
        self.model.save(slot, 0..len, &mut state)?;
        Ok(state)
    }
}

/// Whether two runs gave the same bits.
fn same(found: &[f32], expected: &[f32]) -> Outcome {
    if let Some(at) = expected.iter().position(|z| !z.is_finite()) {
        return Err(format!("logit {at} is {}", expected[at]));
    }
    let differ = found.iter().zip(expected).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
    if differ == 0 && found.len() == expected.len() {
        return Ok(format!("{} logits, bit for bit", found.len()));
    }
    let (relative, _) = distance(found, expected);
    Err(format!("{differ} of {} logits differ, relative distance {relative:.1e}", expected.len()))
}

/// Whether each best token is that of its row, and its logit the very bits.
fn choices(found: &[Best], logits: &[f32]) -> Outcome {
    let rows = logits.chunks(logits.len() / found.len());
    for (row, (found, expected)) in found.iter().zip(rows.map(Best::of)).enumerate() {
        if (found.id, found.logit.to_bits()) != (expected.id, expected.logit.to_bits()) {
            return Err(format!("row {row}: {found:?}, expected {expected:?}"));
        }
    }
    Ok(format!("{} rows", found.len()))
}

/// The choice by itself, among logits that no model would make: ties, zeros of both signs, extremes, and what is not finite.
pub(crate) fn odd_choices<D: Backend>(device: &mut D, n_vocab: usize) -> Result<Outcome> {
    const ROWS: usize = 64;
    let (middle, last) = (n_vocab / 2, n_vocab - 1);
    let mut logits: Vec<f32> = (0..ROWS * n_vocab).map(|i| (i * 7919 % 1009) as f32 - 2000.0).collect();
    for (i, row) in logits.chunks_mut(n_vocab).enumerate() {
        match i % 9 {
            0 => row[last] = f32::MAX,
            1 => row[0] = -0.5,
            2 => (row[middle], row[last]) = (-0.0, 0.0),
            3 => (row[middle], row[last]) = (0.0, -0.0),
            4 => row.fill(f32::MIN),
            5 => (row[1], row[middle], row[last]) = (1e-40, 2e-40, 2e-40),
            6 => (row[0], row[middle], row[last]) = (f32::MAX, f32::NAN, f32::INFINITY),
            7 => row[last] = f32::NEG_INFINITY,
            // The highest stands there several times.
            _ => {}
        }
    }
    let mut buffer = device.alloc(4 * logits.len())?;
    device.write(&mut buffer, 0, bytemuck::cast_slice(&logits))?;
    for n in [1, 8, 32, ROWS] {
        let mut best = vec![Best::default(); n];
        device.best(&buffer, n_vocab, &mut best)?;
        if let Err(wrong) = choices(&best, &logits[..n * n_vocab]) {
            return Ok(Err(wrong));
        }
    }
    Ok(Ok(format!("up to {ROWS} rows")))
}

/// The bits rules of a model whose steps have keys: name and outcome of each. The model needs 32 slots.
pub(crate) fn bits<M: Model>(m: &mut Bench<M>) -> Result<Vec<(&'static str, Outcome)>> {
    let mut rules = Vec::new();
    m.prompt()?;
    let state = m.saved(0, PROMPT)?;
    let expected = m.alone(0)?;
    m.prompt()?;
    rules.push(("the same prompt again gives the same state", states(&state, &m.saved(0, PROMPT)?)));
    rules.push(("the same decode again gives the same bits", same(&m.alone(0)?, &expected)));

    m.model.load(3, 0..PROMPT, &mut &state[..])?;
    rules.push(("a loaded state continues with the same bits", same(&m.alone(3)?, &expected)));
    for (name, slot, n) in
        [("a row among 8 has the bits of a row alone", 5, 8), ("a row among 32 has the bits of a row alone", 17, 32)]
    {
        m.model.load(slot, 0..PROMPT, &mut &state[..])?;
        rules.push((name, same(&m.among(slot, n)?, &expected)));
    }
    m.model.load(0, 0..PROMPT, &mut &state[..])?;
    m.model.copy(0, 1, PROMPT)?;
    rules.push(("a copied slot continues with the same bits", same(&m.alone(1)?, &expected)));

    // Rows of a wrong continuation are overwritten before anything reads them.
    m.prompt()?;
    for pos in PROMPT..PROMPT + STEPS {
        m.feed(0, 7, pos, 1)?;
    }
    rules.push(("after a rewind a row has the same bits", same(&m.alone(0)?, &expected)));

    m.prompt()?;
    let tokens = m.tokens(0, PROMPT, STEPS);
    let span = Span { slot: 0, pos: PROMPT, len: STEPS, logits: LogitRows::All };
    let mut logits = vec![0.0; expected.len()];
    m.model.forward(&Batch { tokens: &tokens, spans: &[span] }, &mut logits)?;
    rules.push(("rows of one span have the bits of rows one by one", same(&logits, &expected)));
    for (name, n) in [
        ("the best token of a row is that of its logits", 1),
        ("the best tokens of 8 rows are those of their logits", 8),
        ("the best tokens of 32 rows are those of their logits", 32),
    ] {
        rules.push((name, m.chosen(n)?));
    }
    Ok(rules)
}

fn states(found: &[u8], expected: &[u8]) -> Outcome {
    let differ = found.iter().zip(expected).filter(|(a, b)| a != b).count();
    if differ == 0 && found.len() == expected.len() {
        Ok(format!("{} bytes", found.len()))
    } else {
        Err(format!("{differ} of {} bytes differ", expected.len()))
    }
}

/// Steps with keys, which a device may replay, against stages submitted one by one: one sequence and eight, across the
/// doubling of the context bucket at 128.
pub(crate) fn replay<D: Backend>(
    mut devices: impl FnMut() -> Result<D>,
    file: &Gguf,
    limits: ds4_model::Limits,
) -> Result<Outcome> {
    let shape = Shape::from_gguf(file)?;
    let keyed = Transformer::new(devices()?, file, None, limits, Numerics::Stored)?;
    let eager = Tap::new(devices()?, &shape, Role::Look);
    let eager = Transformer::new(eager, file, None, limits, Numerics::Stored)?;
    let (found, expected) = (replayed(&mut Bench::new(keyed))?, replayed(&mut Bench::new(eager))?);
    Ok(same(&found, &expected))
}

fn replayed<M: Model>(m: &mut Bench<M>) -> Result<Vec<f32>> {
    let mut all = m.feed(0, 0, 0, 121)?;
    for pos in 121..137 {
        all.extend(m.feed(0, 0, pos, 1)?);
    }
    m.prompt()?;
    m.model.copy(0, 2, PROMPT)?;
    all.extend(m.among(2, 8)?);
    Ok(all)
}

/// How far the device's own forward is from the CPU's: prompts in one go and in parts, then decode.
pub(crate) fn forward<R: Model, D: Model>(cpu: &mut Bench<R>, device: &mut Bench<D>, prompt: u32) -> Result<Outcome> {
    let n_vocab = cpu.n_vocab;
    let (mut relative, mut divergence) = (Vec::new(), Vec::new());
    let mut add = |found: &[f32], expected: &[f32]| {
        for (found, expected) in found.chunks(n_vocab).zip(expected.chunks(n_vocab)) {
            relative.push(distance(found, expected).0);
            divergence.push(kl(expected, found));
        }
    };
    for text in 0..FORWARDS {
        add(&device.feed(text % 2, text, 0, prompt)?, &cpu.feed(text % 2, text, 0, prompt)?);
        for pos in prompt..prompt + STEPS {
            add(&device.feed(text % 2, text, pos, 1)?, &cpu.feed(text % 2, text, pos, 1)?);
        }
    }
    relative.sort_by(f64::total_cmp);
    let (median, worst) = (relative[relative.len() / 2], relative[relative.len() - 1]);
    let mean = divergence.iter().sum::<f64>() / divergence.len() as f64;
    let note = format!("median relative distance {median:.1e}, worst {worst:.1e}; mean divergence {mean:.1e}");
    let close = median <= FORWARD_RELATIVE && mean <= FORWARD_DIVERGENCE;
    Ok(if close {
        Ok(note)
    } else {
        Err(format!("{note}; bounds {FORWARD_RELATIVE:.0e} and {FORWARD_DIVERGENCE:.0e}"))
    })
}

/// Texts of a comparison of whole forwards.
const FORWARDS: u32 = 3;
/// Random weights carry an error on without damping, and a flipped code of a cache row stays for good: the worst row says
/// little, the middle one a lot.
const FORWARD_RELATIVE: f64 = 5e-2;
/// Nats, the mean of a few rows: in a model of two heads one flipped code alone makes a hundredth.
const FORWARD_DIVERGENCE: f64 = 5e-2;

/// Divergence of `found`'s distribution from `expected`'s.
fn kl(expected: &[f32], found: &[f32]) -> f64 {
    let log = |logits: &[f32]| -> Vec<f64> {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let total = logits.iter().map(|z| f64::from(z - max).exp()).sum::<f64>().ln();
        logits.iter().map(|z| f64::from(z - max) - total).collect()
    };
    let (p, q) = (log(expected), log(found));
    let sum = p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>();
    if sum.is_nan() { f64::INFINITY } else { sum }
}

/// A state of one model goes on in the other for `tokens` greedy tokens, which agree wherever the best is ahead.
pub(crate) fn migrate<A: Model, B: Model>(
    from: &mut Bench<A>,
    to: &mut Bench<B>,
    prompt: &[u32],
    tokens: u32,
) -> Result<Outcome> {
    let n = prompt.len() as u32;
    let mut next = best(&from.feed_ids(0, 0, prompt)?);
    let state = from.saved(0, n)?;
    to.model.load(1, 0..n, &mut &state[..])?;
    if to.saved(1, n)? != state {
        return Ok(Err("the loaded state is not what was saved".to_owned()));
    }
    let (mut ties, mut wrong) = (0, 0);
    for pos in n..n + tokens {
        let (here, there) = (from.feed_ids(0, pos, &[next.0])?, to.feed_ids(1, pos, &[next.0])?);
        next = best(&here);
        let other = best(&there);
        if other.0 != next.0 {
            let tied = here[next.0 as usize] - here[other.0 as usize] <= GREEDY_TIE * next.1;
            if tied { ties += 1 } else { wrong += 1 }
        }
    }
    let note = format!("{tokens} tokens, {ties} near ties");
    Ok(if wrong == 0 && ties <= tokens / 4 { Ok(note) } else { Err(format!("{note}, {wrong} other tokens")) })
}

/// Share of the logits' spread by which a best token must be ahead.
const GREEDY_TIE: f32 = 0.05;

/// The best token and the spread of the logits; what is not a number is never best.
fn best(logits: &[f32]) -> (u32, f32) {
    let at = (0..logits.len()).fold(0, |best, id| if logits[id] > logits[best] { id } else { best });
    let mean = logits.iter().sum::<f32>() / logits.len() as f32;
    let variance = logits.iter().map(|z| (z - mean) * (z - mean)).sum::<f32>() / logits.len() as f32;
    (at as u32, variance.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_number_diverges() {
        assert!(kl(&[1.0, 2.0], &[1.0, 2.0]).abs() < 1e-12);
        assert!((kl(&[0.0, 0.0], &[0.0, 3f32.ln()]) - (0.5 * (4f64 / 3.0).ln())).abs() < 1e-6);
        assert_eq!(kl(&[0.0, 0.0], &[0.0, f32::NAN]), f64::INFINITY);
        assert!(same(&[f32::NAN], &[f32::NAN]).is_err() && same(&[1.0], &[1.0, 2.0]).is_err());
    }

    #[test]
    fn another_choice_is_found() {
        let best = |id, logit| Best { id, logit };
        let logits = [1.0, 2.0, 2.0, 0.0, -0.0, -1.0];
        assert_eq!(choices(&[best(1, 2.0), best(0, 0.0)], &logits), Ok("2 rows".to_owned()));
        for wrong in [best(2, 2.0), best(1, 1.0)] {
            assert!(choices(&[wrong, best(0, 0.0)], &logits).is_err());
        }
        assert!(choices(&[best(1, 2.0), best(0, -0.0)], &logits).is_err());
    }
}
