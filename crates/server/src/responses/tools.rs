//! Tools, their choice and the answer's form as this API writes them (server.md 5.9, 5.10).

use serde_json::{Value, json};

use crate::error::{ApiError, Result};
use crate::fields::Fields;
use crate::openai::request::{MAX_TOOLS, check_choice, custom_tool, function_tool, read_choice, schema};
use crate::order::{Choice, Format, Tool};

/// The declared tools that the model is shown; others are named in `warnings`.
pub(super) fn read(body: &Fields<'_>, warnings: &mut Vec<String>) -> Result<Vec<Tool>> {
    let mut tools = Vec::new();
    for tool in &body.objects("tools")? {
        if !tool.flag("defer_loading")?.unwrap_or(false) {
            read_one(tool, &mut tools, warnings)?;
        }
    }
    if tools.len() > MAX_TOOLS {
        return Err(ApiError::invalid("tools", format!("at most {MAX_TOOLS} tools, got {}", tools.len())));
    }
    Ok(tools)
}

/// One declaration, which may be of several tools.
pub(super) fn read_one(tool: &Fields<'_>, tools: &mut Vec<Tool>, warnings: &mut Vec<String>) -> Result<()> {
    match tool.text("type")?.ok_or_else(|| tool.missing("type"))? {
        "function" => tools.push(function_tool(&tool.object("function")?.unwrap_or(*tool))?),
        "custom" => tools.push(custom(tool)?),
        "namespace" => namespace(tool, tools, warnings)?,
        "tool_search" if tool.text("execution")? == Some("client") => tools.push(search(tool)?),
        other => warnings.push(format!("ignored hosted tool {other}")),
    }
    Ok(())
}

/// Free text, and the grammar that it should follow.
fn custom(tool: &Fields<'_>) -> Result<Tool> {
    let mut read = custom_tool(tool)?;
    if let Some(format) = tool.object("format")?
        && let Some(definition) = format.text("definition")?
    {
        let syntax = format.text("syntax")?.unwrap_or("lark");
        let description = read.function["description"].as_str().unwrap_or_default();
        read.function["description"] = format!("{description}\n\nFormat of the input ({syntax}):\n{definition}").into();
    }
    Ok(read)
}

/// The tools of a namespace under qualified names; the first tells what the namespace is about.
fn namespace(space: &Fields<'_>, tools: &mut Vec<Tool>, warnings: &mut Vec<String>) -> Result<()> {
    let name = space.text("name")?.ok_or_else(|| space.missing("name"))?;
    let about = space.text("description")?.unwrap_or_default();
    let first = tools.len();
    for tool in &space.objects("tools")? {
        if !tool.flag("defer_loading")?.unwrap_or(false) {
            read_one(tool, tools, warnings)?;
        }
    }
    for (i, tool) in tools[first..].iter_mut().enumerate() {
        tool.namespace = Some((name.to_owned(), tool.name.clone()));
        tool.name = qualified(name, &tool.name);
        tool.function["name"] = tool.name.clone().into();
        if i == 0 && !about.is_empty() {
            let own = tool.function.get("description").and_then(Value::as_str).unwrap_or_default();
            tool.function["description"] = format!("{own}\n\n{name}: {about}").trim_start().into();
        }
    }
    Ok(())
}

/// The name of a tool in a namespace as the model knows it.
pub(super) fn qualified(namespace: &str, name: &str) -> String {
    let between = if namespace.ends_with("__") { "" } else { "__" };
    format!("{namespace}{between}{name}")
}

/// The search of the client for more tools.
fn search(tool: &Fields<'_>) -> Result<Tool> {
    let description = tool.text("description")?.unwrap_or("Searches for more tools, which can be called afterwards");
    let parameters = match tool.get("parameters") {
        Some(object @ Value::Object(_)) => object.clone(),
        Some(_) => return Err(tool.wrong("parameters", "an object")),
        None => json!({"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]}),
    };
    let function = json!({"name": SEARCH, "description": description, "parameters": parameters});
    let name = SEARCH.to_owned();
    Ok(Tool { name, namespace: None, custom: false, search: true, strict: false, found: false, function })
}

/// What the search is called.
pub(super) const SEARCH: &str = "tool_search";

/// The choice; a name without its namespace will do.
pub(super) fn choice(body: &Fields<'_>, tools: &[Tool]) -> Result<Choice> {
    let full = |name: String| {
        let short = |tool: &&Tool| tool.namespace.as_ref().is_some_and(|(_, inner)| *inner == name);
        match tools.iter().find(short) {
            Some(tool) if !tools.iter().any(|tool| tool.name == name) => tool.name.clone(),
            _ => name,
        }
    };
    let choice = match read_choice(body)? {
        Choice::Named(name) => Choice::Named(full(name)),
        Choice::Allowed { names, required } => {
            Choice::Allowed { names: names.into_iter().map(full).collect(), required }
        }
        other => other,
    };
    check_choice(&choice, tools)?;
    Ok(choice)
}

/// `text.format`.
pub(super) fn format(body: &Fields<'_>) -> Result<Format> {
    let Some(text) = body.object("text")? else { return Ok(Format::Text) };
    let Some(form) = text.object("format")? else { return Ok(Format::Text) };
    match form.text("type")? {
        Some("text") => Ok(Format::Text),
        Some("json_object") => Ok(Format::JsonObject),
        Some("json_schema") => schema(&form),
        _ => Err(form.wrong("type", "\"text\", \"json_object\" or \"json_schema\"")),
    }
}
