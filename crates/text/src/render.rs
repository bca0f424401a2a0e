//! Chat requests to prompt text by the official rules (`spec/prompt.md` 8 to 14). Owns the order and the wording of everything
//! the template writes; the texts themselves are the files in `constants/`.

use std::borrow::Cow;

use serde_json::Value;

use crate::{
    chat::{ChatRequest, Content, Message, Revision, Role, Thinking},
    control::{ASSISTANT, BOS, EOS, LATEST_REMINDER, TASKS, THINK, THINK_END, USER},
    error::{Error, Result, shown},
    json::{Fault, Json, MAX_DEPTH},
    normalize::{Block, Conversation, Item},
    prompt::Prompt,
};

mod dsml;

/// The prompt of a request: everything up to the point where the model continues.
///
/// Errors: a role or content that has no rendering, a tool without `function`, arguments that are JSON but no object, an
/// unknown task or effort, JSON nested too deeply.
pub fn render(request: &ChatRequest) -> Result<Prompt> {
    let effort = effort(request)?;
    let messages = with_tools(request);
    let conversation = Conversation::new(request, &messages)?;
    let mut writer = Writer { request, conversation: &conversation, prompt: Prompt::new() };
    if request.bos && request.context.is_empty() {
        writer.template(BOS);
    }
    if request.context.is_empty() && !conversation.items.is_empty() {
        writer.template(effort);
    }
    for i in conversation.first..conversation.items.len() {
        writer.message(i)?;
        writer.transition(i)?;
    }
    Ok(writer.prompt)
}

const TOOLS_SECTION: &str = include_str!("constants/tools_section.txt");
const RESPONSE_FORMAT: &str = include_str!("constants/response_format.txt");
/// The text of preview's `max` and 0731's `high`.
const EFFORT_MAX: &str = include_str!("constants/effort_preview_max.txt");
const EFFORT_0731_MAX: &str = include_str!("constants/effort_0731_max.txt");

/// The text before everything but BOS (`spec/prompt.md` 9).
fn effort(request: &ChatRequest) -> Result<&'static str> {
    match (request.revision, request.thinking) {
        (_, Thinking::None) | (Revision::Preview, Thinking::High) | (Revision::R0731, Thinking::Low) => Ok(""),
        (Revision::Preview, Thinking::Max) | (Revision::R0731, Thinking::High) => Ok(EFFORT_MAX),
        (Revision::R0731, Thinking::Max) => Ok(EFFORT_0731_MAX),
        (Revision::Preview, Thinking::Low) => {
            Err(Error::request("thinking", "effort \"low\"", "\"high\" or \"max\" with the preview texts"))
        }
    }
}

/// The request's own tools belong to the first message, or to an empty system message before it (`spec/prompt.md` 10).
fn with_tools(request: &ChatRequest) -> Cow<'_, [Message]> {
    if request.tools.is_empty() {
        return Cow::Borrowed(&request.messages);
    }
    let mut messages = request.messages.clone();
    if !matches!(messages.first(), Some(m) if matches!(m.role, Role::System | Role::Developer)) {
        messages.insert(0, Message::new(Role::System, ""));
    }
    messages[0].tools.extend_from_slice(&request.tools);
    Cow::Owned(messages)
}

struct Writer<'a> {
    request: &'a ChatRequest,
    conversation: &'a Conversation<'a>,
    prompt: Prompt,
}

impl Writer<'_> {
    fn template(&mut self, text: &str) {
        self.prompt.push_template(text);
    }

    fn untrusted(&mut self, text: &str) {
        self.prompt.push_untrusted(text);
    }

    fn thinking(&self) -> bool {
        self.request.thinking.is_on()
    }

    fn message(&mut self, i: usize) -> Result<()> {
        let conversation = self.conversation;
        let item = &conversation.items[i];
        match item.role {
            Role::System => self.untrusted(plain_content(item)?),
            Role::Developer => {
                let content = plain_content(item)?;
                if content.is_empty() {
                    return Err(Error::request(format!("{}.content", item.place), "no text", "a text"));
                }
                self.template(USER);
                self.untrusted(content);
            }
            Role::User => {
                self.template(USER);
                self.blocks(&item.blocks);
            }
            Role::LatestReminder => {
                let Content::Text(text) = &item.message.content else {
                    return Err(item.message.content.refused(&item.place, "a text"));
                };
                self.template(LATEST_REMINDER);
                self.untrusted(text);
            }
            Role::Assistant => return self.assistant(i),
            Role::Tool => unreachable!("merging made results user turns"),
            Role::Other(name) => {
                let expected = "system, user, assistant, tool, developer or latest_reminder";
                return Err(Error::request(format!("{}.role", item.place), shown(name), expected));
            }
        }
        if matches!(item.role, Role::System | Role::Developer) {
            self.sections(item)?;
        }
        Ok(())
    }

    fn blocks(&mut self, blocks: &[Block<'_>]) {
        for (i, block) in blocks.iter().enumerate() {
            self.template(if i == 0 { "" } else { "\n\n" });
            match block {
                Block::Text(text) => self.untrusted(text),
                Block::Result { body, .. } => {
                    self.template("<tool_result>");
                    let close = "</tool_result>";
                    if self.request.escape_closing_tags {
                        self.untrusted(&body.replace(close, "&lt;/tool_result>"));
                    } else {
                        self.untrusted(body);
                    }
                    self.template(close);
                }
            }
        }
    }

    fn sections(&mut self, item: &Item<'_>) -> Result<()> {
        if !item.tools().is_empty() {
            let mut schemas = Vec::new();
            for (i, tool) in item.tools().iter().enumerate() {
                let place = format!("{}.tools[{i}].function", item.place);
                let function = tool.get("function").ok_or_else(|| Error::request(&*place, "nothing", "an object"))?;
                schemas.push(dump(function, &place)?);
            }
            self.section(TOOLS_SECTION, "{tool_schemas}", &schemas.join("\n"));
        }
        if let Some(format) = item.message.response_format.as_ref().filter(|v| !is_empty(v)) {
            let schema = dump(format, &format!("{}.response_format", item.place))?;
            self.section(RESPONSE_FORMAT, "{schema}", &schema);
        }
        Ok(())
    }

    /// A constant text with something in place of its one marker.
    fn section(&mut self, text: &str, marker: &str, inserted: &str) {
        let (before, after) = text.split_once(marker).expect("the constant holds its marker");
        self.template("\n\n");
        self.template(before);
        self.untrusted(inserted);
        self.template(after);
    }

    fn assistant(&mut self, i: usize) -> Result<()> {
        let conversation = self.conversation;
        let item = &conversation.items[i];
        let after_task = i > 0 && conversation.items[i - 1].task.is_some();
        let keeps = !conversation.drop_thinking || conversation.last_user.is_none_or(|last| i > last);
        let sampled = &item.message.sampled;
        if self.thinking() && keeps && !after_task {
            match &sampled.reasoning {
                Some(exact) => self.prompt.push_exact(exact),
                None => self.untrusted(item.reasoning),
            }
            self.template(THINK_END);
        }
        let content = plain_content(item)?;
        if let Some(exact) = &sampled.answer {
            self.prompt.push_exact(exact);
        } else {
            self.untrusted(content);
            if !item.message.tool_calls.is_empty() {
                dsml::write_block(&mut self.prompt, &item.message.tool_calls, self.request.escape_closing_tags)
                    .map_err(|e| e.within(&item.place))?;
            }
        }
        if !item.message.wo_eos {
            self.template(EOS);
        }
        Ok(())
    }

    /// What follows a message, as the next one decides.
    fn transition(&mut self, i: usize) -> Result<()> {
        let conversation = self.conversation;
        let item = &conversation.items[i];
        let next = conversation.items.get(i + 1).map(|next| next.role);
        if next.is_some_and(|role| !matches!(role, Role::Assistant | Role::LatestReminder)) {
            return Ok(());
        }
        if let Some(task) = item.task {
            let Some((_, token)) = TASKS.iter().find(|(name, _)| *name == task) else {
                let names: Vec<_> = TASKS.iter().map(|(name, _)| *name).collect();
                return Err(Error::request(format!("{}.task", item.place), shown(task), names.join(", ")));
            };
            if task == "action" {
                self.template(ASSISTANT);
                self.template(if self.thinking() { THINK } else { THINK_END });
            }
            self.template(token);
        } else if matches!(item.role, Role::User | Role::Developer) {
            let current = !conversation.drop_thinking || conversation.last_user.is_none_or(|last| i >= last);
            self.template(ASSISTANT);
            self.template(if self.thinking() && current { THINK } else { THINK_END });
        }
        Ok(())
    }
}

/// Text of a message whose missing or null content is empty.
fn plain_content<'a>(item: &Item<'a>) -> Result<&'a str> {
    match &item.message.content {
        Content::Missing | Content::Null => Ok(""),
        Content::Text(text) => Ok(text),
        other => Err(other.refused(&item.place, "a text")),
    }
}

fn dump(value: &Value, place: &str) -> Result<String> {
    let json = Json::from_value(value).map_err(|fault| unwritable(fault, place))?;
    Ok(json.dump())
}

fn unwritable(fault: Fault, place: &str) -> Error {
    match fault {
        Fault::Depth => {
            let expected = format!("at most {MAX_DEPTH} arrays and objects inside one another");
            Error::request(place, "deeper JSON", expected)
        }
        Fault::Surrogate => Error::request(place, "half a surrogate pair", "whole characters"),
        Fault::Syntax => Error::request(place, "no JSON", "JSON"),
    }
}

/// Python's idea of a value that counts as none.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}
