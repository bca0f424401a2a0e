//! What all handlers share: the door, the tokenizer, the settings. Turns an order into ids and ids into a running job.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ds4_engine::{Cancel, EngineHandle, Request, SamplingParams};
use ds4_text::{ChatRequest, Exact, Message, Prompt, Role, Tokenizer, render};

use crate::aside::{LONG, aside};
use crate::config::ServerConfig;
use crate::error::{ApiError, Result};
use crate::follow::{Answers, Follow};
use crate::grammar::{GrammarError, Grammars};
use crate::job::{Job, Trade};
use crate::journal::{self, Place};
use crate::lifecycle::Lifecycle;
use crate::mailbox::mailbox;
use crate::metrics::Metrics;
use crate::order::{Choice, Format, Order, Source};
use crate::replay::{Replay, Seal, vocabulary};
use crate::responses::Store;
use crate::trace::Trace;

/// What is known of the loaded model, for `/v1/models`, `/props` and the like.
#[derive(Clone, Debug, Default)]
pub struct ModelInfo {
    /// File name without its folder.
    pub file: String,
    /// What weights it has: `q2`, `q4`, …
    pub quant: String,
    /// Bytes of the file.
    pub size: u64,
    /// Weights, if known.
    pub parameters: Option<u64>,
    /// Context that the model was made for.
    pub trained_context: u32,
    /// The device: `cpu`, `stub`, …
    pub backend: String,
}

/// Shared by all handlers.
pub(crate) struct App {
    pub(crate) engine: EngineHandle,
    pub(crate) tokenizer: Arc<Tokenizer>,
    pub(crate) config: ServerConfig,
    pub(crate) model: ModelInfo,
    /// A vocabulary that no grammar can be held against fails only the requests that need one.
    pub(crate) grammars: std::result::Result<Grammars, GrammarError>,
    pub(crate) replay: Replay,
    pub(crate) responses: Store,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) answers: Answers,
    pub(crate) metrics: Metrics,
    pub(crate) trace: Option<Trace>,
    /// The engine does nothing although there is something to do.
    pub(crate) wedged: AtomicBool,
    pub(crate) started: Instant,
    /// Seconds since 1970 at the start: `created` of the models.
    pub(crate) created: u64,
}

impl App {
    pub(crate) fn new(
        engine: EngineHandle,
        tokenizer: Arc<Tokenizer>,
        config: ServerConfig,
        model: ModelInfo,
        lifecycle: Lifecycle,
    ) -> std::io::Result<Arc<App>> {
        let (started, created) = (Instant::now(), unix_time());
        let seal = Seal::new(&config.state_key, config.canonical_name(), &tokenizer);
        let place = config.journals.clone().map(|dir| Place {
            dir,
            readonly: config.journals_readonly,
            vocabulary: vocabulary(&tokenizer),
        });
        let replay = Replay::new(seal, config.tool_memory, !config.canonical_replay, place.as_ref());
        let grammars = Grammars::new(Arc::clone(&tokenizer));
        let responses = Store::new(config.response_store, place.as_ref());
        let prefix = config.metrics_prefix.as_deref().unwrap_or("ds4");
        let metrics = Metrics::new(prefix, config.canonical_name());
        let trace = Trace::open(&config)?;
        let (answers, wedged) = (Answers::default(), AtomicBool::new(false));
        Ok(Arc::new(App {
            engine,
            tokenizer,
            config,
            model,
            grammars,
            replay,
            responses,
            lifecycle,
            answers,
            metrics,
            trace,
            wedged,
            started,
            created,
        }))
    }

    /// Build, weights and device: equal values mean equal answers to equal seeds.
    pub(crate) fn fingerprint(&self) -> String {
        format!("ds4-{}-{}-{}", env!("CARGO_PKG_VERSION"), self.model.quant, self.model.backend)
    }

    /// Waits until what later processes are to know is on disk.
    pub(crate) fn flush(&self) -> bool {
        [self.replay.journal(), self.responses.journal()].iter().all(|journal| journal.flush(journal::PATIENCE))
    }

    /// The prompt of an order, as text with its template ranges. None for ids as they are.
    pub(crate) fn prompt(&self, order: &Order) -> Result<Option<Prompt>> {
        let Source::Chat { messages, continued } = &order.source else { return Ok(None) };
        let mut messages = messages.clone();
        self.replay.restore(&mut messages, &order.tenant, &self.tokenizer);
        if let Some(schema) = shown_schema(&order.format) {
            if !matches!(messages.first(), Some(m) if m.role == Role::System) {
                messages.insert(0, Message::new(Role::System, ""));
            }
            messages[0].response_format = Some(schema);
        }
        if let (true, Some(last)) = (*continued, messages.last_mut()) {
            last.wo_eos = true;
        }
        let request = ChatRequest {
            tools: order.shown_tools(),
            thinking: order.thinking,
            drop_thinking: !self.config.sticky_reasoning,
            ..ChatRequest::new(messages)
        };
        render(&request).map(Some).map_err(|e| ApiError::invalid("messages", e.to_string()))
    }

    /// What a blob of ours holds; none if it is not ours.
    pub(crate) fn unsealed(&self, blob: &str) -> Option<Exact> {
        self.replay.seal.open(blob).map(|ids| self.tokenizer.exact(&ids))
    }

    /// Tokens of an order's prompt, however many.
    pub(crate) fn count(&self, order: &Order) -> Result<usize> {
        self.encoded(order).map(|ids| ids.len())
    }

    /// Ids of an order's prompt; `param` names its field in errors.
    pub(crate) fn ids(&self, order: &Order, param: &str) -> Result<Vec<u32>> {
        let ids = self.encoded(order)?;
        if ids.len() >= self.config.context as usize {
            return Err(ApiError::overflow(param, ids.len(), self.config.context));
        }
        Ok(ids)
    }

    fn encoded(&self, order: &Order) -> Result<Vec<u32>> {
        Ok(match (self.prompt(order)?, &order.source) {
            (Some(prompt), _) => aside(prompt.text().len() >= LONG, || self.tokenizer.encode_prompt(&prompt)),
            (None, Source::Raw(ids)) => ids.clone(),
            (None, Source::Chat { .. }) => unreachable!("chats have a prompt"),
        })
    }

    /// Starts answer `i` of an order.
    pub(crate) fn start(self: &Arc<Self>, order: &Order, ids: Vec<u32>, i: u32, trade: Trade) -> Result<Job> {
        if let Some((id, _)) = order.logit_bias.iter().find(|(id, _)| *id as usize >= self.engine.n_vocab()) {
            return Err(ApiError::invalid("logit_bias", format!("logit_bias: {id} is no token id of this model")));
        }
        let (listener, events) = mailbox();
        let seed = order.sampling.seed.wrapping_add(u64::from(i));
        let chat = matches!(order.source, Source::Chat { continued: false, .. });
        let prompt = ids.len() as u32;
        let cancel = Cancel::default();
        let mut follow = Follow::new(self, order, &ids, trade, &cancel);
        let request = Request {
            sampling: SamplingParams { seed, ..order.sampling },
            max_tokens: order.max_tokens.unwrap_or(self.config.max_tokens),
            stop: order.stop.clone(),
            include_stop: order.include_stop,
            logit_bias: order.logit_bias.clone(),
            single_call: !order.parallel,
            thinking: chat && order.thinking.is_on(),
            think_budget_tokens: order.think_budget,
            reply_budget: order.reply_budget,
            tools_offered: !order.tools.is_empty() && order.choice != Choice::None,
            constraint: order.constraint.clone(),
            block: order.block.clone(),
            block_tokens: order.block_tokens(),
            ignore_eos: order.ignore_eos,
            logprobs: order.logprobs,
            cancel: cancel.clone(),
            explain: self.trace.is_some(),
            tenant: tenant_number(&order.tenant),
            priority: order.priority,
            slot: order.slot,
            affinity: order.session,
            ..Request::new(ids, listener)
        };
        if let Err(error) = self.engine.submit(request) {
            let error = ApiError::from_engine(&error, trade.param());
            follow.fail(&error);
            return Err(error);
        }
        Ok(Job::new(Arc::clone(self), order, events, follow, trade, prompt))
    }
}

/// A tenant as the engine tells them apart: the same after a restart.
fn tenant_number(tenant: &str) -> u64 {
    u64::from_str_radix(tenant, 16).unwrap_or(0)
}

/// The schema that the prompt shows the model; the grammar holds it to it.
fn shown_schema(format: &Format) -> Option<serde_json::Value> {
    match format {
        Format::JsonSchema { schema, .. } => Some(schema.clone()),
        Format::JsonObject => Some(serde_json::json!({"type": "object"})),
        Format::Text | Format::Regex(_) | Format::Choice(_) | Format::Grammar(_) => None,
    }
}

/// Seconds since 1970.
pub(crate) fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// `prefix` and 2 × `bytes` random hexadecimal digits.
pub(crate) fn fresh_id(prefix: &str, bytes: usize) -> String {
    let mut random = [0; 32];
    getrandom::fill(&mut random[..bytes]).expect("the system has a random source");
    random[..bytes].iter().fold(prefix.to_owned(), |id, byte| id + &format!("{byte:02x}"))
}
