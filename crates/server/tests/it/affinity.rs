//! Which slot a request gets where several would do: the one that last served the conversation it says it is.

use std::thread::scope;

use serde_json::{Value, json};

use crate::live::{Live, chat, config};

/// Headers and members of the body that name the same conversation.
type Name = (&'static str, Value);

fn ask(live: &Live, (headers, members): &Name, max_tokens: u32) {
    let mut body = chat("tell me", false);
    body["max_tokens"] = max_tokens.into();
    body.as_object_mut().expect("an object").extend(members.as_object().expect("an object").clone());
    let headers = format!("Content-Type: application/json\r\n{headers}");
    let response = live.ask("POST /v1/chat/completions", &headers, &body.to_string());
    assert_eq!(response.status, 200, "{}", response.body);
}

/// Two conversations ask the same at the same time; which slot the second question of `again` was asked in.
fn slot_of(names: [&Name; 2], again: &Name) -> usize {
    let live = Live::with(config(), 2);
    scope(|scope| {
        scope.spawn(|| ask(&live, names[0], 100));
        live.until(1, 0);
        ask(&live, names[1], 100);
    });
    let held = || live.engine.slots().expect("slots").iter().map(|slot| slot.tokens.len()).collect::<Vec<_>>();
    let before = held();
    ask(&live, again, 1);
    let changed: Vec<usize> = (0..2).filter(|&slot| held()[slot] < before[slot]).collect();
    let [slot] = changed[..] else { panic!("{before:?}, then {:?}", held()) };
    slot
}

#[test]
fn a_conversation_named_by_a_header_or_in_the_body_goes_on_in_its_slot() {
    let named = |headers: &'static str| (headers, json!({}));
    let [a, b] = [named("X-Session-Id: a\r\n"), named("session_id: b\r\n")];
    assert_eq!([slot_of([&a, &b], &a), slot_of([&a, &b], &b)], [0, 1]);
    let key = ("", json!({"prompt_cache_key": "b"}));
    let user = ("", json!({"metadata": {"user_id": "c"}}));
    assert_eq!([slot_of([&a, &key], &key), slot_of([&a, &user], &user)], [1, 1]);
    let both = ("x-session-id: a\r\n", json!({"prompt_cache_key": "b"}));
    assert_eq!(slot_of([&key, &a], &both), 1, "the header is what the client says of this request");
}

#[test]
fn names_that_are_no_text_are_nobodys() {
    let live = Live::start(config());
    for members in [json!({"prompt_cache_key": 7}), json!({"metadata": "x"}), json!({"metadata": {"user_id": {}}})] {
        ask(&live, &("x-session-id: \r\n", members), 1);
    }
}
