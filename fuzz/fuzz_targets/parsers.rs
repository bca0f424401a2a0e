//! Any text as a generated turn, cut anywhere: the parsers agree with themselves.
#![no_main]

use ds4_text::parse::{finish, lenient, strict};
use ds4_text::{Delta, DsmlTracker, StreamParser};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&flags, rest)) = data.split_first() else { return };
    let text = String::from_utf8_lossy(rest);
    let (thinking, tools, step) = (flags & 1 != 0, flags & 2 != 0, usize::from(flags >> 2) % 17 + 1);
    let _ = strict(&text, thinking);
    let _ = lenient(&text, thinking);
    let turn = finish(&text, thinking, tools);
    let mut parser = StreamParser::new(thinking, tools);
    let mut tracker = DsmlTracker::new(thinking);
    let mut deltas = Vec::new();
    let chars: Vec<char> = text.chars().collect();
    for piece in chars.chunks(step) {
        let piece: String = piece.iter().collect();
        deltas.extend(parser.push(&piece));
        tracker.push(piece.as_bytes());
        let _ = tracker.state();
    }
    let (last, streamed) = parser.finish();
    deltas.extend(last);
    assert_eq!(streamed, turn, "a streamed turn is the finished turn");
    let shown: usize = deltas
        .iter()
        .map(|delta| match delta {
            Delta::Thinking(text) | Delta::Text(text) => text.len(),
            Delta::ToolCall(_) => 0,
        })
        .sum();
    assert!(shown <= text.len(), "nothing is shown twice");
});
