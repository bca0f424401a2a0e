//! Settings of the server, resolved from flags by the program; everything here is trusted.

use std::path::PathBuf;
use std::time::Duration;

use ds4_text::Thinking;

/// Names under which thinking is off and on, whatever the model is called.
const ALIASES: [&str; 2] = ["deepseek-chat", "deepseek-reasoner"];

/// How the server listens, names its model, and treats requests (server.md 1).
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct ServerConfig {
    /// Addresses or names to listen on.
    pub hosts: Vec<String>,
    /// Port of all of them; 0 takes a free one.
    pub port: u16,
    /// A socket file to listen on as well.
    pub unix_socket: Option<PathBuf>,
    /// Every origin may read answers.
    pub cors: bool,
    /// Origins that may read answers.
    pub cors_origins: Vec<String>,
    /// Names that the `Host` header may carry beside addresses and loopback names.
    pub allowed_hosts: Vec<String>,
    /// Keys with their names; without any, no key is needed.
    pub api_keys: Vec<(String, Option<String>)>,
    /// More keys, one `KEY[ NAME]` a line, read again on SIGHUP.
    pub api_key_file: Option<PathBuf>,
    /// Largest body in bytes.
    pub max_body: usize,
    /// Connections at once.
    pub max_connections: usize,
    /// Longest pause while a request is read.
    pub io_timeout: Duration,
    /// Longest rest of a connection between requests.
    pub idle_timeout: Duration,
    /// Longest time of one request; none by default.
    pub request_timeout: Option<Duration>,
    /// Longest wait for a slot; none by default.
    pub queue_timeout: Option<Duration>,
    /// A comment is sent when a stream was silent for so long; none switches it off.
    pub keepalive: Option<Duration>,
    /// Time that running requests get after the request to terminate.
    pub drain_timeout: Duration,
    /// Names of the model, the first is canonical.
    pub served_names: Vec<String>,
    /// Refuse other names.
    pub strict_model: bool,
    /// Mode when nothing in the request decides.
    pub thinking: Thinking,
    /// Sampling parameters of thinking requests are ignored.
    pub fixed_thinking_sampling: bool,
    /// Reasoning tokens when the request says nothing; 0 for no limit.
    pub think_budget: u32,
    /// `/v1/completions` wraps its prompt as a user turn.
    pub completions_as_chat: bool,
    /// Keep the reasoning of all turns in the prompt.
    pub sticky_reasoning: bool,
    /// Responses kept for `previous_response_id`.
    pub response_store: usize,
    /// Output limit when the request says nothing.
    pub max_tokens: u32,
    /// Context per sequence, as the model was opened.
    pub context: u32,
    /// Where responses and turns are kept for a later process; nowhere by default. Only one server at a time may write there.
    pub journals: Option<PathBuf>,
    /// What is kept there is read, and nothing is written.
    pub journals_readonly: bool,
    /// Tool calls remembered for exact replay.
    pub tool_memory: usize,
    /// Key of what clients keep for the server: see [`crate::load_or_create_key`]. A fresh one by default.
    pub state_key: [u8; 32],
    /// Histories are rendered from what the client sent alone.
    pub canonical_replay: bool,
    /// Keys share cached prefixes.
    pub cache_share: bool,
    /// Serve `/metrics`, with this prefix before every name.
    pub metrics_prefix: Option<String>,
    /// Serve `/slots`; with the text of prompts in the second case.
    pub slots: Option<SlotDetail>,
    /// Append what every request did to this file.
    pub trace: Option<PathBuf>,
    /// Texts in the trace become lengths and hashes.
    pub trace_redact: bool,
    /// The trace is JSON lines.
    pub trace_json: bool,
    /// What is logged and where.
    pub log: LogConfig,
    /// The chat page at `/`.
    pub webui: bool,
}

/// The log (server.md 16).
#[derive(Clone, Debug, Default)]
pub struct LogConfig {
    /// What is too unimportant to be logged.
    pub level: LogLevel,
    /// JSON objects instead of text.
    pub json: bool,
    /// Instead of standard error.
    pub file: Option<PathBuf>,
    /// Colours on a terminal.
    pub colour: bool,
}

/// How important a line of the log has to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// Something failed.
    Error,
    /// Something may fail.
    Warn,
    /// Requests and their progress.
    #[default]
    Info,
    /// Decisions.
    Debug,
}

/// What `/slots` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotDetail {
    /// Numbers.
    Numbers,
    /// Prompt texts, too.
    Texts,
}

impl Default for ServerConfig {
    fn default() -> Self {
        ServerConfig {
            hosts: vec!["127.0.0.1".to_owned()],
            port: 8000,
            unix_socket: None,
            cors: false,
            cors_origins: Vec::new(),
            allowed_hosts: Vec::new(),
            api_keys: Vec::new(),
            api_key_file: None,
            max_body: 64 << 20,
            max_connections: 512,
            io_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            request_timeout: None,
            queue_timeout: None,
            keepalive: Some(Duration::from_secs(5)),
            drain_timeout: Duration::from_secs(30),
            served_names: vec!["deepseek-v4-flash".to_owned()],
            strict_model: false,
            thinking: Thinking::High,
            fixed_thinking_sampling: false,
            think_budget: 0,
            completions_as_chat: false,
            sticky_reasoning: false,
            response_store: 256,
            max_tokens: 393_216,
            context: 32_768,
            journals: None,
            journals_readonly: false,
            tool_memory: 100_000,
            state_key: fresh_key(),
            canonical_replay: false,
            cache_share: false,
            metrics_prefix: Some("ds4".to_owned()),
            slots: None,
            trace: None,
            trace_redact: false,
            trace_json: false,
            log: LogConfig::default(),
            webui: true,
        }
    }
}

fn fresh_key() -> [u8; 32] {
    let mut key = [0; 32];
    getrandom::fill(&mut key).expect("the system has a random source");
    key
}

impl ServerConfig {
    /// The name that the model is known by.
    pub(crate) fn canonical_name(&self) -> &str {
        self.served_names.first().map_or("deepseek-v4-flash", String::as_str)
    }

    /// Every name that is served, the canonical one first.
    pub(crate) fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.served_names.iter().map(String::as_str).collect();
        names.extend(ALIASES.iter().filter(|alias| !self.served_names.iter().any(|name| name == *alias)));
        names
    }

    /// A name without the `provider/` that some clients put before it, unless it is served with it.
    pub(crate) fn bare<'a>(&self, model: &'a str) -> &'a str {
        let served = |name: &str| self.names().contains(&name);
        if served(model) { model } else { model.rsplit('/').next().unwrap_or(model) }
    }

    pub(crate) fn serves(&self, model: &str) -> bool {
        self.names().contains(&self.bare(model))
    }
}
