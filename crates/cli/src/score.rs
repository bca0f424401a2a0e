//! `--perplexity-file` and `--score-file`: how well the model predicts given text. Teacher-forced, through the engine.

use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;
use std::sync::mpsc;

use anyhow::{Context, anyhow, bail};
use ds4_engine::{EngineHandle, ScoreEvent, ScoreRequest, TokenLogprobs, Want};
use ds4_text::Thinking;
use serde::Deserialize;

use crate::config::Config;
use crate::conversation::{effective, encode_prompt};
use crate::device::{Loaded, ModelFile, open_file};
use crate::file::read_text;
use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::terminal;

/// Tokens at the start of a text that are given, not predicted.
const PRIMER: usize = 32;

/// Perplexity of a text.
pub(crate) fn perplexity(config: &Config, path: &Path, out: &mut dyn Write) -> anyhow::Result<()> {
    let text = read_text(path, "perplexity file")?;
    let interrupt = Interrupt::install()?;
    let file = open_file(&config.model, config.quiet)?;
    let ctx = config.runtime.context(file.shape.context)? as usize;
    let mut ids = file.tokenizer.encode_plain(&text);
    ids.truncate(ctx.min(PRIMER.saturating_add(config.tokens as usize)));
    if ids.len() <= PRIMER {
        bail!("cannot score {}: {} tokens, expected more than {PRIMER}", path.display(), ids.len());
    }
    let loaded = Loaded::open(file, &config.runtime, config.quiet)?;
    let tokens = ids.len();
    let scored = score(&loaded.engine, &interrupt, ids, PRIMER, Progress::new(config.quiet))?;
    let nll: f64 = scored.iter().map(|t| -f64::from(t.chosen.logprob)).sum();
    let average = nll / scored.len() as f64;
    let perplexity = average.exp();
    let count = scored.len();
    let line = format!("tokens={tokens} scored={count} nll={nll:.6} avg_nll={average:.6} ppl={perplexity:.6}\n");
    terminal::show(out, &line)
}

#[derive(Deserialize)]
struct Case {
    prompt: String,
    continuation: String,
}

/// Given continuations of given prompts, one line each and a total.
pub(crate) fn continuations(config: &Config, path: &Path, out: &mut dyn Write) -> anyhow::Result<()> {
    let cases = read_cases(path)?;
    let interrupt = Interrupt::install()?;
    let file = open_file(&config.model, config.quiet)?;
    let ctx = config.runtime.context(file.shape.context)?;
    let thinking = effective(config.think, ctx);
    let encoded = cases
        .iter()
        .enumerate()
        .map(|(at, case)| encode(&file, config, thinking, ctx, case).with_context(|| format!("case {at}")))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let loaded = Loaded::open(file, &config.runtime, config.quiet)?;
    let (mut nll, mut tokens, mut matches) = (0.0, 0, 0);
    for (at, (ids, from)) in encoded.into_iter().enumerate() {
        let scored = score(&loaded.engine, &interrupt, ids, from, Progress::new(true))?;
        let case_nll: f64 = scored.iter().map(|t| -f64::from(t.chosen.logprob)).sum();
        let greedy = scored.iter().take_while(|t| t.rank == 0).count();
        let mut line = format!("case={at} prompt_tokens={from} tokens={}", scored.len());
        let average = case_nll / scored.len() as f64;
        let _ = writeln!(
            line,
            " nll={case_nll:.6} avg_nll={average:.6} first_match={} greedy_prefix={greedy}",
            u8::from(greedy > 0)
        );
        terminal::show(out, &line)?;
        nll += case_nll;
        tokens += scored.len();
        matches += usize::from(greedy > 0);
    }
    let (count, average) = (cases.len(), nll / tokens as f64);
    terminal::show(
        out,
        &format!("cases={count} tokens={tokens} nll={nll:.6} avg_nll={average:.6} first_match={matches}\n"),
    )
}

fn read_cases(path: &Path) -> anyhow::Result<Vec<Case>> {
    let text = read_text(path, "score file")?;
    let name = path.display();
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let cases = lines
        .map(|(at, line)| {
            serde_json::from_str(line).map_err(|e| anyhow!("cannot read score file: {name}: line {}: {e}", at + 1))
        })
        .collect::<anyhow::Result<Vec<Case>>>()?;
    if cases.is_empty() {
        bail!("cannot read score file: {name}: no cases");
    }
    Ok(cases)
}

/// Ids of prompt and continuation, and where the continuation starts.
fn encode(
    file: &ModelFile,
    config: &Config,
    thinking: Thinking,
    ctx: u32,
    case: &Case,
) -> anyhow::Result<(Vec<u32>, usize)> {
    let encoded = encode_prompt(&file.tokenizer, &config.system, thinking, config.raw, &case.prompt)?;
    let mut ids = encoded.ids;
    let from = ids.len();
    ids.extend(file.tokenizer.encode_plain(&case.continuation));
    if ids.len() == from {
        bail!("continuation has no tokens");
    }
    if ids.len() > ctx as usize {
        bail!("prompt and continuation have {} tokens, expected at most --ctx={ctx}", ids.len());
    }
    Ok((ids, from))
}

/// Log-probabilities of the ids from position `from` on.
pub(crate) fn score(
    engine: &EngineHandle,
    interrupt: &Interrupt,
    tokens: Vec<u32>,
    from: usize,
    mut progress: Progress,
) -> anyhow::Result<Vec<TokenLogprobs>> {
    let (events, results) = mpsc::channel();
    let expected = tokens.len() - from;
    let want = Want::Logprobs { top: 1 };
    interrupt.begin();
    engine.score(ScoreRequest { tokens, from: from as u32, want, cancel: interrupt.cancel(), events })?;
    let mut scored = Vec::new();
    let mut failure = None;
    for event in results {
        match event {
            ScoreEvent::Progress { done, total } => progress.update(done, total),
            ScoreEvent::Scored { tokens, .. } => scored.extend(tokens),
            ScoreEvent::Failed(error) => failure = Some(error),
            ScoreEvent::Logits { .. } | ScoreEvent::Done => {}
        }
    }
    progress.clear();
    if interrupt.end() {
        return Err(interrupt.ended());
    }
    match failure {
        Some(error) => Err(error.into()),
        None if scored.len() != expected => bail!("{} of {expected} tokens were scored", scored.len()),
        None => Ok(scored),
    }
}
