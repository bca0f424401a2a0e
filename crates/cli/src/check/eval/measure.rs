//! What is measured beside the suites: whether the indexer's choice matters, how often the draft block guesses the model's
//! own token, how well held-out dialogues are predicted, and speed.

use anyhow::{Context, bail};
use ds4_engine::{Agreement, AgreementRequest};
use ds4_model::Limits;
use ds4_text::Special;

use super::{BARS, Entry, Options, RETRIEVAL, percent};
use crate::bench;
use crate::config::ModelSource;
use crate::device::{self, Loaded, Telling, open_file};
use crate::eval::{Score, dialogues, prompts};
use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::score::score;

/// Rows drawn at random must cost at least this many points (of 100), or the indexer is of no use.
const SELECTION_POINTS: f64 = 20.0;
const SELECTION_SEED: u64 = 4;

/// Share of right guesses of the draft block, in percent, on this suite's prompts.
const DRAFT_BAR: f64 = 70.0;
const DRAFT_SUITE: &str = "chat";

/// Speeds on two cores, in tokens a second (`speed`).
const MIN_PREFILL: f64 = 1000.0;
const MIN_DECODE: f64 = 100.0;
const SPEED_PROMPT: u32 = 1024;
const SPEED_TOKENS: u32 = 128;

/// The retrieval suites with random rows in place of the indexer's, beside their own scores.
pub(super) fn selection(options: &Options, own: &[Score], interrupt: &Interrupt) -> anyhow::Result<Vec<Entry>> {
    let suites = || BARS.iter().map(|(suite, _)| (*suite).to_owned()).filter(|suite| suite.starts_with(RETRIEVAL));
    let missing: Vec<String> = suites().filter(|suite| own.iter().all(|score| score.suite != *suite)).collect();
    let more = if missing.is_empty() { Vec::new() } else { options.score(missing, None, interrupt)? };
    let random = options.score(suites().collect(), Some(SELECTION_SEED), interrupt)?;
    let compare = |random: &Score| {
        let own = own.iter().chain(&more).find(|own| own.suite == random.suite).context("a suite without a score")?;
        let lost = percent(own) - percent(random);
        Ok(Entry {
            name: format!("selection {}", random.suite),
            result: format!("random rows {:.1}%, own {:.1}%", percent(random), percent(own)),
            bar: format!(">= {SELECTION_POINTS} lost"),
            holds: Some(lost >= SELECTION_POINTS),
        })
    };
    random.iter().map(compare).collect()
}

/// How often the draft block's guess is the model's own next token while it answers the prompts of a suite greedily.
pub(super) fn draft(options: &Options, interrupt: &Interrupt) -> anyhow::Result<Entry> {
    let name = "draft".to_owned();
    if options.runtime.mtp.is_none() {
        return Ok(Entry { name, result: "not measured: no --mtp FILE".to_owned(), bar: String::new(), holds: None });
    }
    let file = open_file(&options.model, true)?;
    let prompts = prompts(DRAFT_SUITE, &file.tokenizer)?;
    let end = Some(file.tokenizer.special().eos);
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(0) as u32;
    let runtime = crate::config::Runtime { ctx: Some(longest + options.tokens), ..options.runtime.clone() };
    let loaded = Loaded::open(file, &runtime, true)?;
    let mut sum = Agreement::default();
    interrupt.begin();
    for prompt in prompts {
        let cancel = interrupt.cancel();
        let request = AgreementRequest { prompt, max_tokens: options.tokens, end, cancel };
        let one = loaded.engine.draft_agreement(request)?;
        if interrupt.requested() {
            return Err(interrupt.ended());
        }
        sum.drafted += one.drafted;
        sum.accepted += one.accepted;
    }
    interrupt.end();
    let share = 100.0 * sum.rate();
    Ok(Entry {
        name,
        result: format!("{}/{} guesses {share:.1}%", sum.accepted, sum.drafted),
        bar: format!(">= {DRAFT_BAR}%"),
        holds: Some(share >= DRAFT_BAR),
    })
}

/// Summed negative log-likelihood and count of tokens.
#[derive(Clone, Copy, Default)]
struct Nll {
    sum: f64,
    tokens: usize,
}

impl Nll {
    fn add(&mut self, logprob: f32) {
        self.sum -= f64::from(logprob);
        self.tokens += 1;
    }

    fn perplexity(self) -> f64 {
        (self.sum / self.tokens.max(1) as f64).exp()
    }
}

/// Perplexity of the held-out dialogues, and its ratio to another model's.
pub(super) fn perplexity(options: &Options, interrupt: &Interrupt) -> anyhow::Result<Vec<Entry>> {
    let kinds = ["assistant", "all"];
    let ours = dialogue_nll(&options.model, options, interrupt)?;
    let row = |name: String, result: String| Entry { name, result, bar: String::new(), holds: None };
    let mut entries: Vec<Entry> = kinds
        .iter()
        .zip(ours)
        .map(|(kind, nll)| {
            row(format!("perplexity {kind}"), format!("{:.4} over {} tokens", nll.perplexity(), nll.tokens))
        })
        .collect();
    if let Some(path) = &options.against {
        let theirs = dialogue_nll(&ModelSource::File(path.clone()), options, interrupt)?;
        for (kind, (ours, theirs)) in kinds.iter().zip(ours.into_iter().zip(theirs)) {
            let ratio = ours.perplexity() / theirs.perplexity();
            let result = format!("{ratio:.4} of {:.4}", theirs.perplexity());
            entries.push(Entry {
                bar: options.max_ratio.map(|most| format!("<= {most:.2}")).unwrap_or_default(),
                holds: options.max_ratio.map(|most| ratio <= most),
                ..row(format!("ratio {kind}"), result)
            });
        }
    }
    Ok(entries)
}

/// Of the assistant's tokens, and of all.
fn dialogue_nll(model: &ModelSource, options: &Options, interrupt: &Interrupt) -> anyhow::Result<[Nll; 2]> {
    let file = open_file(model, true)?;
    let mut texts = dialogues()?;
    texts.truncate(options.dialogues);
    let ids: Vec<Vec<u32>> = texts.iter().map(|dialogue| file.tokenizer.encode(&dialogue.text)).collect();
    let longest = ids.iter().map(Vec::len).max().unwrap_or(0) as u32;
    let short = texts.iter().zip(&ids).find(|(_, ids)| ids.len() < 2);
    if let Some((dialogue, _)) = short {
        bail!("dialogue {}: expected at least two tokens", dialogue.id);
    }
    let runtime = crate::config::Runtime { ctx: Some(longest), ..options.runtime.clone() };
    let loaded = Loaded::open(file, &runtime, true)?;
    let special = *loaded.file.tokenizer.special();
    let (mut assistant, mut all) = (Nll::default(), Nll::default());
    for ids in ids {
        let spoken = spoken(&ids, &special);
        let scored = score(&loaded.engine, interrupt, ids, 1, Progress::new(true))?;
        for (token, spoken) in scored.iter().zip(&spoken[1..]) {
            all.add(token.chosen.logprob);
            if *spoken {
                assistant.add(token.chosen.logprob);
            }
        }
    }
    Ok([assistant, all])
}

/// Which ids are the assistant's own: from behind the tag that the template writes at the start of its turn (`<think>` or
/// `</think>`) to the id that ends it.
fn spoken(ids: &[u32], special: &Special) -> Vec<bool> {
    let mut inside = false;
    let mut before = None;
    let mut mark = |&id: &u32| {
        let now = inside && before != Some(special.assistant);
        inside = id == special.assistant || (inside && id != special.eos);
        before = Some(id);
        now && id != special.assistant
    };
    ids.iter().map(&mut mark).collect()
}

/// Prefill and decode of one sequence.
pub(super) fn speed(options: &Options) -> anyhow::Result<Vec<Entry>> {
    let gguf = device::open_gguf(&options.model, true)?;
    let max_rows = device::max_rows(&options.runtime).min(SPEED_PROMPT);
    let limits = Limits { context: SPEED_PROMPT + SPEED_TOKENS, slots: 1, max_rows, ..Limits::default() };
    let model = device::load(&gguf, None, limits, &options.runtime, None, &Telling::Silent)?;
    let (prefill, decode) = bench::speed(model, SPEED_PROMPT, SPEED_TOKENS)?;
    let hardware = device::hardware(&options.runtime)?.name;
    let row = |name: &str, speed: f64, least: f64| Entry {
        name: name.to_owned(),
        result: format!("{speed:.1} tokens/s, {hardware}"),
        bar: format!(">= {least}"),
        holds: Some(speed >= least),
    };
    Ok(vec![row("prefill", prefill, MIN_PREFILL), row("decode", decode, MIN_DECODE)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_assistants_tokens_are_those_behind_its_mark_up_to_the_end_of_the_turn() {
        let tokenizer = crate::embedded::published_tokenizer().expect("a tokenizer");
        let special = tokenizer.special();
        let (bos, eos, user, assistant) = (special.bos, special.eos, special.user, special.assistant);
        let (open, close) = (special.think, special.think_end);
        let ids = [bos, user, 9, assistant, close, 7, eos, user, 9, assistant, open, 8, close, 6, eos];
        let expected = [0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1].map(|n| n == 1);
        assert_eq!(spoken(&ids, special), expected);
        let mut nll = Nll::default();
        nll.add(-1.0);
        nll.add(-3.0);
        assert!((nll.perplexity() - 2.0_f64.exp()).abs() < 1e-12);
    }
}
