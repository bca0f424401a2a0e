//! `--trace`: what every request was and became, texts included, one section or one JSON line a request, written whole.

use std::io;

use ds4_engine::{Timings, Usage};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::app::unix_time;
use crate::config::ServerConfig;
use crate::log::LogFile;
use crate::openai::models::rfc3339;

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
    pub(crate) finish: String,
    pub(crate) usage: Usage,
    pub(crate) timings: Timings,
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

    fn line(&self, s: &Section) -> String {
        let (u, t) = (s.usage, s.timings);
        let line = json!({
            "number": s.number, "time": rfc3339(unix_time()), "request": s.request, "path": s.path,
            "parameters": s.parameters, "body": self.shown(&s.body), "prompt": self.shown(&s.prompt),
            "generated": self.shown(&s.generated), "finish": s.finish,
            "usage": {"prompt": u.prompt, "cached": u.cached, "completion": u.completion, "reasoning": u.reasoning},
            "seconds": {"queue": t.queue, "prefill": t.prefill, "decode": t.decode, "ttft": t.ttft},
        });
        format!("{line}\n")
    }

    fn text(&self, s: &Section) -> String {
        let (u, t) = (s.usage, s.timings);
        format!(
            "==== request {} {} {} {}\nparameters: {}\ncache: {} of {} prompt tokens\n-- body\n{}\n-- prompt\n{}\n\
             -- generated\n{}\n-- finish: {}; {} tokens, {} of them reasoning; queue {:.3} s, prefill {:.3} s, decode {:.3} s\n\n",
            s.number,
            rfc3339(unix_time()),
            s.request,
            s.path,
            s.parameters,
            u.cached,
            u.prompt,
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
