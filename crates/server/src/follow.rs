//! Follows one answer from its submission to its end: what the log, the metrics and the trace say of it, how long it may take,
//! and what the server's end does to it.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ds4_engine::{Cancel, Delta, Event, Source, StopReason, Timings, Usage};
use ds4_text::ToolCallKind;
use serde_json::{Value, json};
use tokio::time::sleep_until;
use tracing::{info, warn};

use crate::app::App;
use crate::call::Call;
use crate::error::{ApiError, Result};
use crate::job::Trade;
use crate::lifecycle::Stage;
use crate::mailbox::Mailbox;
use crate::order::{Order, Source as Prompt};
use crate::replay::Tally;
use crate::trace::{Decision, Section};

/// Between two lines about the same answer.
const PROGRESS: Duration = Duration::from_secs(5);

/// Answers that run or wait, by number.
#[derive(Default)]
pub(crate) struct Answers {
    next: AtomicU64,
    live: Mutex<BTreeMap<u64, Arc<Live>>>,
}

impl Answers {
    /// All of them, oldest first.
    pub(crate) fn list(&self) -> Vec<Arc<Live>> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Arc<Live>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What others may know of an answer while it runs.
pub(crate) struct Live {
    pub(crate) number: u64,
    pub(crate) request: String,
    pub(crate) path: String,
    pub(crate) owner: Option<String>,
    pub(crate) tenant: Option<String>,
    pub(crate) started: Instant,
    pub(crate) cancel: Cancel,
    pub(crate) parameters: Value,
    /// Kept where something may ask for it.
    pub(crate) prompt: Vec<u32>,
    pub(crate) prompt_len: u32,
    /// Prompt tokens evaluated, those found included; 0 while the answer waits.
    pub(crate) done: AtomicU32,
    pub(crate) cached: AtomicU32,
    pub(crate) drawn: AtomicU32,
}

impl Live {
    /// Where it is.
    pub(crate) fn phase(&self) -> &'static str {
        let (done, drawn) = (self.done.load(Ordering::Relaxed), self.drawn.load(Ordering::Relaxed));
        match () {
            () if drawn > 0 => "decode",
            () if done > 0 => "prefill",
            () => "queued",
        }
    }
}

/// The one who follows. Dropped before the end, the answer was given up.
pub(crate) struct Follow {
    app: Arc<App>,
    live: Arc<Live>,
    call: Option<Arc<Call>>,
    admitted: bool,
    last_token: Option<Instant>,
    /// When the last line was logged, and after how many tokens.
    told: (Instant, u32),
    tools: Vec<String>,
    open_calls: usize,
    /// Sampled ids, where there is a trace.
    ids: Vec<u32>,
    /// What the trace says of the cache.
    decision: Decision,
    ended: bool,
}

impl Follow {
    pub(crate) fn new(app: &Arc<App>, order: &Order, ids: &[u32], trade: Trade, cancel: &Cancel) -> Self {
        let call = Call::current();
        let request = call.as_ref().map_or_else(String::new, |call| call.id.clone());
        let owner = call.as_ref().and_then(|call| call.owner.clone());
        let max_tokens = order.max_tokens.unwrap_or(app.config.max_tokens);
        let parameters = json!({
            "api": format!("{trade:?}").to_lowercase(), "model": order.model, "max_tokens": max_tokens,
            "stream": order.stream, "tools": order.tools.len(),
            "thinking": format!("{:?}", order.thinking).to_lowercase(), "temperature": order.sampling.temperature,
            "top_p": order.sampling.top_p, "top_k": order.sampling.top_k, "min_p": order.sampling.min_p,
            "seed": order.sampling.seed,
        });
        if let Some(call) = &call {
            call.header("x-ds4-thinking", parameters["thinking"].as_str().unwrap_or_default());
        }
        let tally = match &order.source {
            Prompt::Chat { messages, .. } => app.replay.tally(messages, &order.tenant),
            Prompt::Raw(_) => Tally::default(),
        };
        app.metrics.replayed(tally);
        let keep = app.trace.is_some() || app.config.slots.is_some();
        let number = app.answers.next.fetch_add(1, Ordering::Relaxed);
        let live = Arc::new(Live {
            number,
            request,
            path: call.as_ref().map_or_else(String::new, |call| call.path.clone()),
            tenant: owner.as_ref().map(|owner| owner.tenant.clone()),
            owner: owner.and_then(|owner| owner.name),
            started: Instant::now(),
            cancel: cancel.clone(),
            parameters,
            prompt: if keep { ids.to_vec() } else { Vec::new() },
            prompt_len: ids.len() as u32,
            done: AtomicU32::new(0),
            cached: AtomicU32::new(0),
            drawn: AtomicU32::new(0),
        });
        app.answers.lock().insert(number, Arc::clone(&live));
        Self {
            app: Arc::clone(app),
            told: (live.started, 0),
            live,
            call,
            admitted: false,
            last_token: None,
            tools: Vec::new(),
            open_calls: 0,
            ids: Vec::new(),
            decision: Decision { tally, ..Decision::default() },
            ended: false,
        }
    }

    /// Since it was asked for.
    pub(crate) fn age(&self) -> Duration {
        self.live.started.elapsed()
    }

    /// Stops the answer.
    pub(crate) fn cancel(&self) {
        self.live.cancel.cancel();
    }

    /// What stops it from elsewhere.
    pub(crate) fn cancellation(&self) -> Cancel {
        self.live.cancel.clone()
    }

    /// The next event of the engine, unless the answer may not wait for it.
    pub(crate) async fn hear(&mut self, events: &mut Mailbox) -> Result<Event> {
        if let Some(event) = events.ready() {
            self.note(&event);
            return Ok(event);
        }
        let (config, lifecycle) = (&self.app.config, &self.app.lifecycle);
        let end = if self.admitted { Stage::Cutting } else { Stage::Draining };
        let waiting = if self.admitted { None } else { config.queue_timeout };
        let event = tokio::select! {
            biased;
            event = events.next() => Ok(event),
            () = lifecycle.reached(end) => Err(ApiError::shutting_down()),
            () = after(self.live.started, waiting) => Err(ApiError::timeout("the request waited too long for its turn")),
            () = after(self.live.started, config.request_timeout) => Err(ApiError::timeout("the request took too long")),
        };
        match event {
            Ok(event) => {
                self.note(&event);
                Ok(event)
            }
            Err(error) => {
                self.fail(&error);
                Err(error)
            }
        }
    }

    fn note(&mut self, event: &Event) {
        match event {
            Event::Prefill { done, cached, source, .. } => self.prefilled(*done, *cached, *source),
            Event::Token { id, .. } => self.drawn(*id),
            Event::Delta(Delta::ToolCall(call)) => match &call.kind {
                ToolCallKind::Start { name } => {
                    self.tools.push(name.clone());
                    self.open_calls += 1;
                }
                ToolCallKind::End => {
                    self.open_calls -= 1;
                    self.app.metrics.tool_call("ok");
                }
                ToolCallKind::Arguments(_) => {}
            },
            Event::Done { reason, usage, timings } => self.finish(reason, *usage, *timings),
            Event::Failed(error) => {
                let error = ApiError::from_engine(error, "prompt");
                self.fail(&error);
            }
            Event::Matched(found) => self.decision.live = Some(found.clone()),
            Event::TakenBack { tokens } => {
                let left = self.ids.len().saturating_sub(*tokens as usize);
                self.ids.truncate(left);
                self.app.metrics.tool_call("retried");
                warn!(request = %self.live.request, tokens, "a tool call could not be read and is written again");
            }
            Event::Delta(_) | Event::ReasoningClosed { .. } => {}
        }
    }

    fn prefilled(&mut self, done: u32, cached: u32, source: Source) {
        let live = &self.live;
        let before = live.done.swap(done, Ordering::Relaxed);
        if !self.admitted {
            self.admitted = true;
            live.cached.store(cached, Ordering::Relaxed);
            (self.decision.tier, self.decision.cached) = (tier(source), cached);
            self.app.metrics.admitted(live.prompt_len, cached, tier(source));
            let text = |name: &str| live.parameters[name].to_string();
            info!(
                request = %live.request, phase = "start", api = live.parameters["api"].as_str(),
                key = live.owner.as_deref().unwrap_or_default(), prompt = live.prompt_len, cached,
                source = tier(source), max_tokens = text("max_tokens"),
                stream = text("stream"), tools = text("tools"), thinking = live.parameters["thinking"].as_str(),
            );
        }
        self.app.metrics.prefilled(done.saturating_sub(before.max(cached)));
        if self.told.0.elapsed() >= PROGRESS {
            self.told = (Instant::now(), 0);
            info!(request = %live.request, phase = "prefill", done, total = live.prompt_len);
        }
    }

    fn drawn(&mut self, id: u32) {
        let now = Instant::now();
        let drawn = self.live.drawn.fetch_add(1, Ordering::Relaxed) + 1;
        self.app.metrics.drawn();
        match self.last_token.replace(now) {
            None => {
                self.app.metrics.first_token.observe(self.live.started.elapsed().as_secs_f64());
                self.told = (now, 1);
            }
            Some(before) => self.app.metrics.between_tokens.observe((now - before).as_secs_f64()),
        }
        if self.app.trace.is_some() {
            self.ids.push(id);
        }
        let (since, before) = self.told;
        if since.elapsed() >= PROGRESS {
            let rate = f64::from(drawn - before) / since.elapsed().as_secs_f64();
            self.told = (now, drawn);
            info!(request = %self.live.request, phase = "decode", tokens = drawn, rate = format!("{rate:.1}"));
        }
    }

    fn finish(&mut self, reason: &StopReason, usage: Usage, timings: Timings) {
        self.ended = true;
        if *reason == StopReason::Cancelled {
            self.cancelled(usage, timings);
            return;
        }
        let name = reason_name(reason);
        self.app.metrics.finished(name, usage, timings);
        (0..self.open_calls).for_each(|_| self.app.metrics.tool_call("salvaged"));
        let rate = if timings.decode > 0.0 { f64::from(usage.completion) / timings.decode } else { 0.0 };
        info!(
            request = %self.live.request, phase = "finish", reason = name, prompt = usage.prompt, cached = usage.cached,
            tokens = usage.completion, reasoning = usage.reasoning, ttft = format!("{:.3}", timings.ttft),
            rate = format!("{rate:.1}"), tools = self.tools.join(","),
        );
        self.trace(name, usage, timings);
    }

    fn cancelled(&self, usage: Usage, timings: Timings) {
        let (phase, tokens) = (self.live.phase(), self.live.drawn.load(Ordering::Relaxed));
        self.app.metrics.cancelled(phase);
        info!(request = %self.live.request, phase, tokens, "cancelled");
        self.trace("cancelled", usage, timings);
    }

    /// The answer ends with an error.
    pub(crate) fn fail(&mut self, error: &ApiError) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        self.live.cancel.cancel();
        self.app.metrics.failed(error.code.unwrap_or("invalid_request"));
        warn!(request = %self.live.request, phase = self.live.phase(), status = error.status.as_u16(), error = error.message);
        self.trace(error.code.unwrap_or("error"), Usage::default(), Timings::default());
    }

    fn trace(&self, finish: &str, usage: Usage, timings: Timings) {
        let Some(trace) = &self.app.trace else { return };
        let text = |ids: &[u32]| String::from_utf8_lossy(&self.app.tokenizer.decode(ids)).into_owned();
        trace.write(&Section {
            number: self.live.number,
            request: self.live.request.clone(),
            path: self.live.path.clone(),
            parameters: self.live.parameters.clone(),
            body: self.call.as_ref().map_or_else(String::new, |call| call.body()),
            prompt: text(&self.live.prompt),
            generated: text(&self.ids),
            decision: self.decision.clone(),
            windows: self.decision.live.as_ref().map_or_else(Default::default, |l| [text(&l.live), text(&l.prompt)]),
            finish: finish.to_owned(),
            usage,
            timings,
        });
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        if !self.ended {
            let usage = Usage {
                prompt: self.live.prompt_len,
                cached: self.live.cached.load(Ordering::Relaxed),
                completion: self.live.drawn.load(Ordering::Relaxed),
                ..Usage::default()
            };
            self.cancelled(usage, Timings::default());
        }
        self.app.answers.lock().remove(&self.live.number);
    }
}

/// Where reused tokens came from, in the words of the logs.
fn tier(source: Source) -> &'static str {
    match source {
        Source::None => "none",
        Source::Live => "gpu",
        Source::Ram => "ram",
        Source::Disk => "disk",
    }
}

/// Returns `limit` after `start`, or never.
pub(crate) async fn after(start: Instant, limit: Option<Duration>) {
    match limit.and_then(|limit| start.checked_add(limit)) {
        Some(end) => sleep_until(end.into()).await,
        None => pending().await,
    }
}

fn reason_name(reason: &StopReason) -> &'static str {
    match reason {
        StopReason::EndOfTurn | StopReason::StopString(_) => "stop",
        StopReason::Length | StopReason::ContextFull => "length",
        StopReason::ToolCalls => "tool_calls",
        StopReason::Cancelled => "abort",
    }
}
