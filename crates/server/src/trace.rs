//! `--trace`: what every request was and became, texts included, one section or one JSON line a request, written whole.

use std::io;

use ds4_engine::{LiveMatch, Timings, Usage};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::app::unix_time;
use crate::config::ServerConfig;
use crate::log::LogFile;
use crate::openai::models::rfc3339;
use crate::replay::Tally;

/// The file and its form.
pub(crate) struct Trace {
    file: LogFile,
    json: bool,
    redact: bool,
}

/// All that is told of one request.
pub(crate) struct Section {
    pub(crate) number: u64,
    pub(crate) request: String,
    pub(crate) path: String,
    /// Settings that are no text.
    pub(crate) parameters: Value,
    /// As the client sent it.
    pub(crate) body: String,
    pub(crate) prompt: String,
    /// As it was sampled, control tokens included.
    pub(crate) generated: String,
    pub(crate) decision: Decision,
    /// The texts of its two windows.
    pub(crate) windows: [String; 2],
    pub(crate) finish: String,
    pub(crate) usage: Usage,
    pub(crate) timings: Timings,
}

/// How much of the prompt was there, and why not more.
#[derive(Clone, Debug, Default)]
pub(crate) struct Decision {
    pub(crate) tier: &'static str,
    pub(crate) cached: u32,
    /// What the slots had of it; none if it never got one.
    pub(crate) live: Option<LiveMatch>,
    pub(crate) tally: Tally,
}

impl Decision {
    /// Why the rest of a prompt had to be evaluated.
    fn miss(&self, prompt: u32) -> &'static str {
        let Some(live) = &self.live else { return "the prompt was not evaluated" };
        match () {
            () if self.cached + 1 >= prompt => "none",
            () if live.held == 0 => "no sequence of this client is held",
            () if live.common == 0 => "no sequence that is held begins like it",
            () if self.cached < live.common => "no way back to where they part",
            () if live.common == live.held => "the rest is new",
            () => "they part",
        }
    }
}

impl Trace {
    /// # Errors
    /// If the file cannot be opened.
    pub(crate) fn open(config: &ServerConfig) -> io::Result<Option<Self>> {
        let Some(path) = &config.trace else { return Ok(None) };
        let file = LogFile::new(path).opened()?;
        Ok(Some(Self { file, json: config.trace_json, redact: config.trace_redact }))
    }

    pub(crate) fn reopen(&self) {
        if let Err(error) = self.file.open() {
            tracing::error!(%error, "cannot open the trace again");
        }
    }

    pub(crate) fn write(&self, section: &Section) {
        let text = if self.json { self.line(section) } else { self.text(section) };
        if let Err(error) = self.file.append(text.as_bytes()) {
            tracing::error!(%error, "cannot write the trace");
        }
    }

    /// A content, or what may be told of it.
    fn shown(&self, text: &str) -> String {
        if !self.redact {
            return text.to_owned();
        }
        let digest = Sha256::digest(text);
        let hash = digest[..8].iter().fold(String::new(), |hash, byte| hash + &format!("{byte:02x}"));
        format!("[{} bytes, sha256 {hash}]", text.len())
    }

    fn decision(&self, s: &Section) -> Value {
        let Decision { tier, cached, live, tally } = &s.decision;
        let live = live.clone().unwrap_or_default();
        let window = |ids: &[u32], text: &str| {
            let ids = if self.redact { Value::Null } else { json!(ids) };
            json!({"ids": ids, "text": self.shown(text)})
        };
        json!({
            "tier": tier, "cached": cached, "held": live.held, "common": live.common,
            "miss": s.decision.miss(s.usage.prompt),
            "window": {"start": live.start, "live": window(&live.live, &s.windows[0]),
                       "prompt": window(&live.prompt, &s.windows[1])},
            "replay": {"exact": tally.exact, "canonical": tally.canonical, "missing": tally.missing},
        })
    }

    fn line(&self, s: &Section) -> String {
        let (u, t) = (s.usage, s.timings);
        let line = json!({
            "number": s.number, "time": rfc3339(unix_time()), "request": s.request, "path": s.path,
            "parameters": s.parameters, "body": self.shown(&s.body), "prompt": self.shown(&s.prompt),
            "generated": self.shown(&s.generated), "cache": self.decision(s), "finish": s.finish,
            "usage": {"prompt": u.prompt, "cached": u.cached, "completion": u.completion, "reasoning": u.reasoning},
            "seconds": {"queue": t.queue, "prefill": t.prefill, "decode": t.decode, "ttft": t.ttft},
        });
        format!("{line}\n")
    }

    fn text(&self, s: &Section) -> String {
        let (u, t) = (s.usage, s.timings);
        format!(
            "==== request {} {} {} {}\nparameters: {}\ncache: {} of {} prompt tokens; {}\n-- body\n{}\n-- prompt\n{}\n\
             -- generated\n{}\n-- finish: {}; {} tokens, {} of them reasoning; queue {:.3} s, prefill {:.3} s, decode {:.3} s\n\n",
            s.number,
            rfc3339(unix_time()),
            s.request,
            s.path,
            s.parameters,
            u.cached,
            u.prompt,
            self.decision(s),
            self.shown(&s.body),
            self.shown(&s.prompt),
            self.shown(&s.generated),
            s.finish,
            u.completion,
            u.reasoning,
            t.queue,
            t.prefill,
            t.decode,
        )
    }
}
