//! How many requests run at once, whatever the slots hold; and what a request can be told of them.

use std::sync::mpsc;

use ds4_engine::{EngineConfig, Event, LiveMatch, Request};

use crate::fake::Fake;
use crate::kvstore::ids;
use crate::support::{LIMITS, collect, run, submit};

#[test]
fn fewer_may_run_than_are_held() {
    let config = EngineConfig { max_active: 1, ..EngineConfig::default() };
    let (engine, watch) = run(Fake::new(LIMITS), config);
    assert_eq!(engine.most_active(), 1);
    watch.close();
    let both: Vec<_> = (1..3).map(|kind| submit(&engine, &ids(20, kind), |r| r.max_tokens = 4)).collect();
    watch.open();
    assert!(both.iter().all(|events| collect(events).end.is_ok()));
    assert!(watch.steps().iter().all(|spans| spans.len() == 1), "never two in a step");
    let held = engine.slots().unwrap().iter().filter(|slot| slot.tokens.len() > 20).count();
    assert_eq!(held, 2, "both sequences stay");
}

#[test]
fn a_request_that_asks_hears_what_was_there_before_anything_else() {
    let (engine, _) = run(Fake::new(LIMITS), EngineConfig::default());
    collect(&submit(&engine, &ids(20, 1), |r| r.max_tokens = 0));
    let prompt = [&ids(12, 1)[..], &ids(30, 2)[12..]].concat();
    let (sender, events) = mpsc::channel();
    engine.submit(Request { explain: true, max_tokens: 0, ..Request::new(prompt.clone(), sender) }).unwrap();
    let Event::Matched(found) = events.recv().unwrap() else { panic!("not told first") };
    let common = ids(20, 1).iter().zip(&prompt).take_while(|(a, b)| a == b).count();
    assert!((12..20).contains(&common));
    let start = common - 8;
    let live = ids(20, 1)[start..].to_vec();
    let prompt = prompt[start..common + 8].to_vec();
    assert_eq!(found, LiveMatch { held: 20, common: common as u32, start: start as u32, live, prompt });
}
