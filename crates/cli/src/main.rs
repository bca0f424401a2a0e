//! `ds4`: chat, one-shot answers, diagnostics, and a few tools behind subcommands.

#![forbid(unsafe_code)]

mod args;
mod config;
mod failure;
mod flags;
mod help;
mod interrupt;
mod terminal;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use config::{Action, Config, Surroundings};
use flags::Flags;
use interrupt::Interrupt;

fn main() -> ExitCode {
    let mut out = io::stdout().lock();
    let result = run(&mut out).and_then(|()| terminal::show(&mut out, ""));
    let Err(error) = result else { return ExitCode::SUCCESS };
    let (code, lines) = failure::verdict(&error);
    lines.iter().for_each(terminal::note);
    ExitCode::from(code)
}

fn run(out: &mut dyn Write) -> anyhow::Result<()> {
    let mut words = std::env::args_os().skip(1).peekable();
    let command = words.peek().and_then(|word| word.to_str()).unwrap_or_default().to_owned();
    let _ = (&command, Action::Repl, Interrupt::install);
    one_program(words, out)
}

fn one_program(words: impl Iterator<Item = OsString>, out: &mut dyn Write) -> anyhow::Result<()> {
    let flags = Flags::parse(words)?;
    if let Some(topic) = &flags.help {
        return terminal::show(out, &help::page(topic.as_deref())?);
    }
    if flags.version {
        return terminal::show(out, &help::version());
    }
    let config = Config::resolve(flags, &Surroundings::look())?;
    let _ = config;
    Ok(())
}
