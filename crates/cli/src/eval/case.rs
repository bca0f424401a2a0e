//! Cases from JSON lines, one object a line, plain or compressed: their reading and what each asks. Owns the file format
//! (`fixtures/eval/README.md`) and the wording of questions; what is right is `grade`'s.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use ds4_text::{ChatRequest, Content, Message, Role, Thinking, Tokenizer, render};
use flate2::read::GzDecoder;
use serde_json::{Map, Value};

use super::grade::{ANSWER_LINE, Expect, FIELDS};
use crate::conversation::Encoded;
use crate::failure::reason;
use crate::file::text_of;

/// The system text of questions that bring none.
const SYSTEM: &str = "You answer questions. Think if needed, then end with one line `Answer: X`.";
const INSTRUCTION: &str = "\n\nEnd your reply with one line: Answer: X";

/// One thing to ask and what is expected.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) id: String,
    pub(super) suite: String,
    pub(super) source: String,
    pub(super) domain: String,
    pub(super) title: String,
    /// Cases of one document, which is the beginning of all of their prompts.
    pub(super) document: Option<String>,
    pub(super) messages: Vec<Message>,
    pub(super) tools: Vec<Value>,
    /// `None`: as the command line says.
    pub(super) thinking: Option<bool>,
    pub(super) expect: Expect,
    /// The fields that `expect` was read from, for traces.
    pub(super) grading: Map<String, Value>,
}

/// All cases of a file.
pub(super) fn read_file(path: &Path) -> anyhow::Result<Vec<Case>> {
    let name = path.display();
    let mut file = File::open(path).map_err(|e| anyhow!("cannot open cases: {name}: {}", reason(&e)))?;
    let mut start = Vec::new();
    let peeked = file.by_ref().take(2).read_to_end(&mut start);
    peeked.map_err(|e| anyhow!("cannot read cases: {name}: {}", reason(&e)))?;
    let compressed = start == GZIP;
    let whole = start.as_slice().chain(file);
    let text = if compressed { text_of(GzDecoder::new(whole)) } else { text_of(whole) };
    let text = text.map_err(|why| anyhow!("cannot read cases: {name}: {why}"))?;
    let stem = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let suite = stem.split('.').next().filter(|suite| !suite.is_empty()).unwrap_or("cases");
    read(&text, suite).with_context(|| format!("cannot read cases: {name}"))
}

const GZIP: [u8; 2] = [0x1f, 0x8b];

/// The cases of a text; `suite` is that of cases that name none.
pub(super) fn read(text: &str, suite: &str) -> anyhow::Result<Vec<Case>> {
    let mut cases = Vec::new();
    for (at, line) in text.split('\n').enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let of_line = parse_line(line, suite).with_context(|| format!("line {}", at + 1))?;
        cases.extend(of_line);
    }
    if cases.is_empty() {
        bail!("no cases");
    }
    check_ids(&cases)?;
    Ok(cases)
}

/// Reports and traces tell cases by their ids.
pub(super) fn check_ids(cases: &[Case]) -> anyhow::Result<()> {
    let mut ids = HashSet::new();
    match cases.iter().find(|case| !ids.insert(case.id.as_str())) {
        Some(twice) => Err(anyhow!("the id {} stands twice", twice.id)),
        None => Ok(()),
    }
}

fn parse_line(line: &str, suite: &str) -> anyhow::Result<Vec<Case>> {
    let fields: Map<String, Value> = serde_json::from_str(line)?;
    let Some(items) = fields.get("items") else { return Ok(vec![one(&fields, suite)?]) };
    let Some(items) = items.as_array().filter(|items| !items.is_empty()) else { bail!("items: expected a list") };
    let document = text(&fields, "document")?.context("document: nothing, expected a text")?;
    let id = text(&fields, "id")?.context("id: nothing, expected a text")?;
    let item = |(at, item): (usize, &Value)| -> anyhow::Result<Case> {
        let item = item.as_object().context("expected an object")?;
        let question = text(item, "question")?.context("question: nothing, expected a text")?;
        let mut fields = fields.clone();
        for name in ["items", "document"] {
            fields.remove(name);
        }
        fields.extend(item.clone());
        fields.insert("id".to_owned(), format!("{id}.{at:02}").into());
        fields
            .insert("messages".to_owned(), messages_of(text(&fields, "system")?, format!("{document}\n\n{question}")));
        Ok(Case { document: Some(id.clone()), ..one(&fields, suite)? })
    };
    items.iter().enumerate().map(|(at, value)| item((at, value)).with_context(|| format!("items[{at}]"))).collect()
}

fn one(fields: &Map<String, Value>, suite: &str) -> anyhow::Result<Case> {
    let id = text(fields, "id")?.context("id: nothing, expected a text")?;
    let messages = match fields.get("messages") {
        Some(Value::Array(list)) => list.clone(),
        Some(other) => bail!("messages: found {other}, expected a list"),
        None => match question(fields)? {
            Value::Array(list) => list,
            _ => Vec::new(),
        },
    };
    let mut messages = messages.iter().map(Message::from_json).collect::<Result<Vec<_>, _>>()?;
    if !messages.last().is_some_and(|last| matches!(last.role, Role::User | Role::Tool | Role::Developer)) {
        bail!("messages: the last one must be the user's or a tool's");
    }
    if let Some(format) = fields.get("response_format").filter(|v| !v.is_null()) {
        if messages[0].role != Role::System {
            messages.insert(0, Message::new(Role::System, ""));
        }
        messages[0].response_format = Some(format.clone());
    }
    let tools = match fields.get("tools") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(list)) => list.clone(),
        Some(other) => bail!("tools: found {other}, expected a list"),
    };
    let thinking = match fields.get("thinking") {
        None | Some(Value::Null) => None,
        Some(Value::Bool(on)) => Some(*on),
        Some(other) => bail!("thinking: found {other}, expected true or false"),
    };
    let or_empty = |name: &str| Ok::<_, anyhow::Error>(text(fields, name)?.unwrap_or_default());
    Ok(Case {
        suite: text(fields, "suite")?.unwrap_or_else(|| suite.to_owned()),
        source: or_empty("source")?,
        domain: or_empty("domain")?,
        title: or_empty("title")?,
        document: None,
        messages,
        tools,
        thinking,
        expect: Expect::read(fields)?,
        grading: fields.iter().filter(|(key, _)| FIELDS.contains(&key.as_str())).map(copied).collect(),
        id,
    })
}

fn copied((key, value): (&String, &Value)) -> (String, Value) {
    (key.clone(), value.clone())
}

/// The messages of a question with lettered choices (cli.md 7).
fn question(fields: &Map<String, Value>) -> anyhow::Result<Value> {
    let mut asked = text(fields, "question")?.context("nothing to ask: expected messages, a question or items")?;
    if let Some(Value::Array(choices)) = fields.get("choices") {
        for (letter, choice) in ('A'..='Z').zip(choices) {
            let choice = choice.as_str().map_or_else(|| choice.to_string(), str::to_owned);
            let _ = write!(asked, "\n{letter}) {choice}");
        }
    }
    let kind = fields.get("kind").and_then(Value::as_str).unwrap_or_default();
    let has_line = ANSWER_LINE.contains(&kind);
    if has_line {
        asked.push_str(INSTRUCTION);
    }
    let system = text(fields, "system")?.or_else(|| has_line.then(|| SYSTEM.to_owned()));
    Ok(messages_of(system, asked))
}

fn messages_of(system: Option<String>, user: String) -> Value {
    let message = |role: &str, content: String| serde_json::json!({"role": role, "content": content});
    let system = system.filter(|text| !text.is_empty()).map(|text| message("system", text));
    Value::Array(system.into_iter().chain([message("user", user)]).collect())
}

fn text(fields: &Map<String, Value>, name: &str) -> anyhow::Result<Option<String>> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => bail!("{name}: found {other}, expected a text"),
    }
}

impl Case {
    /// The prompt's ids. `thinking` counts where the case leaves it open.
    pub(super) fn encode(&self, tokenizer: &Tokenizer, thinking: bool) -> anyhow::Result<Encoded> {
        let thinking = self.thinking.unwrap_or(thinking);
        let request = ChatRequest {
            tools: self.tools.clone(),
            thinking: if thinking { Thinking::High } else { Thinking::None },
            ..ChatRequest::new(self.messages.clone())
        };
        let prompt = render(&request).with_context(|| format!("case {}", self.id))?;
        Ok(Encoded { ids: tokenizer.encode_prompt(&prompt), thinking })
    }

    /// What is asked, for people: the last message.
    pub(super) fn asked(&self) -> &str {
        match self.messages.last().map(|message| &message.content) {
            Some(Content::Text(text)) => text,
            _ => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(case: &Case) -> Vec<(Role, String)> {
        let text = |m: &Message| if let Content::Text(text) = &m.content { text.clone() } else { String::new() };
        case.messages.iter().map(|m| (m.role.clone(), text(m))).collect()
    }

    #[test]
    fn a_question_gets_letters_and_the_instruction() {
        let line = r#"{"id": "a", "kind": "choice", "question": "Which?", "choices": ["one", "two"], "answer": "B"}"#;
        let cases = read(line, "mine").expect("cases");
        assert_eq!((cases[0].suite.as_str(), cases[0].thinking), ("mine", None));
        let user = "Which?\nA) one\nB) two\n\nEnd your reply with one line: Answer: X";
        assert_eq!(texts(&cases[0]), [(Role::System, SYSTEM.to_owned()), (Role::User, user.to_owned())]);
    }

    #[test]
    fn a_document_becomes_one_case_for_each_question() {
        let line = r#"{"id": "d", "suite": "s", "kind": "contains", "document": "Facts.",
            "items": [{"question": "One?", "answer": "1"}, {"question": "Two?", "answer": ["2"], "reject": ["1"]}]}"#;
        let cases = read(&line.replace('\n', " "), "mine").expect("cases");
        let ids: Vec<_> = cases.iter().map(|case| (case.id.as_str(), case.document.as_deref())).collect();
        assert_eq!(ids, [("d.00", Some("d")), ("d.01", Some("d"))]);
        assert_eq!(texts(&cases[1]), [(Role::User, "Facts.\n\nTwo?".to_owned())]);
        assert_eq!(cases[1].grading["reject"], serde_json::json!(["1"]));
    }

    #[test]
    fn a_response_format_belongs_to_a_system_message() {
        let line = r#"{"id": "j", "kind": "json", "messages": [{"role": "user", "content": "Hi"}], "thinking": false,
            "response_format": {"type": "object"}, "answer": {}}"#;
        let cases = read(&line.replace('\n', " "), "mine").expect("cases");
        assert_eq!((cases[0].messages.len(), cases[0].thinking), (2, Some(false)));
        assert!(cases[0].messages[0].response_format.is_some());
    }

    #[test]
    fn bad_lines_are_named() {
        let error = |text: &str| format!("{:#}", read(text, "mine").expect_err("a refusal"));
        let good = r#"{"id": "a", "kind": "exact", "question": "q", "answer": "x"}"#;
        assert_eq!(error("\n\n"), "no cases");
        assert_eq!(error(&format!("{good}\n{good}")), "the id a stands twice");
        assert!(error(&format!("{good}\n{{")).starts_with("line 2: "));
        assert!(error("[1]").starts_with("line 1: "));
        assert_eq!(
            error(r#"{"kind": "exact", "question": "q", "answer": "x"}"#),
            "line 1: id: nothing, expected a text"
        );
        let none = error(r#"{"id": "a", "kind": "exact", "answer": "x"}"#);
        assert_eq!(none, "line 1: nothing to ask: expected messages, a question or items");
        let last =
            r#"{"id": "a", "kind": "exact", "messages": [{"role": "assistant", "content": "x"}], "answer": "x"}"#;
        assert_eq!(error(last), "line 1: messages: the last one must be the user's or a tool's");
        let item = r#"{"id": "a", "kind": "contains", "document": "d", "items": [{"answer": "x"}]}"#;
        assert_eq!(error(item), "line 1: items[0]: question: nothing, expected a text");
    }
}
