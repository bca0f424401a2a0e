//! Answers drawn blindly under a constraint, and demands to hold against them.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use ds4_engine::Constraint;
use ds4_gguf::Gguf;
use ds4_server::grammar::{Arguments, Compiled, Format, GrammarError, Grammars, Spec, ToolChoice, ToolSpec};
use ds4_text::Tokenizer;
use serde_json::Value;

pub(crate) fn miniature() -> Gguf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/ds4-mini.gguf");
    Gguf::open(&path).unwrap()
}

pub(crate) static TOKENIZER: LazyLock<Arc<Tokenizer>> =
    LazyLock::new(|| Arc::new(Tokenizer::from_metadata(miniature().metadata()).unwrap()));
pub(crate) static GRAMMARS: LazyLock<Grammars> = LazyLock::new(|| Grammars::new(Arc::clone(&TOKENIZER)).unwrap());

pub(crate) fn compile(spec: &Spec) -> Result<Compiled, GrammarError> {
    GRAMMARS.compile(spec)
}

pub(crate) fn schema(schema: Value) -> Spec {
    Spec { format: Format::JsonSchema { schema, strict: true }, ..Spec::default() }
}

pub(crate) fn tool(name: &str, arguments: Arguments) -> ToolSpec {
    ToolSpec { name: name.to_owned(), arguments }
}

pub(crate) fn calling(tools: Vec<ToolSpec>, choice: ToolChoice) -> Spec {
    Spec { tools, choice, ..Spec::default() }
}

/// Numbers that look random.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// In [0, 1).
    pub(crate) fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 24) as f32
    }
}

/// Draws until the answer is complete, with a growing liking for what may end things. `prefer` likes texts from the start.
pub(crate) fn walk(mut constraint: Box<dyn Constraint>, seed: u64, prefer: &[&str]) -> Option<String> {
    const ENDS: [&str; 9] = ["\"", "}", "]", "</", ">", "true", "0", ":", "@"];
    let special = TOKENIZER.special();
    let mut random = Random(seed);
    let mut text = Vec::new();
    for step in 0..600 {
        let mut logits: Vec<f32> = (0..TOKENIZER.n_vocab()).map(|_| random.next()).collect();
        let hurry = if step > 20 { 0.05 * step as f32 } else { 0.0 };
        let mut like = |text: &str, much: f32| {
            let much = much * (0.5 + random.next());
            let ids = TOKENIZER.encode(text);
            ids.iter().for_each(|&id| logits[id as usize] = logits[id as usize].max(much));
        };
        prefer.iter().for_each(|text| like(text, 2.0));
        ENDS.iter().for_each(|text| like(text, hurry));
        logits[special.eos as usize] += 2.0 * hurry;
        logits[special.dsml as usize] += 2.0 * hurry;
        constraint.allow(&mut logits).unwrap();
        let (id, best) = (0..).zip(&logits).max_by(|a, b| a.1.total_cmp(b.1)).unwrap();
        assert!(best.is_finite(), "a dead end after {}", String::from_utf8_lossy(&text));
        if id == special.eos {
            return Some(String::from_utf8(text).unwrap());
        }
        text.extend_from_slice(TOKENIZER.token_bytes(id));
        if constraint.push(id).unwrap() {
            return Some(String::from_utf8(text).unwrap());
        }
    }
    None
}

/// Whole answers of `n` seeds; few may be too long to end.
pub(crate) fn answers(spec: &Spec, n: u64, prefer: &[&str]) -> Vec<String> {
    let compiled = compile(spec).unwrap();
    let walked = (0..n).filter_map(|seed| walk(compiled.constraint.clone().unwrap(), seed, prefer));
    let answers: Vec<String> = walked.collect();
    assert!(answers.len() as u64 * 2 > n, "{} of {n} came to an end", answers.len());
    answers
}
