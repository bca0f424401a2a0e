//! Generated text to reasoning, content and tool calls. Owns the types of a turn and which reading counts (`spec/prompt.md`
//! 23.4); the readings are `strict` and `lenient`, and `stream` shows a turn while it grows.

mod lenient;
mod stream;
mod strict;
mod tags;

pub use lenient::lenient;
pub use stream::{Delta, StreamParser, ToolCallDelta, ToolCallKind};
pub use strict::strict;
pub(crate) use tags::{ESCAPED_PARAMETER_END, PARAMETER_END, Tags, attribute, tag_end};

use crate::{
    control::{EOS, THINK, THINK_END},
    json::minify,
};

/// What one assistant turn says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// `None` if the turn has no reasoning part, which is not the same as an empty one.
    pub reasoning: Option<String>,
    /// White space kept as sampled, except the two newlines before the block.
    pub content: String,
    pub calls: Vec<Call>,
    /// The block exactly as sampled, from its opener to its closing tag, for replay.
    pub raw_block: Option<String>,
    /// A block began but cannot be read; `content` is then the whole text.
    pub malformed: bool,
}

/// A call as sampled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub name: String,
    /// `{"key": value, …}`. Values that are no strings are not validated, so this may not be JSON.
    pub arguments: String,
}

impl Call {
    /// The arguments for an API client: an object without white space, `{}` if they are not a readable one.
    pub fn compact_arguments(&self) -> String {
        if is_json(&self.arguments) { minify(&self.arguments) } else { "{}".to_owned() }
    }
}

/// Whether a client's JSON reader will take it.
fn is_json(text: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

/// The reading that counts: strict if that finds calls; else, if tools were offered, lenient; else the text as it stands.
/// `text` is what followed the generation prompt, with or without EOS.
pub fn finish(text: &str, thinking: bool, tools_offered: bool) -> Turn {
    let text = text.strip_suffix(EOS).unwrap_or(text);
    match strict(&format!("{text}{EOS}"), thinking) {
        Ok(turn) if !turn.calls.is_empty() || !tools_offered => turn,
        _ if tools_offered => lenient(text, thinking),
        _ => as_it_stands(text, thinking),
    }
}

/// No calls. A turn cut inside its reasoning is all reasoning.
fn as_it_stands(text: &str, thinking: bool) -> Turn {
    if !thinking {
        return Turn { content: text.to_owned(), ..Turn::default() };
    }
    let text = text.strip_prefix(THINK).unwrap_or(text);
    let (reasoning, content) = text.split_once(THINK_END).unwrap_or((text, ""));
    Turn { reasoning: Some(reasoning.to_owned()), content: content.to_owned(), ..Turn::default() }
}

/// `{`, members joined by comma and space, `}`.
fn object(members: &[(String, String)]) -> String {
    let mut out = "{".to_owned();
    for (i, (key, value)) in members.iter().enumerate() {
        out.push_str(if i == 0 { "" } else { ", " });
        crate::json::write_string(key, &mut out);
        out.push_str(": ");
        out.push_str(value);
    }
    out.push('}');
    out
}

/// A JSON string literal.
fn literal(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    crate::json::write_string(text, &mut out);
    out
}
