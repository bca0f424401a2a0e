//! The grader's own examination (`--self-test-extractors`): fields of a case, a reply, and how it must be graded.

use std::io::Write;

use serde_json::{Map, Value};

use super::grade::{Expect, Outcome, Reply};
use crate::failure::ChecksFailed;
use crate::terminal;

/// Runs every row; the differences and a last line go to `out`.
pub(super) fn run(out: &mut dyn Write) -> anyhow::Result<()> {
    let mut failed = 0;
    for (fields, text, expected) in ROWS {
        let found = grade(fields, text)?;
        if found != *expected {
            failed += 1;
            terminal::show(out, &format!("FAIL {fields} {text:?}: expected {expected:?}, got {found:?}\n"))?;
        }
    }
    terminal::show(out, &format!("{} passed, {failed} failed\n", ROWS.len() - failed))?;
    if failed == 0 { Ok(()) } else { Err(ChecksFailed.into()) }
}

/// A text that starts with `<think>` was drawn inside opened reasoning.
fn grade(fields: &str, text: &str) -> anyhow::Result<Outcome> {
    let case: Map<String, Value> = serde_json::from_str(fields)?;
    let inside = text.strip_prefix("<think>");
    let reply = Reply { text: inside.unwrap_or(text), thinking: inside.is_some(), ended: true, closed: None };
    Ok(Expect::read(&case)?.grade(&reply).outcome)
}

const PASSED: Outcome = Outcome::Passed;
const FAILED: Outcome = Outcome::Failed;
const INCOMPLETE: Outcome = Outcome::Incomplete;

const CHOICE: &str = r#"{"kind": "choice", "choices": ["a", "b", "c", "d"], "answer": "B"}"#;
const INTEGER: &str = r#"{"kind": "integer", "answer": -1204}"#;
const LINES: &str = r#"{"kind": "lines", "answer": "3-5", "accept": [6, 9]}"#;
const EXACT: &str = r#"{"kind": "exact", "answer": "red, blue", "accept": ["red,blue"]}"#;
const REGEX: &str = r#"{"kind": "regex", "answer": "(?i)^ok[.!]?$"}"#;
const CONTAINS: &str = r#"{"kind": "contains", "answer": ["Ada", "12"], "accept": ["a dozen"], "reject": ["Bob"]}"#;
const CALLS: &str = r#"{"kind": "tool_calls", "answer": [{"name": "f", "arguments": {"x": 1, "y": "b"}}]}"#;
const NO_CALL: &str = r#"{"kind": "tool_calls", "answer": []}"#;
const JSON: &str = r#"{"kind": "json", "answer": {"name": "Ada", "ages": [3, 4]}}"#;
const THINKING: &str = r#"{"kind": "thinking"}"#;
const THINKING_ANSWER: &str = r#"{"kind": "thinking", "answer": "7"}"#;

const CALL: &str = "\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"f\">\n\
    <｜DSML｜parameter name=\"y\" string=\"true\">b</｜DSML｜parameter>\n\
    <｜DSML｜parameter name=\"x\" string=\"false\">1</｜DSML｜parameter>\n\
    </｜DSML｜invoke>\n</｜DSML｜tool_calls>";
const WRONG_CALL: &str = "\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"f\">\n\
    <｜DSML｜parameter name=\"x\" string=\"true\">1</｜DSML｜parameter>\n\
    </｜DSML｜invoke>\n</｜DSML｜tool_calls>";
const TORN_CALL: &str = "\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"f\">\n";

const ROWS: &[(&str, &str, Outcome)] = &[
    (CHOICE, "Answer: B", PASSED),
    (CHOICE, "answer: b", PASSED),
    (CHOICE, "**Answer:** (B)", PASSED),
    (CHOICE, "The answer is B.", PASSED),
    (CHOICE, "Answer: A\nOn reflection:\nAnswer: B", PASSED),
    (CHOICE, "End with `Answer: X`.\nAnswer: B", PASSED),
    (CHOICE, "Answer: B\nAnswer: A", FAILED),
    (CHOICE, "Answer: E", FAILED),
    (CHOICE, "It must be B", PASSED),
    (CHOICE, "Not A, so B", PASSED),
    (CHOICE, "Because", FAILED),
    (CHOICE, "", FAILED),
    (CHOICE, "<think>Answer: B</think>Answer: C", FAILED),
    (CHOICE, "<think>Answer: C</think>Answer: B", PASSED),
    (CHOICE, "<think>Answer: B", INCOMPLETE),
    (CHOICE, "<think>one</think>Answer: A</think>Answer: B", PASSED),
    (INTEGER, "Answer: -1204", PASSED),
    (INTEGER, "Answer: -1,204", PASSED),
    (INTEGER, "Answer: −01204", PASSED),
    (INTEGER, "Answer: 1204", FAILED),
    (INTEGER, "Answer: -1204.5", FAILED),
    (INTEGER, "Answer: -1204.0", PASSED),
    (INTEGER, "Answer: 5\nAnswer: **-1204** apples", PASSED),
    (INTEGER, "Answer: -1204\nAnswer: 5", FAILED),
    (INTEGER, "Answer:\n-1204", PASSED),
    (INTEGER, "3 times 4 minus 1216 is -1204", PASSED),
    (INTEGER, "-1204 then 3", FAILED),
    (INTEGER, "none", FAILED),
    (LINES, "Answer: 3", PASSED),
    (LINES, "Answer: 3-6, 9", PASSED),
    (LINES, "Answer: lines 4 and 5", PASSED),
    (LINES, "Answer: L3–L4.", PASSED),
    (LINES, "Answer: 3, 7", FAILED),
    (LINES, "Answer: 3-9", FAILED),
    (LINES, "Answer: none", FAILED),
    (LINES, "3", FAILED),
    (r#"{"kind": "lines", "answer": 0}"#, "Answer: 0", PASSED),
    (EXACT, "red, blue", PASSED),
    (EXACT, " red,blue\n", PASSED),
    (EXACT, "They are:\nAnswer: red, blue", PASSED),
    (EXACT, "Red, blue", FAILED),
    (EXACT, "red, blue, green", FAILED),
    (REGEX, "OK!", PASSED),
    (REGEX, "not ok", FAILED),
    (CONTAINS, "ada is 12.", PASSED),
    (CONTAINS, "Ada has a dozen", PASSED),
    (CONTAINS, "Ada is 120", FAILED),
    (CONTAINS, "Ada is 12, Bob too", FAILED),
    (CONTAINS, "<think>Ada 12</think>I do not know", FAILED),
    (CALLS, CALL, PASSED),
    (CALLS, WRONG_CALL, FAILED),
    (CALLS, TORN_CALL, FAILED),
    (CALLS, "f(1)", FAILED),
    (NO_CALL, "No tool is needed.", PASSED),
    (NO_CALL, CALL, FAILED),
    (NO_CALL, TORN_CALL, FAILED),
    (JSON, "{\"ages\": [3, 4.0], \"name\": \"Ada\"}", PASSED),
    (JSON, "```json\n{\"name\": \"Ada\", \"ages\": [3, 4]}\n```", PASSED),
    (JSON, "Here: {\"name\": \"Ada\", \"ages\": [3, 4]}", FAILED),
    (JSON, "{\"name\": \"Ada\", \"ages\": [4, 3]}", FAILED),
    (JSON, "{\"name\": \"Ada\", \"ages\": [3, 4], \"more\": 1}", FAILED),
    (THINKING, "<think>because</think>yes", PASSED),
    (THINKING, "<think> </think>yes", FAILED),
    (THINKING, "<think>because</think>\n", FAILED),
    (THINKING, "<think>because", INCOMPLETE),
    (THINKING, "yes", FAILED),
    (THINKING_ANSWER, "<think>3+4</think>It is 7.", PASSED),
    (THINKING_ANSWER, "<think>7</think>It is 8.", FAILED),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_graded_as_it_says() {
        let mut out = Vec::new();
        run(&mut out).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&out)));
    }

    #[test]
    fn what_cannot_be_expected_is_refused() {
        for fields in [
            r#"{"answer": "B"}"#,
            r#"{"kind": "guess", "answer": "B"}"#,
            r#"{"kind": "choice", "answer": "B"}"#,
            r#"{"kind": "choice", "choices": ["a", "b"], "answer": "C"}"#,
            r#"{"kind": "integer", "answer": "3.5"}"#,
            r#"{"kind": "lines", "answer": "some"}"#,
            r#"{"kind": "regex", "answer": "("}"#,
            r#"{"kind": "contains", "answer": []}"#,
            r#"{"kind": "tool_calls"}"#,
            r#"{"kind": "json"}"#,
        ] {
            assert!(grade(fields, "").is_err(), "{fields}");
        }
    }
}
