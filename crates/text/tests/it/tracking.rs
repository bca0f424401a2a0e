//! Positions inside call blocks against ds4's.

use ds4_text::{DsmlTracker, Position};
use proptest::prelude::*;

use crate::{
    fixtures::{ids, rows, str},
    published::TOKENIZER,
};

fn name(position: Position) -> &'static str {
    match position {
        Position::Outside => "outside",
        Position::Structural => "structural",
        Position::StringBody => "string_body",
        Position::JsonStructural => "json_structural",
        Position::JsonString => "json_string",
    }
}

/// In one row unexpected text stands between tags; section 20 rules that this must not stay structural.
#[test]
fn the_position_after_every_token_is_that_of_ds4_but_where_it_is_wrong() {
    let rows = rows("encoding/ds4/decode_state.jsonl");
    for row in &rows {
        let mut tracker = DsmlTracker::new(false);
        assert_eq!(name(tracker.position()), str(row, "initial"));
        let expected: Vec<&str> = row["state_after"].as_array().unwrap().iter().map(|s| s.as_str().unwrap()).collect();
        let tokens = ids(&row["tokens"]);
        let mut found = Vec::new();
        for &token in &tokens {
            tracker.push(TOKENIZER.token_bytes(token));
            found.push(name(tracker.position()));
        }
        if str(row, "id") == "s07" {
            // `<｜DSML｜tool_calls>garbage here …`: structural until the garbage, outside from there on.
            assert_eq!(found[5], "structural");
            assert!(found[6..].iter().all(|position| *position == "outside"), "{found:?}");
            continue;
        }
        assert_eq!(found, expected, "{row}");
    }
    assert_eq!(rows.len(), 9);
}

proptest! {
    #[test]
    fn no_cutting_changes_where_a_text_ends(text in crate::streaming::noise(), thinking in any::<bool>(), size in 1..9_usize) {
        let mut whole = DsmlTracker::new(thinking);
        whole.push(text.as_bytes());
        let mut cut = DsmlTracker::new(thinking);
        text.as_bytes().chunks(size).for_each(|piece| cut.push(piece));
        prop_assert_eq!(cut.position(), whole.position());
    }
}
