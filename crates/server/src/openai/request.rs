//! A chat-completions body to an order.

use ds4_text::ToolCall;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::error::{ApiError, Result};
use crate::fields::Fields;
use crate::history::{History, MAX_ITEMS, text_content};
use crate::order::{Choice, Format, Order, Source, Tool, output_limit};

/// Tools of one request.
pub(crate) const MAX_TOOLS: usize = 1024;

/// Reads the whole request.
pub(crate) fn read(body: &Map<String, Value>, app: &App) -> Result<Order> {
    let body = Fields::root(body);
    refuse(&body)?;
    let limit = output_limit(&body, &["max_completion_tokens", "max_tokens"])?;
    let mut order = Order::read(&body, &app.config, limit)?;
    let history = messages(&body, app)?;
    let wanted = body.flag("continue_final_message")?.unwrap_or(true);
    let continued = wanted && history.is_continued();
    order.source = Source::Chat { messages: history.into_messages(), continued };
    order.tools = tools(&body, &mut order.warnings)?;
    order.choice = read_choice(&body)?;
    check_choice(&order.choice, &order.tools)?;
    order.parallel = body.flag("parallel_tool_calls")?.unwrap_or(true);
    order.format = format(&body)?;
    order.logprobs = logprobs(&body)?;
    let of_reasoning = body.flag("include_reasoning_logprobs")?.unwrap_or(false);
    order.reasoning_logprobs = of_reasoning && order.logprobs.is_some();
    Ok(order)
}

/// Fields that would change the answer and cannot be honoured.
fn refuse(body: &Fields<'_>) -> Result<()> {
    for name in ["audio", "web_search_options", "functions", "function_call", "prediction"] {
        if body.get(name).is_some() {
            return Err(ApiError::unsupported(name, format!("{name} is not supported")));
        }
    }
    if let Some(kinds) = body.list("modalities")?
        && kinds.iter().any(|kind| kind != "text")
    {
        return Err(ApiError::unsupported("modalities", "modalities other than text are not supported"));
    }
    Ok(())
}

fn logprobs(body: &Fields<'_>) -> Result<Option<usize>> {
    let wanted = body.flag("logprobs")?.unwrap_or(false);
    let top = body.integer("top_logprobs", 0, 20)?;
    match (wanted, top) {
        (false, Some(_)) => Err(ApiError::invalid("top_logprobs", "top_logprobs needs logprobs: true")),
        (false, None) => Ok(None),
        (true, top) => Ok(Some(top.unwrap_or(0) as usize)),
    }
}

/// `response_format` and its vLLM relatives.
pub(super) fn format(body: &Fields<'_>) -> Result<Format> {
    if let Some(schema) = body.get("guided_json") {
        let schema = match schema {
            Value::String(text) => {
                serde_json::from_str(text).map_err(|_| body.wrong("guided_json", "a JSON schema"))?
            }
            other => other.clone(),
        };
        return Ok(Format::JsonSchema { schema, strict: true });
    }
    if let Some(pattern) = body.text("guided_regex")? {
        return Ok(Format::Regex(pattern.to_owned()));
    }
    if let Some(choices) = body.list("guided_choice")? {
        let texts: Option<Vec<String>> = choices.iter().map(|c| c.as_str().map(str::to_owned)).collect();
        return texts.map(Format::Choice).ok_or_else(|| body.wrong("guided_choice", "an array of strings"));
    }
    if let Some(grammar) = body.text("grammar")? {
        return Ok(Format::Grammar(grammar.to_owned()));
    }
    let Some(form) = body.object("response_format")? else { return Ok(Format::Text) };
    match form.text("type")? {
        Some("text") => Ok(Format::Text),
        Some("json_object") => Ok(Format::JsonObject),
        Some("json_schema") => {
            let inner = form.object("json_schema")?.ok_or_else(|| form.missing("json_schema"))?;
            schema(&inner)
        }
        _ => Err(form.wrong("type", "\"text\", \"json_object\" or \"json_schema\"")),
    }
}

/// `{"schema", "strict"?}`.
pub(crate) fn schema(form: &Fields<'_>) -> Result<Format> {
    match form.get("schema") {
        Some(schema @ Value::Object(_)) => {
            Ok(Format::JsonSchema { schema: schema.clone(), strict: form.flag("strict")?.unwrap_or(false) })
        }
        Some(_) => Err(form.wrong("schema", "an object")),
        None => Err(form.missing("schema")),
    }
}

/// The tools that are shown; others are named in `warnings`.
fn tools(body: &Fields<'_>, warnings: &mut Vec<String>) -> Result<Vec<Tool>> {
    let declared = body.objects("tools")?;
    if declared.len() > MAX_TOOLS {
        return Err(ApiError::invalid("tools", format!("at most {MAX_TOOLS} tools, got {}", declared.len())));
    }
    let mut tools = Vec::new();
    for tool in &declared {
        match tool.text("type")? {
            None | Some("function") => {
                let function = tool.object("function")?.ok_or_else(|| tool.missing("function"))?;
                tools.push(function_tool(&function)?);
            }
            Some("custom") => {
                let custom = tool.object("custom")?.ok_or_else(|| tool.missing("custom"))?;
                tools.push(custom_tool(&custom)?);
            }
            Some(other) => warnings.push(format!("ignored tool of type {other}")),
        }
    }
    Ok(tools)
}

/// `{"name", "description"?, "parameters"?, "strict"?}`.
pub(crate) fn function_tool(function: &Fields<'_>) -> Result<Tool> {
    let name = tool_name(function)?;
    let mut shown = Map::new();
    for (key, value) in function.map {
        if matches!(key.as_str(), "name" | "description" | "parameters") && !value.is_null() {
            shown.insert(key.clone(), value.clone());
        }
    }
    if let Some(other) = shown.get("parameters").filter(|p| !p.is_object()) {
        return Err(function.wrong("parameters", &format!("an object, not {}", crate::fields::kind(other))));
    }
    function.text("description")?;
    Ok(Tool {
        name,
        namespace: None,
        custom: false,
        search: false,
        strict: function.flag("strict")?.unwrap_or(false),
        found: false,
        function: Value::Object(shown),
    })
}

/// A tool that takes free text: the model sees one string parameter.
pub(crate) fn custom_tool(custom: &Fields<'_>) -> Result<Tool> {
    let name = tool_name(custom)?;
    let description = custom.text("description")?.unwrap_or_default();
    let function = json!({
        "name": name,
        "description": description,
        "parameters": {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]},
    });
    Ok(Tool { name, namespace: None, custom: true, search: false, strict: false, found: false, function })
}

pub(crate) fn tool_name(tool: &Fields<'_>) -> Result<String> {
    let name = tool.text("name")?.ok_or_else(|| tool.missing("name"))?;
    if name.is_empty() || name.len() > 128 || name.chars().any(char::is_control) {
        return Err(tool.wrong("name", "1 to 128 characters without control characters"));
    }
    Ok(name.to_owned())
}

/// `tool_choice`, whatever tools there are.
pub(crate) fn read_choice(body: &Fields<'_>) -> Result<Choice> {
    Ok(match body.get("tool_choice") {
        None => Choice::Auto,
        Some(Value::String(word)) => match word.as_str() {
            "auto" => Choice::Auto,
            "none" => Choice::None,
            "required" | "any" => Choice::Required,
            _ => return Err(body.wrong("tool_choice", "\"auto\", \"none\", \"required\" or an object")),
        },
        Some(Value::Object(_)) => object_choice(&body.object("tool_choice")?.expect("it is one"))?,
        Some(_) => return Err(body.wrong("tool_choice", "a string or an object")),
    })
}

/// Names that a choice speaks of have to be declared.
pub(crate) fn check_choice(choice: &Choice, tools: &[Tool]) -> Result<()> {
    let names: &[String] = match choice {
        Choice::Required if tools.is_empty() => {
            return Err(ApiError::invalid("tool_choice", "tool_choice asks for a call, but there are no tools"));
        }
        Choice::Auto | Choice::None | Choice::Required => &[],
        Choice::Named(name) => std::slice::from_ref(name),
        Choice::Allowed { names, .. } => names,
    };
    match names.iter().find(|name| !tools.iter().any(|tool| tool.name == **name)) {
        Some(name) => {
            Err(ApiError::invalid("tool_choice", format!("tool_choice names {name:?}, which is not declared")))
        }
        None => Ok(()),
    }
}

fn object_choice(choice: &Fields<'_>) -> Result<Choice> {
    match choice.text("type")? {
        Some(kind @ ("function" | "custom")) => {
            let inner = choice.object(kind)?.unwrap_or(*choice);
            let name = inner.text("name")?.ok_or_else(|| inner.missing("name"))?;
            Ok(Choice::Named(name.to_owned()))
        }
        Some("allowed_tools") => {
            let inner = choice.object("allowed_tools")?.unwrap_or(*choice);
            let mut names = Vec::new();
            for tool in inner.objects("tools")? {
                let place = tool.object("function")?.unwrap_or(tool);
                names.push(place.text("name")?.ok_or_else(|| place.missing("name"))?.to_owned());
            }
            Ok(Choice::Allowed { names, required: inner.text("mode")? == Some("required") })
        }
        _ => Err(choice.wrong("type", "\"function\", \"custom\" or \"allowed_tools\"")),
    }
}

fn messages<'a>(body: &Fields<'_>, app: &'a App) -> Result<History<'a>> {
    let items = body.list("messages")?.ok_or_else(|| body.missing("messages"))?;
    if items.is_empty() || items.len() > MAX_ITEMS {
        return Err(body.wrong("messages", &format!("an array of 1 to {MAX_ITEMS} messages")));
    }
    let mut history = History::new(app);
    for (i, item) in items.iter().enumerate() {
        message(&body.item("messages", i, item)?, &mut history)?;
    }
    Ok(history)
}

fn message(message: &Fields<'_>, history: &mut History<'_>) -> Result<()> {
    let role = message.text("role")?.ok_or_else(|| message.missing("role"))?;
    let text = text_content(message, "content")?;
    match role {
        "system" | "developer" => history.system(&text),
        "user" => history.user(&text),
        "assistant" => {
            let mut reasoning = String::new();
            for name in ["reasoning_content", "reasoning", "reasoning_text"] {
                match message.get(name) {
                    Some(Value::Object(_)) => {
                        let inner = message.object(name)?.expect("it is one");
                        inner.text("text")?.unwrap_or_default().clone_into(&mut reasoning);
                    }
                    Some(_) => message.text(name)?.unwrap_or_default().clone_into(&mut reasoning),
                    None => continue,
                }
                break;
            }
            let calls = message.objects("tool_calls")?.iter().map(call).collect::<Result<_>>()?;
            history.close();
            history.reasoning(&reasoning, None);
            history.assistant(&text, calls);
        }
        "tool" | "function" => {
            let id = message.text("tool_call_id")?.ok_or_else(|| message.missing("tool_call_id"))?;
            history.result(id, &text, message.path("tool_call_id"))?;
        }
        _ => return Err(message.wrong("role", "system, developer, user, assistant, tool or function")),
    }
    Ok(())
}

fn call(call: &Fields<'_>) -> Result<ToolCall> {
    let id = call.text("id")?.map(str::to_owned);
    if let Some(custom) = call.object("custom")? {
        let name = custom.text("name")?.ok_or_else(|| custom.missing("name"))?.to_owned();
        let input = custom.text("input")?.unwrap_or_default();
        return Ok(ToolCall { id, name, arguments: json!({"input": input}).to_string().into() });
    }
    let function = call.object("function")?.ok_or_else(|| call.missing("function"))?;
    let name = function.text("name")?.ok_or_else(|| function.missing("name"))?.to_owned();
    let arguments = match function.get("arguments") {
        None => Value::String("{}".to_owned()),
        Some(Value::String(text)) if text.trim().is_empty() => Value::String("{}".to_owned()),
        Some(text @ Value::String(_)) => text.clone(),
        // Some clients send the object itself.
        Some(object @ Value::Object(_)) => Value::String(object.to_string()),
        Some(_) => return Err(function.wrong("arguments", "a JSON text")),
    };
    Ok(ToolCall { id, name, arguments })
}
