//! One answer: a request through the engine's door, its events to a display, its tokens collected. Knows neither where the
//! prompt came from nor what becomes of the answer.

use std::sync::mpsc;
use std::time::Instant;

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

    /// Tokens a second of the prompt's new part and of the generation.
    pub(crate) fn speeds(&self) -> (f64, f64) {
        let rate = |tokens: u32, seconds: f64| if seconds > 0.0 { f64::from(tokens) / seconds } else { 0.0 };
        let new = self.usage.prompt - self.usage.cached.min(self.usage.prompt);
        (rate(new, self.timings.prefill), rate(self.usage.completion, self.timings.decode))
    }

    /// The line that ends an answer on standard error.
    pub(crate) fn timing_line(&self, seed: u64) -> String {
        let (prefill, generation) = self.speeds();
        format!("ds4: prefill: {prefill:.2} t/s, generation: {generation:.2} t/s, seed {seed}")
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
    let started = Instant::now();
    let collected = engine.submit(request).map_err(anyhow::Error::from).and_then(|()| collect(&events, display));
    let interrupted = interrupt.end();
    let mut answer = collected?;
    answer.interrupted = interrupted || answer.reason == StopReason::Cancelled;
    if answer.failure.is_some() {
        answer.usage = Usage { prompt: prompt_tokens, completion: answer.ids.len() as u32, ..Usage::default() };
        answer.timings.decode = started.elapsed().as_secs_f64();
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
        timings: Timings::default(),
        interrupted: false,
        failure: None,
    };
    for event in events {
        match event {
            Event::Prefill { done, total, .. } => display.prefill(done, total)?,
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
            Event::Delta(Delta::ToolCall(_)) => {}
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
