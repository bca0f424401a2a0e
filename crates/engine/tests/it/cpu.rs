//! The rules of sessions over a real model on the CPU, bit for bit.

use std::ops::ControlFlow;
use std::sync::Arc;

use ds4_cpu::{Options, load};
use ds4_engine::{CheckpointPolicy, EngineConfig, EngineHandle, SamplingParams, Session};
use ds4_model::{Batch, Limits, LogitRows, Model, Span};

use crate::support::{TOKENIZER, generate, tiny};

const LIMITS: Limits = Limits { context: 512, slots: 2, max_rows: 512, rewind: 8 };
const POLICY: CheckpointPolicy = CheckpointPolicy { interval: 64, count: 8, bytes: 1 << 26 };
/// Beyond two windows of ratio 128 and, in one of the models, four sliding windows.
const LONG: u32 = 290;

fn model(name: &str, limits: Limits) -> Box<dyn Model> {
    load(&tiny(name), limits, Options::default()).unwrap()
}

fn ids(n: u32) -> Vec<u32> {
    (0..n).map(|i| (i * i * 31 + i * 17 + 5) % 300).collect()
}

fn go_on(_: u32, _: u32) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// The logits after every token of a run that never goes back, one token a step.
fn rows(name: &str, tokens: &[u32]) -> Vec<Vec<u32>> {
    let mut model = model(name, LIMITS);
    let mut logits = vec![0.0; model.shape().n_vocab];
    let step = |(pos, token): (usize, &u32)| {
        let span = Span { slot: 0, pos: pos as u32, len: 1, logits: LogitRows::Last };
        model.forward(&Batch { tokens: &[*token], spans: &[span] }, &mut logits).unwrap();
        bits(&logits)
    };
    tokens.iter().enumerate().map(step).collect()
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|z| z.to_bits()).collect()
}

fn last(session: &Session) -> Vec<u32> {
    bits(session.logits().expect("the last token was evaluated"))
}

#[test]
fn chunks_of_any_size_give_the_same_bits() {
    let tokens = ids(LONG);
    for name in ["tiny-a.gguf", "tiny-b.gguf", "tiny-c.gguf"] {
        let straight = rows(name, &tokens);
        for max_rows in [1, 3, 64, 127, 128, 129, 512] {
            let mut model = model(name, Limits { max_rows, ..LIMITS });
            let mut session = Session::new(1, POLICY);
            session.extend(model.as_mut(), &tokens[..LONG as usize - 1], &mut go_on).unwrap();
            assert!(last(&session) == straight[LONG as usize - 2], "{name} in chunks of {max_rows}");
            session.decode(model.as_mut(), tokens[LONG as usize - 1]).unwrap();
            assert!(last(&session) == straight[LONG as usize - 1], "{name} after chunks of {max_rows}");
        }
    }
}

#[test]
fn a_session_gone_back_to_any_position_goes_on_as_if_it_had_never_gone_further() {
    let tokens = ids(LONG);
    for name in ["tiny-a.gguf", "tiny-b.gguf"] {
        let straight = rows(name, &tokens);
        let mut model = model(name, Limits { max_rows: 48, ..LIMITS });
        let mut session = Session::new(0, POLICY);
        session.extend(model.as_mut(), &tokens, &mut go_on).unwrap();
        for to in (0..LONG as usize).rev() {
            session.rewind(model.as_mut(), to as u32).unwrap();
            // Another continuation first, so that what is overwritten matters.
            session.extend(model.as_mut(), &[7, 8, 9], &mut go_on).unwrap();
            session.rewind(model.as_mut(), to as u32).unwrap();
            session.decode(model.as_mut(), tokens[to]).unwrap();
            assert!(last(&session) == straight[to], "{name} back to {to}");
            if to % 41 == 0 {
                session.extend(model.as_mut(), &tokens[to + 1..], &mut go_on).unwrap();
                assert!(last(&session) == straight[LONG as usize - 1], "{name} from {to} to the end");
            }
        }
    }
}

#[test]
fn a_restored_session_goes_on_with_the_same_bits() {
    let tokens = ids(LONG);
    for name in ["tiny-a.gguf", "tiny-b.gguf"] {
        let straight = rows(name, &tokens);
        for at in [1, 3, 4, 64, 127, 128, 129, 200, 256, 289] {
            let mut first = model(name, LIMITS);
            let mut saved = Session::new(0, POLICY);
            saved.extend(first.as_mut(), &tokens[..at], &mut go_on).unwrap();
            let snapshot = saved.snapshot(first.as_mut()).unwrap();
            let mut second = model(name, Limits { max_rows: 33, ..LIMITS });
            let mut session = Session::new(1, POLICY);
            session.extend(second.as_mut(), &ids(150)[3..], &mut go_on).unwrap();
            session.restore(second.as_mut(), &snapshot).unwrap();
            assert!(last(&session) == straight[at - 1]);
            session.extend(second.as_mut(), &tokens[at..], &mut go_on).unwrap();
            if at < LONG as usize {
                assert!(last(&session) == straight[LONG as usize - 1], "{name} from {at}");
            }
        }
        let mut other = model("tiny-c.gguf", LIMITS);
        let mut first = model(name, LIMITS);
        let mut session = Session::new(0, POLICY);
        session.extend(first.as_mut(), &tokens[..9], &mut go_on).unwrap();
        let snapshot = session.snapshot(first.as_mut()).unwrap();
        let refused = session.restore(other.as_mut(), &snapshot).unwrap_err().to_string();
        assert!(refused.contains("fingerprint"), "{refused}");
    }
}

#[test]
fn conversations_side_by_side_say_what_each_says_alone() {
    let start = |slots| {
        let limits = Limits { slots, max_rows: 40, ..LIMITS };
        EngineHandle::start(model("tiny-a.gguf", limits), Arc::clone(&TOKENIZER), EngineConfig::default()).unwrap()
    };
    let ask = |engine: &EngineHandle, turn: u32| {
        let prompt: Vec<u32> = ids(60 + 70 * turn).iter().map(|id| (id + turn) % 300).collect();
        generate(engine, &prompt, |r| (r.max_tokens, r.ignore_eos, r.sampling.seed) = (24, true, turn.into()))
    };
    let alone: Vec<_> = (0..3).map(|turn| ask(&start(1), turn).ids).collect();
    let engine = start(3);
    let ask = &ask;
    let together: Vec<_> = std::thread::scope(|scope| {
        let engine = &engine;
        let asking: Vec<_> = (0..3).map(|turn| scope.spawn(move || ask(engine, turn).ids)).collect();
        asking.into_iter().map(|asked| asked.join().unwrap()).collect()
    });
    assert_eq!(together, alone);
    assert_eq!(ask(&engine, 1).usage().cached, 129, "all but the last token is still there");
    assert_eq!(ask(&engine, 1).ids, alone[1]);
}

#[test]
fn a_greedy_conversation_says_the_same_with_and_without_logits_alone_and_beside_one_that_draws() {
    let start = || {
        let limits = Limits { slots: 3, max_rows: 40, ..LIMITS };
        EngineHandle::start(model("tiny-b.gguf", limits), Arc::clone(&TOKENIZER), EngineConfig::default()).unwrap()
    };
    let ask = |engine: &EngineHandle, turn: u32, logprobs, temperature| {
        let prompt: Vec<u32> = ids(50 + 30 * turn).iter().map(|id| (id + turn) % 300).collect();
        generate(engine, &prompt, |r| {
            (r.max_tokens, r.ignore_eos, r.logprobs) = (40, true, logprobs);
            r.sampling = SamplingParams { temperature, ..SamplingParams::default() };
        })
    };
    let ask = &ask;
    let alone: Vec<_> = (0..2).map(|turn| ask(&start(), turn, None, 0.0).ids).collect();
    let scored: Vec<_> = (0..2).map(|turn| ask(&start(), turn, Some(0), 0.0)).collect();
    assert!(scored.iter().flat_map(|out| &out.logprobs).all(|chosen| chosen.rank == 0));
    assert_eq!(alone, scored.into_iter().map(|out| out.ids).collect::<Vec<_>>());
    let engine = &start();
    std::thread::scope(|scope| {
        let drawing = scope.spawn(move || ask(engine, 2, None, 1.0));
        let greedy: Vec<_> = (0..2).map(|turn| scope.spawn(move || ask(engine, turn, None, 0.0).ids)).collect();
        assert_eq!(greedy.into_iter().map(|asked| asked.join().unwrap()).collect::<Vec<_>>(), alone);
        assert_eq!(drawing.join().unwrap().ids.len(), 40);
    });
}
