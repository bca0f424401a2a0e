//! The server as its users run it: a process with flags, a port, files and signals.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::program::Program;

const PATIENCE: Duration = Duration::from_secs(30);

struct Server {
    child: Child,
    address: String,
}

/// A command line with nothing from outside in it.
fn command(program: &Program, args: &[&str]) -> Command {
    let mut command = program.surrounded(Command::new(env!("CARGO_BIN_EXE_ds4-server")), args);
    command.env_remove("DS4_API_KEY").env_remove("NOTIFY_SOCKET");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl Server {
    fn start(program: &Program, args: &[&str]) -> Self {
        Self::of(command(program, &[&["--port", "0", "-c", "2048", "--parallel", "2"], args].concat()))
    }

    fn of(mut command: Command) -> Self {
        let mut child = command.spawn().expect("the program starts");
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
        out.read_line(&mut line).expect("a line");
        let address = line.trim().strip_prefix("listening on http://").map(str::to_owned);
        let Some(address) = address else {
            let mut err = String::new();
            child.stderr.take().expect("a pipe").read_to_string(&mut err).expect("UTF-8");
            panic!("{line}{err}");
        };
        Self { child, address }
    }

    fn ask(&self, head: &str, body: &str) -> (u16, String) {
        let mut stream = self.begin(head, body);
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text);
        let status = text.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        (status, text.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_owned()))
    }

    fn begin(&self, head: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let length = body.len();
        let request = format!(
            "{head}\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\
             Content-Type: application/json\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).expect("sent");
        stream
    }

    fn chat(&self, more: &Value) -> Value {
        let mut body = json!({"messages": [{"role": "user", "content": "Hello"}], "temperature": 0});
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let (status, answer) = self.ask("POST /v1/chat/completions HTTP/1.1", &body.to_string());
        assert_eq!(status, 200, "{answer}");
        serde_json::from_str(&answer).expect("JSON")
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
        assert!(sent.expect("kill").success());
    }

    /// The exit code and everything said on standard error.
    fn ends(mut self) -> (Option<i32>, String) {
        let started = Instant::now();
        while self.child.try_wait().expect("a state").is_none() {
            assert!(started.elapsed() < PATIENCE, "it still runs");
            sleep(Duration::from_millis(10));
        }
        let mut err = String::new();
        self.child.stderr.take().expect("a pipe").read_to_string(&mut err).expect("UTF-8");
        (self.child.wait().expect("ended").code(), err)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_miniature_answers_over_http() {
    let program = Program::new();
    let server = Server::start(&program, &["--served-model-name", "mini"]);
    let answer = server.chat(&json!({}));
    assert_eq!(answer["model"], "mini");
    assert!(answer["choices"][0]["message"]["content"].as_str().is_some_and(|text| text.contains("Hello")), "{answer}");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert_eq!(server.ask("GET /health HTTP/1.1", "").0, 200);
    let (status, page) = server.ask("GET / HTTP/1.1", "");
    assert!(status == 200 && page.starts_with("<!doctype html>"));
    server.signal("TERM");
    let (code, err) = server.ends();
    assert_eq!(code, Some(0), "{err}");
    for said in [
        "bound to http://127.0.0.1:",
        "model: ds4-mini.gguf: ",
        "memory: weights ",
        "for each of 2 sequences of 2048 tokens",
    ] {
        assert!(err.contains(&format!("ds4-server: {said}")) || err.contains(said), "{said}: {err}");
    }
    for logged in ["phase=\"start\"", "phase=\"finish\"", "cached="] {
        assert!(err.contains(logged), "{logged}: {err}");
    }
    assert!(!err.contains("Hello"), "no texts in the log: {err}");
}

#[test]
fn signals_end_it_gently_then_at_once() {
    // Half a minute of answer, however fast the machine is.
    let program = Program::new();
    program.write("script.json", json!({"reply": "word ".repeat(1500), "tokens_per_second": 50}).to_string());
    let body = r#"{"messages": [{"role": "user", "content": "a"}], "stream": true}"#;
    let one = |program: &Program, args: &[&str]| {
        let stub = ["--backend", "stub", "--stub-script", "script.json"];
        let server = Server::start(program, &[&stub, args].concat());
        let mut stream = server.begin("POST /v1/chat/completions HTTP/1.1", body);
        stream.read_exact(&mut [0; 400]).expect("the beginning of an answer");
        server.signal("INT");
        (server, stream)
    };
    let (server, mut stream) = one(&program, &["--drain-timeout-sec", "1"]);
    let mut rest = String::new();
    stream.read_to_string(&mut rest).expect("the end");
    assert!(rest.contains("shutting_down") && !rest.contains("[DONE]"), "{rest}");
    assert_eq!(server.ends().0, Some(0));
    let (server, _stream) = one(&program, &[]);
    sleep(Duration::from_millis(200));
    let started = Instant::now();
    server.signal("TERM");
    assert_eq!(server.ends().0, Some(130));
    assert!(started.elapsed() < Duration::from_secs(3));
}

#[test]
fn keys_log_and_trace_are_opened_again_on_hangup() {
    let program = Program::new();
    program.write("keys", "first alice\n");
    let args = ["--api-key-file", "keys", "--log-file", "log", "--log-format", "json", "--trace", "trace"];
    let server = Server::start(&program, &args);
    let models = |key: &str| server.ask(&format!("GET /v1/models HTTP/1.1\r\nX-Api-Key: {key}"), "").0;
    assert_eq!((models("first"), models("second")), (200, 401));
    let body = r#"{"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3}"#;
    let ask = |key: &str| server.ask(&format!("POST /v1/chat/completions HTTP/1.1\r\nX-Api-Key: {key}"), body).0;
    assert_eq!(ask("first"), 200);
    program.write("keys", "second\n");
    for name in ["log", "trace"] {
        std::fs::rename(program.path(name), program.path(&format!("{name}.1"))).expect("renamed");
    }
    server.signal("HUP");
    sleep(Duration::from_millis(300));
    assert_eq!((models("first"), models("second")), (401, 200));
    assert_eq!(ask("second"), 200);
    server.signal("USR1");
    sleep(Duration::from_millis(300));
    for name in ["log", "log.1", "trace", "trace.1"] {
        let mode = std::fs::metadata(program.path(name)).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let lines = |name: &str| -> Vec<Value> {
        let text = String::from_utf8(program.read(name)).expect("UTF-8");
        text.lines().map(|line| serde_json::from_str(line).expect("a JSON object")).collect()
    };
    let before = lines("log.1");
    assert!(before.iter().any(|line| line["phase"] == "start" && line["key"] == "alice"), "{before:?}");
    assert!(lines("log").iter().any(|line| line["message"] == "dump" && line["slots"] == 2));
    for name in ["trace", "trace.1"] {
        let text = String::from_utf8_lossy(&program.read(name)).into_owned();
        assert!(text.contains("<｜User｜>Hello") && !text.contains("second") && !text.contains("first"), "{text}");
    }
}

#[test]
fn the_service_manager_hears_of_the_beginning_and_the_end() {
    let program = Program::new();
    let socket = std::os::unix::net::UnixDatagram::bind(program.path("notify")).expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let heard = || {
        let mut bytes = [0; 100];
        let n = socket.recv(&mut bytes).expect("a message");
        String::from_utf8_lossy(&bytes[..n]).trim().to_owned()
    };
    let mut command = command(&program, &["--port", "0", "--parallel", "1"]);
    command.env("NOTIFY_SOCKET", program.path("notify"));
    let server = Server::of(command);
    assert_eq!(heard(), "READY=1");
    server.signal("TERM");
    assert_eq!(heard(), "STOPPING=1");
    assert_eq!(server.ends().0, Some(0));
}

#[test]
fn a_taken_port_is_found_before_the_model_is_loaded() {
    let program = Program::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port();
    let output = command(&program, &["--port", &port.to_string()]).output().expect("it ends");
    let err = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(1));
    let last = err.lines().last().expect("a line");
    assert_eq!(last, format!("ds4-server: cannot listen on 127.0.0.1:{port}: Address already in use"));
    assert!(!err.contains("memory:"), "{err}");
}

#[test]
fn what_cannot_be_is_refused_in_its_own_name() {
    let program = Program::new();
    let cases: &[(&[&str], i32, &str)] = &[
        (&["--port", "x"], 2, "invalid value for --port: x"),
        (&["--kv-disk-compress", "zstd"], 2, "--kv-disk-compress=zstd is not supported by this build"),
        (&["--host", "no.such.host.invalid", "--port", "0"], 1, "cannot listen on no.such.host.invalid:0: "),
        (&["--api-key-file", "none", "--port", "0"], 1, "cannot use API key file: none: No such file or directory"),
        (&["-m", "none", "--port", "0"], 1, "cannot open model: none: No such file or directory"),
        (
            &["--parallel", "1000", "-c", "60000", "--port", "0", "--backend", "frob"],
            2,
            "invalid value for --backend: frob",
        ),
        (&["--chdir", "nowhere"], 1, "cannot change to folder: nowhere: No such file or directory"),
    ];
    for (args, code, said) in cases {
        let output = command(&program, args).output().expect("it ends");
        let err = String::from_utf8(output.stderr).expect("UTF-8");
        let last = err.lines().last().unwrap_or_default();
        assert_eq!(output.status.code(), Some(*code), "{args:?}: {err}");
        assert!(last.starts_with(&format!("ds4-server: {said}")), "{args:?}: {err}");
        assert!(output.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn several_hosts_share_a_port_and_the_environment_may_hold_the_key() {
    let program = Program::new();
    let mut with_key =
        command(&program, &["--port", "0", "--parallel", "1", "--host", "localhost", "--host", "127.0.0.2"]);
    with_key.env("DS4_API_KEY", "secret");
    let server = Server::of(with_key);
    let port = server.address.rsplit(':').next().expect("a port").to_owned();
    let other = Server {
        address: format!("127.0.0.2:{port}"),
        child: command(&program, &["--help"]).spawn().expect("a child"),
    };
    assert_eq!(other.ask("GET /health HTTP/1.1", "").0, 200);
    assert_eq!(other.ask("GET /v1/models HTTP/1.1", "").0, 401);
    assert_eq!(other.ask("GET /v1/models HTTP/1.1\r\nAuthorization: Bearer secret", "").0, 200);
}

/// A server that plays a script and keeps what it knows in `store`.
fn keeping(program: &Program, more: &[&str]) -> Server {
    let reply = "<think>Look it up.</think>One moment.\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"weather\">\n\
                 <｜DSML｜parameter name=\"city\" string=\"true\">Oslo</｜DSML｜parameter>\n\
                 <｜DSML｜parameter name=\"days\" string=\"false\">{ \"n\":   3.0 }</｜DSML｜parameter>\n\
                 </｜DSML｜invoke>\n</｜DSML｜tool_calls>";
    program.write("script.json", json!([{"when": "weather", "reply": reply}, {"reply": "Fine."}]).to_string());
    let stub = ["--backend", "stub", "--stub-script", "script.json", "--kv-disk-dir", "store"];
    Server::start(program, &[&stub[..], &["--kv-cache-min-tokens", "16"], more].concat())
}

fn post(server: &Server, path: &str, body: &Value) -> Value {
    let (status, answer) = server.ask(&format!("POST {path} HTTP/1.1"), &body.to_string());
    assert_eq!(status, 200, "{answer}");
    serde_json::from_str(&answer).expect("JSON")
}

fn stopped(server: Server) {
    server.signal("TERM");
    let (code, err) = server.ends();
    assert_eq!(code, Some(0), "{err}");
}

#[test]
fn conversations_go_on_where_they_were_after_a_restart() {
    let program = Program::new();
    let tool = json!({"type": "function", "function": {"name": "weather", "parameters": {"type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "object"}}}}});
    let mut chat =
        json!({"messages": [{"role": "user", "content": "the weather?"}], "tools": [tool], "temperature": 0});
    let server = keeping(&program, &[]);
    let said = post(&server, "/v1/chat/completions", &chat)["choices"][0]["message"].clone();
    let first = post(&server, "/v1/responses", &json!({"input": "Keep a secret. ".repeat(20), "temperature": 0}));
    let id = first["id"].as_str().expect("an id").to_owned();
    stopped(server);
    for name in ["turns.journal", "responses.journal"] {
        let mode = std::fs::metadata(program.path("store").join(name)).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }

    let call = &said["tool_calls"][0];
    let arguments: Value = serde_json::from_str(call["function"]["arguments"].as_str().expect("text")).expect("JSON");
    // As a client writes it that has its own order and its own white space.
    let respelled = format!("{{ \"days\": {}, \"city\" : {} }}", arguments["days"], arguments["city"]);
    let again = json!({"role": "assistant", "content": said["content"], "tool_calls": [{"type": "function",
        "id": call["id"], "function": {"name": "weather", "arguments": respelled}}]});
    let messages = chat["messages"].as_array_mut().expect("a list");
    messages.push(again);
    messages.push(json!({"role": "tool", "tool_call_id": call["id"], "content": "rain"}));
    let server = keeping(&program, &["--kv-cache-readonly"]);
    let usage = post(&server, "/v1/chat/completions", &chat)["usage"].clone();
    let [prompt, cached] =
        [&usage["prompt_tokens"], &usage["prompt_tokens_details"]["cached_tokens"]].map(Value::as_u64);
    assert!(cached > Some(0) && cached.expect("a number") + 64 >= prompt.expect("a number"), "{usage}");
    let follow = json!({"input": "Which?", "previous_response_id": id, "temperature": 0});
    let usage = post(&server, "/v1/responses", &follow)["usage"].clone();
    assert!(usage["input_tokens_details"]["cached_tokens"].as_u64() > Some(0), "{usage}");
    let (_, metrics) = server.ask("GET /metrics HTTP/1.1", "");
    for line in [
        "ds4:kv_tier_hits_total{model_name=\"deepseek-v4-flash\",tier=\"disk\"} ",
        "kind=\"exact\"} 1",
        "ds4:kv_disk_evictions_total{model_name=\"deepseek-v4-flash\",role=\"cold\"} 0",
        "reason=\"absent\"} ",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    stopped(server);

    let server = keeping(&program, &[]);
    assert_eq!(server.ask(&format!("DELETE /v1/responses/{id} HTTP/1.1"), "").0, 200);
    stopped(server);
    let server = keeping(&program, &[]);
    assert_eq!(server.ask(&format!("GET /v1/responses/{id} HTTP/1.1"), "").0, 404, "deleted for good");
    stopped(server);
    let checked = program.works(&["kv", "verify", "store"]).out;
    assert!(checked.ends_with("0 problems\n"), "{checked}");
    let path = program.path("store").join("turns.journal");
    let mut bytes = std::fs::read(&path).expect("a journal");
    bytes[60] ^= 1;
    std::fs::write(&path, bytes).expect("written");
    let ran = program.run(&["kv", "verify", "store"]);
    assert_eq!((ran.code, ran.out.contains("turns.journal: 1 damaged records\n")), (1, true), "{}", ran.out);
}

#[test]
fn a_server_that_may_write_nothing_answers_all_the_same() {
    let program = Program::new();
    drop(keeping(&program, &[]));
    // Every file may have 8 KiB, and who wants more is told so.
    let limited = "trap '' XFSZ; ulimit -f 8; exec \"$0\" \"$@\"";
    let mut shell = program.surrounded(Command::new("sh"), &["-c", limited, env!("CARGO_BIN_EXE_ds4-server")]);
    shell.args(["--port", "0", "-c", "2048", "--parallel", "2", "--backend", "stub", "--kv-disk-dir", "store"]);
    shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let server = Server::of(shell);
    let long = json!({"input": "x ".repeat(900), "temperature": 0});
    let ids: Vec<Value> = (0..12).map(|_| post(&server, "/v1/responses", &long)["id"].clone()).collect();
    for id in &ids {
        let path = format!("GET /v1/responses/{} HTTP/1.1", id.as_str().expect("an id"));
        assert_eq!(server.ask(&path, "").0, 200);
    }
    server.signal("TERM");
    let (code, err) = server.ends();
    assert_eq!(code, Some(0), "{err}");
    for journal in ["turns.journal", "responses.journal"] {
        let warned = |line: &&str| line.contains("memory has to do") && line.contains(journal);
        assert!(err.lines().any(|line| warned(&line)), "{journal}: {err}");
    }
    let _server = keeping(&program, &[]);
}
