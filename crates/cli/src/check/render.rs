//! Prompt texts of recorded requests: rows `{messages, options, context?, expected, ids?}` or `{…, error}`, a pair of
//! files `test_input_N.json` and `test_output_N.txt`, or rows `{in, out}` of a JSON value and its serialisation.

use std::path::Path;

use anyhow::{Context, bail};
use ds4_text::{ChatRequest, Thinking, Tokenizer, render};
use serde_json::{Map, Value, json};

use super::{Options, Report, ids, ids_differ, name_of, open_tokenizer, rows, text, texts_differ};
use crate::file::read_text;

pub(super) fn check(path: &Path, options: &Options, report: &mut Report<'_>) -> anyhow::Result<()> {
    if path.extension().is_some_and(|e| e == "json") {
        return check_pair(path, report);
    }
    let tokenizer = open_tokenizer(options)?;
    for (line, row) in rows(path)? {
        let difference = check_row(&tokenizer, &row).with_context(|| format!("line {line}"))?;
        report.case(&name_of(line, &row), difference)?;
    }
    Ok(())
}

fn check_row(tokenizer: &Tokenizer, row: &Map<String, Value>) -> anyhow::Result<Option<String>> {
    if row.contains_key("in") {
        return check_value(text(row, "in")?, text(row, "out")?);
    }
    if !matches!(row.get("messages"), Some(Value::Array(_))) {
        bail!("messages: expected a list");
    }
    let request = ChatRequest::from_fixture(&Value::Object(row.clone()));
    let rendered = request.and_then(|request| render(&request));
    match (row.contains_key("expected"), row.contains_key("error")) {
        (true, false) => {}
        // Any refusal is right: the recorded name belongs to another language.
        (false, true) => {
            return Ok(rendered.ok().map(|prompt| format!("expected a refusal, got {:?}", prompt.text())));
        }
        _ => bail!("expected exactly one of expected and error"),
    }
    let expected = text(row, "expected")?;
    let recorded = ids(row, "ids")?;
    let prompt = match rendered {
        Ok(prompt) => prompt,
        // What the reference writes by accident may be refused.
        Err(_) if is_artefact(row) => return Ok(None),
        Err(error) => return Ok(Some(format!("refused: {error}"))),
    };
    let mut difference = texts_differ("text", expected, prompt.text());
    if let Some(recorded) = recorded {
        difference = difference.or_else(|| ids_differ("ids", &recorded, &tokenizer.encode(prompt.text())));
    }
    Ok(difference)
}

/// `value` is a number's text or, where its serialisation is quoted, the characters of a string. It goes through the
/// renderer as part of a call's argument.
fn check_value(value: &str, expected: &str) -> anyhow::Result<Option<String>> {
    let value = if expected.starts_with('"') { serde_json::to_string(value)? } else { value.to_owned() };
    let call = json!({ "function": { "name": "f", "arguments": format!("{{\"a\":[{value}]}}") } });
    let message = json!({ "role": "assistant", "content": "", "tool_calls": [call] });
    let request = ChatRequest::from_fixture(&json!({ "options": { "thinking_mode": "chat" }, "messages": [message] }))?;
    let prompt = match render(&request) {
        Ok(prompt) => prompt,
        Err(error) => return Ok(Some(format!("refused: {error}"))),
    };
    let found = prompt.text().split_once(" string=\"false\">[").and_then(|(_, rest)| rest.rsplit_once("]</"));
    Ok(texts_differ("value", expected, found.map_or("", |(value, _)| value)))
}

fn is_artefact(row: &Map<String, Value>) -> bool {
    matches!(row.get("note"), Some(Value::String(note)) if note.contains("artefact"))
}

/// The input file does not say its mode: the output decides which of the two it was.
fn check_pair(path: &Path, report: &mut Report<'_>) -> anyhow::Result<()> {
    let name = path.file_name().and_then(|n| n.to_str()).context("the file has no name")?;
    let number = name.strip_prefix("test_input_").and_then(|n| n.strip_suffix(".json"));
    let number = number.with_context(|| format!("found {name}, expected test_input_N.json"))?;
    let expected = read_text(&path.with_file_name(format!("test_output_{number}.txt")), "expected output")?;
    let input: Value = serde_json::from_str(&read_text(path, "fixture")?)?;
    let request = ChatRequest::from_fixture(&input).context("the input is no request")?;
    let modes = [request.thinking, Thinking::None];
    let mut differences = Vec::new();
    for thinking in modes {
        let difference = match render(&ChatRequest { thinking, ..request.clone() }) {
            Ok(prompt) => texts_differ("text", &expected, prompt.text()),
            Err(error) => Some(format!("refused: {error}")),
        };
        differences.push(difference);
    }
    let difference = if differences.iter().any(Option::is_none) { None } else { differences.swap_remove(0) };
    report.case(name, difference)
}
