//! Strict reading of recorded turns: rows `{text, thinking_mode, expected | error}`.

use std::path::Path;

use anyhow::{Context, bail};
use ds4_text::parse::strict;
use ds4_text::{Call, Turn};
use serde_json::{Map, Value};

use super::{Report, kind_of, name_of, rows, text, texts_differ};

pub(super) fn check(path: &Path, report: &mut Report<'_>) -> anyhow::Result<()> {
    for (line, row) in rows(path)? {
        let difference = check_row(&row).with_context(|| format!("line {line}"))?;
        report.case(&name_of(line, &row), difference)?;
    }
    Ok(())
}

fn check_row(row: &Map<String, Value>) -> anyhow::Result<Option<String>> {
    let thinking = match text(row, "thinking_mode")? {
        "thinking" => true,
        "chat" => false,
        other => bail!("thinking_mode: found {other:?}, expected \"thinking\" or \"chat\""),
    };
    let parsed = strict(text(row, "text")?, thinking);
    match (row.get("expected"), row.get("error")) {
        (Some(Value::Object(expected)), None) => match parsed {
            Ok(turn) => compare(expected, &turn),
            Err(error) => Ok(Some(format!("refused: {error}"))),
        },
        // Any refusal is right: the recorded name belongs to another language.
        (None, Some(_)) => Ok(parsed.ok().map(|turn| format!("expected a refusal, got {:?}", turn.content))),
        _ => bail!("expected exactly one of an expected object and an error"),
    }
}

fn compare(expected: &Map<String, Value>, turn: &Turn) -> anyhow::Result<Option<String>> {
    let reasoning = turn.reasoning.as_deref().unwrap_or_default();
    let difference = texts_differ("content", text(expected, "content")?, &turn.content).or(texts_differ(
        "reasoning",
        text(expected, "reasoning_content")?,
        reasoning,
    ));
    let calls = match expected.get("tool_calls") {
        Some(Value::Array(calls)) => calls,
        other => bail!("tool_calls: found {}, expected a list", other.map_or("nothing", kind_of)),
    };
    if difference.is_some() {
        return Ok(difference);
    }
    if calls.len() != turn.calls.len() {
        return Ok(Some(format!("expected {} calls, got {}", calls.len(), turn.calls.len())));
    }
    for (call, found) in calls.iter().zip(&turn.calls) {
        if let Some(difference) = compare_call(call, found)? {
            return Ok(Some(difference));
        }
    }
    Ok(None)
}

fn compare_call(expected: &Value, found: &Call) -> anyhow::Result<Option<String>> {
    let function = expected.get("function").and_then(Value::as_object).context("tool_calls: expected a function")?;
    Ok(texts_differ("name", text(function, "name")?, &found.name).or(texts_differ(
        "arguments",
        text(function, "arguments")?,
        &found.arguments,
    )))
}
