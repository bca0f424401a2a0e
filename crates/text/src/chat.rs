//! Chat requests: what a prompt is rendered from. Owns the types and their reading from JSON (`spec/prompt.md` 7); validity
//! that depends on the place of a message is `render`'s.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result, shown};
use crate::prompt::Exact;

/// Everything that decides the text of a prompt.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Value")]
pub struct ChatRequest {
    pub messages: Vec<Message>,
    /// Messages that the model has seen already: they count, but are not rendered, and no BOS is written after them.
    pub context: Vec<Message>,
    /// Tools of the whole request, `{"type": "function", "function": {…}}` each. They join those of the first message if
    /// that is system or developer, else those of an empty system message before it.
    pub tools: Vec<Value>,
    pub thinking: Thinking,
    pub revision: Revision,
    /// Forget the reasoning of turns before the last user message, unless any message has tools.
    pub drop_thinking: bool,
    /// Begin with BOS.
    pub bos: bool,
    /// Write `&lt;` for the `<` of a closing tag inside what that tag closes (`spec/prompt.md` 23.3). The reference leaves it
    /// and so breaks its own grammar; switch this off to compare with it.
    pub escape_closing_tags: bool,
}

/// How the model should think.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Thinking {
    /// No reasoning (mode `chat`).
    None,
    /// Effort `low`, which only [`Revision::R0731`] has; there it is what no effort name means.
    Low,
    /// Effort `high`; in [`Revision::Preview`] it is what no effort name means.
    #[default]
    High,
    /// Effort `max`.
    Max,
}

impl Thinking {
    /// Whether the turn opens with reasoning.
    pub fn is_on(self) -> bool {
        self != Self::None
    }
}

/// Which checkpoint's prompt texts to use (`spec/prompt.md`, table at the top).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Revision {
    #[default]
    Preview,
    R0731,
}

/// Who speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    System,
    User,
    Assistant,
    Tool,
    /// A user turn that carries tools; of an internal pipeline.
    Developer,
    LatestReminder,
    /// An error once it has to be rendered.
    Other(String),
}

/// What a message says, before it is known whether its role allows that.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Content {
    #[default]
    Missing,
    Null,
    Text(String),
    /// Content parts; only tool results may have them.
    Parts(Vec<Value>),
    /// Neither text nor parts.
    Unusable(Value),
}

impl From<&str> for Content {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Content {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

/// One message of a conversation. Fields that its role has no use for are ignored.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Value")]
pub struct Message {
    pub role: Role,
    pub content: Content,
    /// Of an assistant.
    pub reasoning: String,
    /// Of an assistant.
    pub tool_calls: Vec<ToolCall>,
    /// Of a tool: the call it answers.
    pub tool_call_id: Option<String>,
    /// Of a system or developer message, in OpenAI form.
    pub tools: Vec<Value>,
    /// Of a system or developer message: a schema to answer in.
    pub response_format: Option<Value>,
    /// A task name of `spec/prompt.md` 12.
    pub task: Option<String>,
    /// Of an assistant: leave EOS off, so that the model continues the turn.
    pub wo_eos: bool,
    /// Of an assistant: what is known of its sampled ids, which then stand in the prompt in place of the texts.
    pub sampled: Sampled,
}

/// The parts of a turn as they were sampled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sampled {
    /// In place of the reasoning, without its closing tag.
    pub reasoning: Option<Exact>,
    /// In place of content and calls.
    pub answer: Option<Exact>,
}

/// A call in the history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolCall {
    pub id: Option<String>,
    pub name: String,
    /// A string holds a JSON text, as in the OpenAI API; any other value is rendered as one parameter named `arguments`.
    pub arguments: Value,
}

impl ChatRequest {
    /// A request with the defaults of the reference: thinking at its default effort, preview texts, reasoning dropped, BOS.
    pub fn new(messages: Vec<Message>) -> Self {
        Self {
            messages,
            context: Vec::new(),
            tools: Vec::new(),
            thinking: Thinking::High,
            revision: Revision::Preview,
            drop_thinking: true,
            bos: true,
            escape_closing_tags: true,
        }
    }

    /// Reads a row of a fixture file: `{"messages", "context"?, "tools"?, "options"?: {"thinking_mode", "reasoning_effort",
    /// "drop_thinking", "add_default_bos_token", "profile"}}`, or a bare list of messages. As the files hold what the
    /// reference writes, closing tags are not escaped. Without `thinking_mode` thinking is on.
    pub fn from_fixture(row: &Value) -> Result<Self> {
        let nothing = Map::new();
        let fields = match row {
            Value::Array(list) => {
                let request = Self::new(messages(list, "messages")?);
                return Ok(Self { escape_closing_tags: false, ..request });
            }
            Value::Object(fields) => fields,
            other => return Err(unexpected("request", other, "an object or a list of messages")),
        };
        let options = match fields.get("options") {
            None | Some(Value::Null) => &nothing,
            Some(Value::Object(options)) => options,
            Some(other) => return Err(unexpected("options", other, "an object")),
        };
        let mut request = Self::new(messages(list(fields, "messages")?, "messages")?);
        request.context = messages(list(fields, "context")?, "context")?;
        request.tools = list(fields, "tools")?.to_vec();
        request.revision = revision(options)?;
        request.thinking = thinking(options, request.revision)?;
        request.drop_thinking = flag(options, "drop_thinking", true)?;
        request.bos = flag(options, "add_default_bos_token", true)?;
        request.escape_closing_tags = false;
        Ok(request)
    }
}

impl TryFrom<Value> for ChatRequest {
    type Error = Error;

    fn try_from(row: Value) -> Result<Self> {
        Self::from_fixture(&row)
    }
}

impl Role {
    fn from_name(name: &str) -> Self {
        match name {
            "system" => Self::System,
            "user" => Self::User,
            "assistant" => Self::Assistant,
            "tool" => Self::Tool,
            "developer" => Self::Developer,
            "latest_reminder" => Self::LatestReminder,
            other => Self::Other(other.to_owned()),
        }
    }
}

impl Message {
    /// A message that only says something.
    pub fn new(role: Role, content: impl Into<Content>) -> Self {
        Self {
            role,
            content: content.into(),
            reasoning: String::new(),
            tool_calls: Vec::new(),
            tool_call_id: None,
            tools: Vec::new(),
            response_format: None,
            task: None,
            wo_eos: false,
            sampled: Sampled::default(),
        }
    }

    /// Reads a message in the form of the OpenAI API and the fixtures.
    pub fn from_json(message: &Value) -> Result<Self> {
        let fields = message.as_object().ok_or_else(|| unexpected("message", message, "an object"))?;
        let role = match fields.get("role") {
            Some(Value::String(name)) => Role::from_name(name),
            other => return Err(unexpected("role", other.unwrap_or(&Value::Null), "a role name")),
        };
        let content = match fields.get("content") {
            None => Content::Missing,
            Some(Value::Null) => Content::Null,
            Some(Value::String(text)) => Content::Text(text.clone()),
            Some(Value::Array(parts)) => Content::Parts(parts.clone()),
            Some(other) => Content::Unusable(other.clone()),
        };
        let calls = list(fields, "tool_calls")?;
        let call = |(i, call)| ToolCall::from_json(call).map_err(|e| e.within(&format!("tool_calls[{i}]")));
        Ok(Self {
            reasoning: text(fields, "reasoning_content")?.unwrap_or_default(),
            tool_calls: calls.iter().enumerate().map(call).collect::<Result<_>>()?,
            tool_call_id: identifier(fields, "tool_call_id"),
            tools: list(fields, "tools")?.to_vec(),
            response_format: fields.get("response_format").filter(|v| !v.is_null()).cloned(),
            task: text(fields, "task")?,
            wo_eos: flag(fields, "wo_eos", false)?,
            ..Self::new(role, "")
        }
        .saying(content))
    }

    fn saying(mut self, content: Content) -> Self {
        self.content = content;
        self
    }
}

impl TryFrom<Value> for Message {
    type Error = Error;

    fn try_from(message: Value) -> Result<Self> {
        Self::from_json(&message)
    }
}

impl ToolCall {
    /// Reads `{"id"?, "function": {"name", "arguments", "id"?}}`.
    pub fn from_json(call: &Value) -> Result<Self> {
        let function = match call.get("function") {
            Some(Value::Object(function)) => function,
            other => return Err(unexpected("function", other.unwrap_or(&Value::Null), "an object")),
        };
        let name = text(function, "name")?;
        let name = name.ok_or_else(|| Error::request("function.name", "null", "a string"))?;
        let arguments = function.get("arguments");
        let arguments = arguments.ok_or_else(|| Error::request("function.arguments", "nothing", "a JSON text"))?;
        let id = call.as_object().and_then(|call| identifier(call, "id"));
        Ok(Self { id: id.or_else(|| identifier(function, "id")), name, arguments: arguments.clone() })
    }
}

fn messages(list: &[Value], name: &str) -> Result<Vec<Message>> {
    let read = |(i, m)| Message::from_json(m).map_err(|e| e.within(&format!("{name}[{i}]")));
    list.iter().enumerate().map(read).collect()
}

fn revision(options: &Map<String, Value>) -> Result<Revision> {
    match text(options, "profile")?.as_deref() {
        None | Some("preview") => Ok(Revision::Preview),
        Some("0731") => Ok(Revision::R0731),
        Some(other) => Err(Error::request("options.profile", shown(other), "\"preview\" or \"0731\"")),
    }
}

/// The effort is checked in either mode, as in the reference, but only thinking uses it.
fn thinking(options: &Map<String, Value>, revision: Revision) -> Result<Thinking> {
    let effort = match (text(options, "reasoning_effort")?.as_deref(), revision) {
        (None, Revision::Preview) | (Some("high"), _) => Thinking::High,
        (None | Some("low"), Revision::R0731) => Thinking::Low,
        (Some("max"), _) => Thinking::Max,
        (Some(other), _) => {
            let expected = match revision {
                Revision::Preview => "\"high\" or \"max\"",
                Revision::R0731 => "\"low\", \"high\" or \"max\"",
            };
            return Err(Error::request("options.reasoning_effort", shown(other), expected));
        }
    };
    match text(options, "thinking_mode")?.as_deref() {
        None | Some("thinking") => Ok(effort),
        Some("chat") => Ok(Thinking::None),
        Some(other) => Err(Error::request("options.thinking_mode", shown(other), "\"chat\" or \"thinking\"")),
    }
}

/// Missing and null count as the empty list.
fn list<'a>(fields: &'a Map<String, Value>, name: &str) -> Result<&'a [Value]> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(items)) => Ok(items),
        Some(other) => Err(unexpected(name, other, "a list")),
    }
}

fn text(fields: &Map<String, Value>, name: &str) -> Result<Option<String>> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => Err(unexpected(name, other, "a string")),
    }
}

fn flag(fields: &Map<String, Value>, name: &str, default: bool) -> Result<bool> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(default),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(other) => Err(unexpected(name, other, "true or false")),
    }
}

/// Only compared with other identifiers, so a number may stand for its spelling. The empty text identifies nothing.
fn identifier(fields: &Map<String, Value>, name: &str) -> Option<String> {
    match fields.get(name)? {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
    .filter(|id| !id.is_empty())
}

fn unexpected(place: &str, found: &Value, expected: &str) -> Error {
    let found = match found {
        Value::String(text) => shown(text),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        plain => plain.to_string(),
    };
    Error::request(place, found, expected)
}
