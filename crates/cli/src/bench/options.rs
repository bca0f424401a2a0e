//! The command line of `ds4 bench`.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::args::{Args, Item, parse_int};
use crate::config::{self, ModelSource, Runtime, Surroundings};
use crate::failure::usage;
use crate::flags::Flags;

/// Most sequences decoded side by side.
const MOST_COPIES: u64 = 256;
const MOST_TOKENS: u64 = 1 << 24;

/// What is read: exactly one of the two.
#[derive(Debug, PartialEq)]
pub(super) enum Input {
    /// Its tokens as they are.
    Text(PathBuf),
    /// One user turn, answered without reasoning.
    Chat(PathBuf),
}

#[derive(Debug)]
pub(super) struct Options {
    pub(super) model: ModelSource,
    pub(super) input: Input,
    pub(super) system: String,
    pub(super) start: u32,
    pub(super) max: u32,
    pub(super) step: u32,
    pub(super) factor: f32,
    pub(super) alloc: u32,
    pub(super) tokens: u32,
    pub(super) csv: Option<PathBuf>,
    pub(super) logits: Option<PathBuf>,
    pub(super) repeat: usize,
    pub(super) warmup: usize,
    pub(super) copies: Vec<u32>,
    pub(super) json: Option<PathBuf>,
    pub(super) tag: Option<String>,
    pub(super) extended: bool,
    pub(super) comments: bool,
    pub(super) runtime: Runtime,
    /// As it was typed, for the record.
    pub(super) flags: String,
}

/// What has been given so far.
#[derive(Default)]
struct Given {
    /// Model and runtime; of the rest nothing is read.
    common: Flags,
    text: Option<PathBuf>,
    chat: Option<PathBuf>,
    system: Option<String>,
    start: Option<u32>,
    max: Option<u32>,
    step: Option<u32>,
    factor: Option<f32>,
    alloc: Option<u32>,
    tokens: Option<u32>,
    csv: Option<PathBuf>,
    logits: Option<PathBuf>,
    repeat: Option<usize>,
    warmup: Option<usize>,
    copies: Option<Vec<u32>>,
    json: Option<PathBuf>,
    tag: Option<String>,
    extended: bool,
    comments: bool,
}

/// `None`: help is wanted.
pub(super) fn parse(words: impl Iterator<Item = OsString>) -> anyhow::Result<Option<Options>> {
    let words: Vec<OsString> = words.collect();
    let flags = words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    let mut args = Args::new(words, "try 'ds4 bench --help'");
    let mut given = Given::default();
    while let Some(item) = args.next()? {
        match item {
            Item::Free(word) if word == "serve" => return Err(usage("bench serve is not supported by this build")),
            Item::Free(word) => return Err(args.unexpected(&word)),
            Item::Flag(flag) if matches!(flag.as_str(), "-h" | "--help") => return Ok(None),
            Item::Flag(flag) => given.take(&mut args, &flag)?,
        }
    }
    given.resolve(flags).map(Some)
}

impl Given {
    fn take(&mut self, args: &mut Args, flag: &str) -> anyhow::Result<()> {
        match flag {
            "--prompt-file" => self.text = Some(args.path(flag)?),
            "--chat-prompt-file" => self.chat = Some(args.path(flag)?),
            "-sys" | "--system" => self.system = Some(args.text(flag)?),
            "--ctx-start" => self.start = Some(args.int(flag, 1..=MOST_TOKENS)? as u32),
            "--ctx-max" => self.max = Some(args.int(flag, 1..=MOST_TOKENS)? as u32),
            "--step-incr" => self.step = Some(args.int(flag, 1..=MOST_TOKENS)? as u32),
            "--step-mul" => self.factor = Some(args.float(flag, 1.0..=1024.0)?),
            "--ctx-alloc" => self.alloc = Some(args.int(flag, 1..=MOST_TOKENS)? as u32),
            "-n" | "--tokens" | "--gen-tokens" => self.tokens = Some(args.int(flag, 0..=1 << 20)? as u32),
            "--csv" => self.csv = Some(args.path(flag)?),
            "--dump-frontier-logits-dir" => self.logits = Some(args.path(flag)?),
            "--repeat" => self.repeat = Some(args.int(flag, 1..=1000)? as usize),
            "--warmup" => self.warmup = Some(args.int(flag, 0..=1000)? as usize),
            "--concurrency" => self.copies = Some(copies(flag, &args.text(flag)?)?),
            "--json" => self.json = Some(args.path(flag)?),
            "--tag" => self.tag = Some(args.text(flag)?),
            "--extended" => self.extended = true,
            "--comments" => self.comments = true,
            "-m" | "--model" | "-t" | "--threads" | "--quality" | "--prefill-chunk"
                if self.common.runtime(flag, args)? => {}
            _ if self.common.place(flag, args)? => {}
            _ => return Err(args.unknown(flag)),
        }
        Ok(())
    }

    fn resolve(self, flags: String) -> anyhow::Result<Options> {
        let (start, max) = (self.start.unwrap_or(2048), self.max.unwrap_or(32_768));
        let (tokens, copies) = (self.tokens.unwrap_or(128), self.copies.unwrap_or_else(|| vec![1]));
        let input = match (self.text, self.chat) {
            (Some(path), None) => Input::Text(path),
            (None, Some(path)) => Input::Chat(path),
            (Some(_), Some(_)) => return Err(usage("--prompt-file and --chat-prompt-file cannot be combined")),
            (None, None) => {
                return Err(usage(
                    "bench needs a text that is long enough: --prompt-file FILE (its tokens as they are) or \
                     --chat-prompt-file FILE (one user turn)",
                ));
            }
        };
        if start > max {
            return Err(usage(format!("--ctx-start {start} is more than --ctx-max {max}")));
        }
        if self.system.is_some() && matches!(input, Input::Text(_)) {
            return Err(usage("-sys needs --chat-prompt-file: a raw text has no template"));
        }
        if copies != [1] && !self.extended {
            return Err(usage("--concurrency needs --extended: without it rows of one context cannot be told apart"));
        }
        let alloc = self.alloc.unwrap_or(max + tokens + 1);
        if alloc <= max + tokens {
            let least = max + tokens + 1;
            return Err(usage(format!("invalid value for --ctx-alloc: {alloc}: expected at least {least}")));
        }
        let runtime = config::runtime(&self.common)?;
        Ok(Options {
            model: ModelSource::resolve(self.common.model, &Surroundings::look()),
            input,
            system: self.system.unwrap_or_default(),
            start,
            max,
            step: self.step.unwrap_or(2048),
            factor: self.factor.unwrap_or(1.0),
            alloc,
            tokens,
            csv: self.csv,
            logits: self.logits,
            repeat: self.repeat.unwrap_or(1),
            warmup: self.warmup.unwrap_or(1),
            copies,
            json: self.json,
            tag: self.tag,
            extended: self.extended,
            comments: self.comments,
            runtime,
            flags,
        })
    }
}

/// Numbers of copies, separated by commas.
pub(super) fn copies(flag: &str, text: &str) -> anyhow::Result<Vec<u32>> {
    let number = |word: &str| parse_int(word, 1..=MOST_COPIES).map(|n| n as u32);
    let list: Result<Vec<u32>, String> = text.split(',').map(number).collect();
    list.map_err(|why| usage(format!("invalid value for {flag}: {text}{why}")))
}

impl Options {
    /// Whether rows with all columns are wanted.
    pub(super) fn writes_power(&self) -> bool {
        self.extended || self.json.is_some()
    }

    /// Contexts that are measured: by steps or by factors, the last one exactly the largest.
    pub(super) fn frontiers(&self) -> Vec<u32> {
        let mut all = vec![self.start];
        let mut at = self.start;
        while at < self.max {
            let next = if self.factor > 1.0 {
                (f64::from(at) * f64::from(self.factor)).ceil() as u32
            } else {
                at.saturating_add(self.step)
            };
            at = next.min(self.max);
            all.push(at);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(words: &[&str]) -> anyhow::Result<Options> {
        let words = ["--prompt-file", "f"].iter().chain(words).map(OsString::from);
        parse(words).map(|options| options.expect("no help"))
    }

    #[test]
    fn frontiers_go_by_steps_or_by_factors_and_end_at_the_largest() {
        let of = |words: &[&str]| options(words).expect("options").frontiers();
        assert_eq!(of(&["--ctx-max", "7000"]), [2048, 4096, 6144, 7000]);
        assert_eq!(of(&["--ctx-start", "100", "--ctx-max", "100"]), [100]);
        assert_eq!(of(&["--ctx-start", "3", "--ctx-max", "20", "--step-mul", "1.5"]), [3, 5, 8, 12, 18, 20]);
        assert_eq!(of(&[]).len(), 16);
    }

    #[test]
    fn the_context_holds_the_longest_run() {
        assert_eq!(options(&[]).expect("options").alloc, 32_768 + 128 + 1);
        let all = ["--ctx-start", "10", "--ctx-max", "20", "--gen-tokens", "5"];
        let error = options(&[&all[..], &["--ctx-alloc", "25"]].concat()).expect_err("too small");
        assert_eq!(error.to_string(), "invalid value for --ctx-alloc: 25: expected at least 26");
        assert!(options(&[&all[..], &["--ctx-alloc", "26"]].concat()).is_ok());
    }
}
