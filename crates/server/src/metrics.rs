//! What the server counts (server.md 17). Requests report what they hear; the engine is only ever read through its atomics,
//! so that looking costs it nothing.

use std::fmt::Write as _;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use ds4_engine::{KvMisses, KvRole};
use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Metric, Registry};

use crate::app::App;
use crate::replay::Tally;

/// Labels of one name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Reason {
    finished_reason: String,
}
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Phase {
    phase: &'static str,
}
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Kind {
    r#type: String,
}
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Tier {
    tier: &'static str,
}
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Outcome {
    result: &'static str,
}
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Replayed {
    kind: &'static str,
}
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Route {
    route: String,
    code: u16,
}

type Level = Gauge<f64, AtomicU64>;

/// All counters.
pub(crate) struct Metrics {
    registry: Registry,
    prompt_tokens: Counter,
    generation_tokens: Counter,
    cache_queries: Counter,
    cache_hits: Counter,
    success: Family<Reason, Counter>,
    cancelled: Family<Phase, Counter>,
    errors: Family<Kind, Counter>,
    http: Family<Route, Counter>,
    tier_hits: Family<Tier, Counter>,
    reused: Family<Tier, Counter>,
    tools: Family<Outcome, Counter>,
    replays: Family<Replayed, Counter>,
    pub(crate) first_token: Histogram,
    pub(crate) between_tokens: Histogram,
    whole: Histogram,
    queue: Histogram,
    prefill: Histogram,
    decode: Histogram,
    prompts: Histogram,
    answers: Histogram,
    levels: Levels,
    prefill_minute: Minute,
    decode_minute: Minute,
}

/// What is read when somebody looks.
struct Levels {
    running: Level,
    waiting: Level,
    usage: Level,
    slots: Level,
    uptime: Level,
    prefill_rate: Level,
    decode_rate: Level,
}

impl Metrics {
    /// `prefix` before every name, `model` on every line.
    pub(crate) fn new(prefix: &str, model: &str) -> Self {
        let mut registry = Registry::with_labels([("model_name".into(), model.to_owned().into())].into_iter());
        let r = &mut Names { registry: &mut registry, prefix };
        let levels = Levels {
            running: r.put("num_requests_running", "Requests that have a slot", Level::default()),
            waiting: r.put("num_requests_waiting", "Requests that wait for a slot", Level::default()),
            usage: r.put("kv_cache_usage_perc", "Used part of the cache, 0 to 1", Level::default()),
            slots: r.put("slots_total", "Sequences side by side", Level::default()),
            uptime: r.put("uptime_seconds", "Age of the server", Level::default()),
            prefill_rate: r.put("prefill_tokens_per_second", "Prompt tokens over the last minute", Level::default()),
            decode_rate: r.put("decode_tokens_per_second", "Drawn tokens over the last minute", Level::default()),
        };
        r.put("num_preemptions", "Requests that lost their slot", Counter::<u64>::default());
        Self {
            prompt_tokens: r.put("prompt_tokens", "Prompt tokens evaluated", Counter::default()),
            generation_tokens: r.put("generation_tokens", "Tokens drawn", Counter::default()),
            cache_queries: r.put("prefix_cache_queries", "Prompt tokens looked up", Counter::default()),
            cache_hits: r.put("prefix_cache_hits", "Prompt tokens found", Counter::default()),
            success: r.put("request_success", "Finished requests", Family::default()),
            cancelled: r.put("cancelled", "Requests given up, by phase", Family::default()),
            errors: r.put("errors", "Requests that failed", Family::default()),
            http: r.put("http_requests", "HTTP requests", Family::default()),
            tier_hits: r.put("kv_tier_hits", "Requests by where their prefix was found", Family::default()),
            reused: r.put("kv_reused_tokens", "Prompt tokens by where they were found", Family::default()),
            tools: r.put("tool_parse", "Tool calls by how they were read", Family::default()),
            replays: r.put("tool_replay", "Tool calls of histories by how they were rendered", Family::default()),
            first_token: r.put("time_to_first_token_seconds", "From submission to the first token", seconds(1e-3)),
            between_tokens: r.put("inter_token_latency_seconds", "Between two tokens", seconds(1e-4)),
            whole: r.put("e2e_request_latency_seconds", "From submission to the end", seconds(1e-2)),
            queue: r.put("request_queue_time_seconds", "Waiting for a slot", seconds(1e-4)),
            prefill: r.put("request_prefill_time_seconds", "Evaluating the prompt", seconds(1e-3)),
            decode: r.put("request_decode_time_seconds", "Drawing tokens", seconds(1e-2)),
            prompts: r.put("request_prompt_tokens", "Prompt sizes", sizes()),
            answers: r.put("request_generation_tokens", "Answer sizes", sizes()),
            prefill_minute: Minute::default(),
            decode_minute: Minute::default(),
            levels,
            registry,
        }
    }

    /// `tokens` prompt tokens were evaluated.
    pub(crate) fn prefilled(&self, tokens: u32) {
        self.prompt_tokens.inc_by(tokens.into());
        self.prefill_minute.add(tokens.into());
    }

    /// A request has its slot; `cached` of its `prompt` tokens were in a tier.
    pub(crate) fn admitted(&self, prompt: u32, cached: u32, tier: &'static str) {
        self.cache_queries.inc_by(prompt.into());
        self.cache_hits.inc_by(cached.into());
        let tier = Tier { tier };
        self.tier_hits.get_or_create(&tier).inc();
        self.reused.get_or_create(&tier).inc_by(cached.into());
        self.prompts.observe(prompt.into());
    }

    /// A token was drawn.
    pub(crate) fn drawn(&self) {
        self.generation_tokens.inc();
        self.decode_minute.add(1);
    }

    pub(crate) fn finished(&self, reason: &str, usage: ds4_engine::Usage, t: ds4_engine::Timings) {
        self.success.get_or_create(&Reason { finished_reason: reason.to_owned() }).inc();
        self.whole.observe(t.queue + t.prefill + t.decode);
        self.queue.observe(t.queue);
        self.prefill.observe(t.prefill);
        self.decode.observe(t.decode);
        self.answers.observe(usage.completion.into());
    }

    pub(crate) fn cancelled(&self, phase: &'static str) {
        self.cancelled.get_or_create(&Phase { phase }).inc();
    }

    pub(crate) fn failed(&self, kind: &str) {
        self.errors.get_or_create(&Kind { r#type: kind.to_owned() }).inc();
    }

    /// A history was rendered.
    pub(crate) fn replayed(&self, tally: Tally) {
        for (kind, n) in [("exact", tally.exact), ("canonical", tally.canonical), ("missing", tally.missing)] {
            if n > 0 {
                self.replays.get_or_create(&Replayed { kind }).inc_by(n as u64);
            }
        }
    }

    /// A call was read: `ok`, `salvaged` or, as it could not be, `retried`.
    pub(crate) fn tool_call(&self, result: &'static str) {
        self.tools.get_or_create(&Outcome { result }).inc();
    }

    pub(crate) fn http(&self, route: &str, code: u16) {
        self.http.get_or_create(&Route { route: route.to_owned(), code }).inc();
    }

    /// Everything as text.
    pub(crate) fn text(&self, app: &App) -> String {
        let (activity, limits, levels) = (app.engine.activity(), app.engine.limits(), &self.levels);
        let capacity = f64::from(limits.slots) * f64::from(limits.context);
        levels.running.set(activity.running as f64);
        levels.waiting.set(app.engine.waiting() as f64);
        levels.usage.set(activity.held as f64 / capacity);
        levels.slots.set(f64::from(limits.slots));
        levels.uptime.set(app.started.elapsed().as_secs_f64());
        levels.prefill_rate.set(self.prefill_minute.rate());
        levels.decode_rate.set(self.decode_minute.rate());
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a string takes everything");
        let prefix = app.config.metrics_prefix.as_deref().unwrap_or("ds4");
        let own = format!("{}{}{}", steps(prefix, app, &activity), stored(prefix, app), build(prefix, app));
        match text.strip_suffix("# EOF\n") {
            Some(rest) => format!("{rest}{own}# EOF\n"),
            None => text,
        }
    }
}

/// The engine's own histogram, kept where its thread can write it.
fn steps(prefix: &str, app: &App, activity: &ds4_engine::Activity) -> String {
    let (name, model) = (format!("{prefix}:iteration_tokens_total"), label(app.config.canonical_name()));
    let mut out = format!("# HELP {name} Tokens of a step.\n# TYPE {name} histogram\n");
    let (mut below, mut sum) = (0, 0.0);
    for (i, &n) in activity.sizes.iter().enumerate() {
        below += n;
        // Only the class is known: its upper end stands for all of it.
        sum += n as f64 * f64::from(1_u32 << i);
        if i + 1 < activity.sizes.len() {
            let _ = writeln!(out, "{name}_bucket{{le=\"{}.0\",model_name=\"{model}\"}} {below}", 1_u32 << i);
        }
    }
    let _ = writeln!(out, "{name}_bucket{{le=\"+Inf\",model_name=\"{model}\"}} {below}");
    let _ = writeln!(out, "{name}_count{{model_name=\"{model}\"}} {below}");
    let _ = writeln!(out, "{name}_sum{{model_name=\"{model}\"}} {sum:.1}");
    out
}

/// What the store counts, if there is one.
fn stored(prefix: &str, app: &App) -> String {
    let Some(stats) = app.engine.kv_stats() else { return String::new() };
    let model = label(app.config.canonical_name());
    let mut out = String::new();
    let mut put = |name: &str, help: &str, kind: &str, lines: &[(&str, u64)], by: &str| {
        let _ = writeln!(out, "# HELP {prefix}:{name} {help}.\n# TYPE {prefix}:{name} {kind}");
        let total = if kind == "counter" { "_total" } else { "" };
        for (value, n) in lines {
            let by = if by.is_empty() { String::new() } else { format!(",{by}=\"{value}\"") };
            let _ = writeln!(out, "{prefix}:{name}{total}{{model_name=\"{model}\"{by}}} {n}");
        }
    };
    // Without a directory the store is host memory.
    let place = if app.config.journals.is_some() { "disk" } else { "ram" };
    put(&format!("kv_{place}_bytes"), "Bytes of stored states", "gauge", &[("", stats.bytes)], "");
    put(&format!("kv_{place}_writes_bytes"), "Bytes of states written", "counter", &[("", stats.written_bytes)], "");
    let evictions: Vec<_> = KvRole::ALL.iter().zip(stats.evictions).map(|(role, n)| (role.name(), n)).collect();
    put(&format!("kv_{place}_evictions"), "Stored states removed to make room", "counter", &evictions, "role");
    let KvMisses { absent, short, live, corrupt, unreadable, refused } = stats.misses;
    let misses = [
        ("absent", absent),
        ("short", short),
        ("live", live),
        ("corrupt", corrupt),
        ("unreadable", unreadable),
        ("refused", refused),
    ];
    put("kv_miss", "Requests that did not go on from a stored state", "counter", &misses, "reason");
    out
}

fn build(prefix: &str, app: &App) -> String {
    let name = format!("{prefix}:build_info");
    let (model, quant, backend) =
        (label(app.config.canonical_name()), label(&app.model.quant), label(&app.model.backend));
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "# HELP {name} What runs.\n# TYPE {name} gauge\n\
         {name}{{model_name=\"{model}\",version=\"{version}\",backend=\"{backend}\",quant=\"{quant}\"}} 1\n"
    )
}

/// A text as it may stand in a label.
fn label(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// A registry that spells names as its readers know them.
struct Names<'a> {
    registry: &'a mut Registry,
    prefix: &'a str,
}

impl Names<'_> {
    fn put<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.registry.register(format!("{}:{name}", self.prefix), help, metric.clone());
        metric
    }
}

/// Buckets from `first` seconds, each twice the one before.
fn seconds(first: f64) -> Histogram {
    Histogram::new(exponential_buckets(first, 2.0, 18))
}

fn sizes() -> Histogram {
    Histogram::new(exponential_buckets(1.0, 2.0, 21))
}

/// What was counted in each of the last sixty seconds.
struct Minute {
    start: Instant,
    seconds: Mutex<[(u64, u64); 60]>,
}

impl Default for Minute {
    fn default() -> Self {
        Self { start: Instant::now(), seconds: Mutex::new([(0, 0); 60]) }
    }
}

impl Minute {
    fn add(&self, n: u64) {
        let now = self.start.elapsed().as_secs();
        let mut seconds = self.seconds.lock().unwrap_or_else(PoisonError::into_inner);
        let cell = &mut seconds[(now % 60) as usize];
        *cell = if cell.0 == now { (now, cell.1 + n) } else { (now, n) };
    }

    fn rate(&self) -> f64 {
        let age = self.start.elapsed();
        let now = age.as_secs();
        let seconds = self.seconds.lock().unwrap_or_else(PoisonError::into_inner);
        let sum: u64 = seconds.iter().filter(|(at, _)| now - at < 60).map(|(_, n)| n).sum();
        sum as f64 / age.as_secs_f64().clamp(1.0, 60.0)
    }
}
