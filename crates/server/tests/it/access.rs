//! Who may use the server: keys, names, origins (server.md 2.2, 2.3, 18.2).

use ds4_server::ServerConfig;
use serde_json::json;

use crate::live::{Live, config};

#[test]
fn with_a_key_only_a_few_paths_are_open() {
    let live = Live::start(ServerConfig {
        api_keys: vec![("secret".to_owned(), None), ("other".to_owned(), Some("bob".to_owned()))],
        ..config()
    });
    let status = |line: &str, headers: &str| live.ask(line, headers, "").status;
    for path in ["/", "/health", "/healthz", "/ping", "/v1/health"] {
        assert_eq!(status(&format!("GET {path}"), ""), 200, "{path}");
    }
    assert_eq!(status("OPTIONS /v1/models", ""), 204);
    for path in ["/v1/models", "/metrics", "/props", "/version", "/index.html", "/nothing", "/slots"] {
        assert_eq!(status(&format!("GET {path}"), ""), 401, "{path}");
    }
    for (headers, expected) in [
        ("Authorization: Bearer secret\r\n", 200),
        ("Authorization: bearer other\r\n", 200),
        ("X-Api-Key: secret\r\n", 200),
        ("X-Api-Key: wrong\r\nAuthorization: Bearer secret\r\n", 200),
        ("Authorization: Bearer wrong\r\n", 401),
        ("Authorization: Basic secret\r\n", 401),
        ("X-Api-Key: \r\n", 401),
        ("Authorization: Bearer secret\r\nHost: anything.example\r\n", 200),
    ] {
        assert_eq!(status("GET /v1/models", headers), expected, "{headers}");
    }
    assert_eq!(status("POST /", ""), 405, "the page is all that there is");
    let refused = live.ask("POST /v1/chat/completions", "", "{}");
    assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
    assert_eq!(refused.json()["error"]["code"], "invalid_api_key");
    let refused = live.ask("POST /v1/messages", "", "{}");
    assert_eq!(refused.json()["error"]["type"], "authentication_error");
    assert!(refused.header("request-id").is_some());
    let metrics = live.ask("GET /metrics", "X-Api-Key: secret\r\n", "").body;
    let refused = metrics.lines().find(|line| line.contains("route=\"refused\"") && line.contains("code=\"401\""));
    assert!(refused.is_some_and(|line| line.ends_with(" 12")), "{refused:?}");
}

#[test]
fn without_a_key_any_will_do_but_not_any_name() {
    let live = Live::start(ServerConfig { allowed_hosts: vec!["chat.example".to_owned()], ..config() });
    let status = |headers: &str| live.ask("GET /v1/models", headers, "").status;
    assert_eq!(status("Authorization: Bearer dummy\r\n"), 200);
    for (host, expected) in [
        ("localhost:1", 200),
        ("127.0.0.1", 200),
        ("[::1]:80", 200),
        ("Chat.Example:443", 200),
        ("evil.example", 403),
        ("10.1.2.3", 403),
    ] {
        assert_eq!(status(&format!("Host: {host}\r\n")), expected, "{host}");
    }
    let refused = live.ask("GET /v1/models", "Host: evil.example\r\n", "");
    assert_eq!(refused.json()["error"]["code"], "forbidden_host");
}

#[test]
fn pages_from_elsewhere_need_leave() {
    let body = json!({"content": "a"}).to_string();
    let post = |live: &Live, origin: &str| {
        let headers = format!("Content-Type: application/json\r\nOrigin: {origin}\r\nHost: localhost:8000\r\n");
        live.ask("POST /tokenize", &headers, &body)
    };
    let plain = Live::start(config());
    assert_eq!(post(&plain, "http://localhost:8000").status, 200);
    let refused = post(&plain, "https://evil.example");
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (403, &json!("forbidden_origin")));
    assert_eq!(refused.header("access-control-allow-origin"), None);
    let fetch = "Sec-Fetch-Mode: cors\r\nContent-Type: application/json\r\n";
    assert_eq!(plain.ask("POST /tokenize", fetch, &body).status, 200, "a program");

    let every = Live::start(ServerConfig { cors: true, ..config() });
    let allowed = post(&every, "https://any.example");
    assert_eq!((allowed.status, allowed.header("access-control-allow-origin")), (200, Some("*")));
    let error = every.ask("GET /nothing", "Origin: https://any.example\r\n", "");
    assert_eq!((error.status, error.header("access-control-allow-origin")), (404, Some("*")));
    let preflight = every.ask("OPTIONS /v1/messages", "Origin: https://a\r\n", "");
    assert!(preflight.header("access-control-allow-headers").is_some_and(|list| list.contains("Authorization")));
    assert_eq!(preflight.header("access-control-max-age"), Some("600"));

    let listed = Live::start(ServerConfig { cors_origins: vec!["https://app.example".to_owned()], ..config() });
    let allowed = post(&listed, "https://app.example");
    assert_eq!(
        (allowed.status, allowed.header("access-control-allow-origin"), allowed.header("vary")),
        (200, Some("https://app.example"), Some("Origin"))
    );
    assert_eq!(post(&listed, "https://other.example").status, 403);
}
