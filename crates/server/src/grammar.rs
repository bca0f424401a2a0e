//! Demands on an answer, compiled to constraints of the engine: JSON, schemas, expressions, grammars and tool calls. Owns
//! what can be demanded and the limits; the parser of grammars is the `llguidance` crate's.

mod cache;
mod mask;
mod schema;
mod strings;
mod tools;
mod vocabulary;

use std::sync::Arc;

use ds4_engine::Constraint;
use ds4_text::Tokenizer;
use llguidance::Matcher;
use llguidance::api::{GrammarWithLexer, TopLevelGrammar};
use serde_json::{Value, json};

use self::cache::Cache;
use self::mask::{Mask, Phase};
use self::strings::{alternatives, literal, whole};
use self::vocabulary::Vocabulary;

/// What a request demands of its answer.
#[derive(Clone, Debug, Default)]
pub struct Spec {
    /// The answer, where it is not a call.
    pub format: Format,
    /// The tools that were shown to the model.
    pub tools: Vec<ToolSpec>,
    /// Whether to call them.
    pub choice: ToolChoice,
    /// At most one call in a block. Without any other demand this is the engine's business (`Request::single_call`).
    pub single_call: bool,
}

/// The form of an answer.
#[derive(Clone, Debug, Default)]
pub enum Format {
    /// Any text.
    #[default]
    Text,
    /// One JSON object.
    JsonObject,
    /// JSON that a schema admits. `strict`: a keyword that is not supported is an error, not a warning.
    JsonSchema { schema: Value, strict: bool },
    /// A text that an expression matches as a whole.
    Regex(String),
    /// One of these texts.
    Choice(Vec<String>),
    /// A text of a grammar in Lark's language, as `llguidance` reads it.
    Lark(String),
}

/// A tool as the grammar needs it.
#[derive(Clone, Debug)]
pub struct ToolSpec {
    /// The name shown to the model.
    pub name: String,
    /// What its calls may say.
    pub arguments: Arguments,
}

/// Arguments of a tool.
#[derive(Clone, Debug)]
pub enum Arguments {
    /// Anything that is well-formed.
    Free,
    /// An object that this schema admits, no names but those it declares.
    Strict(Value),
    /// One text under this name, of any form or of one.
    Custom { parameter: String, grammar: Option<Format> },
}

/// Which tools may or must be called.
#[derive(Clone, Debug, Default)]
pub enum ToolChoice {
    /// None, though they are shown.
    None,
    /// As the model likes.
    #[default]
    Auto,
    /// At least one.
    Required,
    /// This one.
    Named(String),
    /// Only these, and at least one if `required`.
    Allowed { names: Vec<String>, required: bool },
}

/// A demand that cannot be met. Every one is the client's to mend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrammarError {
    /// Something that is known, but not supported.
    #[error("{path}: {what} is not supported")]
    Unsupported {
        /// Where in the request.
        path: String,
        /// What is not supported.
        what: String,
    },
    /// Something that is no schema, expression or grammar.
    #[error("{path}: {reason}")]
    Invalid {
        /// Where in the request.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// More text than is read.
    #[error("{path}: {found} bytes, expected at most {limit}")]
    TooLarge {
        /// Where in the request.
        path: String,
        /// Bytes there.
        found: usize,
        /// Most bytes.
        limit: usize,
    },
    /// A grammar that takes too long to compile.
    #[error("{path}: too complex, expected to compile in {seconds} s")]
    TooSlow {
        /// Where in the request.
        path: String,
        /// The limit.
        seconds: u64,
    },
}

/// A demand ready to be held against an answer.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// What was ignored, one line each.
    pub warnings: Vec<String>,
    /// For one answer; clones are for others. Nothing if any answer will do.
    pub constraint: Option<Box<dyn Constraint>>,
    /// For a call block that went wrong in an answer without demands, from behind its first marker on.
    pub block: Option<Box<dyn Constraint>>,
}

/// Compiles demands for one vocabulary. One serves all threads; building it reads the whole vocabulary.
pub struct Grammars {
    vocabulary: Arc<Vocabulary>,
    cache: Cache,
}

/// Bytes of a schema, an expression or a grammar.
const MAX_BYTES: usize = 1 << 20;

impl Grammars {
    /// Reads the vocabulary.
    ///
    /// # Errors
    /// If the vocabulary cannot be used for grammars.
    pub fn new(tokenizer: Arc<Tokenizer>) -> Result<Self, GrammarError> {
        let vocabulary = Arc::new(Vocabulary::new(tokenizer));
        let cache = Cache::new(Arc::clone(&vocabulary))?;
        Ok(Grammars { vocabulary, cache })
    }

    /// Compiles a demand, or finds it compiled.
    ///
    /// # Errors
    /// [`GrammarError`], with the path of what is wrong: `response_format.schema…` of the format, `tools[i]…` of a tool.
    pub fn compile(&self, spec: &Spec) -> Result<Compiled, GrammarError> {
        let mut warnings = Vec::new();
        let phase = self.phase(spec, &mut warnings)?;
        let block = if phase.is_none() { self.repair(spec) } else { None };
        let mask = |phase| Box::new(Mask::new(Arc::clone(&self.vocabulary), phase)) as Box<dyn Constraint>;
        Ok(Compiled { warnings, constraint: phase.map(mask), block: block.map(mask) })
    }

    /// The form of a block that nobody demanded. Tools that it cannot be written for do without.
    fn repair(&self, spec: &Spec) -> Option<Phase> {
        let (tools, _) = callable(spec).ok()?;
        if tools.is_empty() {
            return None;
        }
        let mut block = tools::block(&tools, !spec.single_call, self.vocabulary.dsml(), &mut Vec::new()).ok()?;
        let mut parts = vec![lark("block", format!("start: tail\n{}", block.rules))];
        parts.append(&mut block.parts);
        Some(Phase::Grammar { matcher: self.compiled(parts, "tools").ok()?, block: true })
    }

    /// The rule under which the answer begins.
    fn phase(&self, spec: &Spec, warnings: &mut Vec<String>) -> Result<Option<Phase>, GrammarError> {
        let (tools, must_call) = callable(spec)?;
        let free = matches!(spec.format, Format::Text);
        if tools.is_empty() {
            let shown = !spec.tools.is_empty();
            if free {
                return Ok(shown.then_some(Phase::Text { block: None }));
            }
            let parts = answer(&spec.format, "answer", FORMAT, warnings)?;
            return Ok(Some(Phase::Grammar { matcher: self.compiled(parts, FORMAT)?, block: false }));
        }
        let demanding = |(_, tool): &Placed<'_>| match &tool.arguments {
            Arguments::Strict(_) => true,
            Arguments::Custom { grammar, .. } => grammar.is_some(),
            Arguments::Free => false,
        };
        let restricted = tools.len() < spec.tools.len() || tools.iter().any(demanding);
        if free && !must_call && !restricted {
            return Ok(None);
        }
        let dsml = self.vocabulary.dsml();
        let mut block = tools::block(&tools, !spec.single_call, dsml, warnings)?;
        let opener = format!("\"\\n\\n<\" <[{dsml}]> tail");
        let start = match (free, must_call) {
            (_, true) => opener,
            (true, false) => "tail".to_owned(),
            (false, false) => {
                block.parts.extend(answer(&spec.format, "answer", FORMAT, warnings)?);
                format!("@answer | {opener}")
            }
        };
        let mut parts = vec![lark("block", format!("start: {start}\n{}", block.rules))];
        parts.append(&mut block.parts);
        let matcher = self.compiled(parts, if free || must_call { "tools" } else { FORMAT })?;
        let in_text = free && !must_call;
        Ok(Some(if in_text { Phase::Text { block: Some(matcher) } } else { Phase::Grammar { matcher, block: true } }))
    }

    fn compiled(&self, parts: Vec<GrammarWithLexer>, path: &str) -> Result<Matcher, GrammarError> {
        self.cache.get(TopLevelGrammar { grammars: parts, max_tokens: None }, path)
    }
}

/// A tool and its place among those of the request.
type Placed<'a> = (usize, &'a ToolSpec);

/// Where messages place the format of the answer.
const FORMAT: &str = "response_format";

/// The tools that may be called, with their places, and whether one must be.
fn callable(spec: &Spec) -> Result<(Vec<Placed<'_>>, bool), GrammarError> {
    let all = || spec.tools.iter().enumerate();
    let known = |name: &String| match all().find(|(_, tool)| tool.name == *name) {
        Some(tool) => Ok(tool),
        None => Err(schema::invalid("tool_choice", format!("{name} is not one of the tools"))),
    };
    let (tools, must_call): (Vec<_>, bool) = match &spec.choice {
        ToolChoice::None => (Vec::new(), false),
        ToolChoice::Auto => (all().collect(), false),
        ToolChoice::Required => (all().collect(), true),
        ToolChoice::Named(name) => (vec![known(name)?], true),
        ToolChoice::Allowed { names, required } => (names.iter().map(known).collect::<Result<_, _>>()?, *required),
    };
    if must_call && tools.is_empty() {
        return Err(schema::invalid("tool_choice", "a call is required, but there are no tools"));
    }
    Ok((tools, must_call))
}

/// The grammar of a format under a name; `Text` is any text.
fn answer(
    format: &Format,
    name: &str,
    path: &str,
    warnings: &mut Vec<String>,
) -> Result<Vec<GrammarWithLexer>, GrammarError> {
    let terminal = |terminal: String| lark(name, format!("start: TEXT\nTEXT: {terminal}"));
    Ok(vec![match format {
        Format::Text => terminal(strings::regex("(?s:.*)")),
        Format::JsonObject => json(name, json!({"type": "object"})),
        Format::JsonSchema { schema, strict } => {
            let schema = schema::read(schema, &format!("{path}.schema"), *strict, warnings)?;
            json(name, schema.document(schema.root.clone()))
        }
        Format::Regex(pattern) => {
            check_size(pattern.len(), path)?;
            terminal(whole(pattern).map_err(|what| GrammarError::Unsupported { path: path.to_owned(), what })?)
        }
        Format::Choice(texts) if texts.is_empty() => return Err(schema::invalid(path, "expected at least one text")),
        Format::Choice(texts) => {
            check_size(texts.iter().map(String::len).sum(), path)?;
            terminal(alternatives(texts.iter().map(|text| literal(text))))
        }
        Format::Lark(grammar) => {
            check_size(grammar.len(), path)?;
            lark(name, grammar.clone())
        }
    }])
}

fn check_size(found: usize, path: &str) -> Result<(), GrammarError> {
    if found <= MAX_BYTES {
        return Ok(());
    }
    Err(GrammarError::TooLarge { path: path.to_owned(), found, limit: MAX_BYTES })
}

fn lark(name: &str, grammar: String) -> GrammarWithLexer {
    GrammarWithLexer { name: Some(name.to_owned()), ..GrammarWithLexer::from_lark(grammar) }
}

/// JSON of a schema. Between its parts there may be some white space, but not for ever.
fn json(name: &str, mut schema: Value) -> GrammarWithLexer {
    if let Value::Object(keywords) = &mut schema {
        keywords.insert("x-guidance".to_owned(), json!({"whitespace_pattern": r"[\x20\x0A\x0D\x09]{1,40}"}));
    }
    GrammarWithLexer { name: Some(name.to_owned()), ..GrammarWithLexer::from_json_schema(schema) }
}
