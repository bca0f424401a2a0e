//! What a case expects and whether a reply meets it. Owns the kinds of cases and their reading; how answers are found in
//! text is `extract`'s. Only what follows the last close of the reasoning is graded (cli.md 7).

use std::ops::RangeInclusive;

use anyhow::{Context, anyhow, bail};
use ds4_engine::ClosedBy;
use ds4_text::{Turn, parse};
use regex::{Regex, RegexBuilder};
use serde_json::{Map, Value};

use super::extract;

/// The names of the kinds of cases.
pub(super) const KINDS: &[&str] =
    &["choice", "integer", "lines", "exact", "regex", "contains", "tool_calls", "json", "thinking"];
/// The kinds that are asked for one line `Answer: X`.
pub(super) const ANSWER_LINE: &[&str] = &["choice", "integer", "lines", "exact", "regex"];
/// The fields of a case that grading needs, which is what a trace keeps of it.
pub(super) const FIELDS: &[&str] = &["kind", "answer", "accept", "reject", "choices"];

const THINK_END: &str = "</think>";
const EOS: &str = "<｜end▁of▁sentence｜>";
/// Compiled size of a pattern.
const PATTERN_BYTES: usize = 1 << 20;

/// What a case expects, ready to be compared.
#[derive(Clone, Debug)]
pub(super) enum Expect {
    Choice { letters: Vec<char>, choices: usize },
    Integer(Vec<String>),
    Lines(Vec<RangeInclusive<u64>>),
    Exact(Vec<String>),
    Regex(Vec<Regex>),
    Contains(Contains),
    ToolCalls(Vec<(String, Value)>),
    Json(Vec<Value>),
    Thinking(Option<Contains>),
}

/// Texts of which all must occur, in one of several ways, and texts of which none may.
#[derive(Clone, Debug)]
pub(super) struct Contains {
    ways: Vec<Vec<String>>,
    reject: Vec<String>,
}

/// A finished turn.
#[derive(Clone, Debug)]
pub(super) struct Reply<'a> {
    /// What followed the generation prompt, as drawn, without the end of the turn.
    pub(super) text: &'a str,
    /// The prompt had opened the reasoning.
    pub(super) thinking: bool,
    /// The model ended its turn.
    pub(super) ended: bool,
    pub(super) closed: Option<ClosedBy>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) outcome: Outcome,
    /// What was found, for the report.
    pub(super) given: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Passed,
    Failed,
    /// The reasoning never closed.
    Incomplete,
}

impl Expect {
    /// Reads the fields of [`FIELDS`].
    pub(super) fn read(case: &Map<String, Value>) -> anyhow::Result<Self> {
        let Some(Value::String(kind)) = case.get("kind") else { bail!("kind: expected one of {}", KINDS.join(", ")) };
        let answers = || -> anyhow::Result<Vec<&Value>> {
            let answer = case.get("answer").context("answer: nothing, expected one")?;
            Ok([answer].into_iter().chain(list(case, "accept")?).collect())
        };
        let texts = || answers()?.into_iter().map(|v| scalar(v, "answer")).collect::<anyhow::Result<Vec<String>>>();
        Ok(match kind.as_str() {
            "choice" => Self::choice(list(case, "choices")?.count(), &texts()?)?,
            "integer" => Self::Integer(texts()?.iter().map(|text| whole(text)).collect::<anyhow::Result<_>>()?),
            "lines" => Self::Lines(accepted_lines(&answers()?)?),
            "exact" => Self::Exact(texts()?.iter().map(|text| text.trim().to_owned()).collect()),
            "regex" => Self::Regex(texts()?.iter().map(|text| pattern(text)).collect::<anyhow::Result<_>>()?),
            "contains" => Self::Contains(Contains::read(case)?.context("answer: nothing, expected texts")?),
            "tool_calls" => Self::ToolCalls(calls(case.get("answer"))?),
            "json" => Self::Json(answers()?.into_iter().cloned().collect()),
            "thinking" => Self::Thinking(Contains::read(case)?),
            other => bail!("kind: found {other:?}, expected one of {}", KINDS.join(", ")),
        })
    }

    fn choice(choices: usize, answers: &[String]) -> anyhow::Result<Self> {
        if !(2..=extract::MOST_CHOICES).contains(&choices) {
            bail!("choices: {choices}, expected 2 to {}", extract::MOST_CHOICES);
        }
        let last = (b'A' + choices as u8 - 1) as char;
        let letter = |text: &String| match text.trim().as_bytes() {
            [byte] if ('A'..=last).contains(&(*byte as char)) => Ok(*byte as char),
            _ => Err(anyhow!("answer: {text:?}, expected a letter from A to {last}")),
        };
        Ok(Self::Choice { letters: answers.iter().map(letter).collect::<anyhow::Result<_>>()?, choices })
    }

    /// What is right, for the report.
    pub(super) fn correct(&self) -> String {
        match self {
            Self::Choice { letters, .. } => letters.iter().map(char::to_string).collect::<Vec<_>>().join("|"),
            Self::Integer(texts) | Self::Exact(texts) => texts.join("|"),
            Self::Lines(ranges) => show_lines(ranges),
            Self::Regex(patterns) => patterns.iter().map(Regex::as_str).collect::<Vec<_>>().join("|"),
            Self::Contains(contains) | Self::Thinking(Some(contains)) => contains.show(),
            Self::ToolCalls(calls) => show_calls(calls.iter().map(|(name, arguments)| (name.as_str(), arguments))),
            Self::Json(values) => values.iter().map(Value::to_string).collect::<Vec<_>>().join("|"),
            Self::Thinking(None) => "closed".to_owned(),
        }
    }

    pub(super) fn grade(&self, reply: &Reply<'_>) -> Verdict {
        let Some((reasoning, rest)) = parts(reply) else {
            return Verdict { outcome: Outcome::Incomplete, given: String::new() };
        };
        let turn = parse::finish(rest, false, true);
        let said = turn.content.trim();
        let (passed, given) = match self {
            Self::Choice { letters, choices } => {
                let given = extract::choice(said, *choices);
                (given.is_some_and(|c| letters.contains(&c)), given.map(String::from).unwrap_or_default())
            }
            Self::Integer(answers) => {
                let given = extract::integer(said);
                (given.as_ref().is_some_and(|n| answers.contains(n)), given.unwrap_or_default())
            }
            Self::Lines(accepted) => {
                let given = extract::lines(said);
                let inside = |r: &RangeInclusive<u64>| covered(r, accepted);
                (!given.is_empty() && given.iter().all(inside), show_lines(&given))
            }
            Self::Exact(answers) => {
                let line = extract::answer_line(said).unwrap_or(said);
                (answers.iter().any(|a| a == said || a == line), line.to_owned())
            }
            Self::Regex(patterns) => (patterns.iter().any(|p| p.is_match(said)), said.to_owned()),
            Self::Contains(contains) => (contains.holds(said), said.to_owned()),
            Self::ToolCalls(expected) => grade_calls(expected, reply, &turn),
            Self::Json(values) => {
                let given = extract::json(said);
                (given.is_some_and(|given| values.iter().any(|v| extract::json_equal(v, &given))), said.to_owned())
            }
            Self::Thinking(contains) => {
                let thought = reasoning.is_some_and(|r| !r.trim().is_empty()) && reply.closed != Some(ClosedBy::Hard);
                let holds = contains.as_ref().is_none_or(|contains| contains.holds(said));
                (thought && holds && !said.is_empty(), said.to_owned())
            }
        };
        Verdict { outcome: if passed { Outcome::Passed } else { Outcome::Failed }, given }
    }
}

/// Reasoning, if the prompt opened it, and what follows its last close. `None` if it never closed.
fn parts<'a>(reply: &Reply<'a>) -> Option<(Option<&'a str>, &'a str)> {
    match (reply.text.rsplit_once(THINK_END), reply.thinking) {
        (Some((reasoning, rest)), true) => Some((Some(reasoning), rest)),
        (Some((_, rest)), false) => Some((None, rest)),
        (None, true) => None,
        (None, false) => Some((None, reply.text)),
    }
}

impl Contains {
    /// `None` without an answer.
    fn read(case: &Map<String, Value>) -> anyhow::Result<Option<Self>> {
        let way = |value: &Value| match value {
            Value::Array(all) => all.iter().map(|v| scalar(v, "answer")).collect::<anyhow::Result<Vec<_>>>(),
            one => Ok(vec![scalar(one, "answer")?]),
        };
        let reject = list(case, "reject")?.map(|v| scalar(v, "reject")).collect::<anyhow::Result<Vec<_>>>()?;
        let answer = case.get("answer").filter(|v| !v.is_null());
        let ways = answer.into_iter().chain(list(case, "accept")?).map(way).collect::<anyhow::Result<Vec<_>>>()?;
        if ways.iter().any(|way| way.is_empty() || way.iter().any(|text| text.trim().is_empty())) {
            bail!("answer: nothing, expected texts");
        }
        Ok((!ways.is_empty()).then_some(Self { ways, reject }))
    }

    fn holds(&self, text: &str) -> bool {
        let all = |way: &Vec<String>| way.iter().all(|words| extract::contains(text, words));
        self.ways.iter().any(all) && !self.reject.iter().any(|words| extract::contains(text, words))
    }

    fn show(&self) -> String {
        self.ways.iter().map(|way| way.join("+")).collect::<Vec<_>>().join("|")
    }
}

/// The strict reading of the turn has exactly the expected calls; without any, the turn must have ended.
fn grade_calls(expected: &[(String, Value)], reply: &Reply<'_>, turn: &Turn) -> (bool, String) {
    let Ok(strict) = parse::strict(&format!("{}{EOS}", reply.text), reply.thinking) else {
        return (false, format!("unreadable: {}", turn.content.trim()));
    };
    let mut found = Vec::new();
    for call in &strict.calls {
        match serde_json::from_str::<Value>(&call.arguments) {
            Ok(arguments) => found.push((call.name.as_str(), arguments)),
            Err(_) => return (false, format!("{}: arguments are no JSON", call.name)),
        }
    }
    let given = match found.as_slice() {
        [] => strict.content.trim().to_owned(),
        calls => show_calls(calls.iter().map(|(name, arguments)| (*name, arguments))),
    };
    let mut left: Vec<_> = expected.iter().collect();
    let all = found.iter().all(|(name, arguments)| {
        let at = left.iter().position(|(n, a)| n == name && extract::json_equal(a, arguments));
        at.map(|at| left.remove(at)).is_some()
    });
    (all && left.is_empty() && (reply.ended || !expected.is_empty()), given)
}

fn show_calls<'a>(calls: impl Iterator<Item = (&'a str, &'a Value)>) -> String {
    let texts: Vec<String> = calls.map(|(name, arguments)| format!("{name}{arguments}")).collect();
    if texts.is_empty() { "no call".to_owned() } else { texts.join(" ") }
}

fn show_lines(ranges: &[RangeInclusive<u64>]) -> String {
    let show = |r: &RangeInclusive<u64>| match (r.start(), r.end()) {
        (a, b) if a == b => a.to_string(),
        (a, b) => format!("{a}-{b}"),
    };
    ranges.iter().map(show).collect::<Vec<_>>().join(",")
}

/// Whether every number of `range` is in one of `accepted`, which may touch or overlap.
fn covered(range: &RangeInclusive<u64>, accepted: &[RangeInclusive<u64>]) -> bool {
    let mut at = *range.start();
    while let Some(end) = accepted.iter().filter(|a| a.contains(&at)).map(RangeInclusive::end).max() {
        match end.checked_add(1) {
            Some(next) if end < range.end() => at = next,
            _ => return true,
        }
    }
    false
}

fn list<'a>(case: &'a Map<String, Value>, field: &str) -> anyhow::Result<impl Iterator<Item = &'a Value>> {
    match case.get(field) {
        None | Some(Value::Null) => Ok([].iter()),
        Some(Value::Array(items)) => Ok(items.iter()),
        Some(other) => bail!("{field}: found {other}, expected a list"),
    }
}

/// A text, or a number that stands for its spelling.
fn scalar(value: &Value, field: &str) -> anyhow::Result<String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        other => bail!("{field}: found {other}, expected a text or a number"),
    }
}

fn whole(text: &str) -> anyhow::Result<String> {
    match extract::numbers(text).collect::<Vec<_>>().as_slice() {
        [one] if !one.contains('.') => Ok(one.clone()),
        _ => bail!("answer: {text:?}, expected an integer"),
    }
}

fn pattern(text: &str) -> anyhow::Result<Regex> {
    RegexBuilder::new(text).size_limit(PATTERN_BYTES).build().map_err(|e| anyhow!("answer: {text:?}: {e}"))
}

fn accepted_lines(answers: &[&Value]) -> anyhow::Result<Vec<RangeInclusive<u64>>> {
    let flat = answers.iter().flat_map(|value| match value {
        Value::Array(items) => items.iter().collect::<Vec<_>>(),
        one => vec![*one],
    });
    let mut out = Vec::new();
    for value in flat {
        let text = scalar(value, "answer")?;
        let ranges = extract::line_list(&text);
        if ranges.is_empty() {
            bail!("answer: {text:?}, expected line numbers");
        }
        out.extend(ranges);
    }
    Ok(out)
}

/// Expected calls, `{"name", "arguments"}` each; arguments may be a JSON text.
fn calls(answer: Option<&Value>) -> anyhow::Result<Vec<(String, Value)>> {
    let Some(Value::Array(calls)) = answer else { bail!("answer: expected a list of calls") };
    let call = |call: &Value| {
        let name = call.get("name").and_then(Value::as_str).context("answer: a call without a name")?;
        let arguments = match call.get("arguments") {
            None => Value::Object(Map::new()),
            Some(Value::String(text)) => serde_json::from_str(text).context("answer: arguments")?,
            Some(value) => value.clone(),
        };
        Ok((name.to_owned(), arguments))
    };
    calls.iter().map(call).collect()
}
