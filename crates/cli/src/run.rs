//! One prompt, one answer: where the prompt comes from, how the answer is written, how the program ends.

use std::fs::File;
use std::io::{self, Write};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::answer::{Answer, Ask, Display, ask};
use crate::config::{Config, Format};
use crate::conversation::{Encoded, effective, encode_prompt};
use crate::device::{Loaded, ModelFile, open_file};
use crate::failure::{reason, usage};
use crate::file::text_of;
use crate::flags::PromptFlag;
use crate::interrupt::Interrupt;
use crate::lock::Lock;
use crate::printer::Printer;
use crate::progress::Progress;
use crate::terminal;

/// The prompt's text.
pub(crate) fn read_prompt(source: &PromptFlag) -> anyhow::Result<String> {
    match source {
        PromptFlag::Text(text) => Ok(text.clone()),
        PromptFlag::Stdin => {
            let text = text_of(io::stdin().lock())
                .map_err(|why| usage(format!("cannot read prompt: standard input: {why}")))?;
            if text.is_empty() { Err(usage("no prompt: standard input is empty")) } else { Ok(text) }
        }
        PromptFlag::File(path) => {
            let name = path.display();
            let file =
                File::open(path).map_err(|e| usage(format!("cannot open prompt file: {name}: {}", reason(&e))))?;
            text_of(file).map_err(|why| usage(format!("cannot read prompt file: {name}: {why}")))
        }
    }
}

/// The model file, untouched but for its metadata, and the prompt's ids, which fit the context.
pub(crate) fn prepare(config: &Config, prompt: &PromptFlag) -> anyhow::Result<(ModelFile, Encoded)> {
    let text = read_prompt(prompt)?;
    let file = open_file(&config.model, config.quiet)?;
    let ctx = config.runtime.context(file.shape.context)?;
    let encoded = encode_prompt(&file.tokenizer, &config.system, effective(config.think, ctx), config.raw, &text)?;
    if encoded.ids.len() >= ctx as usize {
        bail!("prompt has {} tokens, expected fewer than --ctx={ctx}", encoded.ids.len());
    }
    Ok((file, encoded))
}

/// Answers one prompt on standard output.
pub(crate) fn one_shot(config: &Config, prompt: &PromptFlag, out: &mut dyn Write) -> anyhow::Result<()> {
    let interrupt = Interrupt::install()?;
    let (file, encoded) = prepare(config, prompt)?;
    let _lock = Lock::for_conversation(config)?;
    let loaded = Loaded::open(file, &config.runtime, config.quiet)?;
    let request = Ask {
        prompt: encoded.ids,
        sampling: config.sampling,
        max_tokens: config.tokens,
        thinking: encoded.thinking,
        think_budget: config.think_budget,
        logprobs: None,
    };
    let answer = match config.format {
        Format::Text => {
            let mut display = TextDisplay::new(config, out);
            let answer = ask(&loaded.engine, &interrupt, request, &mut display)?;
            display.finish()?;
            answer
        }
        Format::Json => {
            let mut display = Quiet(Progress::new(config.quiet));
            let answer = ask(&loaded.engine, &interrupt, request, &mut display)?;
            display.0.clear();
            write_json(out, &result(&answer, config))?;
            answer
        }
        Format::StreamJson => {
            let mut display = Lines { out: &mut *out, hide_thinking: config.hide_thinking };
            let answer = ask(&loaded.engine, &interrupt, request, &mut display)?;
            let mut last = result(&answer, config);
            last.as_object_mut().context("a result is an object")?.insert("type".to_owned(), json!("done"));
            write_json(out, &last)?;
            answer
        }
    };
    conclude(config, &interrupt, answer)
}

/// The timing line, then the way the program ends.
fn conclude(config: &Config, interrupt: &Interrupt, answer: Answer) -> anyhow::Result<()> {
    if !config.quiet {
        terminal::note(answer.timing_line(config.sampling.seed));
    }
    match answer.failure {
        Some(error) => Err(error).context("generation failed"),
        None if answer.interrupted => Err(interrupt.ended()),
        None => Ok(()),
    }
}

fn write_json(out: &mut dyn Write, value: &Value) -> anyhow::Result<()> {
    terminal::show(out, &format!("{value}\n"))
}

/// The object of `--json`.
fn result(answer: &Answer, config: &Config) -> Value {
    let speeds = answer.speeds();
    let reasoning = if config.hide_thinking { "" } else { answer.said.reasoning.as_str() };
    let (usage, timings) = (&answer.usage, &answer.timings);
    json!({
        "content": answer.said.content,
        "reasoning": reasoning,
        "finish_reason": answer.finish_reason(),
        "usage": {
            "prompt_tokens": usage.prompt,
            "cached_tokens": usage.cached,
            "completion_tokens": usage.completion,
            "reasoning_tokens": usage.reasoning,
            "total_tokens": usage.prompt + usage.completion,
        },
        "timings": {
            "prefill_seconds": timings.prefill,
            "generation_seconds": timings.decode,
            "ttft_seconds": timings.ttft,
            "prefill_tps": speeds.prefill,
            "generation_tps": speeds.generation,
        },
        "seed": config.sampling.seed,
    })
}

/// Plain text as it comes, progress before it.
pub(crate) struct TextDisplay<'a> {
    out: &'a mut dyn Write,
    printer: Printer,
    progress: Progress,
}

impl<'a> TextDisplay<'a> {
    pub(crate) fn new(config: &Config, out: &'a mut dyn Write) -> Self {
        let dim = terminal::colours(&io::stdout());
        Self { out, printer: Printer::new(dim, config.hide_thinking), progress: Progress::new(config.quiet) }
    }

    pub(crate) fn finish(&mut self) -> anyhow::Result<()> {
        self.progress.clear();
        self.printer.finish(self.out)
    }
}

impl Display for TextDisplay<'_> {
    fn prefill(&mut self, done: u32, total: u32) -> anyhow::Result<()> {
        self.progress.update(done, total);
        Ok(())
    }

    fn thinking(&mut self, text: &str) -> anyhow::Result<()> {
        self.progress.clear();
        self.printer.thinking(self.out, text)
    }

    fn answer(&mut self, text: &str) -> anyhow::Result<()> {
        self.progress.clear();
        self.printer.answer(self.out, text)
    }
}

/// Nothing but progress.
pub(crate) struct Quiet(pub(crate) Progress);

impl Display for Quiet {
    fn prefill(&mut self, done: u32, total: u32) -> anyhow::Result<()> {
        self.0.update(done, total);
        Ok(())
    }

    fn thinking(&mut self, _text: &str) -> anyhow::Result<()> {
        self.0.clear();
        Ok(())
    }

    fn answer(&mut self, _text: &str) -> anyhow::Result<()> {
        self.0.clear();
        Ok(())
    }
}

/// One JSON object a line.
struct Lines<'a> {
    out: &'a mut dyn Write,
    hide_thinking: bool,
}

impl Display for Lines<'_> {
    fn prefill(&mut self, done: u32, total: u32) -> anyhow::Result<()> {
        write_json(self.out, &json!({"type": "prefill", "done": done, "total": total}))
    }

    fn thinking(&mut self, text: &str) -> anyhow::Result<()> {
        if self.hide_thinking {
            return Ok(());
        }
        write_json(self.out, &json!({"type": "reasoning", "text": text}))
    }

    fn answer(&mut self, text: &str) -> anyhow::Result<()> {
        write_json(self.out, &json!({"type": "content", "text": text}))
    }
}
