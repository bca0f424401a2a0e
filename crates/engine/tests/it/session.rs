//! Sessions over the fake model: every way to a history gives the logits of the straight way.

use std::ops::ControlFlow;

use ds4_engine::{CheckpointPolicy, Error, Observer, Reuse, Session};
use ds4_model::{Limits, Model};
use proptest::prelude::*;

use crate::fake::{BATCH_FAILS, Fake, straight};

const LIMITS: Limits = Limits { context: 512, slots: 2, max_rows: 16, rewind: 4 };
const POLICY: CheckpointPolicy = CheckpointPolicy { interval: 32, count: 4, bytes: 1 << 20 };

fn go_on(_: u32, _: u32) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn ids(n: u32, salt: u32) -> Vec<u32> {
    (0..n).map(|i| (i * 7 + salt * 13 + i * i % 11) % 300).collect()
}

/// The state is that of a straight run if one more token gives the same logits.
fn is_exact(session: &Session, model: &mut dyn Model) -> bool {
    let mut probe = session.clone();
    if let Some(logits) = session.logits()
        && logits != straight(session.tokens())
    {
        return false;
    }
    probe.decode(model, 5).unwrap();
    probe.logits().unwrap() == straight(probe.tokens())
}

#[test]
fn prefill_in_any_chunks_is_one_token_after_the_other() {
    let tokens = ids(200, 1);
    for max_rows in [1, 3, 16, 199, 200, 300] {
        let mut model = Fake::new(Limits { max_rows, ..LIMITS });
        let mut session = Session::new(0, POLICY);
        session.extend(&mut model, &tokens, &mut go_on).unwrap();
        assert_eq!(session.logits().unwrap(), straight(&tokens), "chunks of {max_rows}");
    }
}

#[test]
fn every_position_can_be_gone_back_to() {
    let tokens = ids(150, 2);
    for to in 0..=150 {
        let mut model = Fake::new(LIMITS);
        let mut session = Session::new(1, POLICY);
        session.extend(&mut model, &tokens, &mut go_on).unwrap();
        session.rewind(&mut model, to).unwrap();
        assert_eq!(session.tokens(), &tokens[..to as usize]);
        session.extend(&mut model, &ids(20, 3), &mut go_on).unwrap();
        assert_eq!(session.logits().unwrap(), straight(session.tokens()), "back to {to}");
    }
    let mut session = Session::new(0, POLICY);
    assert!(matches!(session.rewind(&mut Fake::new(LIMITS), 1), Err(Error::Parameter { .. })));
}

#[test]
fn going_back_costs_only_what_lies_behind_the_nearest_checkpoint() {
    let mut model = Fake::new(LIMITS);
    let watch = model.watch.clone();
    let mut session = Session::new(0, POLICY);
    session.extend(&mut model, &ids(150, 2), &mut go_on).unwrap();
    watch.evaluated();
    session.rewind(&mut model, 146).unwrap();
    assert_eq!(watch.evaluated(), 0, "four positions are free");
    assert_eq!(session.checkpoints().collect::<Vec<_>>(), [32, 64, 96, 128]);
    session.rewind(&mut model, 130).unwrap();
    assert_eq!(watch.evaluated(), 2);
    session.rewind(&mut model, 129).unwrap();
    assert_eq!(watch.evaluated(), 0, "what came after the load is free again");
    session.rewind(&mut model, 127).unwrap();
    assert_eq!(watch.evaluated(), 31, "not before the loaded checkpoint, though near: from 96");
    assert!(is_exact(&session, &mut model));
}

#[test]
fn sync_evaluates_only_what_is_new_and_always_leaves_logits() {
    let mut model = Fake::new(LIMITS);
    let watch = model.watch.clone();
    let mut session = Session::new(0, POLICY);
    let prompt = ids(60, 4);
    let mut sync = |session: &mut Session, prompt: &[u32]| {
        let reuse = session.sync(&mut model, prompt, &mut go_on).unwrap();
        assert_eq!(reuse.evaluated, watch.evaluated());
        assert_eq!(session.logits().unwrap(), straight(prompt));
        assert_eq!(session.tokens(), prompt);
        (reuse.cached, reuse.evaluated)
    };
    assert_eq!(sync(&mut session, &prompt), (0, 60));
    assert_eq!(sync(&mut session, &prompt), (60, 0), "the same prompt");
    let longer = [&prompt[..], &ids(30, 5)].concat();
    assert_eq!(sync(&mut session, &longer), (60, 30), "a suffix");
    assert_eq!(sync(&mut session, &prompt), (59, 1), "the prompt before: its last token for the logits");
    let other = [&prompt[..59], &[299, 298]].concat();
    assert_eq!(sync(&mut session, &other), (59, 2), "another end");
    assert_eq!(sync(&mut session, &ids(10, 9)), (0, 10), "nothing in common");
    assert_eq!(session.sync(&mut model, &[], &mut go_on), Err(Error::EmptyPrompt));
}

#[test]
fn a_cancelled_extension_stops_at_a_chunk_and_can_be_taken_up_again() {
    let mut model = Fake::new(LIMITS);
    let watch = model.watch.clone();
    let mut session = Session::new(0, POLICY);
    let tokens = ids(100, 6);
    let mut stop: Observer<'_> =
        &mut |done, _| if done >= 40 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    assert_eq!(session.sync(&mut model, &tokens, &mut stop), Err(Error::Cancelled));
    assert_eq!(session.tokens(), &tokens[..48]);
    assert_eq!((session.logits(), watch.evaluated()), (None, 48));
    assert_eq!(session.sync(&mut model, &tokens, &mut go_on), Ok(Reuse { cached: 48, evaluated: 52 }));
    assert_eq!(session.logits().unwrap(), straight(&tokens));
}

#[test]
fn what_cannot_be_evaluated_is_refused_before_anything_happens() {
    let mut model = Fake::new(LIMITS);
    let mut session = Session::new(0, POLICY);
    session.extend(&mut model, &[1, 2, 3], &mut go_on).unwrap();
    let unknown = Error::UnknownToken { id: 320, n_vocab: 320 };
    assert_eq!(session.extend(&mut model, &[4, 320], &mut go_on), Err(unknown.clone()));
    assert_eq!(session.sync(&mut model, &[4, 320], &mut go_on), Err(unknown));
    let full = Error::ContextFull { found: 513, context: 512 };
    assert_eq!(session.extend(&mut model, &ids(510, 1), &mut go_on), Err(full.clone()));
    assert_eq!(session.sync(&mut model, &ids(513, 1), &mut go_on), Err(full));
    assert_eq!(session.tokens(), [1, 2, 3]);
    assert!(is_exact(&session, &mut model));
}

#[test]
fn after_a_failed_step_nothing_is_taken_for_known() {
    let mut model = Fake::new(LIMITS);
    let mut session = Session::new(0, POLICY);
    session.extend(&mut model, &ids(20, 1), &mut go_on).unwrap();
    assert!(matches!(session.extend(&mut model, &[1, BATCH_FAILS], &mut go_on), Err(Error::Model(_))));
    assert!(session.tokens().is_empty() && session.logits().is_none());
    session.extend(&mut model, &ids(20, 1), &mut go_on).unwrap();
    assert!(is_exact(&session, &mut model));
}

#[test]
fn checkpoints_stay_few_and_thin_out_towards_the_past() {
    let policy = CheckpointPolicy { interval: 8, count: 6, bytes: 1 << 20 };
    let mut model = Fake::new(Limits { context: 4096, ..LIMITS });
    let mut session = Session::new(0, policy);
    for id in ids(1000, 8) {
        session.decode(&mut model, id).unwrap();
        assert!(session.checkpoints().count() <= 6);
    }
    let at: Vec<u32> = session.checkpoints().collect();
    assert_eq!(at.len(), 6);
    let ages: Vec<u32> = at.iter().rev().map(|pos| 1000 - pos).collect();
    assert!(ages[0] <= 16 && ages[5] >= 200, "{ages:?}");
    let gaps: Vec<u32> = ages.windows(2).map(|a| a[1] - a[0]).collect();
    assert!(gaps[4] > 4 * gaps[0], "{ages:?}");
}

#[test]
fn checkpoints_keep_to_their_bytes() {
    let tail = Fake::new(LIMITS).state_bytes(100..100);
    for (bytes, most) in [(0, 0), (tail - 1, 0), (tail, 1), (3 * tail + 1, 3)] {
        let mut model = Fake::new(LIMITS);
        let mut session = Session::new(0, CheckpointPolicy { interval: 16, count: 100, bytes });
        session.extend(&mut model, &ids(300, 1), &mut go_on).unwrap();
        assert_eq!(session.checkpoints().count(), most);
        assert!(session.checkpoint_bytes() <= bytes);
        session.rewind(&mut model, 150).unwrap();
        assert!(is_exact(&session, &mut model));
    }
}

#[derive(Clone, Debug)]
enum Op {
    Extend(u32, u32),
    Rewind(u32),
    Sync { keep: u32, new: u32, salt: u32 },
    Restore,
    Clear,
}

fn ops() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (1..40_u32, any::<u8>()).prop_map(|(n, salt)| Op::Extend(n, u32::from(salt))),
        3 => (0..200_u32).prop_map(Op::Rewind),
        3 => (0..200_u32, 0..30_u32, any::<u8>()).prop_map(|(keep, new, salt)| Op::Sync { keep, new, salt: salt.into() }),
        1 => Just(Op::Restore),
        1 => Just(Op::Clear),
    ]
}

proptest! {
    #[test]
    fn any_way_to_a_history_gives_the_state_of_the_straight_way(
        ops in prop::collection::vec(ops(), 1..14),
        rewind in 0..12_u32, max_rows in 1..20_u32, interval in 0..24_u32, count in 0..5_usize,
    ) {
        let limits = Limits { context: 1024, slots: 2, max_rows, rewind };
        let mut model = Fake::new(limits);
        let mut session = Session::new(1, CheckpointPolicy { interval, count, bytes: 1 << 20 });
        for op in ops {
            let at = session.position();
            match op {
                Op::Extend(n, salt) => session.extend(&mut model, &ids(n, salt), &mut go_on).unwrap(),
                Op::Rewind(to) => session.rewind(&mut model, to.min(at)).unwrap(),
                Op::Sync { keep, new, salt } => {
                    let keep = keep.min(at) as usize;
                    let prompt = [&session.tokens()[..keep], &ids(new, salt)].concat();
                    if !prompt.is_empty() {
                        let expected = session.reusable(&prompt, rewind);
                        let reuse = session.sync(&mut model, &prompt, &mut go_on).unwrap();
                        prop_assert_eq!(reuse.cached, expected);
                        prop_assert!(session.logits().is_some());
                    }
                }
                Op::Restore => {
                    let bytes = session.snapshot(&mut model).unwrap();
                    session.restore(&mut model, &bytes).unwrap();
                }
                Op::Clear => session.clear(),
            }
            if let Some(logits) = session.logits() {
                prop_assert_eq!(logits, straight(session.tokens()));
            }
            prop_assert!(session.checkpoints().count() <= count);
        }
        prop_assert!(is_exact(&session, &mut model));
    }
}
