//! The slash commands. Each says what it did on standard error; a mistake costs nothing but its message.

use std::fmt::Display;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use ds4_text::Thinking;
use serde_json::Value;

use super::{Next, Repl};
use crate::args::{parse_float, parse_int};
use crate::config::Runtime;
use crate::conversation::{Conversation, effective};
use crate::device::{Loaded, open_file};
use crate::file::{read_text, write_whole};
use crate::flags::ThinkFlag;
use crate::help;
use crate::terminal::{note, show};

pub(super) const NAMES: &[&str] = &[
    "/help",
    "/think",
    "/think-max",
    "/nothink",
    "/ctx",
    "/read",
    "/system",
    "/temp",
    "/seed",
    "/status",
    "/save",
    "/load",
    "/undo",
    "/retry",
    "/clear",
    "/quit",
    "/exit",
];

pub(super) const TAKES_FILE: &[&str] = &["/read", "/save", "/load"];

pub(super) fn run(repl: &mut Repl, line: &str, out: &mut dyn Write) -> anyhow::Result<Next> {
    let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    match name {
        "/quit" | "/exit" => return Ok(Next::Leave),
        "/help" => show(out, help::COMMANDS)?,
        "/think" => repl.think(ThinkFlag::Think),
        "/think-max" => repl.think(ThinkFlag::Max),
        "/nothink" => repl.think(ThinkFlag::None),
        "/ctx" => repl.resize(rest)?,
        "/read" => {
            let text = read_text(file(name, rest)?, "file")?;
            repl.turn(&text, out)?;
        }
        "/system" => {
            repl.conversation.set_system(rest);
            note("ds4: new system text: the whole conversation is processed again with the next message");
        }
        "/temp" => {
            let value = parse_float(rest, 0.0..=100.0).map_err(|why| invalid(name, rest, &why))?;
            repl.config.sampling.temperature = value;
            note(format_args!("ds4: temperature {value}"));
        }
        "/seed" => {
            let value = parse_int(rest, 0..=u64::MAX).map_err(|why| invalid(name, rest, &why))?;
            (repl.config.sampling.seed, repl.generation) = (value, 0);
            note(format_args!("ds4: seed {value}"));
        }
        "/status" => repl.status()?,
        "/save" => repl.save(file(name, rest)?)?,
        "/load" => repl.load(file(name, rest)?)?,
        "/undo" => repl.undo()?,
        "/retry" => repl.retry(out)?,
        "/clear" => {
            repl.conversation.clear();
            note("ds4: fresh conversation");
        }
        unknown => note(format_args!("ds4: unknown command: {unknown}")),
    }
    Ok(Next::Line)
}

fn invalid(name: &str, value: &str, why: &dyn Display) -> anyhow::Error {
    anyhow!("invalid value for {name}: {value}{why}")
}

fn file<'a>(name: &str, rest: &'a str) -> anyhow::Result<&'a Path> {
    if rest.is_empty() { Err(anyhow!("{name} needs a file name")) } else { Ok(Path::new(rest)) }
}

fn mode_name(thinking: Thinking) -> &'static str {
    match thinking {
        Thinking::None => "off",
        Thinking::Low | Thinking::High => "on",
        Thinking::Max => "max",
    }
}

impl Repl {
    fn think(&mut self, flag: ThinkFlag) {
        let thinking = effective(flag, self.loaded.engine.limits().context);
        self.config.think = flag;
        let again = self.conversation.set_thinking(thinking) && !self.conversation.turns().is_empty();
        let note_again = if again { ": the whole conversation is processed again with the next message" } else { "" };
        note(format_args!("ds4: thinking {}{note_again}", mode_name(thinking)));
    }

    /// Opens the model again with another context. The old one is gone before the new one comes, so that both need not fit.
    fn resize(&mut self, value: &str) -> anyhow::Result<()> {
        let ctx = parse_int(value, 1..=u64::from(u32::MAX)).map_err(|why| invalid("/ctx", value, &why))? as u32;
        let used = self.conversation.ids(&self.loaded.file.tokenizer)?.len();
        if used >= ctx as usize {
            bail!("invalid value for /ctx: {ctx}: the conversation has {used} tokens");
        }
        let wanted = Runtime { ctx: Some(ctx), ..self.config.runtime.clone() };
        wanted.context(self.loaded.file.shape.context)?;
        self.loaded.engine.stop();
        match self.reopen(&wanted) {
            Ok(loaded) => (self.loaded, self.config.runtime) = (loaded, wanted),
            Err(error) => {
                let runtime = self.config.runtime.clone();
                self.loaded = self.reopen(&runtime).context("cannot open the model again")?;
                return Err(error);
            }
        }
        self.conversation.set_thinking(effective(self.config.think, ctx));
        note(format_args!("ds4: context of {ctx} tokens: the conversation is processed again with the next message"));
        Ok(())
    }

    fn reopen(&self, runtime: &Runtime) -> anyhow::Result<Loaded> {
        Loaded::open(open_file(&self.config.model, true)?, runtime, self.config.quiet)
    }

    fn status(&self) -> anyhow::Result<()> {
        let file = &self.loaded.file;
        let used = self.conversation.ids(&file.tokenizer)?.len();
        note(format_args!("model: {} ({})", file.shape.name, file.gguf.name()));
        note(format_args!("thinking: {}", mode_name(self.conversation.thinking())));
        note(format_args!(
            "context: {used}/{} tokens, {} turns",
            self.loaded.engine.limits().context,
            self.conversation.turns().len()
        ));
        let sampling = &self.config.sampling;
        let seed = sampling.seed.wrapping_add(self.generation);
        note(format_args!("sampling: temperature {}, next seed {seed}", sampling.temperature));
        if let Some(speeds) = self.speeds {
            note(format_args!("last answer: {speeds}"));
        }
        Ok(())
    }

    fn save(&self, path: &Path) -> anyhow::Result<()> {
        let messages = self.conversation.to_json();
        write_whole(path, |file| {
            serde_json::to_writer_pretty(&mut *file, &messages)?;
            Ok(file.write_all(b"\n")?)
        })?;
        note(format_args!("ds4: saved {} turns: {}", self.conversation.turns().len(), path.display()));
        Ok(())
    }

    fn load(&mut self, path: &Path) -> anyhow::Result<()> {
        let wrong = || format!("cannot load conversation: {}", path.display());
        let value: Value = serde_json::from_str(&read_text(path, "conversation")?).with_context(wrong)?;
        let tokenizer = &self.loaded.file.tokenizer;
        let conversation =
            Conversation::from_json(tokenizer, self.conversation.thinking(), &value).with_context(wrong)?;
        let (used, context) = (conversation.ids(tokenizer)?.len(), self.loaded.engine.limits().context);
        if used >= context as usize {
            bail!("{}: {used} tokens, expected fewer than the context of {context}", wrong());
        }
        self.conversation = conversation;
        note(format_args!("ds4: loaded {} turns, {used} tokens", self.conversation.turns().len()));
        Ok(())
    }

    fn undo(&mut self) -> anyhow::Result<()> {
        self.conversation.pop().context("nothing to undo")?;
        note(format_args!("ds4: last turn dropped, {} turns left", self.conversation.turns().len()));
        Ok(())
    }

    /// Another answer to the last message; the old one stays if none comes.
    fn retry(&mut self, out: &mut dyn Write) -> anyhow::Result<()> {
        let before = self.conversation.clone();
        let user = self.conversation.pop().context("nothing to retry")?;
        let turns = self.conversation.turns().len();
        let answered = self.turn(&user, out);
        if self.conversation.turns().len() == turns {
            self.conversation = before;
        }
        answered
    }
}
