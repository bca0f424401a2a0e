//! One answer: a request through the engine's door, its events to a display, its tokens collected. Knows neither where the
//! prompt came from nor what becomes of the answer.

use std::fmt;
use std::sync::mpsc;

use ds4_engine::{Delta, EngineHandle, Event, Request, SamplingParams, StopReason, Timings, TokenLogprobs, Usage};

use crate::conversation::Said;
use crate::interrupt::Interrupt;

/// What to ask for.
pub(crate) struct Ask {
    pub(crate) prompt: Vec<u32>,
    pub(crate) sampling: SamplingParams,
    pub(crate) max_tokens: u32,
    /// The prompt ends inside reasoning.
    pub(crate) thinking: bool,
    pub(crate) think_budget: u32,
    /// Best candidates wanted per token.
    pub(crate) logprobs: Option<usize>,
}

/// Who watches an answer come.
pub(crate) trait Display {
    fn prefill(&mut self, done: u32, total: u32) -> anyhow::Result<()>;
    fn thinking(&mut self, text: &str) -> anyhow::Result<()>;
    fn answer(&mut self, text: &str) -> anyhow::Result<()>;
}

/// What came.
pub(crate) struct Answer {
    /// Drawn ids, the end of the turn included.
    pub(crate) ids: Vec<u32>,
    pub(crate) logprobs: Vec<TokenLogprobs>,
    pub(crate) said: Said,
    pub(crate) reason: StopReason,
    pub(crate) usage: Usage,
    /// Prompt tokens really computed: fewer than were new when the prompt was cut short.
    pub(crate) evaluated: u32,
    pub(crate) timings: Timings,
    /// The user asked to stop.
    pub(crate) interrupted: bool,
    /// What broke the generation; what came before it stands.
    pub(crate) failure: Option<ds4_engine::Error>,
}

impl Answer {
    /// Name of the reason in JSON output.
    pub(crate) fn finish_reason(&self) -> &'static str {
        match &self.reason {
            _ if self.failure.is_some() => "error",
            StopReason::EndOfTurn | StopReason::StopString(_) => "stop",
            StopReason::Length | StopReason::ContextFull => "length",
            StopReason::ToolCalls => "tool_calls",
            StopReason::Cancelled => "interrupted",
        }
    }

    pub(crate) fn speeds(&self) -> Speeds {
        let rate = |tokens: u32, seconds: f64| (tokens > 0 && seconds > 0.0).then(|| f64::from(tokens) / seconds);
        Speeds {
            prefill: rate(self.evaluated, self.timings.prefill),
            // The first token is drawn from what the prompt left: every other one took a step.
            generation: rate((self.ids.len() as u32).saturating_sub(1), self.timings.decode),
        }
    }

    /// The line that ends an answer on standard error.
    pub(crate) fn timing_line(&self, seed: u64) -> String {
        let speeds = self.speeds().to_string();
        let seed = format!("seed {seed}");
        let parts = [speeds, seed].into_iter().filter(|part| !part.is_empty());
        format!("ds4: {}", parts.collect::<Vec<_>>().join(", "))
    }
}

/// Tokens a second of the prompt's new part and of the generation; a part that did not happen has no speed.
#[derive(Clone, Copy)]
pub(crate) struct Speeds {
    pub(crate) prefill: Option<f64>,
    pub(crate) generation: Option<f64>,
}

impl fmt::Display for Speeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |name: &str, speed: Option<f64>| speed.map(|speed| format!("{name}: {speed:.2} t/s"));
        let parts = [part("prefill", self.prefill), part("generation", self.generation)];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

/// Runs one request to its end, or until the user stops it.
pub(crate) fn ask(
    engine: &EngineHandle,
    interrupt: &Interrupt,
    ask: Ask,
    display: &mut dyn Display,
) -> anyhow::Result<Answer> {
    let free = engine.limits().context.saturating_sub(ask.prompt.len() as u32);
    let prompt_tokens = ask.prompt.len() as u32;
    let (sender, events) = mpsc::channel();
    let request = Request {
        sampling: ask.sampling,
        max_tokens: ask.max_tokens.min(free.saturating_sub(1).max(1)),
        thinking: ask.thinking,
        think_budget_tokens: ask.think_budget,
        logprobs: ask.logprobs,
        cancel: interrupt.cancel(),
        ..Request::new(ask.prompt, sender)
    };
    interrupt.begin();
    let collected = engine.submit(request).map_err(anyhow::Error::from).and_then(|()| collect(&events, display));
    let interrupted = interrupt.end();
    let mut answer = collected?;
    answer.interrupted = interrupted || answer.reason == StopReason::Cancelled;
    if answer.failure.is_some() {
        answer.usage = Usage { prompt: prompt_tokens, completion: answer.ids.len() as u32, ..Usage::default() };
    }
    Ok(answer)
}

fn collect(events: &mpsc::Receiver<Event>, display: &mut dyn Display) -> anyhow::Result<Answer> {
    let mut answer = Answer {
        ids: Vec::new(),
        logprobs: Vec::new(),
        said: Said::default(),
        reason: StopReason::Cancelled,
        usage: Usage::default(),
        evaluated: 0,
        timings: Timings::default(),
        interrupted: false,
        failure: None,
    };
    for event in events {
        match event {
            Event::Prefill { done, total, cached, .. } => {
                answer.evaluated = done.saturating_sub(cached);
                display.prefill(done, total)?;
            }
            Event::Token { id, logprobs, .. } => {
                answer.ids.push(id);
                answer.logprobs.extend(logprobs);
            }
            Event::Delta(Delta::Thinking(text)) => {
                display.thinking(&text)?;
                answer.said.reasoning.push_str(&text);
            }
            Event::Delta(Delta::Text(text)) => {
                display.answer(&text)?;
                answer.said.content.push_str(&text);
            }
            // No tools are offered here, so no call is parsed.
            Event::Delta(Delta::ToolCall(_))
            | Event::TakenBack { .. }
            | Event::ReasoningClosed { .. }
            | Event::Matched(_) => {}
            Event::Done { reason, usage, timings } => {
                (answer.reason, answer.usage, answer.timings) = (reason, usage, timings);
                break;
            }
            Event::Failed(error) => {
                answer.failure = Some(error);
                break;
            }
        }
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_did_not_happen_has_no_speed() {
        let line = |evaluated, drawn| {
            let answer = Answer {
                ids: vec![5; drawn],
                logprobs: Vec::new(),
                said: Said::default(),
                reason: StopReason::Cancelled,
                usage: Usage { prompt: 100, ..Usage::default() },
                evaluated,
                timings: Timings { prefill: 2.0, decode: 4.0, ..Timings::default() },
                interrupted: true,
                failure: None,
            };
            answer.timing_line(7)
        };
        assert_eq!(line(100, 9), "ds4: prefill: 50.00 t/s, generation: 2.00 t/s, seed 7");
        assert_eq!(line(100, 1), "ds4: prefill: 50.00 t/s, seed 7");
        assert_eq!(line(64, 0), "ds4: prefill: 32.00 t/s, seed 7");
        assert_eq!(line(0, 0), "ds4: seed 7");
    }
}
