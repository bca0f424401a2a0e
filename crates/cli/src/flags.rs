//! The options of `ds4` without a subcommand, as given: each checked for its own form and range, none against another.
//! `config.rs` turns them into what the program does.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::args::{Args, Item};
use crate::failure::usage;

/// What was asked for on the command line. `None` and `false` mean the flag was not given.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag that was given or not")]
pub(crate) struct Flags {
    pub(crate) help: bool,
    pub(crate) help_topic: Option<String>,
    pub(crate) version: bool,

    pub(crate) model: Option<PathBuf>,
    pub(crate) mtp: Option<PathBuf>,
    pub(crate) backend: BackendFlag,
    /// Number of a card.
    pub(crate) device: Option<usize>,
    pub(crate) stub_script: Option<PathBuf>,
    pub(crate) ctx: Option<u32>,
    pub(crate) threads: Option<usize>,
    pub(crate) prefill_chunk: Option<u32>,
    pub(crate) quality: bool,
    pub(crate) warm_weights: bool,
    pub(crate) no_lock: bool,

    pub(crate) prompts: Vec<PromptFlag>,
    pub(crate) system: Option<String>,
    pub(crate) tokens: Option<u32>,
    pub(crate) temp: Option<f32>,
    pub(crate) top_p: Option<f32>,
    pub(crate) min_p: Option<f32>,
    pub(crate) top_k: Option<u32>,
    pub(crate) presence_penalty: Option<f32>,
    pub(crate) frequency_penalty: Option<f32>,
    pub(crate) seed: Option<u64>,
    pub(crate) think: Option<ThinkFlag>,
    pub(crate) think_budget: Option<u32>,
    pub(crate) raw: bool,
    pub(crate) json: bool,
    pub(crate) stream_json: bool,
    pub(crate) hide_thinking: bool,
    pub(crate) quiet: bool,

    /// Diagnostics with the name they were asked by: two different ones conflict.
    pub(crate) diagnostics: Vec<(&'static str, Diagnostic)>,
    pub(crate) logprobs_top_k: Option<usize>,
}

/// What is to evaluate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum BackendFlag {
    /// Nothing was said.
    #[default]
    Auto,
    Cpu,
    Cuda,
    Vulkan,
    Metal,
    /// A script answers.
    Stub,
}

/// Where a prompt comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PromptFlag {
    Text(String),
    File(PathBuf),
    Stdin,
}

/// How much the model is asked to think.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ThinkFlag {
    Think,
    Max,
    None,
}

/// A run that prints facts instead of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Diagnostic {
    Inspect,
    DumpTokens,
    DumpLogprobs(PathBuf),
    DumpLogits(PathBuf),
    Perplexity(PathBuf),
    Score(PathBuf),
}

/// Names that exist in the family of programs but not in this build.
const LATER: &[&str] = &[
    "--mtp-draft",
    "--mtp-margin",
    "--mtp-model",
    "--gpus",
    "--tensor-parallel",
    "--pipeline-parallel",
    "--power",
    "--dir-steering-file",
    "--dir-steering-ffn",
    "--dir-steering-attn",
    "--simulate-used-memory",
    "--prefix-file",
    "--think-level",
    "--json-schema",
    "--grammar",
    "--expert-profile",
    "--imatrix-dataset",
    "--imatrix-out",
    "--imatrix-max-prompts",
    "--imatrix-max-tokens",
    "--imatrix-checkpoint-every",
    "--vision",
    "--role",
    "--layers",
    "--listen",
    "--coordinator",
    "--image",
    "--mtp-exact-sampling",
    "--wgpu",
    "--dspark-strict",
    "--ui-logo",
    "--head-test",
    "--first-token-test",
    "--graph-test",
    "--graph-full-test",
    "--graph-prompt-test",
];
const LATER_PREFIXES: &[&str] = &["--ssd-streaming", "--dist-", "--metal-graph-"];

/// Devices this build can open.
pub(crate) const BACKENDS: &[&str] = &["cpu", "cuda", "vulkan", "metal"];
/// Most cards that a machine may have.
const MOST_DEVICES: u64 = 1024;

impl Flags {
    pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> anyhow::Result<Self> {
        let mut flags = Self::default();
        let mut args = Args::new(args, "try 'ds4 --help'");
        while let Some(item) = args.next()? {
            let name = match item {
                Item::Flag(name) => name,
                Item::Free(word) => return Err(args.unexpected(&word)),
            };
            let known = flags.asking(&name, &mut args)
                || flags.runtime(&name, &mut args)?
                || flags.prompt(&name, &mut args)?
                || flags.sampling(&name, &mut args)?
                || flags.output(&name)
                || flags.diagnostic(&name, &mut args)?;
            if !known {
                return Err(later(&name).unwrap_or_else(|| args.unknown(&name)));
            }
            if flags.help || flags.version {
                break;
            }
        }
        Ok(flags)
    }

    fn asking(&mut self, name: &str, args: &mut Args) -> bool {
        match name {
            "-h" | "--help" => (self.help, self.help_topic) = (true, args.optional()),
            "--version" => self.version = true,
            _ => return false,
        }
        true
    }

    pub(crate) fn runtime(&mut self, name: &str, args: &mut Args) -> anyhow::Result<bool> {
        match name {
            "-m" | "--model" => self.model = Some(args.path(name)?),
            "--mtp" => self.mtp = Some(args.path(name)?),
            "-c" | "--ctx" => self.ctx = Some(args.int(name, 1..=u32::MAX as u64)? as u32),
            "-t" | "--threads" => self.threads = Some(args.int(name, 1..=1024)? as usize),
            "--prefill-chunk" => self.prefill_chunk = Some(args.int(name, 1..=65536)? as u32),
            "--quality" => self.quality = true,
            "--warm-weights" => self.warm_weights = true,
            "--no-lock" => self.no_lock = true,
            "--stub-script" => self.stub_script = Some(args.path(name)?),
            _ => return self.place(name, args),
        }
        Ok(true)
    }

    /// Where a model runs.
    pub(crate) fn place(&mut self, name: &str, args: &mut Args) -> anyhow::Result<bool> {
        match name {
            "--cpu" => self.backend = BackendFlag::Cpu,
            "--cuda" => self.backend = BackendFlag::Cuda,
            "--vulkan" => self.backend = BackendFlag::Vulkan,
            "--metal" => self.backend = BackendFlag::Metal,
            "--backend" => self.backend = backend(&args.text(name)?)?,
            "--device" => self.device = Some(args.int(name, 0..=MOST_DEVICES - 1)? as usize),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn prompt(&mut self, name: &str, args: &mut Args) -> anyhow::Result<bool> {
        match name {
            "-p" | "--prompt" => {
                let text = args.text(name)?;
                self.prompts.push(if text == "-" { PromptFlag::Stdin } else { PromptFlag::Text(text) });
            }
            "--prompt-file" => {
                let path = args.path(name)?;
                self.prompts.push(if path.as_os_str() == "-" { PromptFlag::Stdin } else { PromptFlag::File(path) });
            }
            "-sys" | "--system" => self.system = Some(args.text(name)?),
            "--raw" => self.raw = true,
            "--think" => self.think = Some(ThinkFlag::Think),
            "--think-max" => self.think = Some(ThinkFlag::Max),
            "--nothink" => self.think = Some(ThinkFlag::None),
            "--think-budget-tokens" => self.think_budget = Some(args.int(name, 0..=u32::MAX as u64)? as u32),
            _ => return Ok(false),
        }
        Ok(true)
    }

    pub(crate) fn sampling(&mut self, name: &str, args: &mut Args) -> anyhow::Result<bool> {
        match name {
            "-n" | "--tokens" => self.tokens = Some(args.int(name, 1..=u32::MAX as u64)? as u32),
            "--temp" => self.temp = Some(args.float(name, 0.0..=100.0)?),
            "--top-p" => self.top_p = Some(args.float(name, 0.0..=1.0)?),
            "--min-p" => self.min_p = Some(args.float(name, 0.0..=1.0)?),
            "--top-k" => self.top_k = Some(args.int(name, 0..=1024)? as u32),
            "--presence-penalty" => self.presence_penalty = Some(args.float(name, -2.0..=2.0)?),
            "--frequency-penalty" => self.frequency_penalty = Some(args.float(name, -2.0..=2.0)?),
            "--seed" => self.seed = Some(args.int(name, 0..=u64::MAX)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn output(&mut self, name: &str) -> bool {
        match name {
            "--json" => self.json = true,
            "--stream-json" => self.stream_json = true,
            "--hide-thinking" => self.hide_thinking = true,
            "--quiet" => self.quiet = true,
            _ => return false,
        }
        true
    }

    fn diagnostic(&mut self, name: &str, args: &mut Args) -> anyhow::Result<bool> {
        let (name, diagnostic) = match name {
            "--inspect" => ("--inspect", Diagnostic::Inspect),
            "--dump-tokens" => ("--dump-tokens", Diagnostic::DumpTokens),
            "--dump-logprobs" => ("--dump-logprobs", Diagnostic::DumpLogprobs(args.path(name)?)),
            "--dump-logits" => ("--dump-logits", Diagnostic::DumpLogits(args.path(name)?)),
            "--perplexity-file" => ("--perplexity-file", Diagnostic::Perplexity(args.path(name)?)),
            "--score-file" => ("--score-file", Diagnostic::Score(args.path(name)?)),
            "--logprobs-top-k" => {
                self.logprobs_top_k = Some(args.int(name, 1..=128)? as usize);
                return Ok(true);
            }
            _ => return Ok(false),
        };
        // Later wins for the same flag; another diagnostic is a conflict that `Config::resolve` reports.
        self.diagnostics.retain(|(known, _)| *known != name);
        self.diagnostics.push((name, diagnostic));
        Ok(true)
    }
}

fn backend(name: &str) -> anyhow::Result<BackendFlag> {
    match name {
        "cpu" => Ok(BackendFlag::Cpu),
        "cuda" => Ok(BackendFlag::Cuda),
        "vulkan" => Ok(BackendFlag::Vulkan),
        "metal" => Ok(BackendFlag::Metal),
        "stub" => Ok(BackendFlag::Stub),
        _ => {
            let known = BACKENDS.join(", ");
            Err(usage(format!("invalid value for --backend: {name}: this build has {known}")))
        }
    }
}

/// The error for a name that this build knows but does not serve.
pub(crate) fn later(name: &str) -> Option<anyhow::Error> {
    let known = LATER.contains(&name) || LATER_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    if name == "--server" {
        return Some(usage("--server is not supported by this build: the server is a program of its own, ds4-server"));
    }
    known.then(|| usage(format!("{name} is not supported by this build")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> anyhow::Result<Flags> {
        Flags::parse(words.iter().map(OsString::from))
    }

    fn message(words: &[&str]) -> String {
        parse(words).expect_err("a usage error").to_string()
    }

    #[test]
    fn values_may_follow_or_be_attached_and_the_later_wins() {
        let flags = parse(&["--ctx", "10", "--ctx=20", "-c30", "--temp=0", "-sys", "be brief"]).expect("flags");
        assert_eq!((flags.ctx, flags.temp), (Some(30), Some(0.0)));
        assert_eq!(flags.system.as_deref(), Some("be brief"));
    }

    #[test]
    fn a_prompt_may_look_like_an_option() {
        let flags = parse(&["-p", "--help", "-n", "5"]).expect("flags");
        assert_eq!(flags.prompts, [PromptFlag::Text("--help".to_owned())]);
        assert!(!flags.help);
    }

    #[test]
    fn every_kind_of_bad_option_has_its_message() {
        assert_eq!(message(&["--ctx"]), "missing value for --ctx");
        assert_eq!(message(&["--ctx", "abc"]), "invalid value for --ctx: abc");
        assert_eq!(message(&["--temp", "101"]), "invalid value for --temp: 101: expected 0..100");
        assert_eq!(message(&["--raw=yes"]), "--raw takes no value: yes");
        assert_eq!(message(&["--frob"]), "unknown option: --frob");
        assert_eq!(message(&["-x"]), "unknown option: -x");
        assert_eq!(message(&["-sy", "x"]), "unknown option: -sy");
        assert_eq!(message(&["word"]), "unexpected argument: word");
        assert_eq!(message(&["--", "--raw"]), "unexpected argument: --raw");
        assert_eq!(message(&["--mtp-draft", "2"]), "--mtp-draft is not supported by this build");
        assert_eq!(message(&["--ssd-streaming-cache"]), "--ssd-streaming-cache is not supported by this build");
        assert_eq!(
            message(&["--backend", "tpu"]),
            "invalid value for --backend: tpu: this build has cpu, cuda, vulkan, metal"
        );
    }

    #[test]
    fn help_takes_a_topic_but_not_an_option() {
        let topic = |words| parse(words).map(|flags| (flags.help, flags.help_topic)).expect("flags");
        assert_eq!(topic(&["--help", "sampling"]), (true, Some("sampling".to_owned())));
        assert_eq!(topic(&["--help", "--raw"]), (true, None));
    }
}
