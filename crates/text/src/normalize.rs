//! What happens to the list of messages before it is rendered (`spec/prompt.md` 7): merging into user turns, ordering of tool
//! results, forgetting of old reasoning. Owns these four steps; writes no text.

use std::collections::HashMap;

use crate::{
    chat::{ChatRequest, Content, Message, Role},
    error::{Error, Result, shown},
};

/// A message with its place among all, and what merging made of it.
pub(crate) struct Item<'a> {
    /// `messages[3]`, for errors.
    pub(crate) place: String,
    /// As rendered: a tool result is a user turn.
    pub(crate) role: &'a Role,
    pub(crate) message: &'a Message,
    /// Of a user turn.
    pub(crate) blocks: Vec<Block<'a>>,
    pub(crate) task: Option<&'a str>,
    /// Cleared by dropping.
    pub(crate) reasoning: &'a str,
}

/// A part of a user turn.
pub(crate) enum Block<'a> {
    Text(&'a str),
    Result { id: Option<&'a str>, body: String },
}

/// The messages to render and what their rendering depends on.
pub(crate) struct Conversation<'a> {
    /// Context first.
    pub(crate) items: Vec<Item<'a>>,
    /// Items before this one are not rendered.
    pub(crate) first: usize,
    /// Index of the last user or developer item.
    pub(crate) last_user: Option<usize>,
    pub(crate) drop_thinking: bool,
}

impl<'a> Conversation<'a> {
    /// `messages` are those of the request with the request's tools put in place.
    pub(crate) fn new(request: &'a ChatRequest, messages: &'a [Message]) -> Result<Self> {
        let mut items = merge(&request.context, "context")?;
        let mut first = items.len();
        items.extend(merge(messages, "messages")?);
        order_results(&mut items);
        let drop_thinking = request.drop_thinking && !items.iter().any(|item| !item.tools().is_empty());
        if request.thinking.is_on() && drop_thinking {
            // The context shrinks by its own rule, as if nothing followed it.
            let (context, whole) = (last_user(&items[..first]), last_user(&items));
            first = (0..first).filter(|&i| stays(items[i].role, i, context)).count();
            items = forget(items, whole);
        }
        let last_user = last_user(&items);
        Ok(Self { items, first, last_user, drop_thinking })
    }
}

impl<'a> Item<'a> {
    /// Merging loses the tools of user messages.
    pub(crate) fn tools(&self) -> &'a [serde_json::Value] {
        if *self.role == Role::User { &[] } else { &self.message.tools }
    }
}

fn last_user(items: &[Item<'_>]) -> Option<usize> {
    items.iter().rposition(|item| matches!(item.role, Role::User | Role::Developer))
}

/// Step 1.
fn merge<'a>(messages: &'a [Message], list: &str) -> Result<Vec<Item<'a>>> {
    let mut items: Vec<Item<'a>> = Vec::new();
    for (i, message) in messages.iter().enumerate() {
        let place = format!("{list}[{i}]");
        let is_result = message.role == Role::Tool;
        let block = match message.role {
            Role::Tool => Block::Result { id: message.tool_call_id.as_deref(), body: result_body(message, &place)? },
            Role::User => Block::Text(user_text(message, &place)?),
            _ => {
                let (task, reasoning) = (message.task.as_deref(), message.reasoning.as_str());
                items.push(Item { place, role: &message.role, message, blocks: Vec::new(), task, reasoning });
                continue;
            }
        };
        match items.last_mut() {
            Some(last) if *last.role == Role::User && (is_result || last.task.is_none()) => last.blocks.push(block),
            _ => {
                let task = if is_result { None } else { message.task.as_deref() };
                items.push(Item { place, role: &Role::User, message, blocks: vec![block], task, reasoning: "" });
            }
        }
    }
    Ok(items)
}

fn user_text<'a>(message: &'a Message, place: &str) -> Result<&'a str> {
    match &message.content {
        Content::Missing => Ok(""),
        Content::Text(text) => Ok(text),
        other => Err(other.refused(place, "a text")),
    }
}

/// Parts that are no text are named, not shown.
fn result_body(message: &Message, place: &str) -> Result<String> {
    let parts = match &message.content {
        Content::Missing => return Ok(String::new()),
        Content::Text(text) => return Ok(text.clone()),
        Content::Parts(parts) => parts,
        other => return Err(other.refused(place, "a text or a list of parts")),
    };
    let mut body = String::new();
    for (i, part) in parts.iter().enumerate() {
        body.push_str(if i == 0 { "" } else { "\n\n" });
        let field = |name| part.get(name).map(serde_json::Value::as_str);
        match (field("type"), field("text")) {
            (Some(Some("text")), None) => {}
            (Some(Some("text")), Some(Some(text))) => body.push_str(text),
            (Some(Some("text")), Some(None)) => {
                return Err(Error::request(format!("{place}.content[{i}].text"), "no string", "a string"));
            }
            (Some(Some(kind)), _) => body.extend(["[Unsupported ", kind, "]"]),
            _ => return Err(Error::request(format!("{place}.content[{i}].type"), "no string", "a type name")),
        }
    }
    Ok(body)
}

impl Content {
    /// The error for content that its role cannot have.
    pub(crate) fn refused(&self, place: &str, expected: &str) -> Error {
        let found = match self {
            Self::Missing => "nothing".to_owned(),
            Self::Null => "null".to_owned(),
            Self::Text(text) => shown(text),
            Self::Parts(_) => "a list of parts".to_owned(),
            Self::Unusable(value) => shown(&value.to_string()),
        };
        Error::request(format!("{place}.content"), found, expected)
    }
}

/// Step 2: results take the order of the calls they answer; texts between them stay where they are.
fn order_results(items: &mut [Item<'_>]) {
    let mut order: HashMap<&str, usize> = HashMap::new();
    for item in items {
        let calls = &item.message.tool_calls;
        if *item.role == Role::Assistant && !calls.is_empty() {
            let ids = calls.iter().enumerate().filter_map(|(i, call)| Some((call.id.as_deref()?, i)));
            order = ids.collect();
        }
        let rank = |block: &Block<'_>| match block {
            Block::Text(_) => None,
            Block::Result { id, .. } => Some(id.and_then(|id| order.get(id)).copied().unwrap_or(0)),
        };
        let slots: Vec<usize> = (0..item.blocks.len()).filter(|&i| rank(&item.blocks[i]).is_some()).collect();
        if slots.len() < 2 || order.is_empty() {
            continue;
        }
        let mut results: Vec<Block<'_>> = Vec::with_capacity(slots.len());
        for &slot in &slots {
            results.push(std::mem::replace(&mut item.blocks[slot], Block::Text("")));
        }
        results.sort_by_key(|block| rank(block));
        for (slot, result) in slots.into_iter().zip(results) {
            item.blocks[slot] = result;
        }
    }
}

/// Step 4.
fn forget(items: Vec<Item<'_>>, last_user: Option<usize>) -> Vec<Item<'_>> {
    let mut kept = Vec::with_capacity(items.len());
    for (i, mut item) in items.into_iter().enumerate() {
        if stays(item.role, i, last_user) {
            if last_user.is_some_and(|last| i < last) {
                item.reasoning = "";
            }
            kept.push(item);
        }
    }
    kept
}

/// Whether dropping leaves the message itself alone.
fn stays(role: &Role, i: usize, last_user: Option<usize>) -> bool {
    let old = last_user.is_some_and(|last| i < last);
    !old || match role {
        Role::User | Role::System | Role::Assistant | Role::LatestReminder => true,
        Role::Other(name) => name == "direct_search_results",
        Role::Developer | Role::Tool => false,
    }
}
