//! The server's end: what runs is finished, what waits is sent away, what takes too long is told (server.md 15).

use std::io::{Read, Write};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use ds4_engine::Error as EngineError;
use ds4_model::{Batch, Error, Limits, Model, Part, Result, Shape, SlotId};
use ds4_server::{End, ServerConfig};
use ds4_testkit::ScriptedModel;
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

/// A model whose device fails once it is told to.
struct Failing {
    model: ScriptedModel,
    now: Arc<AtomicBool>,
}

impl Model for Failing {
    fn forward(&mut self, batch: &Batch<'_>, logits: &mut [f32]) -> Result<()> {
        if self.now.load(Ordering::Relaxed) {
            return Err(Error::Device { device: "fake".to_owned(), what: "the GPU is lost".to_owned() });
        }
        self.model.forward(batch, logits)
    }

    fn shape(&self) -> &Shape {
        self.model.shape()
    }

    fn limits(&self) -> Limits {
        self.model.limits()
    }

    fn save(&mut self, slot: SlotId, rows: Range<u32>, out: &mut dyn Write) -> Result<()> {
        self.model.save(slot, rows, out)
    }

    fn load(&mut self, slot: SlotId, rows: Range<u32>, src: &mut dyn Read) -> Result<()> {
        self.model.load(slot, rows, src)
    }

    fn state_bytes(&self, rows: Range<u32>) -> u64 {
        self.model.state_bytes(rows)
    }

    fn parts(&self, n: u32) -> Vec<Part> {
        self.model.parts(n)
    }

    fn fingerprint(&self) -> [u8; 32] {
        self.model.fingerprint()
    }
}

#[test]
fn a_device_that_fails_in_an_answer_is_told_to_all_who_wait_and_ends_the_server() {
    let now = Arc::new(AtomicBool::new(false));
    let fails = Arc::clone(&now);
    let live = Live::over(closes(config()), 1, move |model| Box::new(Failing { model, now: fails }));
    let mut running = live.begin("hello", true);
    live.until(1, 0);
    let (mut waiting, mut plain) = (live.begin("waits", true), live.begin("waits too", false));
    live.until(1, 2);
    sleep(Duration::from_millis(300));
    now.store(true, Ordering::Relaxed);
    let started = Instant::now();
    let [cut, queued, refused] = [&mut running, &mut waiting, &mut plain].map(read);
    assert!(cut.body.contains("now") && !cut.body.contains("[DONE]"), "{}", cut.body);
    for told in [&cut, &queued, &refused] {
        assert!(told.body.contains("device fake: the GPU is lost"), "{}", told.body);
    }
    assert_eq!(refused.status, 500);
    assert!(matches!(live.end(), End::Failed(EngineError::Device(_))));
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_server_whose_device_failed_says_so_and_keeps_its_queue_until_the_model_is_open_again() {
    let (now, held, opened) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(true)), AtomicBool::new(false));
    let (fails, hold) = (Arc::clone(&now), Arc::clone(&held));
    let live = Live::renewable(closes(config()), 1, move |model| {
        // Opened again, it works.
        if opened.swap(true, Ordering::Relaxed) {
            fails.store(false, Ordering::Relaxed);
            while hold.load(Ordering::Relaxed) {
                sleep(Duration::from_millis(5));
            }
        }
        Box::new(Failing { model, now: Arc::clone(&fails) })
    });
    let mut running = live.begin("hello", true);
    live.until(1, 0);
    let mut waiting = live.begin("waits", false);
    live.until(1, 1);
    sleep(Duration::from_millis(300));
    now.store(true, Ordering::Relaxed);
    assert!(read(&mut running).body.contains("device fake: the GPU is lost"));
    let sick = live.ask("GET /health", "", "");
    assert_eq!(sick.status, 503);
    assert!(sick.body.contains("opened again: device fake: the GPU is lost"), "{}", sick.body);
    held.store(false, Ordering::Relaxed);
    let answer = read(&mut waiting);
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(live.ask("GET /health", "", "").status, 200);
    live.switch.off();
    assert!(matches!(live.end(), End::Stopped));
}
