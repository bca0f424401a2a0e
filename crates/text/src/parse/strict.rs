//! The official grammar of a finished turn (`spec/prompt.md` 15). Owns exactly that; whatever is unusual is refused, and
//! recovery is `lenient`'s.

use super::{Call, Tags, Turn, literal, object, tags::FORBIDDEN};
use crate::{
    control::{EOS, THINK_END},
    error::{Error, Result},
};

/// Reads the text after the generation prompt, EOS included.
///
/// Errors: [`Error::Turn`] for anything that the reference refuses.
pub fn strict(text: &str, thinking: bool) -> Result<Turn> {
    let mut reader = Reader { text, at: 0 };
    let mut turn = Turn::default();
    if thinking {
        let (reasoning, stop) = reader.until(&[THINK_END, OPENER]).ok_or_else(|| reader.expected(THINK_END))?;
        if stop != THINK_END {
            return Err(reader.expected(THINK_END));
        }
        turn.reasoning = Some(reasoning.to_owned());
    }
    let start = reader.at;
    let ends = "EOS or a call block";
    let (content, stop) = reader.until(&[EOS, OPENER]).ok_or_else(|| reader.expected(ends))?;
    content.clone_into(&mut turn.content);
    if stop == OPENER {
        turn.calls = reader.calls()?;
        turn.raw_block = Some(text[start + content.len()..reader.at].to_owned());
        reader.skip(EOS);
    }
    if reader.at != text.len() {
        return Err(reader.expected("the end of the turn"));
    }
    let spoken = [turn.reasoning.as_deref().unwrap_or(""), &turn.content];
    if FORBIDDEN.iter().any(|token| spoken.iter().any(|text| text.contains(token))) {
        return Err(Error::turn(0, "no control string in reasoning and content"));
    }
    Ok(turn)
}

/// Begins a block; the rest of the tag is checked with what follows it.
const OPENER: &str = "\n\n<｜DSML｜tool_calls";
const INVOKE_END: &str = "</｜DSML｜invoke";
/// Ends a parameter body, together with the `<` before it.
const PARAMETER_CLOSE: &str = "/｜DSML｜parameter";
/// All that may stand between two tags: the end of the first and a line break.
const BETWEEN: &str = ">\n";

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn expected(&self, what: &'static str) -> Error {
        Error::turn(self.at, what)
    }

    fn skip(&mut self, text: &str) {
        if self.text[self.at..].starts_with(text) {
            self.at += text.len();
        }
    }

    /// The text before the first of `stops`, and which one it is; moves behind it.
    fn until(&mut self, stops: &[&'static str]) -> Option<(&'a str, &'static str)> {
        let rest = &self.text[self.at..];
        let found = stops.iter().filter_map(|stop| Some((rest.find(stop)?, *stop)));
        let (place, stop) = found.min_by_key(|&(place, _)| place)?;
        self.at += place + stop.len();
        Some((&rest[..place], stop))
    }

    /// The next of two tags, which must follow at once.
    fn next_tag(&mut self, tags: [&'static str; 2]) -> Result<&'static str> {
        let start = self.at;
        match self.until(&tags) {
            Some((BETWEEN, stop)) => Ok(stop),
            _ => Err(Error::turn(start, "`>`, one newline and the next tag")),
        }
    }

    fn calls(&mut self) -> Result<Vec<Call>> {
        let mut calls = Vec::new();
        while self.next_tag([Tags::FULL.invoke, Tags::FULL.block_end])? == Tags::FULL.invoke {
            calls.push(self.call()?);
        }
        Ok(calls)
    }

    fn call(&mut self) -> Result<Call> {
        let ends = [Tags::FULL.parameter, INVOKE_END];
        let (head, mut stop) = self.until(&ends).ok_or_else(|| self.expected("a parameter or the end of the call"))?;
        let name = invoke_name(head).ok_or_else(|| self.expected("before it ` name=\"…\">` and a newline"))?;
        let mut members: Vec<(String, String)> = Vec::new();
        let mut keys = std::collections::HashSet::new();
        while stop == Tags::FULL.parameter {
            let start = self.at;
            let body = self.until(&[PARAMETER_CLOSE]).and_then(|(body, _)| body.strip_suffix('<'));
            let parameter = body.and_then(parameter_head).and_then(|head| Some((head, body?)));
            let wanted = " name=\"…\" string=\"true|false\">, a value and its closing tag";
            let (head, body) = parameter.ok_or_else(|| Error::turn(start, wanted))?;
            if !keys.insert(head.key) {
                return Err(Error::turn(start, "every parameter once"));
            }
            let value = &body[head.len..];
            members.push((head.key.to_owned(), if head.string { literal(value) } else { value.to_owned() }));
            stop = self.next_tag(ends)?;
        }
        Ok(Call { name: name.to_owned(), arguments: object(&members) })
    }
}

/// The name in what follows `<｜DSML｜invoke`: white space, `name="…">`, a newline and perhaps one more.
pub(super) fn invoke_name(head: &str) -> Option<&str> {
    let python_space = |c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c);
    let named = head.trim_start_matches(python_space).strip_prefix("name=\"")?;
    named.strip_suffix("\">\n\n").or_else(|| named.strip_suffix("\">\n"))
}

/// What stands between `<｜DSML｜parameter` and the value.
pub(super) struct ParameterHead<'a> {
    pub(super) key: &'a str,
    pub(super) string: bool,
    /// Bytes before the value.
    pub(super) len: usize,
}

/// The shortest key that the two attributes admit.
pub(super) fn parameter_head(text: &str) -> Option<ParameterHead<'_>> {
    let keyed = text.strip_prefix(KEY)?;
    let ends = [("\" string=\"true\">", true), ("\" string=\"false\">", false)];
    let found = ends.iter().filter_map(|&(end, string)| Some((keyed.find(end)?, end, string)));
    let (place, end, string) = found.min_by_key(|&(place, ..)| place)?;
    Some(ParameterHead { key: &keyed[..place], string, len: KEY.len() + place + end.len() })
}

/// What must follow `<｜DSML｜parameter`.
pub(super) const KEY: &str = " name=\"";
