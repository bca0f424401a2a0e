//! The options of `ds4 server` (server.md 1): what was asked for, with every contradiction ruled out. Opens nothing.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use ds4_server::{LogLevel, ServerConfig, SlotDetail};
use ds4_text::Thinking;

use super::kv::KvFlags;
use crate::args::{Args, Item};
use crate::failure::usage;
use crate::flags::{Flags, later};

/// Sequences kept side by side, at most, when the server chooses.
pub(super) const MOST_PARALLEL: u32 = 64;
/// What the numbers of the command line are limited to where nothing else limits them.
const ANY: u64 = u32::MAX as u64;

/// What to do.
#[derive(Debug)]
pub(super) enum Asked {
    Help,
    Version,
    Serve(Box<Options>),
}

/// A server to be started.
#[derive(Debug)]
pub(super) struct Options {
    /// Model and runtime; of the rest nothing is read.
    pub(super) common: Flags,
    pub(super) server: ServerConfig,
    pub(super) chdir: Option<PathBuf>,
    /// None: as many as fit.
    pub(super) parallel: Option<u32>,
    /// Requests that run at once; the other sequences keep what they hold.
    pub(super) active: Option<u32>,
    /// Requests that may wait.
    pub(super) queue: usize,
    /// Prompt tokens of a step beside others that decode.
    pub(super) quantum: u32,
    pub(super) kv: KvFlags,
}

/// Values as they come from the command line.
#[derive(Default)]
struct Raw {
    common: Flags,
    server: ServerConfig,
    /// Given ones replace the default.
    hosts: Vec<String>,
    names: Vec<String>,
    chdir: Option<PathBuf>,
    parallel: Option<u32>,
    active: Option<u32>,
    queue: Option<usize>,
    quantum: Option<u32>,
    rows: Option<u32>,
    think_max: bool,
    kv: KvFlags,
    asked: Option<Asked>,
}

pub(super) fn parse(words: impl Iterator<Item = OsString>) -> anyhow::Result<Asked> {
    let mut args = Args::new(words, "try 'ds4-server --help'");
    let mut raw = Raw::default();
    raw.server.log.colour = true;
    while let Some(item) = args.next()? {
        let flag = match item {
            Item::Flag(flag) => flag,
            Item::Free(word) => return Err(args.unexpected(&word)),
        };
        let known = raw.running(&flag, &mut args)?
            || raw.listening(&flag, &mut args)?
            || raw.limiting(&flag, &mut args)?
            || raw.answering(&flag, &mut args)?
            || raw.telling(&flag, &mut args)?
            || raw.kv.take(&flag, &mut args)?
            || raw.common.runtime(&flag, &mut args)?;
        if !known {
            return Err(later(&flag).unwrap_or_else(|| args.unknown(&flag)));
        }
        if let Some(asked) = raw.asked.take() {
            return Ok(asked);
        }
    }
    raw.resolve()
}

impl Raw {
    fn running(&mut self, flag: &str, args: &mut Args) -> anyhow::Result<bool> {
        match flag {
            "-h" | "--help" => {
                args.optional();
                self.asked = Some(Asked::Help);
            }
            "--version" => self.asked = Some(Asked::Version),
            "-c" | "--ctx" => self.common.ctx = Some(args.int(flag, 256..=ANY)? as u32),
            "-n" | "--tokens" => self.server.max_tokens = args.int(flag, 1..=ANY)? as u32,
            "--chdir" => self.chdir = Some(args.path(flag)?),
            "--parallel" | "--batched-session" => self.parallel = Some(args.int(flag, 1..=1024)? as u32),
            "--max-active-requests" => self.active = Some(args.int(flag, 1..=1024)? as u32),
            "--max-queue" => self.queue = Some(args.int(flag, 1..=1 << 20)? as usize),
            "--queue-timeout-sec" => self.server.queue_timeout = seconds(flag, args)?,
            "--mixed-prefill-quantum" => self.quantum = Some(args.int(flag, 1..=65536)? as u32),
            "--max-batched-tokens" => self.rows = Some(args.int(flag, 1..=65536)? as u32),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn listening(&mut self, flag: &str, args: &mut Args) -> anyhow::Result<bool> {
        let server = &mut self.server;
        match flag {
            "--host" => self.hosts.push(word(flag, args)?),
            "--port" => server.port = args.int(flag, 0..=65535)? as u16,
            "--unix-socket" => server.unix_socket = Some(args.path(flag)?),
            "--cors" => server.cors = true,
            "--cors-origin" => server.cors_origins.push(word(flag, args)?),
            "--allowed-host" => server.allowed_hosts.push(word(flag, args)?),
            "--api-key" => server.api_keys.push((word(flag, args)?, None)),
            "--api-key-file" => server.api_key_file = Some(args.path(flag)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn limiting(&mut self, flag: &str, args: &mut Args) -> anyhow::Result<bool> {
        let server = &mut self.server;
        let whole = |args: &mut Args| anyhow::Ok(Duration::from_secs(args.int(flag, 1..=ANY)?));
        match flag {
            "--max-body-mb" => server.max_body = (args.int(flag, 1..=4096)? as usize) << 20,
            "--max-connections" => server.max_connections = args.int(flag, 1..=1 << 20)? as usize,
            "--io-timeout-sec" => server.io_timeout = whole(args)?,
            "--idle-timeout-sec" => server.idle_timeout = whole(args)?,
            "--request-timeout-sec" => server.request_timeout = seconds(flag, args)?,
            "--sse-keepalive-sec" => server.keepalive = seconds(flag, args)?,
            "--drain-timeout-sec" => server.drain_timeout = Duration::from_secs(args.int(flag, 0..=ANY)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn answering(&mut self, flag: &str, args: &mut Args) -> anyhow::Result<bool> {
        let server = &mut self.server;
        match flag {
            "--served-model-name" => self.names.push(word(flag, args)?),
            "--strict-model" => server.strict_model = true,
            "--think" => (server.thinking, self.think_max) = (Thinking::High, false),
            "--think-max" => (server.thinking, self.think_max) = (Thinking::Max, true),
            "--nothink" => (server.thinking, self.think_max) = (Thinking::None, false),
            "--thinking-sampling" => {
                server.fixed_thinking_sampling = choice(flag, args, &["client", "fixed"])? == "fixed";
            }
            "--think-budget-tokens" => server.think_budget = args.int(flag, 0..=ANY)? as u32,
            "--completions-mode" => server.completions_as_chat = choice(flag, args, &["raw", "chat"])? == "chat",
            "--reasoning-history" => {
                server.sticky_reasoning = choice(flag, args, &["official", "sticky"])? == "sticky";
            }
            "--response-store" => server.response_store = args.int(flag, 0..=1 << 20)? as usize,
            "--tool-memory-max-ids" => server.tool_memory = args.int(flag, 0..=1 << 32)? as usize,
            "--disable-exact-dsml-tool-replay" => server.canonical_replay = true,
            "--cache-share" => server.cache_share = true,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn telling(&mut self, flag: &str, args: &mut Args) -> anyhow::Result<bool> {
        let server = &mut self.server;
        match flag {
            "--metrics" => server.metrics_prefix = server.metrics_prefix.take().or(Some("ds4".to_owned())),
            "--no-metrics" => server.metrics_prefix = None,
            "--metrics-prefix" => server.metrics_prefix = Some(choice(flag, args, &["ds4", "vllm"])?),
            "--slots" => server.slots = server.slots.or(Some(SlotDetail::Numbers)),
            "--slots-debug" => server.slots = Some(SlotDetail::Texts),
            "--trace" => server.trace = Some(args.path(flag)?),
            "--trace-redact" => server.trace_redact = true,
            "--trace-json" => server.trace_json = true,
            "--webui" => server.webui = true,
            "--no-webui" => server.webui = false,
            "--log-file" => server.log.file = Some(args.path(flag)?),
            "--log-format" => server.log.json = choice(flag, args, &["text", "json"])? == "json",
            "--no-color" => server.log.colour = false,
            "--log-level" => {
                server.log.level = match choice(flag, args, &["error", "warn", "info", "debug"])?.as_str() {
                    "error" => LogLevel::Error,
                    "warn" => LogLevel::Warn,
                    "debug" => LogLevel::Debug,
                    _ => LogLevel::Info,
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn resolve(mut self) -> anyhow::Result<Asked> {
        if !self.hosts.is_empty() {
            self.server.hosts = self.hosts;
        }
        if !self.names.is_empty() {
            self.server.served_names = self.names;
        }
        if let (Some(active), Some(parallel)) = (self.active, self.parallel)
            && active > parallel
        {
            return Err(usage(format!("--max-active-requests={active}: expected at most --parallel={parallel}")));
        }
        if (self.server.trace_redact || self.server.trace_json) && self.server.trace.is_none() {
            return Err(usage("--trace-redact and --trace-json need --trace FILE"));
        }
        self.common.prefill_chunk = match (self.common.prefill_chunk, self.rows) {
            (Some(chunk), Some(rows)) => Some(chunk.min(rows)),
            (chunk, rows) => chunk.or(rows),
        };
        Ok(Asked::Serve(Box::new(Options {
            common: self.common,
            server: self.server,
            chdir: self.chdir,
            parallel: self.parallel,
            active: self.active,
            queue: self.queue.unwrap_or(256),
            quantum: self.quantum.unwrap_or(512),
            kv: self.kv,
        })))
    }
}

/// A number of seconds, 0 for none.
fn seconds(flag: &str, args: &mut Args) -> anyhow::Result<Option<Duration>> {
    Ok(Some(args.int(flag, 0..=ANY)?).filter(|&n| n > 0).map(Duration::from_secs))
}

/// A text that says something.
fn word(flag: &str, args: &mut Args) -> anyhow::Result<String> {
    let text = args.text(flag)?;
    if text.trim().is_empty() {
        return Err(usage(format!("invalid value for {flag}: it is empty")));
    }
    Ok(text)
}

/// One of a few words.
pub(super) fn choice(flag: &str, args: &mut Args, words: &[&str]) -> anyhow::Result<String> {
    let text = args.text(flag)?;
    if words.contains(&text.as_str()) {
        return Ok(text);
    }
    Err(usage(format!("invalid value for {flag}: {text}: expected {}", words.join(" or "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(words: &[&str]) -> Options {
        match parse(words.iter().map(OsString::from)).expect("options") {
            Asked::Serve(options) => *options,
            other => panic!("{other:?}"),
        }
    }

    fn message(words: &[&str]) -> String {
        parse(words.iter().map(OsString::from)).expect_err("a usage error").to_string()
    }

    #[test]
    fn the_defaults_are_those_of_the_specification() {
        let o = options(&[]);
        assert_eq!((o.server.hosts, o.server.port), (vec!["127.0.0.1".to_owned()], 8000));
        assert_eq!((o.queue, o.quantum, o.parallel, o.server.max_tokens), (256, 512, None, 393_216));
        assert_eq!((o.server.keepalive, o.server.request_timeout), (Some(Duration::from_secs(5)), None));
        assert!(o.server.webui && o.server.slots.is_none());
    }

    #[test]
    fn hosts_and_names_given_replace_the_default_and_may_be_many() {
        let o = options(&["--host", "::1", "--host=localhost", "--served-model-name", "a", "--served-model-name", "b"]);
        assert_eq!(o.server.hosts, ["::1", "localhost"]);
        assert_eq!(o.server.served_names, ["a", "b"]);
    }

    #[test]
    fn zero_switches_timers_off() {
        let o = options(&["--sse-keepalive-sec", "0", "--queue-timeout-sec=0", "--request-timeout-sec", "7"]);
        assert_eq!((o.server.keepalive, o.server.queue_timeout), (None, None));
        assert_eq!(o.server.request_timeout, Some(Duration::from_secs(7)));
    }

    #[test]
    fn bad_values_and_contradictions_are_usage_errors() {
        for (words, said) in [
            (&["--port", "65536"][..], "invalid value for --port: 65536: expected 0..65535"),
            (&["--port", "8000x"], "invalid value for --port: 8000x"),
            (&["--ctx", "255"], "invalid value for --ctx: 255: expected 256..4294967295"),
            (&["--parallel", "0"], "invalid value for --parallel: 0: expected 1..1024"),
            (&["--log-format", "xml"], "invalid value for --log-format: xml: expected text or json"),
            (&["--api-key", ""], "invalid value for --api-key: it is empty"),
            (&["--trace-json"], "--trace-redact and --trace-json need --trace FILE"),
            (
                &["--parallel", "2", "--max-active-requests", "3"],
                "--max-active-requests=3: expected at most --parallel=2",
            ),
            (&["--kv-disk-space-mb", "x"], "invalid value for --kv-disk-space-mb: x"),
            (&["--gpus", "0"], "--gpus is not supported by this build"),
            (&["--frob"], "unknown option: --frob"),
            (&["word"], "unexpected argument: word"),
        ] {
            assert_eq!(message(words), said);
        }
    }
}
