//! The door: what a request brings, what it costs, and what becomes of the engine when something goes wrong.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use ds4_engine::{
    Cancel, ClosedBy, EngineConfig, EngineHandle, Error, Event, Listener, ReplyBudget, Request, SamplingParams,
    ScoreEvent, ScoreRequest, StopReason, TokenLogprobs, Want,
};
use ds4_model::{Limits, LogitRows, Model};
use ds4_text::{DsmlTracker, SamplingState, ToolCallKind};

use crate::fake::{BATCH_FAILS, DEVICE_FAILS, Fake, NOT_A_NUMBER, PANICS, Watch, straight};
use crate::support::{LIMITS, TOKENIZER, byte_ids, collect, encode, generate, run, scripted, start, submit};

fn ids(n: u32, salt: u32) -> Vec<u32> {
    (0..n).map(|i| 3 + (i * 7 + salt * 13) % 250).collect()
}

fn seeded(seed: u64) -> impl Fn(&mut Request) {
    move |r| {
        r.sampling.seed = seed;
        r.ignore_eos = true;
    }
}

#[test]
fn a_seed_gives_the_same_tokens_and_another_seed_others() {
    let (engine, _) = start(LIMITS);
    let first = generate(&engine, &ids(10, 1), seeded(4));
    assert_eq!(first.ids.len(), 20);
    assert_eq!(generate(&engine, &ids(10, 1), seeded(4)).ids, first.ids);
    assert_ne!(generate(&engine, &ids(10, 1), seeded(5)).ids, first.ids);
}

#[test]
fn requests_together_bring_what_they_bring_alone() {
    let limits = Limits { slots: 3, ..LIMITS };
    let alone: Vec<_> = (0..5).map(|i| generate(&start(limits).0, &ids(9 + 11 * i, i), seeded(i.into())).ids).collect();
    let (engine, watch) = start(limits);
    watch.close();
    let running: Vec<_> = (0..5).map(|i| submit(&engine, &ids(9 + 11 * i, i), seeded(i.into()))).collect();
    watch.open();
    let together: Vec<_> = running.iter().map(|events| collect(events).ids).collect();
    assert_eq!(together, alone);
    let widest = watch.steps().iter().map(Vec::len).max();
    assert_eq!(widest, Some(3), "slots work side by side");
}

#[test]
fn a_listener_that_has_enough_pauses_its_own_request_and_no_other() {
    let (engine, _) = start(LIMITS);
    let alone = generate(&engine, &ids(10, 1), seeded(4)).ids;
    let full = Arc::new(AtomicBool::new(false));
    let (sender, events) = mpsc::channel();
    let told = Arc::clone(&full);
    let listener = Listener::new(move |event| {
        told.fetch_or(matches!(event, Event::Token { .. }), Ordering::Relaxed);
        sender.send(event).is_ok()
    });
    let asked = Arc::clone(&full);
    let slow = submit(&engine, &ids(10, 1), |r| {
        seeded(4)(r);
        r.events = listener.pausing(move || asked.load(Ordering::Relaxed));
    });
    drop(slow);
    while !full.load(Ordering::Relaxed) {
        std::thread::yield_now();
    }
    for seed in 0..3 {
        assert_eq!(generate(&engine, &ids(12, 3), seeded(seed)).ids.len(), 20, "others go on");
    }
    let tokens = || events.try_iter().filter_map(|e| if let Event::Token { id, .. } = e { Some(id) } else { None });
    let mut heard: Vec<u32> = tokens().collect();
    assert_eq!(heard.len(), 1, "nothing beyond the token that filled the listener");
    while heard.len() < alone.len() {
        full.store(false, Ordering::Relaxed);
        heard.extend(tokens());
    }
    assert_eq!(heard, alone, "a pause changes nothing");
}

#[test]
fn a_paused_request_can_be_cancelled_and_holds_no_engine_up_that_closes() {
    let (engine, _) = start(LIMITS);
    let paused = |cancel: &Cancel| {
        let cancel = cancel.clone();
        let (sender, events) = mpsc::channel();
        drop(submit(&engine, &ids(10, 1), |r| {
            r.cancel = cancel;
            r.events = Listener::from(sender).pausing(|| true);
        }));
        events
    };
    let cancel = Cancel::default();
    let events = paused(&cancel);
    cancel.cancel();
    assert_eq!(collect(&events).reason(), StopReason::Cancelled);
    let events = paused(&Cancel::default());
    engine.stop();
    assert_eq!(collect(&events).reason(), StopReason::Cancelled);
}

#[test]
fn who_is_more_urgent_gets_a_slot_first() {
    let (engine, watch) = start(Limits { slots: 1, ..LIMITS });
    watch.close();
    let (told, order) = mpsc::channel();
    let first = submit(&engine, &ids(10, 1), |r| r.max_tokens = 1);
    assert!(matches!(first.recv(), Ok(Event::Prefill { .. })), "it has the slot before the others come");
    for (name, priority) in [("early", 0), ("least", -1), ("urgent", 2), ("late", 0)] {
        let told = told.clone();
        drop(submit(&engine, &ids(10, 2), |r| {
            (r.priority, r.max_tokens) = (priority, 1);
            r.events = Listener::new(move |event| !matches!(event, Event::Done { .. }) || told.send(name).is_ok());
        }));
    }
    watch.open();
    let order: Vec<&str> = (0..4).map(|_| order.recv_timeout(Duration::from_secs(30)).unwrap()).collect();
    assert_eq!(order, ["urgent", "early", "late", "least"]);
}

#[test]
fn the_next_turn_evaluates_only_what_is_new() {
    let (engine, watch) = start(LIMITS);
    let prompt = ids(50, 2);
    let first = generate(&engine, &prompt, seeded(1));
    assert_eq!(first.usage().cached, 0);
    assert_eq!(watch.evaluated(), 50 + 19, "the last token is not needed");
    let next = [&prompt[..], &first.ids, &ids(7, 3)].concat();
    let second = generate(&engine, &next, |r| r.max_tokens = 1);
    assert_eq!((second.usage().prompt, second.usage().cached), (77, 69));
    assert_eq!(watch.evaluated(), 8);
    assert_eq!(second.prefill, [(69, 77, 69), (77, 77, 69)]);
}

#[test]
fn retry_and_undo_go_back_without_a_full_prefill() {
    let (engine, watch) = start(LIMITS);
    let prompt = ids(100, 2);
    let first = generate(&engine, &prompt, seeded(1));
    watch.evaluated();
    let again = generate(&engine, &prompt, seeded(1));
    assert_eq!(again.ids, first.ids, "exactly the same state");
    assert_eq!(watch.evaluated(), 1 + 19, "the last prompt token for its logits");
    let turn = [&prompt[..], &first.ids, &ids(60, 5)].concat();
    generate(&engine, &turn, seeded(2));
    watch.evaluated();
    let undone = [&prompt[..], &first.ids[..19], &ids(3, 6)].concat();
    let other = generate(&engine, &undone, |r| r.max_tokens = 1);
    assert_eq!((other.usage().cached, watch.evaluated()), (119, 3));
    let alone = generate(&start(LIMITS).0, &undone, |r| r.max_tokens = 1);
    assert_eq!(other.ids, alone.ids);
}

#[test]
fn conversations_keep_their_slots_and_a_side_request_takes_an_empty_one() {
    let (engine, _) = start(Limits { slots: 3, ..LIMITS });
    let (a, b) = (ids(100, 1), ids(100, 2));
    generate(&engine, &a, |r| r.max_tokens = 0);
    generate(&engine, &b, |r| r.max_tokens = 0);
    let side = [&a[..40], &ids(5, 7)].concat();
    assert_eq!(generate(&engine, &side, |r| r.max_tokens = 0).usage().cached, 32, "copied from a rewind point");
    for prompt in [[&a[..], &ids(5, 3)].concat(), [&b[..], &ids(5, 4)].concat()] {
        assert_eq!(generate(&engine, &prompt, |r| r.max_tokens = 0).usage().cached, 100);
    }
    let held: Vec<usize> = engine.slots().unwrap().iter().map(|s| s.tokens.len()).collect();
    assert_eq!(held, [105, 105, 45]);
}

#[test]
fn a_long_prompt_does_not_stop_the_tokens_of_others() {
    let (engine, watch) = run(Fake::new(LIMITS), EngineConfig { prefill_quantum: 4, ..EngineConfig::default() });
    watch.close();
    let short = submit(&engine, &ids(5, 1), seeded(1));
    watch.permit(2);
    while !matches!(short.recv().unwrap(), Event::Token { .. }) {}
    let long = submit(&engine, &ids(60, 2), |r| r.max_tokens = 1);
    watch.open();
    assert!(collect(&short).end.is_ok() && collect(&long).end.is_ok());
    let mixed: Vec<_> = watch.steps().into_iter().filter(|spans| spans.len() == 2).collect();
    assert!(mixed.len() >= 14, "{} steps", mixed.len());
    assert!(mixed.iter().all(|spans| spans.iter().map(|s| s.len).sum::<u32>() <= 5));
}

#[test]
fn a_cancelled_request_keeps_what_it_has_and_frees_its_slot() {
    let (engine, watch) = start(Limits { slots: 1, ..LIMITS });
    watch.close();
    let cancel = Cancel::default();
    let events = submit(&engine, &ids(5, 1), |r| (r.cancel, r.max_tokens, r.ignore_eos) = (cancel.clone(), 300, true));
    watch.permit(4);
    while !matches!(events.recv().unwrap(), Event::Token { .. }) {}
    cancel.cancel();
    watch.open();
    let outcome = collect(&events);
    assert_eq!(outcome.reason(), StopReason::Cancelled);
    assert!(outcome.ids.len() <= 4 && outcome.usage().completion <= 5);
    assert!(!engine.slots().unwrap()[0].busy);
    assert!(watch.steps().len() <= 5, "within one step");
}

#[test]
fn a_prefill_is_cancelled_between_two_chunks() {
    let (engine, watch) = start(Limits { slots: 1, ..LIMITS });
    watch.close();
    let cancel = Cancel::default();
    let events = submit(&engine, &ids(300, 1), |r| r.cancel = cancel.clone());
    watch.permit(2);
    while !matches!(events.recv().unwrap(), Event::Prefill { done: 32, .. }) {}
    cancel.cancel();
    watch.open();
    let outcome = collect(&events);
    assert_eq!((outcome.reason(), outcome.usage().completion), (StopReason::Cancelled, 0));
    let held = engine.slots().unwrap().remove(0).tokens;
    assert!(held.len() <= 48 && held == ids(300, 1)[..held.len()], "what was evaluated can be used again");
}

#[test]
fn a_dropped_receiver_frees_the_slot() {
    let (engine, watch) = start(Limits { slots: 1, ..LIMITS });
    watch.close();
    let events = submit(&engine, &ids(5, 1), |r| (r.max_tokens, r.ignore_eos) = (300, true));
    watch.permit(3);
    while !matches!(events.recv().unwrap(), Event::Token { .. }) {}
    drop(events);
    let next = submit(&engine, &ids(6, 2), seeded(1));
    watch.open();
    assert_eq!(collect(&next).ids.len(), 20);
    let first = watch.steps().iter().filter(|spans| spans[0].pos >= 5 && spans[0].logits == LogitRows::Last).count();
    assert!(first <= 3 + 19 + 2, "{first} steps");
}

#[test]
fn a_waiting_request_can_be_cancelled_and_too_many_are_refused() {
    let (engine, watch) =
        run(Fake::new(Limits { slots: 1, ..LIMITS }), EngineConfig { queue: 2, ..EngineConfig::default() });
    watch.close();
    let running = submit(&engine, &ids(5, 1), seeded(1));
    assert!(matches!(running.recv().unwrap(), Event::Prefill { done: 0, .. }), "it has the slot");
    let cancel = Cancel::default();
    let waiting = submit(&engine, &ids(5, 2), |r| r.cancel = cancel.clone());
    let second = submit(&engine, &ids(5, 3), |r| r.max_tokens = 2);
    let (sender, events) = mpsc::channel();
    let refused = engine.submit(Request::new(ids(5, 4), sender));
    assert_eq!(refused, Err(Error::QueueFull { found: 2, limit: 2 }));
    assert!(events.recv().is_err(), "a refused request has no events");
    cancel.cancel();
    watch.open();
    assert_eq!(collect(&waiting).reason(), StopReason::Cancelled);
    assert_eq!(collect(&running).ids.len(), 20);
    assert!(collect(&second).end.is_ok());
    assert_eq!(engine.waiting(), 0);
}

#[test]
fn stop_strings_are_found_across_tokens_and_not_shown() {
    let prompt = encode("hi");
    let engine = scripted(prompt.len(), byte_ids("one two STOP three"), |_| 50.0);
    let stop = |r: &mut Request| (r.stop, r.max_tokens) = (vec!["STOP".to_owned(), "TOPS".to_owned()], 18);
    let outcome = generate(&engine, &prompt, stop);
    assert_eq!((outcome.text.as_str(), outcome.reason()), ("one two ", StopReason::StopString("STOP".to_owned())));
    assert_eq!(outcome.usage().completion, 12, "the stop string's tokens count");
    let other = generate(&engine, &prompt, |r| (r.stop, r.max_tokens) = (vec!["STOPS".to_owned()], 18));
    assert_eq!((other.text.as_str(), other.reason()), ("one two STOP three", StopReason::Length));
}

#[test]
fn stop_strings_do_not_count_in_reasoning() {
    let prompt = encode("<think>");
    let mut script = byte_ids("no END yet");
    script.extend(encode("</think>"));
    script.extend(byte_ids("now END."));
    let engine = scripted(prompt.len(), script, |_| 50.0);
    let outcome = generate(&engine, &prompt, |r| (r.thinking, r.stop) = (true, vec!["END".to_owned()]));
    assert_eq!((outcome.thinking.as_str(), outcome.text.as_str()), ("no END yet", "now "));
    assert_eq!(outcome.reason(), StopReason::StopString("END".to_owned()));
    assert_eq!((outcome.usage().reasoning, outcome.usage().completion), (11, 18));
}

#[test]
fn end_of_sentence_ends_the_turn_and_is_no_completion_token() {
    let prompt = encode("hi");
    let mut script = byte_ids("done");
    script.push(TOKENIZER.special().eos);
    script.extend(byte_ids(" and more"));
    let engine = scripted(prompt.len(), script, |_| 50.0);
    let outcome = generate(&engine, &prompt, |_| {});
    assert_eq!((outcome.text.as_str(), outcome.reason()), ("done", StopReason::EndOfTurn));
    assert_eq!((outcome.usage().completion, outcome.ids.len()), (4, 5));
    let on = generate(&engine, &prompt, |r| (r.ignore_eos, r.max_tokens) = (true, 14));
    assert_eq!((on.text.as_str(), on.usage().completion), ("done and more", 14));
}

#[test]
fn characters_cut_by_tokens_arrive_whole_and_halves_at_the_end_are_replaced() {
    let prompt = encode("hi");
    let engine = scripted(prompt.len(), byte_ids("né€"), |_| 50.0);
    let events = submit(&engine, &prompt, |r| r.max_tokens = 5);
    let outcome = collect(&events);
    assert_eq!(outcome.text, "né\u{fffd}");
}

const CALL: &str = "ok\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter name=\"x\" string=\"true\">hello\
</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>";

#[test]
fn a_tool_call_is_drawn_greedily_where_it_is_structure_and_ends_the_turn() {
    let prompt = encode("hi");
    let script = [encode(CALL), byte_ids("unwanted")].concat();
    let mut tracker = DsmlTracker::new(false);
    // Structure stands hardly above the rest: at this temperature only a greedy draw gets through it.
    let mut greedy = 0;
    let over: Vec<f32> = script
        .iter()
        .map(|&id| {
            let structure = tracker.state() == SamplingState::Greedy;
            greedy += u32::from(structure);
            tracker.push(TOKENIZER.token_bytes(id));
            if structure { 0.1 } else { 1000.0 }
        })
        .collect();
    assert!(greedy > 30);
    let n = encode(CALL).len();
    let engine = scripted(prompt.len(), script, move |at| over[at]);
    let outcome = generate(&engine, &prompt, |r| {
        (r.tools_offered, r.max_tokens) = (true, 300);
        r.sampling = SamplingParams { temperature: 2.0, ..SamplingParams::default() };
    });
    assert_eq!((outcome.text.as_str(), outcome.reason()), ("ok", StopReason::ToolCalls));
    assert_eq!(outcome.usage().completion as usize, n, "nothing is drawn behind the block");
    let kinds: Vec<_> = outcome.calls.iter().map(|c| c.kind.clone()).collect();
    assert_eq!(kinds.first(), Some(&ToolCallKind::Start { name: "f".to_owned() }));
    assert_eq!(kinds.last(), Some(&ToolCallKind::End));
    let arguments: String =
        kinds.iter().filter_map(|k| if let ToolCallKind::Arguments(a) = k { Some(a.as_str()) } else { None }).collect();
    assert_eq!(arguments, r#"{"x":"hello"}"#);
}

#[test]
fn a_spent_budget_closes_the_reasoning() {
    let prompt = encode("<think>");
    let think_end = TOKENIZER.special().think_end;
    let engine = scripted(prompt.len(), byte_ids(&"x".repeat(100)), |_| 50.0);
    let outcome = generate(&engine, &prompt, |r| (r.thinking, r.think_budget_tokens, r.max_tokens) = (true, 40, 60));
    let at = outcome.ids.iter().position(|&id| id == think_end).unwrap();
    assert!((40..=50).contains(&at), "closed softly from 40 on, by force at 50: {at}");
    assert_eq!((outcome.thinking.len(), outcome.text.len()), (at, 59 - at));
    assert_eq!(outcome.usage().reasoning as usize, at + 1);
    let free = generate(&engine, &prompt, |r| (r.thinking, r.max_tokens) = (true, 60));
    assert_eq!((free.thinking.len(), free.text.len()), (60, 0));
    assert_eq!((outcome.closed.len(), free.closed.len()), (1, 0));
}

#[test]
fn a_reply_budget_closes_the_reasoning_and_tells_how() {
    let prompt = encode("<think>");
    let think_end = TOKENIZER.special().think_end;
    let engine = scripted(prompt.len(), byte_ids(&"x".repeat(100)), |_| 50.0);
    let with = |soft, rank, hard| {
        let outcome = generate(&engine, &prompt, |r| {
            (r.thinking, r.max_tokens, r.reply_budget) = (true, 60, ReplyBudget { soft, rank, hard });
        });
        (outcome.ids.iter().position(|&id| id == think_end), outcome.closed.first().map(|(by, _)| *by))
    };
    assert_eq!(with(20, 320, 10), (Some(40), Some(ClosedBy::Soft)), "any rank will do");
    assert_eq!(with(20, 1, 10), (Some(50), Some(ClosedBy::Hard)), "never the best token");
    assert_eq!(with(20, 1, 0), (None, None));
    assert_eq!(with(100, 320, 60), (None, None), "nothing but the reply would fit");
    let own = scripted(prompt.len(), [byte_ids("xx"), vec![think_end], byte_ids("y")].concat(), |_| 50.0);
    let outcome = generate(&own, &prompt, |r| (r.thinking, r.max_tokens) = (true, 4));
    assert_eq!(outcome.closed, [(ClosedBy::Itself, 0)]);
}

#[test]
fn the_output_ends_at_its_limit_or_where_the_context_does() {
    let (engine, _) = start(LIMITS);
    let none = generate(&engine, &ids(30, 1), |r| r.max_tokens = 0);
    assert_eq!((none.ids.len(), none.reason()), (0, StopReason::Length));
    let all = generate(&engine, &ids(395, 1), seeded(1));
    assert_eq!((all.ids.len(), all.reason()), (5, StopReason::ContextFull));
    let last = generate(&engine, &ids(399, 1), seeded(1));
    assert_eq!((last.ids.len(), last.reason()), (1, StopReason::ContextFull));
}

#[test]
fn what_cannot_work_is_refused_at_the_door() {
    let (engine, watch) = start(LIMITS);
    let refused = |change: &dyn Fn(&mut Request)| {
        let (sender, _events) = mpsc::channel();
        let mut request = Request::new(ids(5, 1), sender);
        change(&mut request);
        engine.submit(request).unwrap_err()
    };
    assert_eq!(refused(&|r| r.prompt.clear()), Error::EmptyPrompt);
    assert_eq!(refused(&|r| r.prompt = ids(400, 1)), Error::ContextFull { found: 400, context: 400 });
    assert_eq!(refused(&|r| r.prompt.push(320)), Error::UnknownToken { id: 320, n_vocab: 320 });
    assert!(matches!(refused(&|r| r.sampling.temperature = -1.0), Error::Parameter { name: "temperature", .. }));
    assert_eq!((watch.evaluated(), engine.waiting()), (0, 0));
    let none = Fake::new(Limits { slots: 0, ..LIMITS });
    assert!(EngineHandle::start(Box::new(none), TOKENIZER.clone(), EngineConfig::default()).is_err());
}

#[test]
fn log_probabilities_come_with_the_tokens() {
    let (engine, _) = start(LIMITS);
    let prompt = ids(12, 1);
    let outcome = generate(&engine, &prompt, |r| {
        (r.logprobs, r.ignore_eos) = (Some(3), true);
        r.sampling.presence_penalty = 1.5;
    });
    for (n, of) in outcome.logprobs.iter().enumerate() {
        let history = [&prompt[..], &outcome.ids[..n]].concat();
        assert_eq!(of, &TokenLogprobs::of(&straight(&history), outcome.ids[n], 3).unwrap(), "of unmodified logits");
    }
    assert_eq!(outcome.logprobs.len(), 20);
}

fn score(
    engine: &EngineHandle,
    tokens: &[u32],
    from: u32,
    want: Want,
) -> Result<(Vec<TokenLogprobs>, Vec<f32>), Error> {
    let (events, results) = mpsc::channel();
    engine.score(ScoreRequest { tokens: tokens.to_vec(), from, want, cancel: Cancel::default(), events })?;
    let (mut scored, mut logits) = (Vec::new(), Vec::new());
    for event in results {
        match event {
            ScoreEvent::Scored { first, tokens } => {
                assert_eq!(first as usize, from as usize + scored.len());
                scored.extend(tokens);
            }
            ScoreEvent::Logits { first, rows } => {
                assert_eq!(first as usize, from as usize + logits.len() / 320);
                logits.extend(rows);
            }
            ScoreEvent::Progress { .. } => {}
            ScoreEvent::Done => return Ok((scored, logits)),
            ScoreEvent::Failed(error) => return Err(error),
        }
    }
    panic!("scoring ends with Done or Failed")
}

#[test]
fn given_tokens_are_scored_as_the_model_would_draw_them() {
    let (engine, watch) = run(Fake::new(LIMITS), EngineConfig { score_rows: 7, ..EngineConfig::default() });
    let tokens = ids(50, 3);
    for from in [1, 2, 30, 49] {
        let (scored, _) = score(&engine, &tokens, from, Want::Logprobs { top: 2 }).unwrap();
        assert_eq!(scored.len() as u32, 50 - from);
        for (of, at) in scored.iter().zip(from as usize..) {
            assert_eq!(of, &TokenLogprobs::of(&straight(&tokens[..at]), tokens[at], 2).unwrap());
        }
        let (_, logits) = score(&engine, &tokens, from, Want::Logits).unwrap();
        for (row, at) in logits.chunks(320).zip(from as usize..) {
            assert_eq!(row, straight(&tokens[..=at]));
        }
    }
    assert_eq!(score(&engine, &tokens[..3], 0, Want::Logits).unwrap().1.len(), 3 * 320);
    assert!(watch.steps().iter().flatten().all(|s| s.logits != LogitRows::All || s.len <= 7));
    assert_eq!(engine.next_logits(tokens.clone()).unwrap(), straight(&tokens));
    assert!(matches!(score(&engine, &tokens, 0, Want::Logprobs { top: 0 }), Err(Error::Parameter { .. })));
    assert!(matches!(score(&engine, &tokens, 50, Want::Logits), Err(Error::Parameter { .. })));
    let generated = generate(&engine, &tokens, seeded(1)).ids;
    assert_eq!(generated, generate(&start(LIMITS).0, &tokens, seeded(1)).ids, "the slot is as good as new");
}

#[test]
fn slots_can_be_cleared_saved_and_restored_through_the_door() {
    let (engine, watch) = start(LIMITS);
    let prompt = ids(40, 1);
    let first = generate(&engine, &prompt, seeded(1));
    let slot = engine.slots().unwrap().iter().find(|s| !s.tokens.is_empty()).unwrap().slot;
    let snapshot = engine.snapshot(slot).unwrap();
    engine.clear(slot).unwrap();
    assert!(engine.slots().unwrap().iter().all(|s| s.tokens.is_empty() && !s.busy));
    watch.evaluated();
    engine.restore(1 - slot, snapshot.clone()).unwrap();
    let longer = [&prompt[..], &first.ids[..19], &ids(4, 4)].concat();
    let next = generate(&engine, &longer, seeded(2));
    assert_eq!((next.usage().cached, watch.evaluated()), (59, 4 + 19));
    assert_eq!(next.ids, generate(&start(LIMITS).0, &longer, seeded(2)).ids);
    assert!(matches!(engine.restore(0, snapshot[1..].to_vec()), Err(Error::Snapshot(_))));
    assert_eq!(engine.clear(2), Err(Error::NoSuchSlot { found: 2, slots: 2 }));
    watch.close();
    let busy = submit(&engine, &ids(5, 9), |r| (r.max_tokens, r.ignore_eos) = (390, true));
    watch.permit(1);
    while !matches!(busy.recv().unwrap(), Event::Token { .. }) {}
    let asking = engine.clone();
    let asked = std::thread::spawn(move || (0..2).map(|slot| asking.snapshot(slot).err()).collect::<Vec<_>>());
    while !asked.is_finished() {
        watch.permit(1);
        std::thread::sleep(Duration::from_millis(1));
    }
    let answers = asked.join().unwrap();
    assert!(answers.iter().flatten().any(|e| matches!(e, Error::SlotBusy(_))), "{answers:?}");
    watch.open();
    assert!(collect(&busy).end.is_ok());
}

#[test]
fn an_error_of_one_request_does_not_end_the_engine() {
    let (engine, _) = start(LIMITS);
    for bad in [BATCH_FAILS, NOT_A_NUMBER] {
        let error = generate(&engine, &[4, 5, bad], |_| {}).error();
        assert!(matches!(error, Error::Model(_) | Error::Logits { .. }), "{error}");
    }
    assert_eq!(engine.failure(), None);
    let after = generate(&engine, &ids(10, 1), seeded(4)).ids;
    assert_eq!(after, generate(&start(LIMITS).0, &ids(10, 1), seeded(4)).ids);
}

#[test]
fn after_a_failed_request_its_slot_is_evaluated_anew() {
    let (engine, _) = start(Limits { slots: 1, ..LIMITS });
    let prompt = ids(30, 1);
    generate(&engine, &prompt, |r| r.max_tokens = 0);
    let failing = [&prompt[..], &ids(12, 2), &[BATCH_FAILS]].concat();
    assert!(generate(&engine, &failing, |_| {}).end.is_err());
    let after = generate(&engine, &[&prompt[..], &[5]].concat(), seeded(1));
    assert_eq!(after.usage().cached, 0);
    assert_eq!(after.ids, generate(&start(LIMITS).0, &[&prompt[..], &[5]].concat(), seeded(1)).ids);
}

/// Sends a request that ends the engine while others run and wait, and returns what they heard.
fn broken_by(id: u32) -> (EngineHandle, Vec<Error>) {
    let (engine, watch) = start(LIMITS);
    watch.close();
    let mut running = vec![submit(&engine, &ids(10, 1), seeded(1)), submit(&engine, &[4, id], |_| {})];
    running.push(submit(&engine, &ids(10, 2), |_| {}));
    watch.open();
    let heard = running.iter().map(|events| collect(events).error()).collect();
    (engine, heard)
}

#[test]
fn a_failed_device_ends_every_request_and_the_engine_says_so() {
    let (engine, heard) = broken_by(DEVICE_FAILS);
    let failed = Error::Device("device fake: fell off the bus".to_owned());
    assert_eq!(heard, [failed.clone(), failed.clone(), failed.clone()]);
    assert_eq!(engine.failure(), Some(failed.clone()));
    let (sender, _events) = mpsc::channel();
    assert_eq!(engine.submit(Request::new(ids(3, 1), sender)), Err(failed.clone()));
    assert_eq!(engine.slots(), Err(failed));
}

/// An engine of one slot whose model can be opened again, how often that was done, and a gate for its first model.
fn renewable() -> (EngineHandle, Arc<AtomicUsize>, Watch) {
    let limits = Limits { slots: 1, ..LIMITS };
    let (fake, opened) = (Fake::new(limits), Arc::new(AtomicUsize::new(0)));
    let (watch, count) = (fake.watch.clone(), Arc::clone(&opened));
    let reopen = move || {
        count.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(Fake::new(limits)) as Box<dyn Model>)
    };
    let tokenizer = Arc::clone(&TOKENIZER);
    let config = EngineConfig::default();
    let engine = EngineHandle::start_renewable(Box::new(fake), Some(Box::new(reopen)), tokenizer, config).unwrap();
    (engine, opened, watch)
}

#[test]
fn who_waits_while_a_device_fails_is_answered_by_the_model_opened_again() {
    let (engine, opened, watch) = renewable();
    generate(&engine, &ids(10, 1), seeded(1));
    watch.close();
    let running = submit(&engine, &[4, DEVICE_FAILS], |_| {});
    let waiting = submit(&engine, &ids(10, 2), seeded(1));
    watch.open();
    assert_eq!(collect(&running).error(), Error::Device("device fake: fell off the bus".to_owned()));
    let answer = collect(&waiting);
    assert_eq!(answer.ids, generate(&start(LIMITS).0, &ids(10, 2), seeded(1)).ids);
    // What the slot held is gone, and is not taken for there.
    assert_eq!(generate(&engine, &ids(10, 1), seeded(1)).usage().cached, 0);
    assert_eq!((engine.failure(), engine.trouble(), opened.load(Ordering::Relaxed)), (None, None, 1));
}

#[test]
fn a_device_that_fails_again_at_once_ends_the_engine() {
    let (engine, opened, watch) = renewable();
    generate(&engine, &ids(10, 1), seeded(1));
    watch.close();
    let fails = [(); 3].map(|()| submit(&engine, &[4, DEVICE_FAILS], |_| {}));
    watch.open();
    let failed = Error::Device("device fake: fell off the bus".to_owned());
    assert_eq!(fails.map(|events| collect(&events).error()), [(); 3].map(|()| failed.clone()));
    assert_eq!((engine.failure(), opened.load(Ordering::Relaxed)), (Some(failed), 1));
}

#[test]
fn a_model_that_cannot_be_opened_again_says_why() {
    let fake = Fake::new(LIMITS);
    let reopen = || Err(Error::Device("no card is left".to_owned()));
    let (tokenizer, config) = (Arc::clone(&TOKENIZER), EngineConfig::default());
    let engine = EngineHandle::start_renewable(Box::new(fake), Some(Box::new(reopen)), tokenizer, config).unwrap();
    generate(&engine, &ids(10, 1), seeded(1));
    assert!(generate(&engine, &[4, DEVICE_FAILS], |_| {}).end.is_err());
    engine.stop();
    let why = "device fake: fell off the bus; opened again: no card is left".to_owned();
    assert_eq!(engine.failure(), Some(Error::Device(why)));
}

#[test]
fn a_panic_of_the_thread_is_reported_to_everyone() {
    let (engine, heard) = broken_by(PANICS);
    let stopped = Error::Stopped("its thread panicked: the model lost its head".to_owned());
    assert_eq!(heard, [stopped.clone(), stopped.clone(), stopped.clone()]);
    let (sender, _events) = mpsc::channel();
    assert_eq!(engine.submit(Request::new(ids(3, 1), sender)), Err(stopped.clone()));
    assert_eq!(engine.snapshot(0), Err(stopped));
    engine.stop();
}

#[test]
fn stopping_cancels_what_runs_and_refuses_what_comes() {
    let (engine, watch) = start(Limits { slots: 1, ..LIMITS });
    watch.close();
    let running = submit(&engine, &ids(5, 1), |r| (r.max_tokens, r.ignore_eos) = (300, true));
    let waiting = submit(&engine, &ids(5, 2), |_| {});
    watch.permit(3);
    while !matches!(running.recv().unwrap(), Event::Token { .. }) {}
    let stopping = engine.clone();
    let stopped = std::thread::spawn(move || stopping.stop());
    watch.open();
    stopped.join().unwrap();
    // The stop may have come after the last token; what counts is that both ended and nothing new is taken.
    assert!(matches!(collect(&running).reason(), StopReason::Cancelled | StopReason::Length));
    assert!(collect(&waiting).end.is_ok());
    assert!(matches!(engine.slots(), Err(Error::Stopped(_))));
}
