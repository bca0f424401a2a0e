//! The conversation in a terminal: one line editor, one model, one transcript. Owns what a line means and when a turn is
//! rolled back; `commands` holds what the slash commands do.

mod commands;
mod editor;

use std::io::{ErrorKind, Write};
use std::time::{Duration, Instant};

use anyhow::Context;
use ds4_engine::StopReason;
use ds4_text::Thinking;
use rustyline::error::ReadlineError;

use crate::answer::{Ask, Speeds, ask};
use crate::config::{Config, ModelSource};
use crate::conversation::{Conversation, effective};
use crate::device::{Loaded, open_file};
use crate::interrupt::Interrupt;
use crate::lock::Lock;
use crate::run::TextDisplay;
use crate::terminal::note;

/// Time within which a second Ctrl+C at an empty prompt leaves.
const AGAIN_WITHIN: Duration = Duration::from_secs(2);

/// What the miniature is, and how to leave it behind.
const MINIATURE: &[&str] = &[
    "This is ds4-mini, a trained miniature of DeepSeek V4 (23 million parameters). It chats in simple English, thinks, does",
    "small sums, sorts, calls tools, writes JSON and finds facts in long texts; beyond that it says that it does not know.",
    "The real model: download a DeepSeek V4 Flash file (2 bits: 81 GB) from huggingface.co/antirez/deepseek-v4-gguf, then",
    "start 'ds4 -m FILE'. /help lists the commands here.",
];

/// Everything a command can change.
struct Repl {
    config: Config,
    interrupt: Interrupt,
    loaded: Loaded,
    conversation: Conversation,
    /// Grows with every generation, so that a retry draws another answer.
    generation: u64,
    /// Of the last answer.
    speeds: Option<Speeds>,
}

/// Whether the program goes on.
enum Next {
    Line,
    Leave,
}

pub(crate) fn run(config: Config, out: &mut dyn Write) -> anyhow::Result<()> {
    let interrupt = Interrupt::install()?;
    let file = open_file(&config.model, config.quiet)?;
    let _lock = Lock::for_conversation(&config)?;
    let loaded = Loaded::open(file, &config.runtime, config.quiet)?;
    let thinking = effective(config.think, loaded.engine.limits().context);
    let conversation = Conversation::new(&config.system, thinking);
    let mut repl = Repl { config, interrupt, loaded, conversation, generation: 0, speeds: None };
    if repl.config.model == ModelSource::Embedded && !repl.config.quiet {
        MINIATURE.iter().for_each(note);
    }
    let mut editor = editor::open()?;
    let mut last_interrupt: Option<Instant> = None;
    loop {
        match editor.readline("ds4> ") {
            Ok(line) => {
                last_interrupt = None;
                editor::remember(&mut editor, &line);
                match repl.line(&line, out) {
                    Ok(Next::Line) => {}
                    Ok(Next::Leave) => return Ok(()),
                    Err(error) => repl.survive(error)?,
                }
                if repl.interrupt.terminated() {
                    return Err(repl.interrupt.ended());
                }
            }
            Err(ReadlineError::Eof) => return Ok(()),
            Err(ReadlineError::Interrupted) => {
                if last_interrupt.is_some_and(|at| at.elapsed() <= AGAIN_WITHIN) {
                    return Err(repl.interrupt.ended());
                }
                last_interrupt = Some(Instant::now());
                note("ds4: press Ctrl+C again to leave, or type /quit");
            }
            // Bytes that are no text, from a paste or a key of another encoding, are no reason to lose a conversation.
            Err(ReadlineError::Io(error)) if error.kind() == ErrorKind::InvalidData => {
                note("ds4: not valid UTF-8: the line was dropped");
            }
            Err(error) => return Err(error).context("cannot read from the terminal"),
        }
    }
}

impl Repl {
    fn line(&mut self, line: &str, out: &mut dyn Write) -> anyhow::Result<Next> {
        if line.trim().is_empty() {
            return Ok(Next::Line);
        }
        if let Some(rest) = line.strip_prefix('/') {
            if !rest.starts_with('/') {
                return commands::run(self, line.trim(), out);
            }
            return self.turn(rest, out).map(|()| Next::Line);
        }
        self.turn(line, out).map(|()| Next::Line)
    }

    /// What failed is said and the conversation goes on, unless there is nobody or nothing left to go on with.
    fn survive(&self, error: anyhow::Error) -> anyhow::Result<()> {
        let (code, lines) = crate::failure::verdict(&error, "ds4");
        if code == 0 || code == 3 || self.loaded.engine.failure().is_some() {
            return Err(error);
        }
        lines.iter().for_each(note);
        Ok(())
    }

    /// One user message and its answer. A turn without an answer is taken back.
    fn turn(&mut self, text: &str, out: &mut dyn Write) -> anyhow::Result<()> {
        self.conversation.push_user(&self.loaded.file.tokenizer, text)?;
        let answered = self.answer(out);
        if !matches!(answered, Ok(true)) {
            self.conversation.pop();
        }
        answered.map(|_| ())
    }

    /// Whether the open turn has an answer now.
    fn answer(&mut self, out: &mut dyn Write) -> anyhow::Result<bool> {
        let prompt = self.conversation.ids(&self.loaded.file.tokenizer)?;
        let context = self.loaded.engine.limits().context;
        if prompt.len() >= context as usize {
            let before = self.ids_without_open_turn()?;
            let free = (context as usize).saturating_sub(before);
            note(format_args!(
                "ds4: context is full: the message needs {} tokens, {free} are free: try /clear, /undo or /ctx",
                prompt.len() - before
            ));
            return Ok(false);
        }
        let mut sampling = self.config.sampling;
        sampling.seed = sampling.seed.wrapping_add(self.generation);
        self.generation += 1;
        let request = Ask {
            prompt,
            sampling,
            max_tokens: self.config.tokens,
            thinking: self.conversation.thinking() != Thinking::None,
            think_budget: self.config.think_budget,
            logprobs: None,
        };
        let mut display = TextDisplay::new(&self.config, out);
        let asked = ask(&self.loaded.engine, &self.interrupt, request, &mut display);
        display.finish()?;
        let answer = asked?;
        if !self.config.quiet && !answer.ids.is_empty() {
            note(answer.timing_line(sampling.seed));
        }
        if !answer.ids.is_empty() {
            self.speeds = Some(answer.speeds());
        }
        if let Some(error) = answer.failure {
            return Err(error).context("generation failed");
        }
        if answer.ids.is_empty() {
            note("ds4: stopped before the answer: the message was taken back");
            return Ok(false);
        }
        if answer.reason == StopReason::ContextFull {
            note(format_args!("ds4: context of {context} tokens is full: the answer ends here"));
        }
        self.conversation.push_answer(&self.loaded.file.tokenizer, &answer.ids, answer.said);
        Ok(true)
    }

    fn ids_without_open_turn(&self) -> anyhow::Result<usize> {
        let mut before = self.conversation.clone();
        before.pop();
        Ok(before.ids(&self.loaded.file.tokenizer)?.len())
    }
}
