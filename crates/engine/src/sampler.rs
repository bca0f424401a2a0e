//! Logits in, id out (prompt.md section 20). Owns its random state and the counts of what it drew; knows no text.

use std::cmp::Ordering;
use std::collections::HashMap;

use ds4_model::Best;

use crate::{Constraint, Error, Result};

/// How ids are drawn. The defaults are those of the command line and the server: temperature 1, min-p 0.05.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplingParams {
    /// 0 takes the best id, lowest id on ties; otherwise logits are divided by it. 0 to 100.
    pub temperature: f32,
    /// Share of the mass that the best ids must reach to be kept; outside (0, 1] counts as 1.
    pub top_p: f32,
    /// Best ids kept, at most 1,024; 0 keeps all.
    pub top_k: u32,
    /// Ids less probable than this share of the best one are dropped. 0 to 1.
    pub min_p: f32,
    /// Taken off the logit of every id generated so far. -2 to 2.
    pub presence_penalty: f32,
    /// Taken off the logit of an id once for each time it was generated. -2 to 2.
    pub frequency_penalty: f32,
    /// Divides the positive and multiplies the negative logits of every id generated so far. Above 0, to 2; 1 does nothing.
    pub repetition_penalty: f32,
    /// Start of the random source. Every value is a seed of its own, except that 0 equals 0x9E3779B97F4A7C15.
    pub seed: u64,
}

impl Default for SamplingParams {
    fn default() -> Self {
        SamplingParams {
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.05,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            repetition_penalty: 1.0,
            seed: 0,
        }
    }
}

impl SamplingParams {
    /// The best id at every step.
    pub fn greedy() -> Self {
        SamplingParams { temperature: 0.0, ..SamplingParams::default() }
    }

    /// What the hosted API and ds4 do in thinking mode: their defaults, whatever was asked for, but the same seed.
    #[must_use]
    pub fn fixed_for_thinking(self) -> Self {
        SamplingParams { seed: self.seed, ..SamplingParams::default() }
    }

    /// Every value is a number in its range.
    pub fn validate(&self) -> Result<()> {
        let ranges = [
            ("temperature", self.temperature, 0.0..=100.0, "0 to 100"),
            ("top_p", self.top_p, f32::MIN..=f32::MAX, "a finite number"),
            ("min_p", self.min_p, 0.0..=1.0, "0 to 1"),
            ("presence_penalty", self.presence_penalty, -2.0..=2.0, "-2 to 2"),
            ("frequency_penalty", self.frequency_penalty, -2.0..=2.0, "-2 to 2"),
            ("repetition_penalty", self.repetition_penalty, f32::MIN_POSITIVE..=2.0, "above 0, to 2"),
        ];
        for (name, value, range, expected) in ranges {
            if !range.contains(&value) {
                return Err(Error::Parameter { name, found: value.to_string(), expected });
            }
        }
        Ok(())
    }
}

/// One id with its logit and its log-probability at temperature 1, before any penalty or cut.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// The id.
    pub id: u32,
    /// As the model gave it.
    pub logit: f32,
    /// Natural logarithm of its share.
    pub logprob: f32,
}

/// What the model thought of a token at its place.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprobs {
    /// The token.
    pub chosen: Candidate,
    /// Ids that come before it, by logit and then by id: 0 is the greedy choice.
    pub rank: u32,
    /// The best ids, best first.
    pub top: Vec<Candidate>,
}

impl TokenLogprobs {
    /// Of `id` and the `top` best ids in `logits` `[n_vocab]`.
    ///
    /// # Errors
    /// If a logit is not finite or `id` has none.
    pub fn of(logits: &[f32], id: u32, top: usize) -> Result<TokenLogprobs> {
        let best = check(logits)?.logit;
        let n_vocab = logits.len();
        let logit = *logits.get(id as usize).ok_or(Error::UnknownToken { id, n_vocab })?;
        let mass: f64 = logits.iter().map(|&z| f64::from((z - best).exp())).sum();
        let log_mass = f64::from(best) + mass.ln();
        let candidate = |id: u32, logit: f32| Candidate { id, logit, logprob: (f64::from(logit) - log_mass) as f32 };
        Ok(TokenLogprobs {
            chosen: candidate(id, logit),
            rank: rank(logits, id),
            top: best_of(logits, top).into_iter().map(|e| candidate(e.id, e.value)).collect(),
        })
    }
}

/// Draws ids for one generation.
#[derive(Clone, Debug)]
pub struct Sampler {
    params: SamplingParams,
    random: XorShift,
    /// Times each id was generated.
    counts: HashMap<u32, u32>,
    bias: Vec<(u32, f32)>,
    /// Logits after bias, penalties and constraint; empty while nothing asks for a copy.
    adjusted: Vec<f32>,
}

impl Sampler {
    /// A sampler at the start of `params.seed`. Values outside their range are the caller's business
    /// ([`SamplingParams::validate`]): they draw badly, but do not panic.
    pub fn new(params: SamplingParams) -> Self {
        let random = XorShift::new(params.seed);
        Sampler { params, random, counts: HashMap::new(), bias: Vec::new(), adjusted: Vec::new() }
    }

    /// The same, with these numbers added to the logits of these ids.
    #[must_use]
    pub fn with_bias(self, bias: Vec<(u32, f32)>) -> Self {
        Sampler { bias, ..self }
    }

    /// Draws an id from `logits` `[n_vocab]` and counts it. `greedy` takes the best instead and leaves the random state
    /// alone, as temperature 0 does.
    ///
    /// # Errors
    /// If there are no logits or one is not finite.
    pub fn sample(&mut self, logits: &[f32], greedy: bool) -> Result<u32> {
        self.sample_within(logits, greedy, None)
    }

    /// [`Sampler::sample`] among the ids that `constraint` allows.
    ///
    /// # Errors
    /// As [`Sampler::sample`], those of the constraint, and [`Error::Constraint`] if it allows none.
    pub fn sample_within(
        &mut self,
        logits: &[f32],
        greedy: bool,
        constraint: Option<&mut dyn Constraint>,
    ) -> Result<u32> {
        let best = check(logits)?;
        let adjusted = self.adjust(logits, constraint)?;
        let (logits, best) =
            if adjusted { (&self.adjusted[..], largest(&self.adjusted)) } else { (logits, best.logit) };
        if best == f32::NEG_INFINITY {
            return Err(Error::Constraint("no token may come next".to_owned()));
        }
        let id = if greedy || self.params.temperature == 0.0 {
            logits.iter().position(|&z| z == best).expect("the largest is one of them") as u32
        } else {
            draw(&self.params, logits, best, &mut self.random)
        };
        self.count(id);
        Ok(id)
    }

    /// Whether the next draw, `greedy` or not, takes the best id of the logits as the model gave them, if no constraint speaks
    /// against it: then [`Sampler::take`] does the same without the logits.
    pub(crate) fn takes_best(&self, greedy: bool) -> bool {
        (greedy || self.params.temperature == 0.0) && !self.is_penalised() && self.bias.is_empty()
    }

    /// Takes the best id and counts it.
    ///
    /// # Errors
    /// If a logit of its row is not finite.
    pub(crate) fn take(&mut self, best: Best) -> Result<u32> {
        let Best { id, .. } = finite(best)?;
        self.count(id);
        Ok(id)
    }

    /// Counts an id that was generated without being drawn.
    pub fn count(&mut self, id: u32) {
        *self.counts.entry(id).or_insert(0) += 1;
    }

    /// Puts bias, penalties and constraint on a copy, if there is any of them. Penalties act on generated tokens only,
    /// reasoning included, the prompt not (server.md 5.2).
    fn adjust(&mut self, logits: &[f32], constraint: Option<&mut dyn Constraint>) -> Result<bool> {
        let SamplingParams { presence_penalty, frequency_penalty, repetition_penalty, .. } = self.params;
        let penalised = self.is_penalised();
        if !penalised && self.bias.is_empty() && constraint.is_none() {
            return Ok(false);
        }
        self.adjusted.clear();
        self.adjusted.extend_from_slice(logits);
        if penalised {
            for (&id, &times) in &self.counts {
                if let Some(logit) = self.adjusted.get_mut(id as usize) {
                    let repeated = if *logit > 0.0 { 1.0 / repetition_penalty } else { repetition_penalty };
                    *logit = (*logit * repeated).min(f32::MAX);
                    *logit -= presence_penalty + frequency_penalty * times as f32;
                }
            }
        }
        for &(id, bias) in &self.bias {
            if let Some(logit) = self.adjusted.get_mut(id as usize) {
                *logit += bias;
            }
        }
        if let Some(constraint) = constraint {
            constraint.allow(&mut self.adjusted)?;
        }
        Ok(true)
    }

    /// Whether penalties change any logit.
    fn is_penalised(&self) -> bool {
        let SamplingParams { presence_penalty, frequency_penalty, repetition_penalty, .. } = self.params;
        let penalises = presence_penalty != 0.0 || frequency_penalty != 0.0 || repetition_penalty != 1.0;
        penalises && !self.counts.is_empty()
    }
}

/// An id with a logit or a weight.
#[derive(Clone, Copy, Debug)]
struct Entry {
    value: f32,
    id: u32,
}

/// Best first; among equals the lowest id.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "the shape that sorting asks for")]
fn best_first(a: &Entry, b: &Entry) -> Ordering {
    b.value.partial_cmp(&a.value).unwrap_or(Ordering::Equal).then(a.id.cmp(&b.id))
}

/// One draw at a temperature above 0: top-k, then going down from the best the min-p cut and the top-p cut, whose share
/// is of the mass before the min-p cut.
fn draw(params: &SamplingParams, logits: &[f32], best: f32, random: &mut XorShift) -> u32 {
    let weight = |z: f32| ((z - best) / params.temperature).exp();
    let top_p = if params.top_p > 0.0 && params.top_p < 1.0 { Some(f64::from(params.top_p)) } else { None };
    let all = || logits.iter().enumerate().map(|(id, &z)| Entry { value: weight(z), id: id as u32 });
    let (kept, mass) = match (params.top_k, top_p) {
        (0, None) => {
            let kept: Vec<Entry> = candidates(params, logits, best).filter(|e| e.value >= params.min_p).collect();
            let mass = total(&kept);
            return pick(&kept, mass, random);
        }
        (0, Some(top_p)) => {
            let weights: Vec<Entry> = all().collect();
            let mass = total(&weights);
            // All that weigh less than this together miss the mass that top-p leaves out: none of them is needed.
            let least = (1.0 - top_p) * mass / weights.len() as f64;
            let mut kept: Vec<Entry> =
                weights.into_iter().filter(|e| e.value >= params.min_p && f64::from(e.value) >= least).collect();
            kept.sort_unstable_by(best_first);
            (kept, mass)
        }
        (k, _) => {
            let mut kept = best_of(logits, k.min(MAX_TOP_K) as usize);
            kept.retain(|e| e.value > f32::NEG_INFINITY);
            for entry in &mut kept {
                entry.value = weight(entry.value);
            }
            let mass = total(&kept);
            (kept, mass)
        }
    };
    let mut sum = 0.0;
    let enough = top_p.map_or(f64::INFINITY, |p| p * mass);
    let mut n = 0;
    for entry in &kept {
        if entry.value < params.min_p || sum >= enough {
            break;
        }
        sum += f64::from(entry.value);
        n += 1;
    }
    pick(&kept[..n], sum, random)
}

/// Weights of the ids that may survive min-p, in id order: a bound on the logit spares the others their exponential.
fn candidates<'a>(params: &SamplingParams, logits: &'a [f32], best: f32) -> impl Iterator<Item = Entry> + use<'a> {
    let SamplingParams { temperature, min_p, .. } = *params;
    // Below the exact bound by more than rounding moves it; the caller compares the weights themselves.
    let slack = 0.01 * temperature + 1e-5 * best.abs();
    let least = if min_p > 0.0 { best + temperature * min_p.ln() - slack } else { f32::NEG_INFINITY };
    logits
        .iter()
        .enumerate()
        .filter(move |&(_, &z)| z >= least && z > f32::NEG_INFINITY)
        .map(move |(id, &z)| Entry { value: ((z - best) / temperature).exp(), id: id as u32 })
}

/// Takes weights off a random share of `mass` until nothing is left of it.
fn pick(kept: &[Entry], mass: f64, random: &mut XorShift) -> u32 {
    let mut rest = random.next() * mass;
    for entry in kept {
        rest -= f64::from(entry.value);
        if rest <= 0.0 {
            return entry.id;
        }
    }
    kept.last().expect("the best id always stays").id
}

fn total(entries: &[Entry]) -> f64 {
    entries.iter().map(|e| f64::from(e.value)).sum()
}

/// Ids that come before `id` in `logits` `[n_vocab]`, by logit and then by id. An id without a logit comes last.
pub(crate) fn rank(logits: &[f32], id: u32) -> u32 {
    let logit = logits.get(id as usize).copied().unwrap_or(f32::NEG_INFINITY);
    let before = |(i, &z): (usize, &f32)| z > logit || (z == logit && i < id as usize);
    logits.iter().enumerate().filter(|&entry| before(entry)).count() as u32
}

/// The `k` best logits, best first. One pass: a full buffer is cut to its `k` best, which raises the bar for the rest.
fn best_of(logits: &[f32], k: usize) -> Vec<Entry> {
    let k = k.min(logits.len());
    if k == 0 {
        return Vec::new();
    }
    let room = 4 * k;
    let mut best: Vec<Entry> = Vec::with_capacity(room);
    let mut bar = f32::NEG_INFINITY;
    for (id, &value) in logits.iter().enumerate() {
        // An equal logit further on has a higher id and loses.
        if value > bar || best.len() < k {
            best.push(Entry { value, id: id as u32 });
            if best.len() == room {
                best.select_nth_unstable_by(k - 1, best_first);
                best.truncate(k);
                bar = best[k - 1].value;
            }
        }
    }
    best.sort_unstable_by(best_first);
    best.truncate(k);
    best
}

/// The best logit, if all are finite.
fn check(logits: &[f32]) -> Result<Best> {
    if logits.is_empty() { Err(Error::UnknownToken { id: 0, n_vocab: 0 }) } else { finite(Best::of(logits)) }
}

/// The best of a row, all of whose logits are finite.
fn finite(best: Best) -> Result<Best> {
    if best.logit.is_finite() { Ok(best) } else { Err(Error::Logits { id: best.id, found: best.logit.to_string() }) }
}

/// The largest of logits of which some may be negative infinity; that is also the answer if one is not a number.
fn largest(logits: &[f32]) -> f32 {
    let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if best.is_finite() { best } else { f32::NEG_INFINITY }
}

/// xorshift64*, the random source of prompt.md section 20.
#[derive(Clone, Debug)]
struct XorShift(u64);

impl XorShift {
    fn new(seed: u64) -> Self {
        XorShift(if seed == 0 { ZERO_SEED } else { seed })
    }

    /// A number in [0, 1) of 24 random bits.
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let bits = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 40;
        bits as f64 / f64::from(1 << 24)
    }
}

const ZERO_SEED: u64 = 0x9E37_79B9_7F4A_7C15;
const MAX_TOP_K: u32 = 1024;

#[cfg(test)]
mod tests;
