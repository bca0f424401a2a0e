//! Shapes of HTTP, byte by byte (server.md 2.1).

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use ds4_server::ServerConfig;
use serde_json::json;

use crate::live::{Live, chat, config, parse, read};

#[test]
fn spellings_of_a_path_lead_to_the_same_place() {
    let live = Live::start(config());
    let body = chat("SHORT", false);
    for path in
        ["/v1/chat/completions", "/chat/completions", "/v1/chat/completions/?beta=true", "/v1/ch%61t/completions"]
    {
        let response = live.post(path, &body);
        assert_eq!(response.status, 200, "{path}: {}", response.body);
        assert_eq!(response.json()["choices"][0]["message"]["content"], "fine.");
        assert!(response.header("openai-processing-ms").is_some_and(|ms| ms.parse::<u64>().is_ok()));
        assert_eq!(response.header("x-ds4-thinking"), Some("high"));
    }
    for path in ["/models", "/v1/models/", "/v1/models/deepseek%2Fdeepseek-chat", "/health", "/v1/health/"] {
        assert_eq!(live.get(path).status, 200, "{path}");
    }
}

#[test]
fn methods_have_their_answers() {
    let live = Live::start(config());
    let missing = live.get("/v1/nothing");
    assert_eq!((missing.status, &missing.json()["error"]["code"]), (404, &json!("not_found")));
    let wrong = live.get("/v1/chat/completions");
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("POST")));
    assert!(wrong.json()["error"]["message"].is_string());
    let (head, got) = (live.ask("HEAD /v1/models", "", ""), live.get("/v1/models"));
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(head.header("content-length"), got.header("content-length"));
    for path in ["/v1/chat/completions", "/nothing"] {
        let options = live.ask(&format!("OPTIONS {path}"), "Origin: http://a\r\n", "");
        assert_eq!((options.status, options.body.as_str()), (204, ""));
        assert_eq!(options.header("access-control-allow-origin"), None);
    }
}

#[test]
fn ids_of_the_caller_are_kept_if_they_are_usable() {
    let live = Live::start(config());
    let id = |headers: &str| live.ask("GET /health", headers, "").header("x-request-id").expect("an id").to_owned();
    assert_eq!(id("x-request-id: mine-1\r\n"), "mine-1");
    assert_eq!(id("x-client-request-id: mine-2\r\n"), "mine-2");
    assert!(id("x-request-id: no spaces\r\n").starts_with("req_"));
    assert!(id(&format!("x-request-id: {}\r\n", "a".repeat(129))).starts_with("req_"));
    let error = live.ask("GET /nothing", "anthropic-version: 2023-06-01\r\nx-request-id: q\r\n", "");
    assert_eq!((error.header("request-id"), &error.json()["request_id"]), (Some("q"), &json!("q")));
}

#[test]
fn bodies_come_in_every_legal_way() {
    let live = Live::start(config());
    let body = chat("SHORT", false).to_string();
    let (first, second) = body.split_at(10);
    let head =
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json; charset=utf-8\r\n";
    let chunked = format!(
        "{head}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n{:x}\r\n{first}\r\n{:x};x=y\r\n{second}\r\n0\r\n\r\n",
        first.len(),
        second.len()
    );
    assert_eq!(live.raw(chunked).status, 200);
    let mut stream = live.connect();
    let expecting =
        format!("{head}Expect: 100-continue\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    stream.write_all(expecting.as_bytes()).expect("sent");
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).expect("an interim response");
    assert_eq!(&interim[..], b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(body.as_bytes()).expect("sent");
    assert_eq!(read(&mut stream).status, 200);
    let both = format!("{head}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n");
    let refused = live.raw(both);
    assert_eq!((refused.status, refused.header("connection")), (400, Some("close")));
    let two = format!("{head}Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef");
    assert_eq!(live.raw(two).status, 400);
}

#[test]
fn old_and_impatient_clients_are_served() {
    let live = Live::start(config());
    let old = live.raw("GET /health HTTP/1.0\r\n\r\n");
    assert_eq!(old.status, 200);
    assert_eq!(live.raw("GET /health HTTP/1.1\r\nConnection: close\r\n\r\n").status, 400, "a request needs a host");
    let body = chat("SHORT", true).to_string();
    let streamed = live.raw(format!(
        "POST /chat/completions HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert!(streamed.header("transfer-encoding").is_none() && streamed.body.ends_with("data: [DONE]\n\n"));
    // Several requests at once on one connection.
    let one = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut stream = live.connect();
    let close = one.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    stream.write_all(format!("{one}{one}{close}").as_bytes()).expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("responses");
    assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 3);
}

#[test]
fn what_is_too_large_or_of_the_wrong_kind_is_refused() {
    let live = Live::start(ServerConfig { max_body: 1000, ..config() });
    let json = "Content-Type: application/json\r\n";
    let status = |line: &str, headers: &str, body: &str| live.ask(line, headers, body).status;
    assert_eq!(status(&format!("GET /health?{}", "a".repeat(9000)), "", ""), 431);
    assert_eq!(status("GET /health", &format!("x: {}\r\n", "a".repeat(70_000)), ""), 431);
    assert_eq!(status("GET /health", &"x: y\r\n".repeat(101), ""), 431);
    assert_eq!(status("GET /health", &"x: y\r\n".repeat(90), ""), 200);
    let large = live.ask("POST /tokenize", json, &json!({"content": "a".repeat(1000)}).to_string());
    assert_eq!((large.status, &large.json()["error"]["code"]), (413, &json!("request_too_large")));
    let body = r#"{"content": "a"}"#;
    assert_eq!(status("POST /tokenize", json, body), 200);
    assert_eq!(status("POST /tokenize", "", body), 200, "a program without a content type");
    assert_eq!(status("POST /tokenize", "Origin: http://localhost\r\n", body), 415, "a page without one");
    assert_eq!(status("POST /tokenize", "Content-Type: text/plain\r\n", body), 415);
    assert_eq!(status("POST /tokenize", &format!("{json}Content-Encoding: gzip\r\n"), body), 415);
    assert_eq!(status("POST /tokenize", json, "{}x"), 400);
    assert_eq!(live.raw("nonsense\r\n\r\n").status, 400);
    assert_eq!(live.get("/health").status, 200, "and it goes on");
}

/// `{"content":"hi hi hi hi hi hi hi hi hi"}` by the reference compressor.
const PACKED: &[u8] = &[
    0x28, 0xb5, 0x2f, 0xfd, 0x04, 0x58, 0xbd, 0x00, 0x00, 0x88, 0x7b, 0x22, 0x63, 0x6f, 0x6e, 0x74, 0x65, 0x6e, 0x74,
    0x22, 0x3a, 0x22, 0x68, 0x69, 0x20, 0x22, 0x7d, 0x01, 0x00, 0xd6, 0xae, 0x0e, 0x07, 0x4e, 0xc3, 0x58,
];

/// 3,000,000 spaces by the same.
const BOMB: &[u8] = &[
    0x28, 0xb5, 0x2f, 0xfd, 0x04, 0x68, 0x4c, 0x00, 0x00, 0x08, 0x20, 0x01, 0x00, 0xfc, 0xff, 0x39, 0x10, 0x02, 0x02,
    0x00, 0x10, 0x20, 0x02, 0x00, 0x10, 0x20, 0x02, 0x00, 0x10, 0x20, 0x02, 0x00, 0x10, 0x20, 0x02, 0x00, 0x10, 0x20,
    0x02, 0x00, 0x10, 0x20, 0x02, 0x00, 0x10, 0x20, 0x02, 0x00, 0x10, 0x20, 0x02, 0x00, 0x10, 0x20, 0x02, 0x00, 0x10,
    0x20, 0x02, 0x00, 0x10, 0x20, 0x02, 0x00, 0x10, 0x20, 0x02, 0x00, 0x10, 0x20, 0x02, 0x00, 0x10, 0x20, 0x02, 0x00,
    0x10, 0x20, 0x02, 0x00, 0x10, 0x20, 0x02, 0x00, 0x10, 0x20, 0x02, 0x00, 0x10, 0x20, 0x02, 0x00, 0x10, 0x20, 0x02,
    0x00, 0x10, 0x20, 0x02, 0x00, 0x10, 0x20, 0x03, 0x36, 0x0e, 0x20, 0x1d, 0x46, 0x16, 0xc8,
];

#[test]
fn a_packed_body_is_read_and_one_that_unpacks_to_too_much_is_refused() {
    let live = Live::start(ServerConfig { max_body: 1000, ..config() });
    let ask = |coding: &str, body: &[u8]| {
        let head = format!(
            "POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Encoding: {coding}\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        live.raw([head.as_bytes(), body].concat())
    };
    let plain = live.post("/tokenize", &json!({"content": "hi hi hi hi hi hi hi hi hi"}));
    for coding in ["zstd", "ZSTD"] {
        let packed = ask(coding, PACKED);
        assert_eq!((packed.status, packed.json()), (200, plain.json()));
    }
    let bomb = ask("zstd", BOMB);
    assert_eq!((bomb.status, &bomb.json()["error"]["code"]), (413, &json!("request_too_large")));
    assert_eq!(ask("zstd", br#"{"content": "a"}"#).status, 400, "it is not packed");
    assert_eq!(ask("identity", br#"{"content": "a"}"#).status, 200);
    assert_eq!((ask("br", PACKED).status, ask("zstd, zstd", PACKED).status), (415, 415));
    assert_eq!(live.get("/health").status, 200);
}

#[test]
fn those_who_stall_are_not_waited_for() {
    let second = Duration::from_secs(1);
    let live = Live::start(ServerConfig { io_timeout: second, idle_timeout: 2 * second, ..config() });
    let closes_after = |sent: &str| {
        let mut stream = live.connect();
        stream.write_all(sent.as_bytes()).expect("sent");
        let started = Instant::now();
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an end");
        (started.elapsed().as_secs_f64(), parse(&text).status)
    };
    let (head, status) = closes_after("GET /health HTT");
    assert!((0.9..1.8).contains(&head) && status == 0, "{head}");
    let (idle, status) = closes_after("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!((1.9..2.8).contains(&idle) && status == 200, "{idle}");
    let post = "POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\nConnection: close\r\n\r\n{\"";
    let (body, status) = closes_after(post);
    assert!((0.9..1.8).contains(&body) && status == 408, "{body} {status}");
}

#[test]
fn connections_beyond_the_most_wait() {
    let live = Live::start(ServerConfig { max_connections: 1, ..config() });
    let first = live.connect();
    std::thread::sleep(Duration::from_millis(100));
    let mut second = live.connect();
    second.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("sent");
    second.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
    assert!(second.read(&mut [0]).is_err(), "the first one is still there");
    drop(first);
    second.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    assert_eq!(read(&mut second).status, 200);
}

#[cfg(unix)]
#[test]
fn a_socket_file_is_private_and_goes_with_the_server() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;

    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("socket");
    let config = ServerConfig { unix_socket: Some(path.clone()), ..config() };
    let live = Live::start(config.clone());
    let mode = std::fs::metadata(&path).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut stream = UnixStream::connect(&path).expect("a connection");
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: any.name\r\nConnection: close\r\n\r\n").expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("a response");
    assert_eq!(parse(&text).status, 200, "no page comes this way, so every name will do");
    let second = ds4_server::Server::bind(config).err().expect("it is in use").to_string();
    assert!(second.starts_with("cannot listen on ") && second.ends_with("socket"), "{second}");
    live.switch.off();
    live.end();
    assert!(!path.exists());
}
