//! Sequences that begin alike: one prefill for all of them, the same bits as alone, and nobody's conversation lost.

use ds4_cpu::{Options, load};
use ds4_engine::{
    Cancel, CheckpointPolicy, EngineConfig, EngineHandle, Event, Request, ScoreRequest, Source, StopReason, Want,
};
use ds4_model::Limits;

use crate::fake::Fake;
use crate::kvstore::{ids, say};
use crate::support::{LIMITS, TOKENIZER, collect, generate, run, start, submit, tiny};

const FOUR: Limits = Limits { slots: 4, ..LIMITS };

fn choice(seed: u64) -> impl Fn(&mut Request) {
    move |r| (r.sampling.seed, r.sampling.temperature, r.ignore_eos) = (seed, 1.0, true)
}

#[test]
fn four_answers_to_one_prompt_evaluate_it_once() {
    let prompt = ids(100, 1);
    let alone: Vec<_> = (0..4).map(|seed| generate(&start(FOUR).0, &prompt, choice(seed)).ids).collect();
    let (engine, watch) = start(FOUR);
    watch.close();
    let events: Vec<_> = (0..4).map(|seed| submit(&engine, &prompt, choice(seed))).collect();
    watch.open();
    let outcomes: Vec<_> = events.iter().map(collect).collect();
    assert_eq!(outcomes.iter().map(|out| out.ids.clone()).collect::<Vec<_>>(), alone);
    assert_eq!(watch.evaluated(), 100 + 4 * 19);
    let mut reused: Vec<_> = outcomes.iter().map(|out| (out.usage().cached, out.usage().source)).collect();
    reused.sort_by_key(|&(cached, _)| cached);
    assert_eq!(reused[0], (0, Source::None));
    assert!(reused[1..].iter().all(|&reuse| reuse == (100, Source::Live)), "{reused:?}");
    let activity = engine.activity();
    assert_eq!(activity.sizes[4], 6, "six steps of sixteen tokens: {activity:?}");
}

#[test]
fn between_equal_slots_the_callers_wish_decides_and_then_whose_conversation_was_there() {
    // The second one's state is a copy, whose last rewind point lies a little further back.
    let prompt = ids(70, 1);
    let retried_in = |change: fn(&mut Request)| {
        let (engine, watch) = start(LIMITS);
        watch.close();
        let asked = |seed: u64| submit(&engine, &prompt, |r| (choice(seed)(r), r.affinity = Some(seed)).0);
        let events = [asked(7), asked(8)];
        watch.open();
        events.iter().for_each(|events| assert_eq!(collect(events).usage().completion, 20));
        generate(&engine, &prompt, |r| (change(r), r.max_tokens = 0).0);
        let held: Vec<usize> = engine.slots().unwrap().iter().map(|slot| slot.tokens.len()).collect();
        held.iter().position(|&len| len == 70).unwrap_or_else(|| panic!("{held:?}"))
    };
    assert_eq!([retried_in(|r| r.affinity = Some(7)), retried_in(|r| r.affinity = Some(8))], [0, 1]);
    assert_eq!([retried_in(|r| r.slot = Some(0)), retried_in(|r| r.slot = Some(1))], [0, 1]);
    assert_eq!(retried_in(|r| (r.slot, r.affinity) = (Some(1), Some(7))), 1, "the wish is the clearer word");
}

#[test]
fn a_conversations_name_alone_takes_nothing_of_it() {
    let (engine, _) = start(Limits { slots: 3, ..LIMITS });
    let (main, other, title) = (ids(100, 1), ids(100, 2), ids(60, 3));
    generate(&engine, &other, |r| r.max_tokens = 0);
    generate(&engine, &main, |r| (r.max_tokens, r.affinity) = (0, Some(7)));
    for prompt in [&title, &ids(60, 4)] {
        generate(&engine, prompt, |r| (r.max_tokens, r.affinity) = (0, Some(7)));
    }
    let next = [&main[..], &ids(5, 3)].concat();
    assert_eq!(generate(&engine, &next, |r| (r.max_tokens, r.affinity) = (0, Some(7))).usage().cached, 100);
}

#[test]
fn prompts_that_share_a_beginning_evaluate_it_once_and_part_where_they_differ() {
    let (engine, watch) = start(Limits { slots: 3, ..LIMITS });
    let system = ids(75, 1);
    let prompts: Vec<Vec<u32>> = (2..5).map(|kind| [&system[..], &[200 + kind], &ids(20, kind)].concat()).collect();
    watch.close();
    let events: Vec<_> = prompts.iter().map(|prompt| submit(&engine, prompt, choice(3))).collect();
    watch.open();
    for (prompt, events) in prompts.iter().zip(&events) {
        let out = collect(events);
        assert!([0, 75].contains(&out.usage().cached), "{:?}", out.usage());
        assert_eq!(out.ids, generate(&start(LIMITS).0, prompt, choice(3)).ids);
    }
    assert_eq!(watch.evaluated(), 75 + 3 * (21 + 19));
}

#[test]
fn who_waits_for_a_prompt_goes_on_when_its_request_ends() {
    let prompt = ids(200, 1);
    let (engine, watch) = start(LIMITS);
    watch.close();
    let cancel = Cancel::default();
    let first = submit(&engine, &prompt, |r| r.cancel = cancel.clone());
    watch.permit(2);
    while !matches!(first.recv().unwrap(), Event::Prefill { done: 32, .. }) {}
    let second = submit(&engine, &prompt, choice(1));
    cancel.cancel();
    watch.open();
    assert_eq!(collect(&first).reason(), StopReason::Cancelled);
    let out = collect(&second);
    assert_eq!(out.ids, generate(&start(LIMITS).0, &prompt, choice(1)).ids);
    assert!(out.usage().cached >= 32, "what was evaluated stays");

    watch.close();
    let prompt = ids(200, 2);
    let first = submit(&engine, &prompt, |_| {});
    let second = submit(&engine, &prompt, choice(1));
    drop(first);
    watch.open();
    assert_eq!(collect(&second).ids.len(), 20);
}

#[test]
fn a_common_start_costs_no_conversation_its_end() {
    let system = ids(120, 1);
    let open = |kind: u32| [&system[..], &[200 + kind], &ids(10, kind)].concat();
    let next = |history: &[u32], said: &[u32]| [history, said, &ids(6, 9)].concat();
    for (slots, survive) in [(3, true), (2, false)] {
        let (engine, _) = start(Limits { slots, ..LIMITS });
        let first = generate(&engine, &open(1), choice(1));
        let second = generate(&engine, &open(2), choice(2));
        assert_eq!((second.usage().cached, second.usage().source), (96, Source::Live), "a regular rewind point");
        let third = generate(&engine, &open(3), choice(3));
        assert_eq!(third.usage().cached, 96);
        // With two slots the first conversation, the oldest, had to go: its rows up to the common start serve again.
        let kept = |history: &[u32], said: &[u32]| {
            generate(&engine, &next(history, said), |r| r.max_tokens = 0).usage().cached as usize
        };
        let whole = open(1).len() + 19;
        assert_eq!([kept(&open(2), &second.ids), kept(&open(3), &third.ids)], [whole, whole], "{slots} slots");
        assert_eq!(kept(&open(1), &first.ids), if survive { whole } else { 96 }, "{slots} slots");
    }
}

#[test]
fn another_question_goes_on_from_where_the_first_ones_turn_begins() {
    let limits = Limits { context: 2000, ..LIMITS };
    let policy = CheckpointPolicy { interval: 2048, ..CheckpointPolicy::default() };
    let ask = |system: u32, user: &[u32]| {
        let fake = Fake::new(limits);
        let watch = fake.watch.clone();
        let config = EngineConfig { checkpoints: policy, ..EngineConfig::default() };
        let engine = EngineHandle::start(Box::new(fake), std::sync::Arc::clone(&TOKENIZER), config).unwrap();
        let prompt = |kind: u32| [&ids(system, 1), user, &ids(40, kind)].concat();
        generate(&engine, &prompt(2), choice(1));
        watch.evaluated();
        let second = generate(&engine, &prompt(3), choice(1));
        assert_eq!(second.ids, generate(&start(limits).0, &prompt(3), choice(1)).ids, "bit for bit");
        assert_eq!(second.usage().cached + watch.evaluated(), system + user.len() as u32 + 40 + 19);
        second.usage().cached
    };
    let user = [TOKENIZER.special().user];
    assert_eq!(ask(500, &user), 500, "the system prompt, which ends between two regular points");
    assert_eq!(ask(500, &[]), 0, "nothing says that a turn begins there");
    assert_eq!(ask(200, &user), 0, "sooner evaluated than saved");
}

#[test]
fn a_busy_conversation_lends_its_beginning() {
    let prompt = ids(90, 1);
    let (engine, watch) = start(LIMITS);
    watch.close();
    let busy = submit(&engine, &prompt, |r| (r.max_tokens, r.ignore_eos) = (60, true));
    watch.permit(20);
    while !matches!(busy.recv().unwrap(), Event::Token { .. }) {}
    for _ in 0..10 {
        while !matches!(busy.recv().unwrap(), Event::Token { .. }) {}
    }
    let side = [&prompt[..], &ids(5, 3)].concat();
    let other = submit(&engine, &side, choice(1));
    watch.open();
    let out = collect(&other);
    assert_eq!(out.usage().cached, 89, "the rewind point before its last prompt token");
    assert_eq!(out.ids, generate(&start(LIMITS).0, &side, choice(1)).ids);
    assert_eq!(collect(&busy).ids.len(), 60 - 11);
}

#[test]
fn tenants_lend_each_other_nothing_and_wait_for_nobody_elses_prompt() {
    let prompt = ids(100, 1);
    let (engine, watch) = start(LIMITS);
    watch.close();
    let events = [1, 2].map(|tenant| submit(&engine, &prompt, |r| (r.tenant, r.max_tokens) = (tenant, 1)));
    watch.open();
    assert_eq!(events.map(|events| collect(&events).usage().cached), [0, 0]);
    assert_eq!(watch.evaluated(), 200);
}

#[test]
fn scoring_takes_a_conversations_beginning_and_leaves_it_alone() {
    let (engine, watch) = start(LIMITS);
    let prompt = ids(100, 1);
    let said = generate(&engine, &prompt, choice(1)).ids;
    watch.evaluated();
    let (events, results) = std::sync::mpsc::channel();
    let tokens = [&prompt[..99], &ids(6, 4)].concat();
    let want = Want::Logprobs { top: 0 };
    engine.score(ScoreRequest { tokens, from: 100, want, cancel: Cancel::default(), events }).unwrap();
    assert!(results.iter().any(|event| matches!(event, ds4_engine::ScoreEvent::Done)));
    assert_eq!(watch.evaluated(), 5);
    let next = [&prompt[..], &said, &[5]].concat();
    assert_eq!(generate(&engine, &next, |r| r.max_tokens = 0).usage().cached, 119);
}

#[test]
fn a_forked_sequence_says_what_a_cold_one_says_bit_for_bit() {
    for name in ["tiny-a.gguf", "tiny-b.gguf"] {
        let engine = |slots| {
            let limits = Limits { context: 700, slots, max_rows: 48, rewind: 8 };
            let model = load(&tiny(name), limits, Options::default()).unwrap();
            let checkpoints = CheckpointPolicy { interval: 64, ..CheckpointPolicy::default() };
            let config = EngineConfig { checkpoints, ..EngineConfig::default() };
            EngineHandle::start(model, TOKENIZER.clone(), config).unwrap()
        };
        let prompt = ids(290, 0);
        // The whole prompt, one that parts from it inside a window of each kind, and one that goes on.
        let others = [prompt.clone(), [&prompt[..271], &[9], &ids(9, 2)].concat(), [&prompt[..], &ids(40, 3)].concat()];
        for temperature in [0.0, 1.0] {
            let sampled = |r: &mut Request| (r.sampling.seed, r.sampling.temperature) = (7, temperature);
            let cold: Vec<_> = others.iter().map(|other| say(&engine(1), other, sampled).1).collect();
            let forking = engine(4);
            let long = submit(&forking, &prompt, |r| (r.max_tokens, r.ignore_eos) = (120, true));
            for (other, cold) in others.iter().zip(&cold) {
                let (out, said) = say(&forking, other, sampled);
                assert_eq!(&said, cold, "{name}, {temperature}, {:?}", out.usage());
                assert_eq!(out.usage().source, Source::Live);
                assert!(out.usage().cached >= 128, "{:?}", out.usage());
            }
            assert_eq!(collect(&long).ids.len(), 120);
        }
    }
}

#[test]
fn a_fork_goes_back_to_its_sources_rewind_points() {
    let (engine, watch) = run(Fake::new(Limits { slots: 3, ..LIMITS }), EngineConfig::default());
    let prompt = ids(150, 1);
    generate(&engine, &prompt, |r| r.max_tokens = 0);
    let fork = [&prompt[..120], &[3], &ids(30, 5)].concat();
    assert_eq!(generate(&engine, &fork, |r| r.max_tokens = 0).usage().cached, 96, "a regular rewind point");
    watch.evaluated();
    for cut in [100, 70] {
        let again = [&prompt[..cut], &[1], &ids(20, 6)].concat();
        let out = generate(&engine, &again, |_| {});
        assert_eq!(out.usage().cached as usize, cut / 32 * 32);
        assert_eq!(out.ids, generate(&start(LIMITS).0, &again, |_| {}).ids);
    }
}
