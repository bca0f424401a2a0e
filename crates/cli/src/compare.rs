//! `ds4 compare`: two files of log-probabilities or of logits, side by side. Reads JSON only; runs no model.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::Value;

use crate::args::{Args, Item};
use crate::failure::{ChecksFailed, usage};
use crate::file::read_text;
use crate::{help, terminal};

const DEFAULT_TOL: f32 = 1e-3;

struct Dump {
    /// A count, or the ids themselves.
    prompt: Value,
    body: Body,
}

enum Body {
    Logprobs(Vec<Step>),
    Logits(Vec<f64>),
}

#[derive(Deserialize)]
struct Step {
    selected: Token,
    top_logprobs: Vec<Entry>,
}

#[derive(Deserialize)]
struct Token {
    id: u32,
}

#[derive(Deserialize)]
struct Entry {
    token: Token,
    logit: f64,
    logprob: f64,
}

/// What two files have in common.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    /// Step, and the tokens of the two files.
    differs: Option<(usize, u32, u32)>,
    compared: usize,
    max_logit: f64,
    kl: Vec<f64>,
    overlap: Vec<f64>,
}

pub(crate) fn main(words: impl Iterator<Item = OsString>, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut args = Args::new(words, "try 'ds4 compare --help'");
    let mut files: Vec<PathBuf> = Vec::new();
    let mut tol = DEFAULT_TOL;
    while let Some(item) = args.next()? {
        match item {
            Item::Free(file) => files.push(file.into()),
            Item::Flag(flag) => match flag.as_str() {
                "-h" | "--help" => return terminal::show(out, help::COMPARE),
                "--tol" => tol = args.float("--tol", 0.0..=f32::MAX)?,
                _ => return Err(args.unknown(&flag)),
            },
        }
    }
    let [a, b] = files.as_slice() else {
        return Err(usage(format!("compare needs two files, got {}", files.len())));
    };
    let (a, b) = (read(a)?, read(b)?);
    if a.prompt != b.prompt {
        bail!("cannot compare: the files are of different prompts");
    }
    let outcome = match (a.body, b.body) {
        (Body::Logprobs(a), Body::Logprobs(b)) if a.is_empty() || b.is_empty() => {
            bail!("cannot compare: {} and {} steps, expected at least one in each", a.len(), b.len())
        }
        (Body::Logprobs(a), Body::Logprobs(b)) => compare_steps(&a, &b),
        (Body::Logits(a), Body::Logits(b)) if a.len() == b.len() && !a.is_empty() => compare_logits(&a, &b),
        (Body::Logits(a), Body::Logits(b)) => {
            bail!("cannot compare: {} and {} logits, expected equally many", a.len(), b.len())
        }
        _ => bail!("cannot compare: one file holds log-probabilities and the other logits"),
    };
    terminal::show(out, &report(&outcome))?;
    // Written so that a value that is no number fails.
    if outcome.max_logit <= f64::from(tol) { Ok(()) } else { Err(ChecksFailed.into()) }
}

fn read(path: &Path) -> anyhow::Result<Dump> {
    let name = path.display();
    let text = read_text(path, "file")?;
    let wrong = || format!("cannot compare: {name}: neither a --dump-logprobs nor a --dump-logits file");
    let mut value: Value = serde_json::from_str(&text).with_context(wrong)?;
    let mut take = |field: &str| value.get_mut(field).map(Value::take);
    let prompt = take("prompt_tokens").with_context(wrong)?;
    let body = match (take("steps"), take("logits")) {
        (Some(steps), None) => Body::Logprobs(serde_json::from_value(steps).with_context(wrong)?),
        (None, Some(logits)) => Body::Logits(serde_json::from_value(logits).with_context(wrong)?),
        _ => bail!(wrong()),
    };
    Ok(Dump { prompt, body })
}

/// Steps up to the first differing token, that one included: its distributions still have the same past.
fn compare_steps(a: &[Step], b: &[Step]) -> Outcome {
    let mut outcome = Outcome::default();
    for (at, (sa, sb)) in a.iter().zip(b).enumerate() {
        let theirs: HashMap<u32, &Entry> = sb.top_logprobs.iter().map(|e| (e.token.id, e)).collect();
        let both: Vec<(&Entry, &Entry)> =
            sa.top_logprobs.iter().filter_map(|e| theirs.get(&e.token.id).map(|other| (e, *other))).collect();
        let nearest = both.iter().map(|(x, y)| (x.logit - y.logit).abs()).fold(0.0, f64::max);
        outcome.max_logit = outcome.max_logit.max(if both.is_empty() { f64::INFINITY } else { nearest });
        outcome.kl.push(kl_of_shared(&both));
        outcome.overlap.push(both.len() as f64 / sa.top_logprobs.len().max(sb.top_logprobs.len()).max(1) as f64);
        outcome.compared += 1;
        if sa.selected.id != sb.selected.id {
            outcome.differs = Some((at, sa.selected.id, sb.selected.id));
            break;
        }
    }
    outcome
}

/// Divergence of the shared tokens, all others gathered into one.
fn kl_of_shared(both: &[(&Entry, &Entry)]) -> f64 {
    let (mut rest_a, mut rest_b, mut kl) = (1.0_f64, 1.0_f64, 0.0);
    for (x, y) in both {
        rest_a -= x.logprob.exp();
        rest_b -= y.logprob.exp();
        kl += x.logprob.exp() * (x.logprob - y.logprob);
    }
    if rest_a > 1e-9 && rest_b > 1e-9 {
        kl += rest_a * (rest_a / rest_b).ln();
    }
    kl.max(0.0)
}

fn compare_logits(a: &[f64], b: &[f64]) -> Outcome {
    const TOP: usize = 20;
    let best = |logits: &[f64]| {
        let mut ids: Vec<usize> = (0..logits.len()).collect();
        ids.sort_by(|&x, &y| logits[y].total_cmp(&logits[x]).then(x.cmp(&y)));
        ids.truncate(TOP);
        ids
    };
    let (top_a, top_b) = (best(a), best(b));
    let (la, lb) = (log_sum_exp(a), log_sum_exp(b));
    let kl = a.iter().zip(b).map(|(x, y)| (x - la).exp() * ((x - la) - (y - lb))).sum::<f64>();
    let shared = top_a.iter().filter(|id| top_b.contains(id)).count();
    Outcome {
        differs: (top_a[0] != top_b[0]).then_some((0, top_a[0] as u32, top_b[0] as u32)),
        compared: 1,
        max_logit: a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max),
        kl: vec![kl],
        overlap: vec![shared as f64 / top_a.len() as f64],
    }
}

/// ln of the sum of exponentials.
pub(crate) fn log_sum_exp(logits: &[f64]) -> f64 {
    let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    top + logits.iter().map(|x| (x - top).exp()).sum::<f64>().ln()
}

fn report(o: &Outcome) -> String {
    let first = match o.differs {
        Some((step, a, b)) => format!("first_difference=step {step}: {a} {b}"),
        None => "first_difference=none".to_owned(),
    };
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
    let max_kl = o.kl.iter().copied().fold(0.0, f64::max);
    format!(
        "{first}\nsteps_compared={} max_logit_difference={:.6e} kl_mean={:.6e} kl_max={max_kl:.6e} top_k_overlap={:.4}\n",
        o.compared,
        o.max_logit,
        mean(&o.kl),
        mean(&o.overlap),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_logits_differ_by_nothing_and_a_shift_changes_only_logits() {
        let a = [1.0, 2.0, 0.5];
        let same = compare_logits(&a, &a);
        assert_eq!((same.max_logit, same.differs, same.overlap), (0.0, None, vec![1.0]));
        let shifted = compare_logits(&a, &[2.0, 3.0, 1.5]);
        assert!((shifted.max_logit - 1.0).abs() < 1e-12 && shifted.kl[0].abs() < 1e-12);
    }

    #[test]
    fn steps_after_the_first_differing_token_are_not_compared() {
        let step = |id: u32| Step {
            selected: Token { id },
            top_logprobs: vec![Entry { token: Token { id: 1 }, logit: id as f64, logprob: -0.5 }],
        };
        let outcome = compare_steps(&[step(1), step(1), step(9)], &[step(1), step(2), step(1)]);
        assert_eq!((outcome.compared, outcome.differs), (2, Some((1, 1, 2))));
        assert!((outcome.max_logit - 1.0).abs() < 1e-12);
    }
}
