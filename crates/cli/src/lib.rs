//! `ds4`: chat, one-shot answers, diagnostics, and a few tools behind subcommands, some of which are programs of their
//! own under a hyphenated name (`src/bin`).

#![forbid(unsafe_code)]

mod answer;
mod args;
mod bench;
mod check;
mod compare;
mod config;
mod conversation;
mod device;
mod doctor;
mod embedded;
mod eval;
mod failure;
mod file;
mod flags;
mod help;
mod inspect;
mod interrupt;
mod kv;
mod lock;
mod logits;
mod logprobs;
mod memory;
mod plot;
mod printer;
mod progress;
mod quantize;
mod repl;
mod run;
mod score;
mod serve;
mod state;
mod synth;
mod terminal;
mod tokens;

use std::ffi::OsString;
use std::io::{self, Write};

use config::{Action, Config, Surroundings};
use flags::Flags;

/// Subcommands of other parts of the family.
const LATER: &[&str] = &["agent", "download", "steering"];

/// The program of the process's arguments; it ends the process.
pub fn main() -> ! {
    start(std::env::args_os().skip(1).collect())
}

/// The program that `ds4 COMMAND` is, under a name of its own.
pub fn main_of(command: &str) -> ! {
    start([command.into()].into_iter().chain(std::env::args_os().skip(1)).collect())
}

fn start(words: Vec<OsString>) -> ! {
    let name = match words.first().and_then(|word| word.to_str()) {
        Some("bench") => "ds4-bench",
        Some("eval") => "ds4-eval",
        Some("server") => "ds4-server",
        _ => "ds4",
    };
    let mut out = io::stdout();
    let result = run(words, &mut out).and_then(|()| terminal::show(&mut out, ""));
    let (code, lines) = result.map_or_else(|error| failure::verdict(&error, name), |()| (0, Vec::new()));
    // What cannot be written has been told already, or nobody reads.
    let _ = out.flush();
    lines.iter().for_each(terminal::note);
    failure::leave(code)
}

/// The first word chooses the program; without a known one it is the chat.
fn run(words: Vec<OsString>, out: &mut dyn Write) -> anyhow::Result<()> {
    let rest = words.iter().skip(1).cloned();
    match words.first().and_then(|word| word.to_str()) {
        Some("quantize") => quantize::main(rest, out),
        Some("synth") => synth::main(rest, out),
        Some("check") => check::main(rest, out),
        Some("logits") => logits::main(rest, out),
        Some("compare") => compare::main(rest, out),
        Some("bench") => bench::main(rest, out),
        Some("eval") => eval::main(rest, out),
        Some("kv") => kv::main(rest, out),
        Some("doctor") => doctor::main(rest, out),
        Some("plot") => plot::main(rest, out),
        Some("server") => serve::main(rest, out),
        Some(name) if LATER.contains(&name) => Err(failure::usage(format!("{name} is not supported by this build"))),
        Some(name) if !name.starts_with('-') => {
            Err(failure::usage_hint(format!("unknown command: {name}"), "try 'ds4 --help'"))
        }
        _ => chat(words, out),
    }
}

fn chat(words: Vec<OsString>, out: &mut dyn Write) -> anyhow::Result<()> {
    let flags = Flags::parse(words)?;
    if flags.help {
        return terminal::show(out, &help::page(flags.help_topic.as_deref())?);
    }
    if flags.version {
        return terminal::show(out, &help::version());
    }
    let mut config = Config::resolve(flags, &Surroundings::look())?;
    if !matches!(config.action, Action::Inspect | Action::DumpTokens(_)) {
        device::settle(&config.model, &mut config.runtime, config.quiet)?;
    }
    match &config.action {
        Action::OneShot(prompt) => run::one_shot(&config, prompt, out),
        Action::Repl => repl::run(config, out),
        Action::Inspect => inspect::run(&config, out),
        Action::DumpTokens(prompt) => tokens::dump(&config, prompt, out),
        Action::DumpLogprobs(file, prompt) => logprobs::dump_logprobs(&config, file, prompt),
        Action::DumpLogits(file, prompt) => logprobs::dump_logits(&config, file, prompt),
        Action::Perplexity(file) => score::perplexity(&config, file, out),
        Action::Score(file) => score::continuations(&config, file, out),
    }
}
