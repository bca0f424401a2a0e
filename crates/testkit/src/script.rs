//! The script: which reply belongs to which prompt, and how fast or how badly it is given. Owns the file's format and the
//! choice of a rule; how a reply becomes tokens is `reply`'s.
//!
//! A script is a file of JSON: rules one after another, or arrays of them. The first rule that fits answers. A fuller rule:
//!
//! ```json
//! {"when": "What time is it?", "reply": "<think>No clock here.</think>Late.", "tokens_per_second": 50}
//! ```

use std::time::Duration;

use ds4_text::Prompt;
use serde::Deserialize;
use serde_json::Value;

/// The rules, in the order in which they are tried.
#[derive(Clone, Debug)]
pub struct Script {
    rules: Vec<Rule>,
}

/// One rule. Without `when` and `anywhere` it fits every prompt.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Rule {
    /// All of these stand in the last turn of the user or of a tool.
    when: Texts,
    /// All of these stand somewhere in the prompt.
    anywhere: Texts,
    /// What the model writes: `<think>...</think>` at the beginning if it thinks, control tokens by their spelling. `{turn}`
    /// is the last turn, as plain text.
    reply: Option<String>,
    /// Instead of `reply`: one for each answer of the conversation, the last one for all that follow.
    replies: Vec<String>,
    /// Speed of generation; without it there is no delay.
    tokens_per_second: Option<f64>,
    /// Speed of prompt tokens, as soon as the rule fits what has been read.
    prefill_per_second: Option<f64>,
    /// A pause before generated token `stall_at`.
    stall_ms: u64,
    /// The generated token, counted from 0, that waits for `stall_ms`.
    stall_at: usize,
    /// The generated token, counted from 0, whose logits are not numbers.
    nan_at: Option<usize>,
}

/// A text or several.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Texts {
    One(String),
    Many(Vec<String>),
}

/// What a rendered prompt says to a script.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scene<'a> {
    /// Everything before the answer.
    pub(crate) prompt: &'a str,
    /// The last turn of the user or of a tool, without its marker.
    pub(crate) turn: &'a str,
    /// Answers before this one.
    pub(crate) answers: usize,
}

/// A script that cannot be played.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is not JSON.
    #[error("not JSON: {0}")]
    Json(#[source] serde_json::Error),
    /// A rule with an unknown field, or a field of another type.
    #[error("rule {number}: {source}")]
    Rule {
        /// Counted from 1.
        number: usize,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A rule that contradicts itself.
    #[error("rule {number}: {what}")]
    Contradiction {
        /// Counted from 1.
        number: usize,
        /// What was found and expected.
        what: &'static str,
    },
    /// A file without rules.
    #[error("no rules, expected at least one")]
    Empty,
}

impl Script {
    /// Reads a script.
    ///
    /// # Errors
    /// Text that is not JSON, an unknown field, a rule without a reply, a speed that is not positive, no rule at all.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut rules = Vec::new();
        for value in serde_json::Deserializer::from_str(text).into_iter::<Value>() {
            let found = match value.map_err(Error::Json)? {
                Value::Array(rules) => rules,
                rule => vec![rule],
            };
            for value in found {
                rules.push(Rule::parse(value, rules.len() + 1)?);
            }
        }
        if rules.is_empty() { Err(Error::Empty) } else { Ok(Self { rules }) }
    }

    /// The first rule that fits.
    pub(crate) fn rule(&self, scene: Scene<'_>) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.fits(scene))
    }

    /// Whether any rule slows prompts down.
    pub(crate) fn slows_prompts(&self) -> bool {
        self.rules.iter().any(|rule| rule.prefill_per_second.is_some())
    }
}

impl Default for Script {
    /// Thinks a little and says what it was told.
    fn default() -> Self {
        let reply = Some("<think>I was told: {turn}</think>You said: {turn}".to_owned());
        Self { rules: vec![Rule { reply, ..Rule::default() }] }
    }
}

impl Rule {
    fn parse(value: Value, number: usize) -> Result<Self, Error> {
        if !value.is_object() {
            return Err(Error::Contradiction { number, what: "not an object, expected {\"when\": .., \"reply\": ..}" });
        }
        let rule: Self = serde_json::from_value(value).map_err(|source| Error::Rule { number, source })?;
        let refuse = |what| Err(Error::Contradiction { number, what });
        if rule.reply.is_some() != rule.replies.is_empty() {
            return refuse("expected either \"reply\" or a list \"replies\"");
        }
        let slow = |speed: Option<f64>| speed.is_some_and(|speed| !(speed.is_finite() && speed >= SLOWEST));
        if slow(rule.tokens_per_second) || slow(rule.prefill_per_second) {
            return refuse("a speed, expected at least 0.001 tokens per second");
        }
        Ok(rule)
    }

    fn fits(&self, scene: Scene<'_>) -> bool {
        self.when.iter().all(|text| scene.turn.contains(text))
            && self.anywhere.iter().all(|text| scene.prompt.contains(text))
    }

    /// The answer's text, with control strings as such except in what it repeats.
    pub(crate) fn reply(&self, scene: Scene<'_>) -> Prompt {
        let text = self.reply.as_deref().or_else(|| self.replies.get(scene.answers).map(String::as_str));
        let text = text.unwrap_or_else(|| self.replies.last().expect("a rule has a reply"));
        let mut reply = Prompt::new();
        for (i, part) in text.split("{turn}").enumerate() {
            if i > 0 {
                reply.push_untrusted(scene.turn);
            }
            reply.push_template(part);
        }
        reply
    }

    /// How long generated token `n` takes.
    pub(crate) fn decode_time(&self, n: usize) -> Duration {
        let stall = if n == self.stall_at { Duration::from_millis(self.stall_ms) } else { Duration::ZERO };
        stall + if n == 0 { Duration::ZERO } else { time(1, self.tokens_per_second) }
    }

    /// How long `n` prompt tokens take.
    pub(crate) fn prefill_time(&self, n: usize) -> Duration {
        time(n, self.prefill_per_second)
    }

    /// Whether the logits of generated token `n` are not numbers.
    pub(crate) fn is_nan(&self, n: usize) -> bool {
        self.nan_at == Some(n)
    }
}

fn time(n: usize, speed: Option<f64>) -> Duration {
    speed.map_or(Duration::ZERO, |speed| Duration::from_secs_f64(n as f64 / speed))
}

/// Tokens a second, so that no delay outlasts the clock's range.
const SLOWEST: f64 = 0.001;

impl Default for Texts {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl Texts {
    fn iter(&self) -> impl Iterator<Item = &str> {
        match self {
            Self::One(text) => std::slice::from_ref(text),
            Self::Many(texts) => texts,
        }
        .iter()
        .map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(script: &str, prompt: &str, turn: &str, answers: usize) -> Option<String> {
        let scene = Scene { prompt, turn, answers };
        Script::parse(script).expect("a script").rule(scene).map(|rule| rule.reply(scene).text().to_owned())
    }

    fn message(script: &str) -> String {
        Script::parse(script).expect_err("a refusal").to_string()
    }

    #[test]
    fn the_first_rule_that_fits_answers() {
        let script = r#"{"when": ["a", "b"], "reply": "both"} {"anywhere": "old", "reply": "history"}
            [{"when": "a", "reply": "one"}, {"reply": "any"}]"#;
        let answer = |prompt, turn| chosen(script, prompt, turn, 0).expect("an answer");
        assert_eq!(answer("old b a", "b a"), "both");
        assert_eq!(answer("old a", "a"), "history");
        assert_eq!(answer("a", "a"), "one");
        assert_eq!(answer("a b", "c"), "any");
        assert_eq!(chosen(r#"{"when": "a", "reply": "one"}"#, "a", "b", 0), None);
    }

    #[test]
    fn replies_go_by_the_answers_before_and_the_turn_can_be_repeated() {
        let script = r#"{"replies": ["one", "two {turn}"]}"#;
        let answer = |n| chosen(script, "", "<think>", n).expect("an answer");
        assert_eq!([answer(0), answer(1), answer(9)], ["one", "two <think>", "two <think>"]);
    }

    #[test]
    fn what_is_no_script_is_refused_with_its_place() {
        let lines = "{\"reply\": \"a\"}\n{\"reply\": \"b\", \"wen\": \"c\"}";
        assert!(
            message(lines).starts_with("rule 2: unknown field `wen`, expected one of `when`, "),
            "{}",
            message(lines)
        );
        assert!(message("{").starts_with("not JSON: "));
        assert_eq!(message(" "), "no rules, expected at least one");
        assert_eq!(message("{\"when\": \"a\"}"), "rule 1: expected either \"reply\" or a list \"replies\"");
        assert_eq!(message("[3]"), "rule 1: not an object, expected {\"when\": .., \"reply\": ..}");
        let slow = "{\"reply\": \"a\", \"tokens_per_second\": 0}";
        assert_eq!(message(slow), "rule 1: a speed, expected at least 0.001 tokens per second");
        assert!(message("{\"reply\": 5}").starts_with("rule 1: invalid type: "));
    }

    #[test]
    fn times_follow_from_the_speeds() {
        let text =
            r#"{"reply": "", "tokens_per_second": 10, "prefill_per_second": 1000, "stall_at": 2, "stall_ms": 50}"#;
        let script = Script::parse(text).expect("a script");
        let rule = script.rule(Scene { prompt: "", turn: "", answers: 0 }).expect("a rule");
        let ms = |time: Duration| time.as_millis();
        assert_eq!([0, 1, 2].map(|n| ms(rule.decode_time(n))), [0, 100, 150]);
        assert_eq!(ms(rule.prefill_time(500)), 500);
        assert!(script.slows_prompts() && !Script::default().slows_prompts());
    }
}
