//! The server's end: what runs is finished, what waits is sent away, what takes too long is told (server.md 15).

use std::thread::sleep;
use std::time::{Duration, Instant};

use ds4_server::{End, ServerConfig};
use serde_json::json;

use crate::live::{Live, config, long, read};

fn closes(config: ServerConfig) -> ServerConfig {
    ServerConfig { idle_timeout: Duration::from_secs(1), ..config }
}

#[test]
fn running_answers_are_finished_and_waiting_ones_sent_away() {
    let live = Live::start(closes(config()));
    let mut running = live.begin("hello", true);
    live.until(1, 0);
    let (mut waiting, mut plain) = (live.begin("waits", true), live.begin("waits too", false));
    live.until(1, 2);
    live.switch.off();
    sleep(Duration::from_millis(200));
    let health = live.get("/health");
    assert_eq!((health.status, health.body.as_str()), (503, r#"{"status":"shutting_down"}"#));
    let late = live.post("/v1/chat/completions", &json!({}));
    assert_eq!((late.status, &late.json()["error"]["code"]), (503, &json!("shutting_down")));
    assert!(late.header("retry-after").is_some());
    let refused = read(&mut plain);
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (503, &json!("shutting_down")));
    let waited = read(&mut waiting);
    assert!(waited.body.contains(r#""code":"shutting_down""#) && !waited.body.contains("[DONE]"), "{}", waited.body);
    let finished = read(&mut running);
    assert!(finished.body.ends_with("data: [DONE]\n\n") && finished.body.contains("elve"), "{}", finished.body);
    assert!(matches!(live.end(), End::Stopped));
}

#[test]
fn answers_that_take_too_long_end_with_an_error() {
    let live = Live::with(ServerConfig { drain_timeout: Duration::from_millis(400), ..closes(config()) }, 2);
    let (mut streams, mut plain) = (live.begin("hello", true), live.begin(&long(), false));
    live.until(2, 0);
    live.switch.off();
    let started = Instant::now();
    let (cut, failed) = (read(&mut streams), read(&mut plain));
    assert!(started.elapsed() < Duration::from_secs(3));
    let last = cut.body.trim_end().rsplit("\n\n").next().expect("an event");
    assert!(last.starts_with("data: {\"error\":{") && last.contains("shutting_down"), "{last}");
    assert_eq!(failed.status, 503);
    assert!(matches!(live.end(), End::Stopped));
}

#[test]
fn asked_twice_it_waits_for_nothing() {
    let live = Live::start(config());
    let _running = live.begin(&long(), true);
    live.until(1, 0);
    live.switch.off();
    sleep(Duration::from_millis(100));
    live.switch.off();
    let started = Instant::now();
    assert!(matches!(live.end(), End::Forced));
    assert!(started.elapsed() < Duration::from_secs(1));
}
