//! A whole server on a socket, over a model that plays a script, and a client that speaks raw bytes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::{Arc, LazyLock, mpsc};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use ds4_engine::{EngineConfig, EngineHandle, Reopen};
use ds4_gguf::Gguf;
use ds4_model::{Limits, Model, Shape};
use ds4_server::{End, ModelInfo, Server, ServerConfig, Service, Switch};
use ds4_testkit::{Script, ScriptedModel};
use ds4_text::Tokenizer;
use serde_json::{Value, json};

static GGUF: LazyLock<Gguf> = LazyLock::new(|| {
    Gguf::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/ds4-mini.gguf")).expect("the miniature")
});

/// Everything is over long before.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Live {
    pub(crate) address: SocketAddr,
    pub(crate) engine: EngineHandle,
    pub(crate) switch: Switch,
    thread: Option<JoinHandle<End>>,
}

/// A response, chunks joined.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }
}

pub(crate) fn config() -> ServerConfig {
    ServerConfig { port: 0, context: 4096, ..ServerConfig::default() }
}

/// Rules for a slow model: prompts with `LONG` take seconds, answers, too.
pub(crate) const SLOW: &str = r#"
    {"anywhere": "LONG", "reply": "done", "prefill_per_second": 100}
    {"anywhere": "SHORT", "reply": "<think>I</think>fine."}
    {"reply": "<think>now</think>one two three four five six seven eight nine ten eleven twelve", "tokens_per_second": 12}
"#;

fn tokenizer() -> Arc<Tokenizer> {
    Arc::new(Tokenizer::from_metadata(GGUF.metadata()).expect("a tokenizer"))
}

fn scripted(context: u32, slots: u32) -> ScriptedModel {
    let limits = Limits { context, slots, max_rows: 16, rewind: 8 };
    let shape = Shape::from_gguf(&GGUF).expect("a shape");
    ScriptedModel::new(shape, limits, tokenizer(), Script::parse(SLOW).expect("a script"))
}

impl Live {
    pub(crate) fn start(config: ServerConfig) -> Live {
        Live::with(config, 1)
    }

    pub(crate) fn with(config: ServerConfig, slots: u32) -> Live {
        Live::over(config, slots, |model| Box::new(model))
    }

    /// `wrap` may put something around the model.
    pub(crate) fn over(config: ServerConfig, slots: u32, wrap: impl FnOnce(ScriptedModel) -> Box<dyn Model>) -> Live {
        let model = wrap(scripted(config.context, slots));
        Live::of(config, model, None)
    }

    /// The same, and a device that fails is opened again.
    pub(crate) fn renewable(
        config: ServerConfig,
        slots: u32,
        wrap: impl Fn(ScriptedModel) -> Box<dyn Model> + Send + 'static,
    ) -> Live {
        let context = config.context;
        let open = move || Ok(wrap(scripted(context, slots)));
        let model = open().expect("a model");
        Live::of(config, model, Some(Box::new(open)))
    }

    fn of(config: ServerConfig, model: Box<dyn Model>, reopen: Option<Reopen>) -> Live {
        let tokenizer = tokenizer();
        let engine_config = EngineConfig { queue: 2, ..EngineConfig::default() };
        let engine =
            EngineHandle::start_renewable(model, reopen, Arc::clone(&tokenizer), engine_config).expect("an engine");
        let server = Server::bind(config).expect("a socket");
        let (address, switch) = (server.addresses()[0], server.switch());
        let service = Service { engine: engine.clone(), tokenizer, model: ModelInfo::default() };
        let (told, ready) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let load = move || Ok::<_, std::io::Error>(service);
            server.run(load, move || told.send(()).expect("somebody waits")).expect("an end")
        });
        ready.recv_timeout(PATIENCE).expect("a server that is ready");
        Live { address, engine, switch, thread: Some(thread) }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream
    }

    /// Sends bytes as they are on a connection of their own, and reads until it closes.
    pub(crate) fn raw(&self, bytes: impl AsRef<[u8]>) -> Response {
        let mut stream = self.connect();
        // A server that refuses early may close early.
        let _ = stream.write_all(bytes.as_ref());
        read(&mut stream)
    }

    /// A request with these header lines, each with its line end.
    pub(crate) fn ask(&self, line: &str, headers: &str, body: &str) -> Response {
        let host = if headers.to_ascii_lowercase().contains("host:") { "" } else { "Host: localhost\r\n" };
        let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        self.raw(format!("{line} HTTP/1.1\r\n{host}{headers}{length}Connection: close\r\n\r\n{body}"))
    }

    pub(crate) fn get(&self, path: &str) -> Response {
        self.ask(&format!("GET {path}"), "", "")
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Response {
        self.ask(&format!("POST {path}"), "Content-Type: application/json\r\n", &body.to_string())
    }

    /// Begins a chat and does not wait for its answer.
    pub(crate) fn begin(&self, text: &str, stream: bool) -> TcpStream {
        let body = chat(text, stream).to_string();
        let mut connection = self.connect();
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             x-request-id: {text}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        connection.write_all((head + &body).as_bytes()).expect("sent");
        connection
    }

    /// Waits until requests run and wait in these numbers; how long it took.
    pub(crate) fn until(&self, running: usize, waiting: usize) -> Duration {
        let started = Instant::now();
        while (self.engine.activity().running, self.engine.waiting()) != (running, waiting) {
            let (activity, now) = (self.engine.activity(), self.engine.waiting());
            assert!(started.elapsed() < PATIENCE, "{activity:?}, {now} waiting; expected {running}, {waiting}");
            sleep(Duration::from_millis(2));
        }
        started.elapsed()
    }

    pub(crate) fn end(mut self) -> End {
        self.thread.take().expect("it runs").join().expect("an end")
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.switch.off();
            self.switch.off();
            sleep(Duration::from_millis(20));
            self.switch.off();
            let _ = thread.join();
        }
    }
}

pub(crate) fn chat(text: &str, stream: bool) -> Value {
    json!({"messages": [{"role": "user", "content": text}], "stream": stream})
}

/// A prompt that takes seconds to read.
pub(crate) fn long() -> String {
    format!("LONG{}", " word".repeat(400))
}

/// What comes until the connection closes: the last response of it.
pub(crate) fn read(stream: &mut TcpStream) -> Response {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    parse(&String::from_utf8_lossy(&bytes))
}

pub(crate) fn parse(text: &str) -> Response {
    let (head, rest) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    let mut response = Response { status, head: head.to_owned(), body: rest.to_owned() };
    if response.header("transfer-encoding") == Some("chunked") {
        response.body = unchunked(rest);
    }
    response
}

fn unchunked(mut rest: &str) -> String {
    let mut body = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("a size");
        if size == 0 || after.len() < size + 2 {
            break;
        }
        body += &after[..size];
        rest = &after[size + 2..];
    }
    body
}
