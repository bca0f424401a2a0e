//! `--dump-logprobs` and `--dump-logits`: what the model expects after a prompt, as JSON files that `ds4 compare` reads.

use std::path::Path;

use anyhow::{Context, bail};
use ds4_engine::{Candidate, SamplingParams, TokenLogprobs};
use ds4_text::Tokenizer;
use serde_json::{Value, json};

use crate::answer::{Ask, ask};
use crate::config::Config;
use crate::device::Loaded;
use crate::file::write_whole;
use crate::flags::PromptFlag;
use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::run::{Quiet, prepare};

/// A greedy continuation with the best candidates of every step.
pub(crate) fn dump_logprobs(config: &Config, path: &Path, prompt: &PromptFlag) -> anyhow::Result<()> {
    let interrupt = Interrupt::install()?;
    let (loaded, ids) = open(config, prompt)?;
    let prompt_tokens = ids.len();
    let request = Ask {
        prompt: ids,
        sampling: SamplingParams::greedy(),
        max_tokens: config.tokens,
        thinking: false,
        think_budget: 0,
        logprobs: Some(config.top_k),
    };
    let mut display = Quiet(Progress::new(config.quiet));
    let answer = ask(&loaded.engine, &interrupt, request, &mut display)?;
    display.0.clear();
    let tokenizer = &loaded.file.tokenizer;
    let steps: Vec<Value> =
        answer.logprobs.iter().enumerate().map(|(at, step)| step_json(tokenizer, at, step)).collect();
    let dump = json!({
        "source": loaded.file.gguf.name(),
        "prompt_tokens": prompt_tokens,
        "ctx": loaded.engine.limits().context,
        "top_k": config.top_k,
        "steps": steps,
    });
    write_whole(path, |file| Ok(serde_json::to_writer(file, &dump)?))?;
    match answer.failure {
        Some(error) => Err(error).context("generation failed"),
        None if answer.interrupted => Err(interrupt.ended()),
        None => Ok(()),
    }
}

/// The logits of the next token.
pub(crate) fn dump_logits(config: &Config, path: &Path, prompt: &PromptFlag) -> anyhow::Result<()> {
    let _interrupt = Interrupt::install()?;
    let (loaded, ids) = open(config, prompt)?;
    let prompt_tokens = ids.len();
    let logits = loaded.engine.next_logits(ids)?;
    if let Some(at) = logits.iter().position(|z| !z.is_finite()) {
        bail!("logit of token {at} is {}, expected a finite number", logits[at]);
    }
    let dump = json!({"prompt_tokens": prompt_tokens, "vocab": logits.len(), "logits": logits});
    write_whole(path, |file| Ok(serde_json::to_writer(file, &dump)?))
}

/// The model and the prompt's ids.
fn open(config: &Config, prompt: &PromptFlag) -> anyhow::Result<(Loaded, Vec<u32>)> {
    let (file, encoded) = prepare(config, prompt)?;
    Ok((Loaded::open(file, &config.runtime, config.quiet)?, encoded.ids))
}

fn step_json(tokenizer: &Tokenizer, at: usize, step: &TokenLogprobs) -> Value {
    let top: Vec<Value> = step.top.iter().map(|candidate| candidate_json(tokenizer, candidate)).collect();
    json!({"step": at, "selected": token_json(tokenizer, step.chosen.id), "top_logprobs": top})
}

fn candidate_json(tokenizer: &Tokenizer, candidate: &Candidate) -> Value {
    json!({
        "token": token_json(tokenizer, candidate.id),
        "logit": candidate.logit,
        "logprob": candidate.logprob,
    })
}

fn token_json(tokenizer: &Tokenizer, id: u32) -> Value {
    let bytes = tokenizer.token_bytes(id);
    json!({"id": id, "text": String::from_utf8_lossy(bytes), "bytes": bytes})
}
