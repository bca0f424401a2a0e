//! The call block as a grammar: the form that the renderer writes, with the names and parameters of the tools.

use std::fmt::Write;

use llguidance::api::GrammarWithLexer;
use serde_json::{Map, Value, json};

use super::schema::{self, Schema, invalid};
use super::strings::{kinds, literal, raw};
use super::{Arguments, GrammarError, Placed, ToolSpec, answer};

/// Rules from behind the first marker of a block on, starting with `tail`, and the grammars that they refer to.
pub(super) struct Block {
    pub(super) rules: String,
    pub(super) parts: Vec<GrammarWithLexer>,
}

/// Writes rules for blocks of calls of some of `tools`; `parallel` allows more than one call.
pub(super) fn block(
    tools: &[Placed<'_>],
    parallel: bool,
    dsml: u32,
    warnings: &mut Vec<String>,
) -> Result<Block, GrammarError> {
    let mut writer = Writer { marker: format!("<[{dsml}]>"), rules: String::new(), parts: Vec::new(), warnings };
    let marker = writer.marker.clone();
    let more = if parallel { format!(r#" | "\n<" {marker} call rest"#) } else { String::new() };
    writer.rule("tail", &format!(r#""tool_calls>\n<" {marker} call rest"#));
    writer.rule("rest", &format!(r#""\n</" {marker} "tool_calls>"{more}"#));
    let names: Vec<String> = (0..tools.len()).map(|at| format!("c{at}")).collect();
    writer.rule("call", &names.join(" | "));
    for (at, (place, tool)) in tools.iter().enumerate() {
        writer.call(at, *place, tool)?;
    }
    if tools.iter().any(|(_, tool)| matches!(tool.arguments, Arguments::Free)) {
        writer.free();
    }
    Ok(Block { rules: writer.rules, parts: writer.parts })
}

struct Writer<'a> {
    /// The marker's id in the grammar language.
    marker: String,
    rules: String,
    parts: Vec<GrammarWithLexer>,
    warnings: &'a mut Vec<String>,
}

/// Any text up to the closing tag of its parameter.
const ANY_TEXT: &str = r"/(?s:.*)<\//";

impl Writer<'_> {
    fn rule(&mut self, name: &str, body: &str) {
        writeln!(self.rules, "{name}: {body}").expect("a string takes all text");
    }

    fn call(&mut self, at: usize, place: usize, tool: &ToolSpec) -> Result<(), GrammarError> {
        let path = format!("tools[{place}]");
        if tool.name.is_empty() || tool.name.contains(|c: char| c == '"' || c.is_control()) {
            return Err(invalid(&format!("{path}.name"), "expected a name without quotes and control characters"));
        }
        let head = literal(&format!("invoke name=\"{}\">\n", tool.name));
        let parameters = match &tool.arguments {
            Arguments::Free => {
                self.rule(&format!("c{at}"), &format!("{head} free_first"));
                return Ok(());
            }
            Arguments::Strict(schema) => self.strict(at, schema, &format!("{path}.parameters"))?,
            Arguments::Custom { parameter, grammar: None } => {
                let text = self.text(&format!("TEXT_{at}"), ANY_TEXT);
                vec![(format!("{} {text}", opener(parameter, true)), true)]
            }
            Arguments::Custom { parameter, grammar: Some(format) } => {
                let name = format!("custom{at}");
                self.parts.extend(answer(format, &name, &format!("{path}.format"), self.warnings)?);
                vec![(format!("{} {}", opener(parameter, true), self.part(&name)), true)]
            }
        };
        self.rule(&format!("c{at}"), &format!("{head} c{at}f0"));
        self.sequence(at, &parameters);
        Ok(())
    }

    /// Parameters in order, each with whether it must be there. In the first rules of a call none has come yet.
    fn sequence(&mut self, at: usize, parameters: &[(String, bool)]) {
        let marker = self.marker.clone();
        for (n, (parameter, required)) in parameters.iter().enumerate() {
            self.rule(&format!("c{at}p{n}"), parameter);
            for (kind, before) in [("f", "<"), ("r", "\\n<")] {
                let skip = if *required { String::new() } else { format!(" | c{at}{kind}{}", n + 1) };
                self.rule(
                    &format!("c{at}{kind}{n}"),
                    &format!("\"{before}\" {marker} c{at}p{n} c{at}r{}{skip}", n + 1),
                );
            }
        }
        for kind in ["f", "r"] {
            self.rule(&format!("c{at}{kind}{}", parameters.len()), &format!("\"\\n</\" {marker} \"invoke>\""));
        }
    }

    fn strict(&mut self, at: usize, schema: &Value, path: &str) -> Result<Vec<(String, bool)>, GrammarError> {
        let schema = schema::read(schema, path, true, self.warnings)?;
        let nothing = Map::new();
        let keywords = schema.root.as_object().unwrap_or(&nothing);
        if let Some(keyword) = ["$ref", "anyOf", "allOf", "enum", "const"].iter().find(|k| keywords.contains_key(**k)) {
            let what = "this keyword beside the parameters of a strict tool".to_owned();
            return Err(GrammarError::Unsupported { path: format!("{path}.{keyword}"), what });
        }
        let members = keywords.get("properties").and_then(Value::as_object).unwrap_or(&nothing);
        let required: Vec<&str> = keywords
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        if let Some(missing) = required.iter().find(|name| !members.contains_key(**name)) {
            return Err(invalid(&format!("{path}.required"), format!("{missing} is not one of the properties")));
        }
        let mut parameters = Vec::new();
        for (n, (name, part)) in members.iter().enumerate() {
            let place = format!("{path}.properties.{name}");
            if name.contains(|c: char| c == '"' || c.is_control()) {
                return Err(invalid(&place, "expected a name without quotes and control characters"));
            }
            let is_required = required.contains(&name.as_str());
            match self.parameter(&format!("{at}_{n}"), name, &schema, part) {
                Some(rule) => parameters.push((rule, is_required)),
                None if is_required => return Err(invalid(&place, "no value is valid")),
                None => {}
            }
        }
        Ok(parameters)
    }

    /// A parameter as a text, as JSON, or as either, depending on what its schema admits.
    fn parameter(&mut self, id: &str, name: &str, schema: &Schema, part: &Value) -> Option<String> {
        let admitted = kinds(schema, part, 0);
        let mut forms = Vec::new();
        if admitted.strings {
            let terminal = match raw(schema, part, 0) {
                any if any == "/(?s:.*)/" => ANY_TEXT.to_owned(),
                some => format!("{some} \"</\""),
            };
            forms.push(format!("{} {}", opener(name, true), self.text(&format!("TEXT_{id}"), &terminal)));
        }
        if admitted.others {
            let value = if admitted.strings {
                json!({"allOf": [part, {"type": ["null", "boolean", "number", "array", "object"]}]})
            } else {
                part.clone()
            };
            let json = format!("json{id}");
            self.parts.push(super::json(&json, schema.document(value)));
            forms.push(format!("{} {}", opener(name, false), self.part(&json)));
        }
        (!forms.is_empty()).then(|| forms.join(" | "))
    }

    /// Calls of a tool whose parameters are its own business.
    fn free(&mut self) {
        let marker = self.marker.clone();
        let end = format!("\"\\n</\" {marker} \"invoke>\"");
        self.rule("free_first", &format!("\"<\" {marker} free_one free_rest | {end}"));
        self.rule("free_rest", &format!("\"\\n<\" {marker} free_one free_rest | {end}"));
        let text = self.text("FREE_TEXT", ANY_TEXT);
        let value = self.part("free_json");
        self.rule("free_one", &format!(r#"FREE_NAME ("true\">" {text} | "false\">" {value})"#));
        self.rule("FREE_NAME", r#"/parameter name="[^"<>\x00-\x1F\x7F]{1,64}" string="/"#);
        self.parts.push(super::json("free_json", json!({"type": ["null", "boolean", "number", "array", "object"]})));
    }

    /// A value of a terminal that takes the `</` behind it too, and the rest of the closing tag.
    fn text(&mut self, name: &str, terminal: &str) -> String {
        self.rule(name, terminal);
        format!("{name} {} \"parameter>\"", self.marker)
    }

    /// A value of a grammar, and the closing tag.
    fn part(&self, name: &str) -> String {
        format!("@{name} \"</\" {} \"parameter>\"", self.marker)
    }
}

/// What stands between the marker and the value.
fn opener(name: &str, string: bool) -> String {
    literal(&format!("parameter name=\"{name}\" string=\"{string}\">"))
}
