//! Servers over two models, requests to them, and event streams read back.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use ds4_engine::{EngineConfig, EngineHandle};
use ds4_gguf::Gguf;
use ds4_model::{Limits, Shape};
use ds4_server::{ModelInfo, ServerConfig, router};
use ds4_testkit::{Script, ScriptedModel};
use ds4_text::Tokenizer;
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

static GGUF: LazyLock<Gguf> =
    LazyLock::new(|| Gguf::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/ds4-mini.gguf")).unwrap());

pub(crate) static TOKENIZER: LazyLock<Arc<Tokenizer>> =
    LazyLock::new(|| Arc::new(Tokenizer::from_metadata(GGUF.metadata()).unwrap()));

pub(crate) const LIMITS: Limits = Limits { context: 4096, slots: 2, max_rows: 128, rewind: 8 };

/// The miniature's shape.
pub(crate) fn shape() -> Shape {
    Shape::from_gguf(&GGUF).unwrap()
}

/// A running server without sockets.
#[derive(Clone)]
pub(crate) struct Server(Router);

/// An answer that is not a stream.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: axum::http::HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    /// Events as name and data; comments are left out. Without a name it is empty, and `[DONE]` is a string.
    pub(crate) fn events(&self) -> Vec<(String, Value)> {
        let blocks = self.text.split("\n\n").filter(|block| !block.is_empty() && !block.starts_with(':'));
        blocks.map(event).collect()
    }
}

fn event(block: &str) -> (String, Value) {
    let (name, data) = match block.strip_prefix("event: ") {
        Some(rest) => rest.split_once('\n').unwrap(),
        None => ("", block),
    };
    let data = data.strip_prefix("data: ").unwrap_or_else(|| panic!("{block:?}"));
    (name.to_owned(), serde_json::from_str(data).unwrap_or_else(|_| Value::String(data.to_owned())))
}

impl Server {
    /// A server whose model plays a script.
    pub(crate) fn scripted(script: &str, config: ServerConfig) -> Server {
        let limits = Limits { context: config.context.min(LIMITS.context), ..LIMITS };
        let model = ScriptedModel::new(shape(), limits, Arc::clone(&TOKENIZER), Script::parse(script).unwrap());
        Server::over(Box::new(model), config)
    }

    /// A server whose model always says this.
    pub(crate) fn saying(reply: &str) -> Server {
        let script = serde_json::json!({"reply": reply}).to_string();
        Server::scripted(&script, config())
    }

    /// A server of the miniature.
    pub(crate) fn miniature(config: ServerConfig) -> Server {
        let options = ds4_cpu::Options { threads: 2, ..ds4_cpu::Options::default() };
        Server::over(ds4_cpu::load(&GGUF, LIMITS, options).unwrap(), config)
    }

    pub(crate) fn over(model: Box<dyn ds4_model::Model>, config: ServerConfig) -> Server {
        let engine = EngineHandle::start(model, Arc::clone(&TOKENIZER), EngineConfig::default()).unwrap();
        Server(router(config, engine, Arc::clone(&TOKENIZER), ModelInfo::default()))
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, body.to_string()).await
    }

    /// A body that may be none.
    pub(crate) async fn bytes(&self, path: &str, body: Vec<u8>) -> Answer {
        self.sent("POST", path, body.into()).await
    }

    pub(crate) async fn send(&self, method: &str, path: &str, body: String) -> Answer {
        self.sent(method, path, body.into()).await
    }

    async fn sent(&self, method: &str, path: &str, body: Body) -> Answer {
        let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        let response = self.0.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        Answer { status: parts.status, headers: parts.headers, text }
    }

    /// A request whose answer is read as it comes.
    pub(crate) async fn open(&self, path: &str, body: &Value) -> axum::body::BodyDataStream {
        let request = Request::builder().method("POST").uri(path).header("content-type", "application/json");
        let request = request.body(Body::from(body.to_string())).unwrap();
        self.0.clone().oneshot(request).await.unwrap().into_body().into_data_stream()
    }

    /// A request that succeeds.
    pub(crate) async fn ask(&self, path: &str, body: &Value) -> Value {
        let answer = self.post(path, body).await;
        assert_eq!(answer.status, StatusCode::OK, "{} to {body}", answer.text);
        answer.json()
    }

    /// The same request as a stream.
    pub(crate) async fn stream(&self, path: &str, body: &Value) -> Answer {
        let mut body = body.clone();
        body["stream"] = true.into();
        let answer = self.post(path, &body).await;
        assert_eq!(answer.status, StatusCode::OK, "{} to {body}", answer.text);
        answer
    }
}

pub(crate) fn config() -> ServerConfig {
    ServerConfig { context: LIMITS.context, state_key: [7; 32], keepalive: None, ..ServerConfig::default() }
}

/// A call: name, and of every parameter the key, whether it is a string, and the value.
pub(crate) type Call<'a> = (&'a str, &'a [(&'a str, bool, &'a str)]);

/// The block that calls tools.
pub(crate) fn block(calls: &[Call<'_>]) -> String {
    let parameter = |(key, string, value): &(&str, bool, &str)| {
        format!("<｜DSML｜parameter name=\"{key}\" string=\"{string}\">{value}</｜DSML｜parameter>\n")
    };
    let call = |(name, parameters): &Call<'_>| {
        let parameters: String = parameters.iter().map(parameter).collect();
        format!("<｜DSML｜invoke name=\"{name}\">\n{parameters}</｜DSML｜invoke>\n")
    };
    let calls: Vec<String> = calls.iter().map(call).collect();
    format!("\n\n<｜DSML｜tool_calls>\n{}</｜DSML｜tool_calls>", calls.concat())
}

/// A transcript in which everything that differs from run to run has one spelling.
pub(crate) fn stable(text: &str) -> String {
    let mut out = text.to_owned();
    for prefix in ["msg_", "toolu_", "call_", "resp_", "rs_", "fc_", "ctc_", "tsc_", "chatcmpl-", "item_", "ds4r1."] {
        let mut done = String::new();
        let mut rest = out.as_str();
        while let Some(at) = rest.find(&format!("\"{prefix}")) {
            let (before, found) = rest.split_at(at + 1);
            let end = found.find('"').unwrap();
            // Names of members begin like this, too.
            let random = end >= prefix.len() + 20;
            done += before;
            done += if random { prefix } else { &found[..end] };
            done += if random { "…" } else { "" };
            rest = &found[end..];
        }
        out = done + rest;
    }
    for field in ["created", "created_at", "completed_at"] {
        let mark = format!("\"{field}\":");
        let mut done = String::new();
        let mut rest = out.as_str();
        while let Some(at) = rest.find(&mark) {
            let (before, found) = rest.split_at(at + mark.len());
            let end = found.find(|c: char| !c.is_ascii_digit()).unwrap();
            done += before;
            done += if end > 0 { "0" } else { "" };
            rest = &found[end..];
        }
        out = done + rest;
    }
    out
}

/// Compares with `tests/fixtures/{name}.sse`; with `DS4_BLESS` set it writes the file.
pub(crate) fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(format!("{name}.sse"));
    let text = stable(text);
    if std::env::var_os("DS4_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert!(text == expected, "{name} differs:\n{text}");
}
