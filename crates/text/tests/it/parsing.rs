//! Finished turns against the reference's and ds4's readings.

use ds4_text::{Call, Turn, parse};
use proptest::prelude::*;
use serde_json::Value;

use crate::fixtures::{rows, str};

fn calls(list: &Value, function: impl Fn(&Value) -> &Value) -> Vec<Call> {
    let read = |call| {
        let call = function(call);
        Call { name: str(call, "name").to_owned(), arguments: str(call, "arguments").to_owned() }
    };
    list.as_array().unwrap().iter().map(read).collect()
}

#[test]
fn the_strict_reading_is_the_reference_reading() {
    let rows = rows("encoding/generated/parse.jsonl");
    for row in &rows {
        let thinking = str(row, "thinking_mode") == "thinking";
        let read = parse::strict(str(row, "text"), thinking);
        if row.get("error").is_some() {
            assert!(read.is_err(), "{row}");
            continue;
        }
        let (turn, expected) = (read.unwrap_or_else(|e| panic!("{e}: {row}")), &row["expected"]);
        assert_eq!(turn.content, str(expected, "content"), "{row}");
        assert_eq!(turn.reasoning.as_deref().unwrap_or(""), str(expected, "reasoning_content"), "{row}");
        assert_eq!(turn.reasoning.is_some(), thinking);
        assert_eq!(turn.calls, calls(&expected["tool_calls"], |call| &call["function"]), "{row}");
    }
    assert_eq!(rows.len(), 51);
}

/// Rows in which section 23.4 departs from ds4, and what is read instead.
fn departures(id: &str, turn: &mut Turn) -> bool {
    match id {
        // Content keeps its white space, except the two newlines before the block.
        "q024" => "Text.\n".clone_into(&mut turn.content),
        "q025" => "Text.\n\n\n".clone_into(&mut turn.content),
        // A string value decodes no entities in general.
        "q015" => {
            r#"{"s": "line1\nline2\n\ttab \"q\" \\ <b>&amp;</b> 中文 😀"}"#.clone_into(&mut turn.calls[0].arguments);
        }
        "q047" => {
            let kept = r#"{"c": "a &amp; b &lt; c &gt; d &quot;e&quot; &apos;f&apos; &nbsp; &amp;lt;"}"#;
            kept.clone_into(&mut turn.calls[0].arguments);
        }
        _ => return false,
    }
    true
}

#[test]
fn the_lenient_reading_is_that_of_ds4_but_for_four_rows() {
    let rows = rows("encoding/ds4/parse.jsonl");
    let mut departed = 0;
    for row in &rows {
        let mut expected = Turn {
            reasoning: row["reasoning"].as_str().map(str::to_owned),
            content: str(row, "content").to_owned(),
            calls: calls(&row["calls"], |call| call),
            raw_block: row["raw_dsml"].as_str().map(str::to_owned),
            malformed: row["ok"] == false,
        };
        departed += usize::from(departures(str(row, "id"), &mut expected));
        assert_eq!(parse::lenient(str(row, "text"), row["require_thinking_closed"] == true), expected, "{row}");
    }
    assert_eq!((rows.len(), departed), (57, 4));
}

const BLOCK: &str = "\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"f\">\n\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>";

#[test]
fn a_strict_result_with_calls_is_final_and_recovery_needs_offered_tools() {
    assert_eq!(parse::finish(&format!("a{BLOCK}"), false, false).calls.len(), 1);
    let tolerable = format!("a{BLOCK}tail");
    assert_eq!(parse::finish(&tolerable, false, true).calls.len(), 1);
    let refused = parse::finish(&tolerable, false, false);
    assert_eq!((refused.content, refused.calls.len()), (tolerable, 0));
    let plain = "<tool_calls>\n<invoke name=\"f\">\n</invoke>\n</tool_calls>";
    assert_eq!(parse::finish(plain, false, true).calls.len(), 1);
    assert_eq!(parse::finish(plain, false, false).content, plain);
}

#[test]
fn a_block_before_the_last_end_of_reasoning_is_no_call() {
    let text = format!("r</think>a{BLOCK}</think>b");
    let turn = parse::finish(&text, true, true);
    assert_eq!((turn.calls.len(), turn.reasoning.as_deref()), (0, Some("r")));
    assert_eq!(turn.content, format!("a{BLOCK}</think>b"));
}

#[test]
fn eos_at_the_end_makes_no_difference() {
    for text in ["", "a", "r</think>a", "r", BLOCK] {
        for (thinking, tools) in [(false, false), (false, true), (true, false), (true, true)] {
            let ended = format!("{text}<｜end▁of▁sentence｜>");
            assert_eq!(parse::finish(text, thinking, tools), parse::finish(&ended, thinking, tools));
        }
    }
}

#[test]
fn a_turn_cut_in_its_reasoning_is_reasoning_without_tools_and_content_with_them() {
    assert_eq!(parse::finish("so far", true, false).reasoning.as_deref(), Some("so far"));
    assert_eq!(parse::finish("so far", true, true).content, "so far");
}

#[test]
fn nested_parameters_form_an_object() {
    let text = "<tool_calls><invoke name=\"a&lt;b\"><parameter name=\"o\">\n<parameter name=\"x\">1</parameter>\n\
                <parameter name=\"y\" string=\"false\"> [1, 2] z</parameter></parameter></invoke></tool_calls>";
    let turn = parse::lenient(text, false);
    let arguments = r#"{"o": {"x": "1", "y": [1,2]}}"#.to_owned();
    assert_eq!(turn.calls, [Call { name: "a<b".to_owned(), arguments }]);
    let deep = format!("<tool_calls><invoke name=\"f\">{}", "<parameter name=\"p\">".repeat(100_000));
    assert!(parse::lenient(&deep, false).malformed);
}

#[test]
fn arguments_that_no_client_could_read_become_an_empty_object() {
    let call = |arguments: &str| Call { name: String::new(), arguments: arguments.to_owned() };
    assert_eq!(call(r#"{"a": "x y", "n":   42 }"#).compact_arguments(), r#"{"a":"x y","n":42}"#);
    for bad in [r#"{"n": not json}"#, r#"{"n": 1 2}"#, r#"{"n": NaN}"#, r#"{"n": }"#] {
        assert_eq!(call(bad).compact_arguments(), "{}");
    }
}

proptest! {
    #[test]
    fn no_text_panics(text in crate::streaming::noise(), thinking in any::<bool>(), tools in any::<bool>()) {
        let _refused = parse::strict(&text, thinking);
        let turn = parse::lenient(&text, thinking);
        prop_assert!(!turn.malformed || turn.content == text);
        let _turn = parse::finish(&text, thinking, tools);
    }
}
