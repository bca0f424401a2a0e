//! The options of `ds4 eval`: what was asked for, with every contradiction ruled out. Opens nothing.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use ds4_engine::{ReplyBudget, SamplingParams};

use super::case::Case;
use crate::args::{Args, Item};
use crate::config;
use crate::failure::usage;
use crate::flags::Flags;

/// Most tokens of a case, with its prompt (cli.md 7).
pub(super) const MOST_TOKENS: u32 = 1_000_000;
const DEFAULT_TOKENS: u32 = 16_000;
const DEFAULT_SOFT: u32 = 1024;
const DEFAULT_HARD: u32 = 512;

/// What to do.
#[derive(Debug)]
pub(super) enum Asked {
    Help,
    SelfTest,
    Regrade(PathBuf),
    List(Selection),
    Run(Box<Run>),
}

/// Which cases.
#[derive(Debug, Default)]
pub(super) struct Selection {
    /// Files instead of the embedded cases.
    pub(super) files: Vec<PathBuf>,
    suites: Vec<String>,
    sequence: Option<String>,
    questions: Option<usize>,
}

/// A run with a model.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) selection: Selection,
    /// Model and runtime; of the rest nothing is read.
    pub(super) common: Flags,
    pub(super) settings: Settings,
    pub(super) repeat: u32,
    pub(super) concurrency: u32,
    pub(super) trace: Option<PathBuf>,
    pub(super) json: Option<PathBuf>,
    pub(super) plain: bool,
}

/// How every case is run.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) sampling: SamplingParams,
    pub(crate) tokens: u32,
    pub(crate) thinking: bool,
    pub(crate) budget: ReplyBudget,
    /// A case whose reasoning never closed gets a second run with twice the tokens.
    pub(crate) retry_incomplete: bool,
    /// Rest after a case, so that its result can be seen.
    pub(crate) pause: Duration,
}

/// Values as they come from the command line.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag that was given or not")]
struct Raw {
    common: Flags,
    selection: Selection,
    nothink: bool,
    soft: Option<u32>,
    rank: Option<u32>,
    hard: Option<u32>,
    trace: Option<PathBuf>,
    regrade: Option<PathBuf>,
    json: Option<PathBuf>,
    retry_incomplete: bool,
    repeat: Option<u32>,
    concurrency: Option<u32>,
    pause_ms: Option<u64>,
    plain: bool,
    list: bool,
    self_test: bool,
    help: bool,
}

pub(super) fn parse(words: impl Iterator<Item = OsString>) -> anyhow::Result<Asked> {
    let mut args = Args::new(words, "try 'ds4-eval --help'");
    let mut raw = Raw::default();
    while let Some(item) = args.next()? {
        let flag = match item {
            Item::Flag(flag) => flag,
            Item::Free(word) => return Err(args.unexpected(&word)),
        };
        let sized = matches!(flag.as_str(), "-c" | "--ctx");
        let known = raw.selecting(&flag, &mut args)?
            || raw.running(&flag, &mut args)?
            || (!sized && raw.common.runtime(&flag, &mut args)?)
            || raw.common.sampling(&flag, &mut args)?;
        if !known {
            return Err(args.unknown(&flag));
        }
        if raw.help {
            return Ok(Asked::Help);
        }
    }
    raw.resolve()
}

impl Raw {
    fn selecting(&mut self, flag: &str, args: &mut Args) -> anyhow::Result<bool> {
        match flag {
            "--cases" => self.selection.files.push(args.path(flag)?),
            "--suite" => self.selection.suites.extend(args.text(flag)?.split(',').map(|s| s.trim().to_owned())),
            "--case-sequence" => self.selection.sequence = Some(args.text(flag)?),
            "--questions" => self.selection.questions = Some(args.int(flag, 1..=1 << 32)? as usize),
            "--list-cases" => self.list = true,
            "--self-test-extractors" => self.self_test = true,
            "--regrade-trace" => self.regrade = Some(args.path(flag)?),
            "-h" | "--help" => self.help = true,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn running(&mut self, flag: &str, args: &mut Args) -> anyhow::Result<bool> {
        let most = u64::from(MOST_TOKENS);
        match flag {
            "-n" | "--tokens" => self.common.tokens = Some(args.int(flag, 1..=most)? as u32),
            "--think" => self.nothink = false,
            "--nothink" => self.nothink = true,
            "--soft-limit-reply-budget" => self.soft = Some(args.int(flag, 0..=most)? as u32),
            "--soft-limit-think-close-rank" => self.rank = Some(args.int(flag, 1..=most)? as u32),
            "--hard-limit-reply-budget" => self.hard = Some(args.int(flag, 0..=most)? as u32),
            "--trace" => self.trace = Some(args.path(flag)?),
            "--json" => self.json = Some(args.path(flag)?),
            "--retry-incomplete" => self.retry_incomplete = true,
            "--repeat" => self.repeat = Some(args.int(flag, 1..=1000)? as u32),
            "--concurrency" => self.concurrency = Some(args.int(flag, 1..=256)? as u32),
            "--pause-ms" => self.pause_ms = Some(args.int(flag, 0..=60_000)?),
            "--plain" => self.plain = true,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn resolve(self) -> anyhow::Result<Asked> {
        if self.self_test {
            return Ok(Asked::SelfTest);
        }
        if let Some(trace) = self.regrade {
            return Ok(Asked::Regrade(trace));
        }
        if self.list {
            return Ok(Asked::List(self.selection));
        }
        let tokens = self.common.tokens.unwrap_or(DEFAULT_TOKENS);
        let soft = self.soft.unwrap_or(DEFAULT_SOFT.min(tokens / 2));
        let hard = self.hard.unwrap_or(DEFAULT_HARD.min(tokens / 4).min(soft));
        if hard >= tokens || hard > soft {
            return Err(usage(format!(
                "invalid value for --hard-limit-reply-budget: {hard}: expected less than --tokens={tokens} and at most \
                 --soft-limit-reply-budget={soft}"
            )));
        }
        let settings = Settings {
            sampling: SamplingParams { temperature: self.common.temp.unwrap_or(0.0), ..config::sampling(&self.common) },
            tokens,
            thinking: !self.nothink,
            budget: ReplyBudget { soft, hard, rank: self.rank.unwrap_or(3) },
            retry_incomplete: self.retry_incomplete,
            pause: Duration::from_millis(self.pause_ms.unwrap_or(350)),
        };
        Ok(Asked::Run(Box::new(Run {
            selection: self.selection,
            common: self.common,
            settings,
            repeat: self.repeat.unwrap_or(1),
            concurrency: self.concurrency.unwrap_or(1),
            trace: self.trace,
            json: self.json,
            plain: self.plain,
        })))
    }
}

impl Selection {
    /// The cases of some suites, all of them where none is named.
    pub(super) fn of_suites(suites: Vec<String>) -> Self {
        Self { suites, ..Self::default() }
    }

    /// The chosen ones of `cases`, in order. Cases are counted from 1 in what the suites leave.
    pub(super) fn choose(&self, cases: Vec<Case>) -> anyhow::Result<Vec<Case>> {
        let mut chosen = cases;
        if !self.suites.is_empty() {
            let mut known: Vec<String> = chosen.iter().map(|case| case.suite.clone()).collect();
            known.dedup();
            if let Some(unknown) = self.suites.iter().find(|suite| !known.contains(suite)) {
                let known = known.join(", ");
                return Err(usage(format!("invalid value for --suite: {unknown}: expected one of {known}")));
            }
            chosen.retain(|case| self.suites.contains(&case.suite));
        }
        if let Some(sequence) = &self.sequence {
            chosen = in_sequence(&chosen, sequence)?;
        }
        if let Some(n) = self.questions {
            if n > chosen.len() {
                let available = chosen.len();
                return Err(usage(format!("invalid value for --questions: {n}: there are {available} cases")));
            }
            chosen.truncate(n);
        }
        Ok(chosen)
    }
}

/// `3,1,5-7,some-id`: numbers from 1, ranges of them, ids.
fn in_sequence(cases: &[Case], sequence: &str) -> anyhow::Result<Vec<Case>> {
    let mut places: Vec<usize> = Vec::new();
    for word in sequence.split(',').map(str::trim) {
        let bad = |why: &str| usage(format!("invalid value for --case-sequence: {word}: {why}"));
        let (first, last) = word.split_once('-').unwrap_or((word, word));
        let range = match cases.iter().position(|case| case.id == word) {
            Some(at) => at..at + 1,
            None => match (first.parse::<usize>(), last.parse::<usize>()) {
                (Ok(first), Ok(last)) if (1..=last).contains(&first) && last <= cases.len() => first - 1..last,
                _ => return Err(bad(&format!("expected ids or numbers from 1 to {}", cases.len()))),
            },
        };
        if range.clone().any(|at| places.contains(&at)) {
            return Err(bad("stands twice"));
        }
        places.extend(range);
    }
    Ok(places.into_iter().map(|at| cases[at].clone()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::case;

    fn asked(words: &[&str]) -> anyhow::Result<Asked> {
        parse(words.iter().map(OsString::from))
    }

    fn settings(words: &[&str]) -> Settings {
        match asked(words).expect("options") {
            Asked::Run(run) => run.settings,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_defaults_are_greedy_thinking_with_room_for_the_reply() {
        let s = settings(&[]);
        assert_eq!((s.tokens, s.sampling.temperature, s.thinking), (16_000, 0.0, true));
        assert_eq!(s.budget, ReplyBudget { soft: 1024, rank: 3, hard: 512 });
        let small = settings(&["-n", "100", "--nothink", "--temp", "0.5"]);
        assert_eq!(small.budget, ReplyBudget { soft: 50, rank: 3, hard: 25 });
        assert_eq!((small.thinking, small.sampling.temperature), (false, 0.5));
    }

    #[test]
    fn limits_that_contradict_are_usage_errors() {
        let message = |words: &[&str]| asked(words).expect_err("a usage error").to_string();
        assert!(message(&["-n", "512", "--hard-limit-reply-budget", "512"]).contains("less than --tokens=512"));
        let above = ["--soft-limit-reply-budget", "10", "--hard-limit-reply-budget", "11"];
        assert!(message(&above).contains("at most --soft-limit-reply-budget=10"));
        assert_eq!(message(&["-n", "1000001"]), "invalid value for -n: 1000001: expected 1..1000000");
        assert_eq!(message(&["--ctx", "5"]), "unknown option: --ctx");
        assert_eq!(message(&["--url", "x"]), "unknown option: --url");
        assert_eq!(message(&["word"]), "unexpected argument: word");
    }

    #[test]
    fn cases_are_chosen_by_suite_then_sequence_then_number() {
        let lines: Vec<String> = ["a1", "a2", "b1", "b2", "b3"]
            .iter()
            .map(|id| format!(r#"{{"id": "{id}", "suite": "{}", "kind": "thinking", "question": "q"}}"#, &id[..1]))
            .collect();
        let chosen = |words: &[&str]| {
            let words = words.iter().copied().chain(["--list-cases"]);
            let Asked::List(selection) = parse(words.map(OsString::from)).expect("options") else { panic!("a list") };
            let cases = case::read(&lines.join("\n"), "x").expect("cases");
            let ids = |cases: Vec<Case>| cases.iter().map(|case| case.id.clone()).collect::<Vec<_>>().join(" ");
            selection.choose(cases).map(ids).map_err(|e| e.to_string())
        };
        assert_eq!(chosen(&[]), Ok("a1 a2 b1 b2 b3".to_owned()));
        assert_eq!(chosen(&["--suite", "b", "--questions", "2"]), Ok("b1 b2".to_owned()));
        assert_eq!(chosen(&["--suite", "b", "--case-sequence", "3,b1"]), Ok("b3 b1".to_owned()));
        assert_eq!(chosen(&["--case-sequence", "2-4"]), Ok("a2 b1 b2".to_owned()));
        assert!(chosen(&["--case-sequence", "1,1"]).is_err_and(|e| e.ends_with("stands twice")));
        assert!(chosen(&["--case-sequence", "0"]).is_err() && chosen(&["--case-sequence", "4-9"]).is_err());
        assert!(chosen(&["--suite", "c"]).is_err_and(|e| e.ends_with("expected one of a, b")));
        assert!(chosen(&["--questions", "6"]).is_err_and(|e| e.ends_with("there are 5 cases")));
    }
}
