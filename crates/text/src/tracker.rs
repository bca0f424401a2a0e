//! Where the next token stands inside a call block, for sampling (`spec/prompt.md` 20). Owns the position only; what greedy means
//! is the sampler's business. Works on bytes because tags are not token aligned (section 1).

use crate::{
    control::{THINK, THINK_END},
    parse::{Tags, attribute, tag_end},
};

/// How to sample the next token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SamplingState {
    /// As the request says.
    Free,
    /// The most likely token: it belongs to the structure of a call.
    Greedy,
}

/// Where the text ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// In no block: before it, after it, in reasoning, or in a block that has become unreadable.
    Outside,
    /// In a tag, between tags, or in a closing tag of which at least two bytes are there.
    Structural,
    /// In the value of a parameter with `string="true"`.
    StringBody,
    /// In another value, outside JSON strings.
    JsonStructural,
    /// In a JSON string of such a value.
    JsonString,
}

/// Follows one turn. Only meaningful when tools were offered.
#[derive(Clone, Debug)]
pub struct DsmlTracker {
    state: State,
    /// What has not been decided: the start of a tag.
    held: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Reasoning,
    Outside,
    Between(&'static Tags),
    String(&'static Tags),
    Json { tags: &'static Tags, quoted: bool, escaped: bool },
    Over,
}

impl DsmlTracker {
    /// `thinking`: the generation prompt opened the reasoning.
    pub fn new(thinking: bool) -> Self {
        Self { state: if thinking { State::Reasoning } else { State::Outside }, held: Vec::new() }
    }

    /// Takes the bytes of the next sampled token.
    pub fn push(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
        while let Some(used) = self.step() {
            self.held.drain(..used);
        }
    }

    /// How to sample the token that comes next.
    pub fn state(&self) -> SamplingState {
        match self.position() {
            Position::Structural | Position::JsonStructural => SamplingState::Greedy,
            Position::Outside | Position::StringBody | Position::JsonString => SamplingState::Free,
        }
    }

    /// Where the text ends.
    pub fn position(&self) -> Position {
        // A lone `<` is more often a character of the value than the start of its closing tag.
        let closing = self.held.len() >= 2;
        match self.state {
            State::Reasoning | State::Outside | State::Over => Position::Outside,
            State::Json { quoted: true, .. } => Position::JsonString,
            State::Between(_) => Position::Structural,
            State::String(_) | State::Json { .. } if closing => Position::Structural,
            State::String(_) => Position::StringBody,
            State::Json { .. } => Position::JsonStructural,
        }
    }

    /// One move: how many held bytes it has used; `None` if it needs more.
    fn step(&mut self) -> Option<usize> {
        match self.state {
            State::Reasoning => self.search(&[(THINK_END, State::Outside)]),
            State::Outside => {
                let [full, short, plain] = Tags::ALL.map(|tags| (tags.block, State::Between(tags)));
                self.search(&[full, short, plain, (THINK, State::Reasoning)])
            }
            State::Between(tags) => self.between(tags),
            State::String(tags) | State::Json { tags, .. } => self.value(tags),
            State::Over => (!self.held.is_empty()).then_some(self.held.len()),
        }
    }

    /// Drops what can't be the start of one of the marks; enters the state of the first mark that is there.
    fn search(&mut self, marks: &[(&str, State)]) -> Option<usize> {
        for at in 0..self.held.len() {
            let rest = &self.held[at..];
            if let Some((mark, state)) = marks.iter().find(|(mark, _)| rest.starts_with(mark.as_bytes())) {
                self.state = *state;
                return Some(at + mark.len());
            }
            if marks.iter().any(|(mark, _)| mark.as_bytes().starts_with(rest)) {
                return (at > 0).then_some(at);
            }
        }
        (!self.held.is_empty()).then_some(self.held.len())
    }

    /// Unexpected text ends the tracking: nothing that follows is structure.
    fn between(&mut self, tags: &'static Tags) -> Option<usize> {
        let space = self.held.iter().take_while(|b| b.is_ascii_whitespace()).count();
        if space > 0 {
            return Some(space);
        }
        if self.held.is_empty() {
            return None;
        }
        let known = [tags.invoke, tags.parameter, tags.invoke_end, tags.parameter_end, tags.block_end];
        if known.iter().any(|tag| tag.len() > self.held.len() && tag.as_bytes().starts_with(&self.held)) {
            return None;
        }
        let Some(kind) = known.iter().position(|tag| self.held.starts_with(tag.as_bytes())) else {
            self.state = State::Over;
            return Some(self.held.len());
        };
        let end = tag_end(&self.held)?;
        match kind {
            1 => self.state = value_of(&String::from_utf8_lossy(&self.held[..end]), tags),
            4 => self.state = State::Over,
            _ => {}
        }
        Some(end + 1)
    }

    /// Takes one byte of a value, or its closing tag.
    fn value(&mut self, tags: &'static Tags) -> Option<usize> {
        let close = tags.parameter_end.as_bytes();
        if self.held.starts_with(close) {
            self.state = State::Between(tags);
            return Some(close.len());
        }
        if close.starts_with(&self.held) {
            return None;
        }
        if let State::Json { quoted, escaped, .. } = &mut self.state {
            match self.held[0] {
                _ if *escaped => *escaped = false,
                b'\\' if *quoted => *escaped = true,
                b'"' => *quoted = !*quoted,
                _ => {}
            }
        }
        Some(1)
    }
}

fn value_of(tag: &str, tags: &'static Tags) -> State {
    if attribute(tag, "string") == Some("true") {
        State::String(tags)
    } else {
        State::Json { tags, quoted: false, escaped: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(thinking: bool, tokens: &[&str]) -> Position {
        let mut tracker = DsmlTracker::new(thinking);
        tokens.iter().for_each(|t| tracker.push(t.as_bytes()));
        tracker.position()
    }

    const OPEN: &str =
        "\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter name=\"a\" string=\"true\">";

    #[test]
    fn a_block_quoted_in_reasoning_is_no_structure_and_the_real_one_still_is() {
        assert_eq!(after(true, &["x", OPEN]), Position::Outside);
        assert_eq!(after(true, &["x", OPEN, "</think>", OPEN]), Position::StringBody);
    }

    #[test]
    fn a_closing_tag_begun_by_a_lone_angle_bracket_is_seen() {
        assert_eq!(after(false, &[OPEN, "a <"]), Position::StringBody);
        assert_eq!(after(false, &[OPEN, "a <", "/｜DSML｜parameter>"]), Position::Structural);
        assert_eq!(after(false, &[OPEN, "a <", "/b"]), Position::StringBody);
    }

    #[test]
    fn unexpected_text_between_tags_ends_the_structure() {
        assert_eq!(after(false, &[OPEN, "v</｜DSML｜parameter>", " and so on"]), Position::Outside);
    }

    #[test]
    fn a_character_cut_between_tokens_is_followed() {
        let mut tracker = DsmlTracker::new(false);
        for byte in OPEN.bytes() {
            tracker.push(&[byte]);
        }
        assert_eq!((tracker.position(), tracker.state()), (Position::StringBody, SamplingState::Free));
    }
}
