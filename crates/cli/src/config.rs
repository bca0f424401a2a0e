//! What the program does, with every contradiction ruled out: flags and surroundings in, values everyone trusts out.
//! Reads no file and opens no device; limits that only the model knows are applied where it is opened.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use ds4_engine::SamplingParams;
use ds4_wgpu::Api;

use crate::failure::usage;
use crate::flags::{BackendFlag, Diagnostic, Flags, PromptFlag, ThinkFlag};

/// Context of an interactive or one-shot run unless told otherwise; a smaller model lowers it.
const DEFAULT_CTX: u32 = 32_768;
const DEFAULT_TOKENS: u32 = 50_000;
const DEFAULT_SYSTEM: &str = "You are a helpful assistant";
const DEFAULT_TOP_K: usize = 20;

/// The model of the current directory, used when nothing else is named.
pub(crate) const DEFAULT_MODEL: &str = "ds4flash.gguf";

/// What the process finds around it.
pub(crate) struct Surroundings {
    /// `$DS4_MODEL`, if set and not empty.
    pub(crate) ds4_model: Option<PathBuf>,
    /// Whether `DEFAULT_MODEL` is there.
    pub(crate) default_model: bool,
    pub(crate) stdin_is_terminal: bool,
}

impl Surroundings {
    pub(crate) fn look() -> Self {
        use std::io::IsTerminal;
        Self {
            ds4_model: std::env::var_os("DS4_MODEL").filter(|v| !v.is_empty()).map(PathBuf::from),
            default_model: std::path::Path::new(DEFAULT_MODEL).exists(),
            stdin_is_terminal: std::io::stdin().is_terminal(),
        }
    }
}

/// A resolved command line.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) action: Action,
    pub(crate) model: ModelSource,
    pub(crate) runtime: Runtime,
    /// Empty means no system message.
    pub(crate) system: String,
    pub(crate) think: ThinkFlag,
    /// Reasoning tokens before reasoning is closed; 0 for no budget.
    pub(crate) think_budget: u32,
    pub(crate) sampling: SamplingParams,
    /// Most tokens of one answer.
    pub(crate) tokens: u32,
    /// The prompt is sent without a template.
    pub(crate) raw: bool,
    pub(crate) format: Format,
    pub(crate) hide_thinking: bool,
    pub(crate) quiet: bool,
    pub(crate) top_k: usize,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    OneShot(PromptFlag),
    Repl,
    Inspect,
    DumpTokens(PromptFlag),
    DumpLogprobs(PathBuf, PromptFlag),
    DumpLogits(PathBuf, PromptFlag),
    Perplexity(PathBuf),
    Score(PathBuf),
}

/// Where the weights come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ModelSource {
    File(PathBuf),
    /// The miniature inside the program.
    Embedded,
}

impl ModelSource {
    pub(crate) fn resolve(given: Option<PathBuf>, around: &Surroundings) -> Self {
        match given.or_else(|| around.ds4_model.clone()) {
            Some(path) => Self::File(path),
            None if around.default_model => Self::File(PathBuf::from(DEFAULT_MODEL)),
            None => Self::Embedded,
        }
    }
}

/// How a model is opened.
#[derive(Clone, Debug, Default)]
pub(crate) struct Runtime {
    /// Support file with the model's draft block.
    pub(crate) mtp: Option<ModelSource>,
    pub(crate) backend: Backend,
    /// Number of the card, for backends that have any.
    pub(crate) device: usize,
    /// `None`: `DEFAULT_CTX`, or less if the model was trained for less.
    pub(crate) ctx: Option<u32>,
    pub(crate) threads: Option<usize>,
    pub(crate) prefill_chunk: Option<u32>,
    /// Float32 cache rows instead of the default numerics.
    pub(crate) quality: bool,
    pub(crate) warm_weights: bool,
    /// The device may be shared with another process.
    pub(crate) no_lock: bool,
}

/// What evaluates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Backend {
    /// The best that is there for the model, until `device::settle` has looked.
    #[default]
    Auto,
    Cpu,
    Cuda,
    /// A GPU through wgpu.
    Gpu(Api),
    /// A script, the one inside the program if no file is named.
    Stub(Option<PathBuf>),
}

impl Backend {
    /// As `--backend` names it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::Gpu(api) => api.name(),
            Self::Stub(_) => "stub",
        }
    }
}

impl Backend {
    /// Whether a card evaluates, with memory of its own and cache rows as stored codes.
    pub(crate) fn is_card(&self) -> bool {
        matches!(self, Self::Cuda | Self::Gpu(_))
    }
}

impl Runtime {
    /// The context for a model trained for `trained` tokens; a script was trained for nothing.
    pub(crate) fn context(&self, trained: u32) -> anyhow::Result<u32> {
        match self.ctx {
            Some(ctx) if matches!(self.backend, Backend::Stub(_)) => Ok(ctx),
            Some(ctx) if ctx > trained => {
                Err(usage(format!("invalid value for --ctx: {ctx}: the model was made for at most {trained}")))
            }
            Some(ctx) => Ok(ctx),
            None => Ok(DEFAULT_CTX.min(trained)),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    Json,
    StreamJson,
}

impl Config {
    pub(crate) fn resolve(flags: Flags, around: &Surroundings) -> anyhow::Result<Self> {
        let format = match (flags.json, flags.stream_json) {
            (true, true) => return Err(usage("--json and --stream-json cannot be combined")),
            (true, false) => Format::Json,
            (false, true) => Format::StreamJson,
            (false, false) => Format::Text,
        };
        if flags.raw && flags.system.is_some() {
            return Err(usage("--raw and --system cannot be combined: a raw prompt has no template"));
        }
        let action = action(&flags, around)?;
        match action {
            Action::Repl if format != Format::Text => {
                return Err(usage("JSON output needs a prompt: use -p or --prompt-file"));
            }
            Action::Repl if flags.raw => return Err(usage("--raw needs a prompt: use -p or --prompt-file")),
            Action::OneShot(_) | Action::Repl => {}
            Action::Inspect if format != Format::StreamJson => {}
            _ if format != Format::Text => return Err(usage("JSON output is for prompts and --inspect")),
            _ => {}
        }
        let (runtime, sampling) = (runtime(&flags)?, sampling(&flags));
        Ok(Self {
            action,
            model: ModelSource::resolve(flags.model, around),
            runtime,
            sampling,
            system: flags.system.unwrap_or_else(|| DEFAULT_SYSTEM.to_owned()),
            think: flags.think.unwrap_or(ThinkFlag::Think),
            think_budget: flags.think_budget.unwrap_or(0),
            tokens: flags.tokens.unwrap_or(DEFAULT_TOKENS),
            raw: flags.raw,
            format,
            hide_thinking: flags.hide_thinking,
            quiet: flags.quiet,
            top_k: flags.logprobs_top_k.unwrap_or(DEFAULT_TOP_K),
        })
    }
}

pub(crate) fn runtime(flags: &Flags) -> anyhow::Result<Runtime> {
    let backend = match (flags.backend, flags.stub_script.clone()) {
        (BackendFlag::Stub, _) if flags.mtp.is_some() => {
            return Err(usage("--mtp and --backend stub cannot be combined"));
        }
        (BackendFlag::Stub, script) => Backend::Stub(script),
        (_, Some(_)) => return Err(usage("--stub-script needs --backend stub")),
        (BackendFlag::Auto, None) => Backend::Auto,
        (BackendFlag::Cpu, None) => Backend::Cpu,
        (BackendFlag::Cuda, None) => Backend::Cuda,
        (BackendFlag::Vulkan, None) => Backend::Gpu(Api::Vulkan),
        (BackendFlag::Metal, None) => Backend::Gpu(Api::Metal),
    };
    if flags.quality && backend.is_card() {
        let name = backend.name();
        return Err(usage(format!(
            "--quality and --{name} cannot be combined: a card holds cache rows as stored codes"
        )));
    }
    if flags.device.is_some() && !backend.is_card() {
        return Err(usage("--device needs --cuda, --vulkan or --metal"));
    }
    Ok(Runtime {
        backend,
        device: flags.device.unwrap_or(0),
        mtp: flags.mtp.clone().map(ModelSource::File),
        ctx: flags.ctx,
        threads: flags.threads,
        prefill_chunk: flags.prefill_chunk,
        quality: flags.quality,
        warm_weights: flags.warm_weights,
        no_lock: flags.no_lock,
    })
}

pub(crate) fn sampling(flags: &Flags) -> SamplingParams {
    SamplingParams {
        temperature: flags.temp.unwrap_or(1.0),
        top_p: flags.top_p.unwrap_or(1.0),
        min_p: flags.min_p.unwrap_or(0.05),
        top_k: flags.top_k.unwrap_or(0),
        presence_penalty: flags.presence_penalty.unwrap_or(0.0),
        frequency_penalty: flags.frequency_penalty.unwrap_or(0.0),
        repetition_penalty: 1.0,
        seed: flags.seed.unwrap_or_else(time_seed),
    }
}

fn action(flags: &Flags, around: &Surroundings) -> anyhow::Result<Action> {
    let mut prompts = flags.prompts.clone();
    if prompts.len() > 1 {
        return Err(usage("specify only one prompt source"));
    }
    let prompt = prompts.pop();
    let (name, diagnostic) = match flags.diagnostics.as_slice() {
        [] => {
            return Ok(match prompt {
                Some(prompt) => Action::OneShot(prompt),
                None if around.stdin_is_terminal => Action::Repl,
                None => Action::OneShot(PromptFlag::Stdin),
            });
        }
        [(name, diagnostic)] => (name, diagnostic.clone()),
        [(first, _), (second, _), ..] => {
            return Err(usage(format!("{first} and {second} cannot be combined: run ds4 once for each")));
        }
    };
    let takes_none = matches!(diagnostic, Diagnostic::Inspect | Diagnostic::Perplexity(_) | Diagnostic::Score(_));
    match (prompt, takes_none) {
        (Some(_), true) => Err(usage(format!("{name} takes no prompt: leave out -p and --prompt-file"))),
        (None, false) => Err(usage(format!("{name} needs a prompt: use -p or --prompt-file"))),
        (prompt, _) => Ok(match (diagnostic, prompt) {
            (Diagnostic::DumpTokens, Some(prompt)) => Action::DumpTokens(prompt),
            (Diagnostic::DumpLogprobs(file), Some(prompt)) => Action::DumpLogprobs(file, prompt),
            (Diagnostic::DumpLogits(file), Some(prompt)) => Action::DumpLogits(file, prompt),
            (Diagnostic::Perplexity(file), _) => Action::Perplexity(file),
            (Diagnostic::Score(file), _) => Action::Score(file),
            (_, _) => Action::Inspect,
        }),
    }
}

/// Unlike from run to run; printed with the timing line, so that a run can be repeated.
pub(crate) fn time_seed() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs().wrapping_mul(1_000_003) ^ u64::from(since.subsec_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(words: &[&str], stdin_is_terminal: bool) -> anyhow::Result<Config> {
        let flags = Flags::parse(words.iter().map(std::ffi::OsString::from))?;
        Config::resolve(flags, &Surroundings { ds4_model: None, default_model: false, stdin_is_terminal })
    }

    fn message(words: &[&str]) -> String {
        resolve(words, true).expect_err("a usage error").to_string()
    }

    #[test]
    fn without_a_prompt_the_terminal_decides() {
        assert_eq!(resolve(&[], true).expect("config").action, Action::Repl);
        assert_eq!(resolve(&[], false).expect("config").action, Action::OneShot(PromptFlag::Stdin));
    }

    #[test]
    fn contradictions_are_usage_errors() {
        assert_eq!(message(&["-p", "a", "--prompt-file", "b"]), "specify only one prompt source");
        assert_eq!(
            message(&["--inspect", "--dump-tokens"]),
            "--inspect and --dump-tokens cannot be combined: run ds4 once for each"
        );
        assert_eq!(message(&["--dump-tokens"]), "--dump-tokens needs a prompt: use -p or --prompt-file");
        assert_eq!(
            message(&["--perplexity-file", "f", "-p", "a"]),
            "--perplexity-file takes no prompt: leave out -p and --prompt-file"
        );
        assert_eq!(message(&["--stub-script", "f"]), "--stub-script needs --backend stub");
        assert_eq!(
            message(&["--backend", "stub", "--stub-script", "f", "--cpu"]),
            "--stub-script needs --backend stub"
        );
        assert_eq!(
            message(&["--cuda", "--quality"]),
            "--quality and --cuda cannot be combined: a card holds cache rows as stored codes"
        );
        assert_eq!(message(&["--device", "1"]), "--device needs --cuda, --vulkan or --metal");
        assert_eq!(message(&["--device", "1", "--cuda", "--cpu"]), "--device needs --cuda, --vulkan or --metal");
        let both = ["--backend", "stub", "--mtp", "f"];
        assert_eq!(message(&both), "--mtp and --backend stub cannot be combined");
        assert_eq!(message(&["--json", "--stream-json", "-p", "a"]), "--json and --stream-json cannot be combined");
    }

    #[test]
    fn the_model_is_the_named_one_then_the_variable_then_the_directory_then_the_embedded() {
        let around = |variable: Option<&str>, default_model| Surroundings {
            ds4_model: variable.map(PathBuf::from),
            default_model,
            stdin_is_terminal: true,
        };
        let file = |name: &str| ModelSource::File(PathBuf::from(name));
        assert_eq!(ModelSource::resolve(Some("a".into()), &around(Some("b"), true)), file("a"));
        assert_eq!(ModelSource::resolve(None, &around(Some("b"), true)), file("b"));
        assert_eq!(ModelSource::resolve(None, &around(None, true)), file(DEFAULT_MODEL));
        assert_eq!(ModelSource::resolve(None, &around(None, false)), ModelSource::Embedded);
    }

    #[test]
    fn the_last_word_about_the_backend_counts() {
        let backend = |words: &[&str]| resolve(words, true).expect("config").runtime.backend;
        assert_eq!(backend(&[]), Backend::Auto);
        assert_eq!(backend(&["--quality"]), Backend::Auto);
        assert_eq!(backend(&["--cuda", "--cpu"]), Backend::Cpu);
        assert_eq!(backend(&["--cpu", "--backend", "cuda"]), Backend::Cuda);
        assert_eq!(resolve(&["--cuda", "--device", "3"], true).expect("config").runtime.device, 3);
    }

    #[test]
    fn a_context_beyond_the_model_is_refused_and_the_default_gives_way() {
        let runtime = |ctx| Runtime { ctx, ..Runtime::default() };
        assert_eq!(runtime(None).context(1024).expect("context"), 1024);
        assert_eq!(runtime(Some(7)).context(1024).expect("context"), 7);
        assert!(runtime(Some(2048)).context(1024).is_err());
        let script = Runtime { backend: Backend::Stub(None), ..runtime(Some(2048)) };
        assert_eq!(script.context(1024).expect("context"), 2048);
    }
}
