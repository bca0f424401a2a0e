//! Everything that is no completion (server.md 10, 16, 17).

use std::time::Duration;

use ds4_server::{ServerConfig, SlotDetail};
use serde_json::{Value, json};

use crate::live::{Live, chat, config, long, read};

#[test]
fn health_counts_slots_and_those_who_wait() {
    let live = Live::start(config());
    let idle = json!({"status": "ok", "slots_idle": 1, "slots_processing": 0, "queue": 0});
    assert_eq!(live.get("/health?fail_on_no_slot=1").json(), idle);
    let (_running, _waiting) = (live.begin("hello", true), live.begin("waits", true));
    live.until(1, 1);
    assert_eq!(
        live.get("/healthz").json(),
        json!({"status": "ok", "slots_idle": 0, "slots_processing": 1, "queue": 1})
    );
    assert_eq!(live.get("/health?fail_on_no_slot=1").status, 503);
    let ping = live.get("/ping");
    assert_eq!((ping.status, ping.body.as_str()), (200, ""));
}

#[test]
fn tokens_go_there_and_back() {
    let live = Live::start(config());
    let ids = live.post("/tokenize", &json!({"content": "Hello there"})).json()["tokens"].clone();
    assert!(!ids.as_array().expect("ids").is_empty());
    let back = live.post("/detokenize", &json!({"tokens": ids}));
    assert_eq!(back.json(), json!({"content": "Hello there"}));
    let marked =
        live.post("/tokenize", &json!({"content": "<think>", "add_special": true, "with_pieces": true})).json();
    assert_eq!(marked["tokens"].as_array().map(Vec::len), Some(2));
    assert_eq!(marked["tokens"][1]["piece"], "<think>");
    let plain = live.post("/tokenize", &json!({"content": "<think>", "parse_special": false})).json();
    assert!(plain["tokens"].as_array().is_some_and(|ids| ids.len() > 1));
    assert_eq!(live.post("/detokenize", &json!({"tokens": [-1]})).status, 400);
    assert_eq!(live.post("/tokenize", &json!({})).status, 400);
    let shown = live.post("/apply-template", &chat("Hi", false)).json();
    assert!(shown["prompt"].as_str().is_some_and(|text| text.contains("<｜User｜>Hi")), "{shown}");
    assert!(shown["tokens"].as_u64().is_some_and(|n| n >= 3));
}

#[test]
fn the_prompt_of_every_api_is_shown() {
    let live = Live::start(config());
    let show =
        |body: Value| live.post("/apply-template", &body).json()["prompt"].as_str().expect("a prompt").to_owned();
    let chat =
        show(json!({"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]}));
    assert!(chat.contains("Be kind.") && chat.contains("<｜User｜>Hi"), "{chat}");
    assert_eq!(show(json!({"instructions": "Be kind.", "input": "Hi"})), chat);
    assert_eq!(show(json!({"system": "Be kind.", "messages": [{"role": "user", "content": "Hi"}]})), chat);
    let called = show(json!({"messages": [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "look", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": "a cat"}]},
    ]}));
    assert!(called.contains("look") && called.contains("a cat"), "{called}");
    assert_eq!(live.post("/apply-template", &json!({})).status, 400);
}

#[test]
fn facts_and_what_is_not_served() {
    let live = Live::start(config());
    assert_eq!(live.get("/version").json()["version"], env!("CARGO_PKG_VERSION"));
    let props = live.get("/props").json();
    assert_eq!(
        (&props["total_slots"], &props["n_ctx"], &props["chat_template"]),
        (&json!(1), &json!(4096), &json!("ds4"))
    );
    for path in ["/v1/embeddings", "/embeddings", "/rerank", "/infill", "/admin/steering"] {
        let response = live.post(path, &json!({}));
        assert_eq!((response.status, &response.json()["error"]["code"]), (501, &json!("not_supported")), "{path}");
    }
    assert_eq!(live.get("/slots").status, 404);
    let page = live.get("/");
    assert!(page.header("content-type").is_some_and(|kind| kind.starts_with("text/html")));
    assert!(page.header("content-security-policy").is_some_and(|policy| policy.contains("default-src 'none'")));
    let without = Live::start(ServerConfig { webui: false, metrics_prefix: None, ..config() });
    assert!(without.get("/").body.contains("POST /v1/chat/completions"));
    assert_eq!(without.get("/metrics").status, 404);
}

#[test]
fn slots_are_shown_to_owners_of_a_key() {
    let config = ServerConfig { slots: Some(SlotDetail::Numbers), ..config() };
    assert_eq!(Live::start(config.clone()).get("/slots").status, 403);
    let live = Live::start(ServerConfig { api_keys: vec![("k".to_owned(), None)], ..config });
    let slots = live.ask("GET /slots", "X-Api-Key: k\r\n", "").json();
    assert_eq!((&slots[0]["state"], &slots[0]["n_ctx"]), (&json!("idle"), &json!(4096)));
    assert!(slots[0].get("text").is_none());
}

#[test]
fn a_request_is_cancelled_by_its_id() {
    let live = Live::start(config());
    let running = live.begin("hello", true);
    live.until(1, 0);
    let cancelled = live.post("/v1/requests/hello/cancel", &json!({}));
    assert_eq!((cancelled.status, &cancelled.json()["cancelled"]), (200, &json!(1)));
    assert!(live.until(0, 0) < Duration::from_millis(500));
    running.shutdown(std::net::Shutdown::Read).expect("shut");
    assert_eq!(live.post("/v1/requests/hello/cancel", &json!({})).status, 404);
}

#[test]
fn time_limits_end_requests() {
    let second = Some(Duration::from_secs(1));
    let live = Live::start(ServerConfig { queue_timeout: second, ..config() });
    let running = live.begin(&long(), true);
    live.until(1, 0);
    let waited = live.post("/v1/chat/completions", &chat("hello", false));
    assert_eq!((waited.status, &waited.json()["error"]["code"]), (504, &json!("timeout")));
    drop(running);
    let live = Live::start(ServerConfig { request_timeout: second, ..config() });
    let response = live.post("/v1/chat/completions", &chat("hello", true));
    assert!(response.body.contains(r#""code":"timeout""#) && response.body.contains("one"), "{}", response.body);
    live.until(0, 0);
}

#[test]
fn a_full_queue_says_when_to_come_back() {
    let live = Live::start(config());
    let _running = live.begin("a", true);
    live.until(1, 0);
    let _waiting = [live.begin("b", true), live.begin("c", true)];
    live.until(1, 2);
    let refused = live.post("/v1/chat/completions", &chat("d", false));
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (429, &json!("queue_full")));
    assert!(refused.header("retry-after").is_some());
}

/// The value of a line of the metrics.
fn value(text: &str, start: &str) -> Option<f64> {
    text.lines().find(|line| line.starts_with(start))?.rsplit(' ').next()?.parse().ok()
}

#[test]
fn metrics_follow_requests() {
    let live = Live::start(config());
    let answer = live.post("/v1/chat/completions", &chat("SHORT", false)).json();
    live.post("/v1/chat/completions", &chat("SHORT", false));
    let mut gone = live.begin("hello", true);
    live.until(1, 0);
    std::io::Read::read(&mut gone, &mut [0]).expect("a byte");
    drop(gone);
    live.until(0, 0);
    std::thread::sleep(Duration::from_millis(50));
    let response = live.get("/metrics");
    assert!(response.header("content-type").is_some_and(|kind| kind.starts_with("application/openmetrics-text")));
    let text = &response.body;
    let at_least = |start: &str, least: f64| {
        assert!(value(text, start).is_some_and(|found| found >= least), "{start}\n{text}");
    };
    at_least("ds4:request_success_total{", 2.0);
    at_least("ds4:generation_tokens_total{", 2.0 * answer["usage"]["completion_tokens"].as_f64().expect("a number"));
    at_least("ds4:prefix_cache_hits_total{", 1.0);
    at_least("ds4:time_to_first_token_seconds_count{", 2.0);
    at_least("ds4:iteration_tokens_total_count{", 4.0);
    at_least("ds4:slots_total{", 1.0);
    at_least("ds4:build_info{", 1.0);
    at_least("ds4:prompt_tokens_total{", 5.0);
    assert_eq!(value(text, "ds4:num_requests_running{"), Some(0.0));
    assert!(text.contains("ds4:http_requests_total{") && text.contains("route=\"/v1/chat/completions\""), "{text}");
    assert!(text.contains("ds4:cancelled_total{") && text.ends_with("# EOF\n"), "{text}");
    assert!(text.contains("model_name=\"deepseek-v4-flash\""));
}

#[test]
fn a_trace_tells_everything_or_only_its_size() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("trace");
    let traced = |redact, json| {
        let trace = Some(path.clone());
        let live = Live::start(ServerConfig { trace, trace_redact: redact, trace_json: json, ..config() });
        live.post("/v1/chat/completions", &chat("SHORT", false));
        live.post("/v1/chat/completions", &chat("Something else SHORT", false));
        drop(live);
        let text = std::fs::read_to_string(&path).expect("a trace");
        std::fs::remove_file(&path).expect("removed");
        text
    };
    let text = traced(false, false);
    for part in
        ["==== request 0 ", "\"content\":\"SHORT\"", "<｜User｜>SHORT", "-- generated\nI</think>fine.", "finish: stop"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!traced(true, false).contains("SHORT"));
    let lines: Vec<Value> =
        traced(false, true).lines().map(|line| serde_json::from_str(line).expect("one line of JSON")).collect();
    let (line, cache) = (&lines[0], &lines[1]["cache"]);
    assert_eq!(lines[0]["cache"]["miss"], "no sequence of this client is held");
    assert_eq!(cache["replay"], json!({"exact": 0, "canonical": 0, "missing": 0}));
    let [common, held] = ["common", "held"].map(|name| cache[name].as_u64().expect("a number"));
    assert!(0 < common && common < held, "{cache}");
    let window = &cache["window"];
    let at = (common - window["start"].as_u64().expect("a number")) as usize;
    let [live, prompt] = ["live", "prompt"].map(|side| window[side]["ids"].as_array().expect("ids"));
    assert!(live[..at] == prompt[..at] && live[at] != prompt[at] && at <= 8 && prompt.len() <= 16, "{window}");
    assert!(window["live"]["text"].as_str().is_some_and(|text| text.contains("SHORT")), "{window}");
    let redacted: Value =
        serde_json::from_str(traced(true, true).lines().nth(1).expect("two lines")).expect("one line of JSON");
    assert!(redacted["cache"]["window"]["live"]["ids"].is_null() && redacted["cache"]["common"] == common);
    assert_eq!((&line["finish"], &line["path"]), (&json!("stop"), &json!("/v1/chat/completions")));
}

#[test]
fn loading_is_said_until_there_is_a_model() {
    let server = ds4_server::Server::bind(config()).expect("a socket");
    let (address, switch) = (server.addresses()[0], server.switch());
    server.progress()(0.25);
    let thread = std::thread::spawn(move || {
        let load = || -> Result<ds4_server::Service, std::io::Error> {
            std::thread::sleep(Duration::from_secs(3));
            Err(std::io::Error::other("too late"))
        };
        server.run(load, || ())
    });
    let ask = |text: &str| {
        let mut stream = std::net::TcpStream::connect(address).expect("a connection");
        std::io::Write::write_all(&mut stream, text.as_bytes()).expect("sent");
        read(&mut stream)
    };
    let health = ask("GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert_eq!((health.status, health.json()), (503, json!({"status": "loading", "progress": 0.25})));
    let models = ask("GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert_eq!((models.status, &models.json()["error"]["code"]), (503, &json!("loading")));
    switch.off();
    let started = std::time::Instant::now();
    assert!(matches!(thread.join().expect("an end"), Ok(ds4_server::End::Stopped)));
    assert!(started.elapsed() < Duration::from_secs(1), "the load is not waited for");
}
