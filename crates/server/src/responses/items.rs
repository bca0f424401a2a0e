//! Items of the input to messages (server.md 8.2). Whatever a client sends stands somewhere in the prompt or is refused.

use ds4_text::ToolCall;
use serde_json::{Map, Value, json};

use super::tools;
use crate::app::App;
use crate::error::{ApiError, Result};
use crate::fields::Fields;
use crate::history::{History, text_content, text_part};
use crate::order::Tool;

pub(super) struct Reader<'a> {
    app: &'a App,
    tenant: &'a str,
    pub(super) history: History<'a>,
    /// Tools that searches found.
    pub(super) found: Vec<Tool>,
    /// The last search, for results that do not name it.
    searched: Option<String>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(app: &'a App, tenant: &'a str) -> Self {
        Reader { app, tenant, history: History::new(app), found: Vec::new(), searched: None }
    }

    pub(super) fn item(&mut self, item: &Fields<'_>) -> Result<()> {
        if item.text("status")? == Some("in_progress") {
            return Err(item.wrong("status", "that of a finished item"));
        }
        match item.text("type")? {
            None | Some("message") => self.message(item),
            Some("reasoning") => self.reasoning(item),
            Some("function_call") => self.function_call(item),
            Some("custom_tool_call") => {
                let input = json!({"input": item.text("input")?.unwrap_or_default()});
                self.call(item, &name(item)?, &input)
            }
            Some("tool_search_call") => {
                self.searched = Some(call_id(item)?.to_owned());
                self.call(item, tools::SEARCH, &member(item, "arguments"))
            }
            Some("local_shell_call") => self.call(item, "local_shell", &member(item, "action")),
            Some("shell_call") => self.call(item, "shell", &member(item, "action")),
            Some("apply_patch_call") => self.call(item, "apply_patch", &member(item, "operation")),
            Some("tool_search_output") => self.search_output(item),
            Some(
                "function_call_output"
                | "custom_tool_call_output"
                | "local_shell_call_output"
                | "shell_call_output"
                | "apply_patch_call_output",
            ) => {
                let text = output_text(item, "output")?;
                self.history.result(call_id(item)?, &text, item.path("call_id"))
            }
            Some(
                kind @ ("web_search_call"
                | "file_search_call"
                | "code_interpreter_call"
                | "image_generation_call"
                | "mcp_call"
                | "computer_call"),
            ) => self.hosted(item, kind.trim_end_matches("_call")),
            Some("mcp_list_tools" | "mcp_approval_request" | "mcp_approval_response") => {
                self.history.system(&Value::Object(item.map.clone()).to_string());
                Ok(())
            }
            Some("item_reference") => self.reference(item),
            Some("compaction" | "context_compaction" | "compaction_summary") => self.compaction(item),
            Some(other) => {
                let path = item.path("type");
                let message = format!("{path}: items of type {other:?} are not supported");
                Err(ApiError { code: Some("unsupported_value"), ..ApiError::invalid(path, message) })
            }
        }
    }

    fn message(&mut self, item: &Fields<'_>) -> Result<()> {
        let role = item.text("role")?.ok_or_else(|| item.missing("role"))?;
        let text = text_content(item, "content")?;
        match role {
            "system" | "developer" => self.history.system(&text),
            "user" => self.history.user(&text),
            "assistant" => self.history.assistant(&text, Vec::new()),
            _ => return Err(item.wrong("role", "system, developer, user or assistant")),
        }
        Ok(())
    }

    /// Our blob says more than texts, which the client may not have got.
    fn reasoning(&mut self, item: &Fields<'_>) -> Result<()> {
        if let Some(exact) = item.text("encrypted_content")?.and_then(|blob| self.app.unsealed(blob)) {
            self.history.reasoning(&exact.text.clone(), Some(exact));
            return Ok(());
        }
        for name in ["content", "summary"] {
            let parts = item.objects(name)?;
            if !parts.is_empty() {
                let texts: Vec<&str> = parts.iter().map(text_part).collect::<Result<_>>()?;
                self.history.reasoning(&texts.join("\n\n"), None);
                return Ok(());
            }
        }
        self.history.reasoning("", None);
        Ok(())
    }

    fn function_call(&mut self, item: &Fields<'_>) -> Result<()> {
        let arguments = match item.get("arguments") {
            None => Value::Object(Map::new()),
            Some(Value::String(text)) if text.trim().is_empty() => Value::Object(Map::new()),
            Some(value @ (Value::String(_) | Value::Object(_))) => value.clone(),
            Some(_) => return Err(item.wrong("arguments", "a JSON text")),
        };
        self.call(item, &name(item)?, &arguments)
    }

    fn call(&mut self, item: &Fields<'_>, name: &str, arguments: &Value) -> Result<()> {
        let arguments = match arguments {
            Value::String(text) => text.clone(),
            Value::Null => "{}".to_owned(),
            other => other.to_string(),
        };
        let id = Some(call_id(item)?.to_owned());
        self.history.assistant("", vec![ToolCall { id, name: name.to_owned(), arguments: arguments.into() }]);
        Ok(())
    }

    /// A call that some other server answered itself, with its answer.
    fn hosted(&mut self, item: &Fields<'_>, kind: &str) -> Result<()> {
        const OWN: [&str; 5] = ["type", "id", "call_id", "status", "namespace"];
        const RESULTS: [&str; 5] = ["output", "outputs", "result", "results", "error"];
        let name = item.text("name")?.unwrap_or(kind);
        let mut arguments = Map::new();
        let mut results = Map::new();
        for (key, value) in item.map.iter().filter(|(key, value)| !OWN.contains(&key.as_str()) && !value.is_null()) {
            let bulky = kind == "image_generation" && key == "result";
            let value = if bulky { json!("(an image)") } else { value.clone() };
            if RESULTS.contains(&key.as_str()) { &mut results } else { &mut arguments }.insert(key.clone(), value);
        }
        let given = match arguments.remove("arguments") {
            Some(given) => given,
            None => Value::Object(arguments),
        };
        self.call(item, name, &given)?;
        let text = match results.len() {
            0 => item.text("status")?.unwrap_or("completed").to_owned(),
            1 => results.into_iter().next().map(|(_, value)| plain(value)).unwrap_or_default(),
            _ => Value::Object(results).to_string(),
        };
        self.history.result(call_id(item)?, &text, item.path("id"))
    }

    /// The tools that a search found are shown as its result, and can be called from there on.
    fn search_output(&mut self, item: &Fields<'_>) -> Result<()> {
        let id = match (item.text("call_id")?, &self.searched) {
            (Some(id), _) => id.to_owned(),
            (None, Some(id)) => id.clone(),
            (None, None) => return Err(item.missing("call_id")),
        };
        let mut found = Vec::new();
        for tool in &item.objects("tools")? {
            tools::read_one(tool, &mut found, &mut Vec::new())?;
        }
        let lines: Vec<String> = found.iter().map(|tool| tool.function.to_string()).collect();
        self.found.extend(found.into_iter().map(|tool| Tool { found: true, ..tool }));
        self.history.result(&id, &lines.join("\n"), item.path("call_id"))
    }

    fn reference(&mut self, item: &Fields<'_>) -> Result<()> {
        let id = item.text("id")?.ok_or_else(|| item.missing("id"))?;
        let Some(stored) = self.app.responses.item(self.tenant, id) else {
            let message = format!("{}: no item {id:?} is stored; send the item itself", item.path("id"));
            return Err(ApiError::invalid(item.path("id"), message));
        };
        match stored.as_object() {
            Some(map) if stored["type"] != "item_reference" => self.item(&Fields::root(map)),
            _ => Err(item.wrong("id", "the id of an item")),
        }
    }

    /// What remains readable of a shortened conversation.
    fn compaction(&mut self, item: &Fields<'_>) -> Result<()> {
        for name in ["text", "summary", "content"] {
            if item.get(name).is_some() {
                let text = text_content(item, name)?;
                if !text.is_empty() {
                    self.history.system(&text);
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// A call's id, or else its item's.
fn call_id<'a>(item: &Fields<'a>) -> Result<&'a str> {
    match item.text("call_id")? {
        Some(id) => Ok(id),
        None => item.text("id")?.ok_or_else(|| item.missing("call_id")),
    }
}

/// The name that the model used.
fn name(item: &Fields<'_>) -> Result<String> {
    let name = item.text("name")?.ok_or_else(|| item.missing("name"))?;
    Ok(match item.text("namespace")? {
        Some(namespace) => tools::qualified(namespace, name),
        None => name.to_owned(),
    })
}

fn member(item: &Fields<'_>, name: &str) -> Value {
    item.get(name).cloned().unwrap_or(Value::Null)
}

/// A result: a text, parts that are texts, or some other JSON.
fn output_text(item: &Fields<'_>, name: &str) -> Result<String> {
    match item.get(name) {
        Some(Value::Array(parts)) if parts.iter().all(|part| part["type"].is_string()) => text_content(item, name),
        Some(value) => Ok(plain(value.clone())),
        None => Ok(String::new()),
    }
}

fn plain(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}
