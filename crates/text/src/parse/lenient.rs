//! Recovery of calls that are not quite official (`spec/prompt.md` 18). Owns what is tolerated, with the two deviations of
//! 23.4: string values decode nothing but an escaped closing tag, and content keeps its white space.

use super::{
    Call, Tags, Turn, literal, object,
    tags::{attribute, tag_end},
};
use crate::{
    control::{THINK, THINK_END},
    json::{Json, minify},
};

/// Reads the sampled text without EOS. If a block began but cannot be read, the content is the whole text and
/// [`Turn::malformed`] is set.
pub fn lenient(text: &str, thinking: bool) -> Turn {
    let from = if thinking { text.rfind(THINK_END).map(|i| i + THINK_END.len()) } else { Some(0) };
    let Some((opener, tags)) = from.and_then(|from| find_opener(text, from)) else {
        let (reasoning, content) = split(text);
        return Turn { reasoning, content, ..Turn::default() };
    };
    let mut reader = Reader { text, at: opener.end, tags };
    let Some(calls) = reader.calls() else {
        return Turn { content: text.to_owned(), malformed: true, ..Turn::default() };
    };
    let (reasoning, content) = split(&text[..opener.start]);
    let raw_block = Some(text[opener.start..reader.at].to_owned());
    Turn { reasoning, content, calls, raw_block, malformed: false }
}

/// The first kind that occurs, not the one that occurs first.
fn find_opener(text: &str, from: usize) -> Option<(std::ops::Range<usize>, &'static Tags)> {
    Tags::ALL.into_iter().find_map(|tags| {
        let apart = format!("\n\n{}", tags.block);
        let found = |opener: &str| text[from..].find(opener).map(|i| from + i..from + i + opener.len());
        Some((found(&apart).or_else(|| found(tags.block))?, tags))
    })
}

/// Reasoning and content. Without a closing tag everything is content.
fn split(text: &str) -> (Option<String>, String) {
    let Some((before, content)) = text.split_once(THINK_END) else { return (None, text.to_owned()) };
    let reasoning = before.strip_prefix(THINK).unwrap_or(before);
    (Some(reasoning.to_owned()), content.to_owned())
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    tags: &'static Tags,
}

/// Parameters inside one another, at most.
const MAX_DEPTH: usize = 64;

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip_space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn take(&mut self, tag: &str) -> bool {
        let found = self.rest().starts_with(tag);
        self.at += if found { tag.len() } else { 0 };
        found
    }

    /// The attributes of a tag whose name has been taken.
    fn attributes(&mut self) -> Option<&'a str> {
        let rest = self.rest();
        let end = tag_end(rest.as_bytes())?;
        self.at += end + 1;
        Some(&rest[..end])
    }

    /// `None` where nothing sensible can be read.
    fn calls(&mut self) -> Option<Vec<Call>> {
        let mut calls = Vec::new();
        loop {
            self.skip_space();
            if self.take(self.tags.block_end) {
                return Some(calls);
            }
            if !self.take(self.tags.invoke) {
                return None;
            }
            let name = decoded(attribute(self.attributes()?, "name")?);
            let members = self.members(0)?;
            if !self.take(self.tags.invoke_end) {
                return None;
            }
            calls.push(Call { name, arguments: object(&members) });
        }
    }

    /// Parameters up to the first thing that is none.
    fn members(&mut self, depth: usize) -> Option<Vec<(String, String)>> {
        let mut members = Vec::new();
        loop {
            self.skip_space();
            if !self.take(self.tags.parameter) {
                return Some(members);
            }
            members.push(self.member(depth)?);
        }
    }

    fn member(&mut self, depth: usize) -> Option<(String, String)> {
        let attributes = self.attributes()?;
        let key = decoded(attribute(attributes, "name")?);
        let string = attribute(attributes, "string");
        if string.is_none() && self.rest().trim_start().starts_with(self.tags.parameter) {
            if depth == MAX_DEPTH {
                return None;
            }
            let children = self.members(depth + 1)?;
            let _may_be_missing = self.take(self.tags.parameter_end);
            return Some((key, object(&children)));
        }
        let rest = self.rest();
        let end = rest.find(self.tags.parameter_end)?;
        self.at += end + self.tags.parameter_end.len();
        let body = &rest[..end];
        let value = match string {
            None | Some("true") => literal(&body.replace(self.tags.escaped_parameter_end, self.tags.parameter_end)),
            Some(_) => first_value(body),
        };
        Some((key, value))
    }
}

/// The first JSON value without white space; a text that does not begin with one stays as it is.
fn first_value(body: &str) -> String {
    Json::prefix_len(body).map_or_else(|| body.to_owned(), |len| minify(&body[..len]))
}

/// The five entities of attributes.
fn decoded(value: &str) -> String {
    const ENTITIES: [(&str, &str); 5] =
        [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")];
    let mut out = String::with_capacity(value.len());
    let mut rest = value;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let entity = ENTITIES.iter().find(|(spelled, _)| rest.starts_with(spelled));
        let (spelled, meant) = entity.copied().unwrap_or(("&", "&"));
        out.push_str(meant);
        rest = &rest[spelled.len()..];
    }
    out + rest
}
