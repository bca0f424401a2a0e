//! What is shown of a growing turn, in any cutting.

use ds4_text::{Delta, StreamParser, ToolCallKind, Turn, parse};
use proptest::prelude::*;

use crate::fixtures::{ids, rows, str};

/// Deltas joined.
#[derive(Debug, Default, PartialEq, Eq)]
struct Shown {
    thinking: String,
    text: String,
    /// Name, arguments, whether it ended.
    calls: Vec<(String, String, bool)>,
}

impl Shown {
    fn add(&mut self, deltas: Vec<Delta>) {
        for delta in deltas {
            match delta {
                Delta::Thinking(piece) => self.thinking += &piece,
                Delta::Text(piece) => self.text += &piece,
                Delta::ToolCall(delta) => {
                    if let ToolCallKind::Start { name } = &delta.kind {
                        assert_eq!(delta.index, self.calls.len());
                        assert!(self.calls.iter().all(|call| call.2), "the call before has ended");
                        self.calls.push((name.clone(), String::new(), false));
                    }
                    let call = &mut self.calls[delta.index];
                    match delta.kind {
                        ToolCallKind::Start { .. } => {}
                        ToolCallKind::Arguments(piece) => call.1 += &piece,
                        ToolCallKind::End => call.2 = true,
                    }
                }
            }
        }
    }

    fn says(&self, turn: &Turn) -> bool {
        let calls = turn.calls.iter().map(|call| (call.name.clone(), call.compact_arguments(), true));
        self.thinking == turn.reasoning.as_deref().unwrap_or("")
            && self.text == turn.content
            && self.calls == calls.collect::<Vec<_>>()
    }
}

fn stream<'a>(pieces: impl IntoIterator<Item = &'a str>, thinking: bool, tools: bool) -> (Shown, Turn) {
    let mut parser = StreamParser::new(thinking, tools);
    let mut shown = Shown::default();
    pieces.into_iter().for_each(|piece| shown.add(parser.push(piece)));
    let (rest, turn) = parser.finish();
    shown.add(rest);
    (shown, turn)
}

fn characters(text: &str) -> impl Iterator<Item = &str> {
    text.char_indices().map(|(i, c)| &text[i..i + c.len_utf8()])
}

/// Fixture turns: identifier, text without EOS, thinking, whether the strict reading takes it.
fn turns() -> Vec<(String, String, bool, bool)> {
    let mut all = Vec::new();
    for row in rows("encoding/generated/parse.jsonl") {
        let text = str(&row, "text").trim_end_matches("<｜end▁of▁sentence｜>").to_owned();
        let thinking = str(&row, "thinking_mode") == "thinking";
        all.push((str(&row, "id").to_owned(), text, thinking));
    }
    for row in rows("encoding/ds4/parse.jsonl") {
        let thinking = row["require_thinking_closed"] == true;
        all.push((str(&row, "id").to_owned(), str(&row, "text").to_owned(), thinking));
    }
    let strict = |text: &str, thinking| parse::strict(&format!("{text}<｜end▁of▁sentence｜>"), thinking).is_ok();
    all.into_iter()
        .map(|(id, text, thinking)| {
            let ok = strict(&text, thinking);
            (id, text, thinking, ok)
        })
        .collect()
}

#[test]
fn the_deltas_of_a_well_formed_turn_say_what_the_turn_says() {
    let mut well_formed = 0;
    for (id, text, thinking, strict) in turns() {
        for tools in [false, true] {
            let (whole, turn) = stream([text.as_str()], thinking, tools);
            assert_eq!(stream(characters(&text), thinking, tools), (whole, turn.clone()), "{id}");
            assert_eq!(turn, parse::finish(&text, thinking, tools));
            let (shown, _) = stream([text.as_str()], thinking, tools);
            // Without offered tools the strict reading may still find a plain-spelled block to be text, and so does the stream.
            if strict {
                let unreadable =
                    turn.calls.iter().any(|call| call.compact_arguments() == "{}" && call.arguments != "{}");
                assert!(unreadable || shown.says(&turn), "{id} {tools}: {shown:?} {turn:?}");
                well_formed += usize::from(!unreadable);
            }
        }
    }
    assert!(well_formed > 100, "{well_formed}");
}

#[test]
fn recovered_calls_are_shown_too() {
    // Tools offered; strict refuses these.
    for id in ["q018", "q026", "q028", "q029", "q030", "q036", "q037", "q039", "q040", "q042", "q043"] {
        let (_, text, thinking, _) = turns().into_iter().find(|turn| turn.0 == id).unwrap();
        let (shown, turn) = stream(characters(&text), thinking, true);
        assert!(!turn.calls.is_empty() && shown.says(&turn), "{id}: {shown:?} {turn:?}");
    }
}

#[test]
fn calls_are_shown_while_they_grow() {
    let mut parser = StreamParser::new(true, true);
    let mut shown = Shown::default();
    shown.add(parser.push("hm</thi"));
    assert_eq!(shown.thinking, "hm");
    shown.add(parser.push("nk>Look:\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"write\">\n<｜DSML｜parameter"));
    assert_eq!((shown.text.as_str(), &shown.calls[0]), ("Look:", &("write".to_owned(), "{".to_owned(), false)));
    shown.add(parser.push(" name=\"text\" string=\"true\">line \"1\"\nli</｜DS"));
    assert_eq!(shown.calls[0].1, "{\"text\":\"line \\\"1\\\"\\nli");
    assert!(parser.in_block() && !parser.block_closed());
    let rest = "ML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>";
    shown.add(parser.push(rest));
    assert!(parser.block_closed() && shown.calls[0].2);
    let (rest, turn) = parser.finish();
    shown.add(rest);
    assert!(shown.says(&turn), "{shown:?}");
}

#[test]
fn a_block_that_stays_unreadable_is_shown_as_text_in_the_end() {
    for text in
        ["plain <tool_calls> inside", "a\n\n<｜DSML｜tool_calls>\nno", "a\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke>\n"]
    {
        let (shown, turn) = stream(characters(text), false, true);
        assert_eq!((shown.text.as_str(), turn.content.as_str()), (text, text));
    }
}

/// A turn cut inside a call leaves the client an object that its JSON reader takes.
#[test]
fn a_call_cut_off_is_closed() {
    let (_, text, ..) = turns().into_iter().find(|turn| turn.0 == "q013").unwrap();
    for end in (0..text.len()).filter(|&i| text.is_char_boundary(i)) {
        let (shown, _) = stream(characters(&text[..end]), false, true);
        for (_, arguments, ended) in &shown.calls {
            assert!(*ended && serde_json::from_str::<serde_json::Value>(arguments).is_ok(), "{arguments}");
        }
    }
}

/// ds4 holds back any white space and everything from a `<`; only what may begin an opener has to wait, and the content
/// before a block keeps its white space (section 23.4). So at least as much is shown, and never a byte of the block.
#[test]
fn no_less_is_shown_than_by_ds4_and_nothing_of_a_block() {
    let rows = rows("encoding/ds4/stream_safe.jsonl");
    for row in &rows {
        let text = str(row, "text");
        let end = ["\n\n<｜DSML｜tool_calls>", "<tool_calls>"].iter().find_map(|opener| text.find(opener));
        for (len, &limit) in ids(&row["limits"]).iter().enumerate().filter(|&(len, _)| text.is_char_boundary(len)) {
            let mut shown = Shown::default();
            shown.add(StreamParser::new(false, true).push(&text[..len]));
            assert!(text.starts_with(&shown.text));
            assert!(shown.text.len() >= limit as usize, "{row} {len} {shown:?}");
            assert!(shown.text.len() <= end.unwrap_or(text.len()), "{row} {len} {shown:?}");
        }
    }
    assert_eq!(rows.len(), 10);
}

pub(crate) fn noise() -> impl Strategy<Value = String> {
    const PARTS: &[&str] = &[
        "<think>",
        "</think>",
        "\n",
        "\n\n",
        " ",
        "<｜DSML｜tool_calls>",
        "<DSML｜tool_calls>",
        "<tool_calls>",
        "</｜DSML｜tool_calls>",
        "</tool_calls>",
        "<｜DSML｜invoke",
        "<invoke",
        " name=\"f\">\n",
        "</｜DSML｜invoke>",
        "</invoke>",
        "<｜DSML｜parameter",
        "<parameter",
        " name=\"k\" string=\"true\">",
        " name=\"j\" string=\"false\">",
        " name=\"k\">",
        "</｜DSML｜parameter>",
        "</parameter>",
        "&lt;/｜DSML｜parameter>",
        "[1, {\"a\": \"b\"}]",
        "42",
        "\"",
        "é中",
        "&amp;",
        "text",
        "<｜end▁of▁sentence｜>",
        "<",
        "｜DSML｜",
        ">",
        "{",
        "NaN",
        "\\",
    ];
    prop::collection::vec(prop::sample::select(PARTS), 0..24).prop_map(|parts| parts.concat())
}

/// A turn in the official grammar, by its parts.
fn official() -> impl Strategy<Value = (String, bool)> {
    let text = prop::sample::select(
        &["", "a", "x\n", "\n\n\n", "a < b </ c", "&lt;", "é中\n ", "\"q\" \\ \t", "</x>", "{"][..],
    );
    let json = prop::sample::select(&["1", " [1, 2] ", "{\"k\": \" v \"}", "null", "\"s\"", "1.50"][..]);
    let parameter = prop_oneof![text.clone().prop_map(|v| ("true", v)), json.prop_map(|v| ("false", v)),];
    let call = (prop::sample::select(&["f", "na\"me <x>"][..]), prop::collection::vec(parameter, 0..4)).prop_map(
        |(name, list)| {
            let list: Vec<_> = list
                .iter()
                .enumerate()
                .map(|(i, (flag, value))| {
                    format!("<｜DSML｜parameter name=\"k<{i}>\" string=\"{flag}\">{value}</｜DSML｜parameter>\n")
                })
                .collect();
            let inner = if list.is_empty() { "\n".to_owned() } else { list.concat() };
            format!("<｜DSML｜invoke name=\"{name}\">\n{inner}</｜DSML｜invoke>\n")
        },
    );
    (text.clone(), text, prop::collection::vec(call, 0..4), any::<bool>()).prop_map(
        |(reasoning, content, calls, thinking)| {
            let mut turn = if thinking { format!("{reasoning}</think>{content}") } else { content.to_owned() };
            if !calls.is_empty() {
                turn.extend(["\n\n<｜DSML｜tool_calls>\n", &calls.concat(), "</｜DSML｜tool_calls>"]);
            }
            (turn, thinking)
        },
    )
}

fn cut<'a>(text: &'a str, cuts: &[prop::sample::Index]) -> Vec<&'a str> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| text.floor_char_boundary(cut.index(text.len() + 1))).collect();
    at.extend([0, text.len()]);
    at.sort_unstable();
    at.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn any_cutting_shows_the_same(text in noise(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
                                  thinking in any::<bool>(), tools in any::<bool>()) {
        let pieces = cut(&text, &cuts);
        prop_assert_eq!(stream(pieces, thinking, tools), stream([text.as_str()], thinking, tools));
    }

    #[test]
    fn any_cutting_of_any_fixture_shows_the_same(which in any::<prop::sample::Index>(), tools in any::<bool>(),
                                                 cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20)) {
        let turns = turns();
        let (_, text, thinking, _) = which.get(&turns);
        prop_assert_eq!(stream(cut(text, &cuts), *thinking, tools), stream([text.as_str()], *thinking, tools));
    }

    #[test]
    fn any_official_turn_is_shown_as_it_is_read((text, thinking) in official(), tools in any::<bool>()) {
        let (shown, turn) = stream(characters(&text), thinking, tools);
        let ended = text.clone() + "<｜end▁of▁sentence｜>";
        prop_assert!(parse::strict(&ended, thinking).is_ok());
        prop_assert!(shown.says(&turn), "{:?} {:?}", shown, turn);
    }
}
