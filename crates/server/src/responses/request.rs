//! A responses body to an order (server.md 8.1).

use std::sync::Arc;

use ds4_text::{Message, Role};
use serde_json::{Value, json};

use super::{items, not_found, tools};
use crate::app::{App, fresh_id};
use crate::error::{ApiError, Result};
use crate::fields::Fields;
use crate::history::MAX_ITEMS;
use crate::order::{Order, Source, output_limit};

/// What was asked.
pub(super) struct Request {
    pub(super) order: Order,
    /// The whole input, that of the previous response included.
    pub(super) items: Vec<Arc<Value>>,
    /// Later requests may refer to the response.
    pub(super) store: bool,
    /// Old turns may be left out.
    pub(super) truncates: bool,
}

/// Reads the whole request.
pub(super) fn read(body: &Fields<'_>, app: &App) -> Result<Request> {
    refuse(body)?;
    let limit = output_limit(body, &["max_output_tokens", "max_tokens", "max_completion_tokens"])?;
    let mut order = Order::read(body, &app.config, limit)?;
    order.n = 1;
    order.tools = tools::read(body, &mut order.warnings)?;
    let items = input(body, app, &order.tenant)?;
    let mut reader = items::Reader::new(app, &order.tenant);
    if let Some(text) = body.text("instructions")? {
        reader.history.system(text);
    }
    for (i, item) in items.iter().enumerate() {
        reader.item(&body.item("input", i, item)?)?;
    }
    for tool in reader.found {
        if !order.tools.iter().any(|known| known.name == tool.name) {
            order.tools.push(tool);
        }
    }
    let continued = reader.history.is_continued();
    order.source = Source::Chat { messages: reader.history.into_messages(), continued };
    order.choice = tools::choice(body, &order.tools)?;
    order.parallel = body.flag("parallel_tool_calls")?.unwrap_or(true);
    order.format = tools::format(body)?;
    order.logprobs = logprobs(body)?;
    let truncates = match body.text("truncation")? {
        None | Some("disabled") => false,
        Some("auto") => true,
        Some(_) => return Err(body.wrong("truncation", "\"auto\" or \"disabled\"")),
    };
    Ok(Request { order, items, store: body.flag("store")?.unwrap_or(true), truncates })
}

/// Fields that would change the answer and cannot be honoured.
fn refuse(body: &Fields<'_>) -> Result<()> {
    for name in ["conversation", "prompt"] {
        if body.get(name).is_some() {
            return Err(ApiError::unsupported(name, format!("{name} is not supported: send the input itself")));
        }
    }
    if body.flag("background")?.unwrap_or(false) {
        return Err(ApiError::unsupported("background", "background responses are not supported"));
    }
    body.integer("max_tool_calls", 1, i64::from(u32::MAX))?;
    body.object("metadata")?;
    body.object("reasoning")?;
    Ok(())
}

/// What came before, and what is new, every item with an id.
fn input(body: &Fields<'_>, app: &App, tenant: &str) -> Result<Vec<Arc<Value>>> {
    let mut items = Vec::new();
    if let Some(id) = body.text("previous_response_id")? {
        let entry = app.responses.get(tenant, id).ok_or_else(|| not_found(id))?;
        items.extend(entry.input.iter().chain(&entry.output).map(Arc::clone));
    }
    match body.get("input") {
        None => return Err(body.missing("input")),
        Some(Value::String(text)) => {
            let content = json!([{"type": "input_text", "text": text}]);
            let id = fresh_id("msg_", 12);
            items.push(Arc::new(json!({"id": id, "type": "message", "role": "user", "content": content})));
        }
        Some(Value::Array(new)) => items.extend(new.iter().map(|item| Arc::new(with_id(item)))),
        Some(_) => return Err(body.wrong("input", "a string or an array of items")),
    }
    if items.is_empty() || items.len() > MAX_ITEMS {
        return Err(body.wrong("input", &format!("a string or an array of 1 to {MAX_ITEMS} items")));
    }
    Ok(items)
}

fn with_id(item: &Value) -> Value {
    let mut item = item.clone();
    if let Value::Object(members) = &mut item
        && members.get("id").is_none_or(Value::is_null)
    {
        members.insert("id".to_owned(), fresh_id("item_", 12).into());
    }
    item
}

fn logprobs(body: &Fields<'_>) -> Result<Option<usize>> {
    let top = body.integer("top_logprobs", 0, 20)?.unwrap_or(0) as usize;
    let include = body.list("include")?.unwrap_or_default();
    Ok(include.iter().any(|item| item == "message.output_text.logprobs").then_some(top))
}

/// Messages of the system region, and where turns of the user begin, the first message behind it included.
pub(super) fn turns(messages: &[Message]) -> (usize, Vec<usize>) {
    let head = usize::from(messages.first().is_some_and(|m| m.role == Role::System));
    let starts = (head..messages.len()).filter(|&i| i == head || messages[i].role == Role::User);
    (head, starts.collect())
}
