//! A messages body to an order (server.md 9.1, 9.2).

use std::collections::HashMap;

use ds4_text::ToolCall;
use serde_json::{Map, Value};

use crate::app::App;
use crate::error::{ApiError, Result};
use crate::fields::{Fields, kind};
use crate::history::{History, MAX_ITEMS, text_part};
use crate::openai::request::{MAX_TOOLS, check_choice, schema, tool_name};
use crate::order::{Choice, Format, Order, Source, Tool, output_limit, stop};

/// Reads the whole request.
pub(super) fn read(body: &Fields<'_>, app: &App) -> Result<Order> {
    let limit = output_limit(body, &["max_tokens"])?;
    let mut order = Order::read(body, &app.config, limit)?;
    order.n = 1;
    order.stop.extend(stop(body, "stop_sequences")?);
    let mut reader = Reader { app, history: History::new(app), hidden: HashMap::new(), found: Vec::new() };
    order.tools = reader.tools(body, &mut order.warnings)?;
    if let Some(text) = system_text(body, "system")? {
        reader.history.system(&text);
    }
    reader.messages(body)?;
    order.tools.append(&mut reader.found);
    let continued = reader.history.is_continued();
    order.source = Source::Chat { messages: reader.history.into_messages(), continued };
    order.choice = choice(body, &order.tools)?;
    if let Some(choice) = body.object("tool_choice")? {
        order.parallel = !choice.flag("disable_parallel_tool_use")?.unwrap_or(false);
    }
    order.format = format(body)?;
    Ok(order)
}

/// Whether the client wants the reasoning without its text.
pub(super) fn omits_thinking(body: &Fields<'_>) -> Result<bool> {
    let Some(Value::Object(_)) = body.get("thinking") else { return Ok(false) };
    let thinking = body.object("thinking")?.expect("it is one");
    match thinking.text("display")? {
        None | Some("summarized" | "full") => Ok(false),
        Some("omitted") => Ok(true),
        Some(_) => Err(thinking.wrong("display", "\"summarized\" or \"omitted\"")),
    }
}

struct Reader<'a> {
    app: &'a App,
    history: History<'a>,
    /// Tools that the model does not know before a search found them.
    hidden: HashMap<String, Tool>,
    /// Those that one found.
    found: Vec<Tool>,
}

impl Reader<'_> {
    /// The tools that are shown; server tools are passed over with a warning.
    fn tools(&mut self, body: &Fields<'_>, warnings: &mut Vec<String>) -> Result<Vec<Tool>> {
        let declared = body.objects("tools")?;
        if declared.len() > MAX_TOOLS {
            return Err(ApiError::invalid("tools", format!("at most {MAX_TOOLS} tools, got {}", declared.len())));
        }
        let mut tools = Vec::new();
        for tool in &declared {
            if let Some(other) = tool.text("type")?.filter(|kind| *kind != "custom") {
                warnings.push(format!("ignored server tool {other}"));
                continue;
            }
            let read = client_tool(tool)?;
            if tool.flag("defer_loading")?.unwrap_or(false) {
                self.hidden.insert(read.name.clone(), Tool { found: true, ..read });
            } else {
                tools.push(read);
            }
        }
        Ok(tools)
    }

    fn messages(&mut self, body: &Fields<'_>) -> Result<()> {
        let items = body.list("messages")?.ok_or_else(|| body.missing("messages"))?;
        if items.is_empty() || items.len() > MAX_ITEMS {
            return Err(body.wrong("messages", &format!("an array of 1 to {MAX_ITEMS} messages")));
        }
        for (i, item) in items.iter().enumerate() {
            let message = body.item("messages", i, item)?;
            match message.text("role")?.ok_or_else(|| message.missing("role"))? {
                "user" => self.user(&message)?,
                "assistant" => self.assistant(&message)?,
                "system" => {
                    let text = system_text(&message, "content")?.ok_or_else(|| message.missing("content"))?;
                    self.history.system(&text);
                }
                _ => return Err(message.wrong("role", "user, assistant or system")),
            }
        }
        Ok(())
    }

    fn user(&mut self, message: &Fields<'_>) -> Result<()> {
        if let Some(text) = message.get("content").and_then(Value::as_str) {
            self.history.user(text);
            return Ok(());
        }
        let blocks = contents(message)?;
        let mut text: Option<String> = None;
        for block in &blocks {
            if block.text("type")? != Some("tool_result") {
                text.get_or_insert_default().push_str(&self.block_text(block)?);
                continue;
            }
            if let Some(text) = text.take() {
                self.history.user(&text);
            }
            let id = block.text("tool_use_id")?.ok_or_else(|| block.missing("tool_use_id"))?;
            let mut result = self.result_text(block)?;
            if result.is_empty() && block.flag("is_error")?.unwrap_or(false) {
                "[tool error]".clone_into(&mut result);
            }
            self.history.result(id, &result, block.path("tool_use_id"))?;
        }
        match text {
            Some(text) => self.history.user(&text),
            None if blocks.is_empty() => self.history.user(""),
            None => {}
        }
        Ok(())
    }

    fn assistant(&mut self, message: &Fields<'_>) -> Result<()> {
        if let Some(text) = message.get("content").and_then(Value::as_str) {
            self.history.assistant(text, Vec::new());
            return Ok(());
        }
        for block in &contents(message)? {
            match block.text("type")? {
                Some("thinking") => self.thinking(block.text("thinking")?, block.text("signature")?),
                Some("redacted_thinking") => self.thinking(None, block.text("data")?),
                Some("tool_use") => self.history.assistant("", vec![call(block)?]),
                Some("server_tool_use") => {
                    let called = call(block)?;
                    let text = format!("[{} {}]\n", called.name, called.arguments.as_str().unwrap_or_default());
                    self.history.assistant(&text, Vec::new());
                }
                Some(kind) if kind.ends_with("_tool_result") => {
                    let text = format!("[result: {}]\n", self.result_text(block)?);
                    self.history.assistant(&text, Vec::new());
                }
                _ => {
                    let text = self.block_text(block)?;
                    self.history.assistant(&text, Vec::new());
                }
            }
        }
        Ok(())
    }

    /// Reasoning of an earlier turn. Our signature says more than the text, which the client may not have got.
    fn thinking(&mut self, text: Option<&str>, signature: Option<&str>) {
        match signature.and_then(|blob| self.app.unsealed(blob)) {
            Some(exact) => self.history.reasoning(&exact.text.clone(), Some(exact)),
            None => self.history.reasoning(text.unwrap_or_default(), None),
        }
    }

    /// The text of a block that is no call and no result.
    fn block_text(&mut self, block: &Fields<'_>) -> Result<String> {
        match block.text("type")? {
            Some("search_result") => {
                let title = block.text("title")?.unwrap_or_default();
                let source = block.text("source")?.unwrap_or_default();
                Ok(format!("{title}\n{source}\n{}\n", self.result_text(block)?))
            }
            Some("document") => match block.object("source")? {
                Some(source) if source.text("type")? == Some("text") => {
                    let title = block.text("title")?.map(|title| format!("{title}\n")).unwrap_or_default();
                    Ok(title + source.text("data")?.ok_or_else(|| source.missing("data"))?)
                }
                Some(source) if source.text("type")? == Some("content") => self.result_text(&source),
                _ => text_part(block).map(str::to_owned),
            },
            Some("tool_reference") => {
                let name = block.text("tool_name")?.ok_or_else(|| block.missing("tool_name"))?;
                Ok(self.reference(name))
            }
            _ => text_part(block).map(str::to_owned),
        }
    }

    /// The text of a block's `content`. What server tools return beside text and references is shown as JSON.
    fn result_text(&mut self, block: &Fields<'_>) -> Result<String> {
        match block.get("content") {
            None => Ok(String::new()),
            Some(Value::String(text)) => Ok(text.clone()),
            Some(Value::Array(_)) => {
                let mut text = String::new();
                for part in &block.objects("content")? {
                    text.push_str(&match part.text("type")? {
                        Some(kind) if kind.ends_with("_result") && kind != "search_result" => {
                            Value::Object(part.map.clone()).to_string()
                        }
                        _ => self.block_text(part)?,
                    });
                }
                Ok(text)
            }
            Some(Value::Object(map)) => {
                let content = block.object("content")?.expect("it is one");
                if content.list("tool_references")?.is_none() {
                    return Ok(Value::Object(map.clone()).to_string());
                }
                let references = content.objects("tool_references")?;
                references.iter().map(|reference| self.block_text(reference)).collect()
            }
            Some(other) => Err(block.wrong("content", &format!("a string or an array of blocks, not {}", kind(other)))),
        }
    }

    /// A hidden tool becomes known where a search found it.
    fn reference(&mut self, name: &str) -> String {
        match self.hidden.remove(name) {
            Some(tool) => {
                let text = format!("{}\n", tool.function);
                self.found.push(tool);
                text
            }
            None => format!("{name}\n"),
        }
    }
}

/// A system text: blocks are lines, and what clients count requests with is no part of it.
fn system_text(place: &Fields<'_>, name: &str) -> Result<Option<String>> {
    let lines = match place.get(name) {
        None => return Ok(None),
        Some(Value::String(text)) => vec![text.as_str()],
        Some(Value::Array(_)) => place.objects(name)?.iter().map(text_part).collect::<Result<_>>()?,
        Some(_) => return Err(place.wrong(name, "a string or an array of text blocks")),
    };
    let kept: Vec<&str> = lines.into_iter().filter(|line| !line.starts_with("x-anthropic-")).collect();
    Ok(Some(kept.join("\n")))
}

/// The blocks of a message.
fn contents<'a>(message: &'a Fields<'a>) -> Result<Vec<Fields<'a>>> {
    match message.get("content") {
        Some(Value::Array(_)) => message.objects("content"),
        None => Err(message.missing("content")),
        Some(_) => Err(message.wrong("content", "a string or an array of blocks")),
    }
}

fn call(block: &Fields<'_>) -> Result<ToolCall> {
    let id = block.text("id")?.ok_or_else(|| block.missing("id"))?;
    let name = block.text("name")?.ok_or_else(|| block.missing("name"))?;
    let input = match block.get("input") {
        None => "{}".to_owned(),
        Some(object @ Value::Object(_)) => object.to_string(),
        Some(Value::String(text)) if text.is_empty() => "{}".to_owned(),
        Some(_) => return Err(block.wrong("input", "an object")),
    };
    Ok(ToolCall { id: Some(id.to_owned()), name: name.to_owned(), arguments: Value::String(input) })
}

/// `{"name", "description"?, "input_schema"}`.
fn client_tool(tool: &Fields<'_>) -> Result<Tool> {
    let name = tool_name(tool)?;
    tool.text("description")?;
    let mut function = Map::new();
    for (key, value) in tool.map {
        let shown = match key.as_str() {
            "name" | "description" => key.as_str(),
            "input_schema" if value.is_object() => "parameters",
            "input_schema" => return Err(tool.wrong("input_schema", "an object")),
            _ => continue,
        };
        if !value.is_null() {
            function.insert(shown.to_owned(), value.clone());
        }
    }
    let strict = tool.flag("strict")?.unwrap_or(false);
    let function = Value::Object(function);
    Ok(Tool { name, namespace: None, custom: false, search: false, strict, found: false, function })
}

fn choice(body: &Fields<'_>, tools: &[Tool]) -> Result<Choice> {
    let Some(choice) = body.object("tool_choice")? else { return Ok(Choice::Auto) };
    let read = match choice.text("type")? {
        Some("auto") => Choice::Auto,
        Some("any") => Choice::Required,
        Some("none") => Choice::None,
        Some("tool") => Choice::Named(choice.text("name")?.ok_or_else(|| choice.missing("name"))?.to_owned()),
        _ => return Err(choice.wrong("type", "\"auto\", \"any\", \"tool\" or \"none\"")),
    };
    check_choice(&read, tools)?;
    Ok(read)
}

fn format(body: &Fields<'_>) -> Result<Format> {
    let read = |form: &Fields<'_>| match form.text("type")? {
        Some("json_schema") => schema(form),
        Some("text") => Ok(Format::Text),
        _ => Err(form.wrong("type", "\"json_schema\"")),
    };
    if let Some(config) = body.object("output_config")?
        && let Some(form) = config.object("format")?
    {
        return read(&form);
    }
    match body.object("output_format")? {
        Some(form) => read(&form),
        None => Ok(Format::Text),
    }
}
