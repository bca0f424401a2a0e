//! Calls of the history as the model would have written them (`spec/prompt.md` 10). Owns the block grammar on the way out;
//! `parse` owns it on the way in.

use serde_json::Value;

use super::unwritable;
use crate::{
    chat::ToolCall,
    error::{Error, Result},
    json::{Fault, Json},
    parse::{ESCAPED_PARAMETER_END, PARAMETER_END},
    prompt::Prompt,
};

/// Appends the block. Names, keys and values are untrusted and, but for their own closing tag, raw.
pub(super) fn write_block(prompt: &mut Prompt, calls: &[ToolCall], escape: bool) -> Result<()> {
    prompt.push_template("\n\n<｜DSML｜tool_calls>\n");
    for (i, call) in calls.iter().enumerate() {
        prompt.push_template(if i == 0 { "<｜DSML｜invoke name=\"" } else { "\n<｜DSML｜invoke name=\"" });
        prompt.push_untrusted(&call.name);
        prompt.push_template("\">\n");
        let place = format!("tool_calls[{i}].function.arguments");
        for (n, (key, value)) in parameters(&call.arguments, &place)?.iter().enumerate() {
            prompt.push_template(if n == 0 { "" } else { "\n" });
            write_parameter(prompt, key, value, escape);
        }
        prompt.push_template("\n</｜DSML｜invoke>");
    }
    prompt.push_template("\n</｜DSML｜tool_calls>");
    Ok(())
}

fn write_parameter(prompt: &mut Prompt, key: &str, value: &Json, escape: bool) {
    // In JSON only strings hold a `<`, so its escape there means the same.
    let (flag, text, escaped) = match value {
        Json::String(text) => ("true", text.clone(), ESCAPED_PARAMETER_END),
        other => ("false", other.dump(), "\\u003c/｜DSML｜parameter>"),
    };
    let text = if escape { text.replace(PARAMETER_END, escaped) } else { text };
    prompt.push_template("<｜DSML｜parameter name=\"");
    prompt.push_untrusted(key);
    prompt.push_template("\" string=\"");
    prompt.push_template(flag);
    prompt.push_template("\">");
    prompt.push_untrusted(&text);
    prompt.push_template(PARAMETER_END);
}

/// A text that is not JSON, and a value that is not a text, become one parameter.
fn parameters(arguments: &Value, place: &str) -> Result<Vec<(String, Json)>> {
    let single = |value| Ok(vec![("arguments".to_owned(), value)]);
    let Value::String(text) = arguments else {
        return single(Json::from_value(arguments).map_err(|fault| unwritable(fault, place))?);
    };
    match Json::parse(text) {
        Ok(Json::Object(members)) => Ok(members),
        Ok(_) => Err(Error::request(place, "JSON of another kind", "the text of an object")),
        Err(Fault::Syntax) => single(Json::String(text.clone())),
        Err(fault) => Err(unwritable(fault, place)),
    }
}
