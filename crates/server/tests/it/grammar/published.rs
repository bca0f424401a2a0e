//! The same over the published vocabulary, and how long a step takes there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ds4_gguf::{DEFAULT_ALIGNMENT, Gguf, Layout};
use ds4_server::grammar::{Arguments, Grammars, Spec, ToolChoice};
use ds4_synth::Tokens;
use ds4_text::Tokenizer;
use serde_json::{Value, json};

use crate::grammar::walk::{calling, schema, tool};

fn tokenizer() -> Arc<Tokenizer> {
    let layout = Layout::new(Tokens::Full.metadata(), Vec::new(), DEFAULT_ALIGNMENT).unwrap();
    let gguf = Gguf::from_bytes("published", layout.header().to_vec().into()).unwrap();
    Arc::new(Tokenizer::from_metadata(gguf.metadata()).unwrap())
}

/// Many properties, none of which must be there.
fn wide() -> Value {
    let member = |n: u32| match n % 5 {
        0 => json!({"enum": ["a", "b", "c"]}),
        1 => json!({"type": "array", "items": {"type": "string", "pattern": "^[a-z]+(-[a-z]+)*$"}, "maxItems": 100}),
        2 => json!({"type": "object", "properties": {"x": {"type": "number"}, "y": {"type": "number"}}}),
        3 => json!({"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]}),
        _ => json!({"type": "string", "maxLength": 20_000}),
    };
    let members: Value = (0..40).map(|n| (format!("field{n}"), member(n))).collect();
    json!({"type": "object", "properties": members, "additionalProperties": false})
}

/// Times of `allow` and `push` for each token of a text that is allowed.
fn follow(grammars: &Grammars, tokenizer: &Tokenizer, spec: &Spec, text: &str) -> Vec<Duration> {
    let mut constraint = grammars.compile(spec).unwrap().constraint.unwrap();
    let mut times = Vec::new();
    let mut logits = vec![0.0; tokenizer.n_vocab()];
    for id in tokenizer.encode(text) {
        logits.fill(0.0);
        let begun = Instant::now();
        constraint.allow(&mut logits).unwrap();
        let token = String::from_utf8_lossy(tokenizer.token_bytes(id)).into_owned();
        assert!(logits[id as usize].is_finite(), "{token:?} of {text:?}");
        constraint.push(id).unwrap();
        times.push(begun.elapsed());
    }
    times
}

#[test]
#[expect(clippy::print_stdout, reason = "`--nocapture` shows the times")]
fn a_step_is_quick_over_the_published_vocabulary() {
    let tokenizer = tokenizer();
    let begun = Instant::now();
    let grammars = Grammars::new(Arc::clone(&tokenizer)).unwrap();
    println!("vocabulary: {:?}", begun.elapsed());
    let person = json!({"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer",
        "minimum": 0, "maximum": 150}, "tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}},
        "email": {"type": "string", "format": "email"}, "note": {"type": "string", "maxLength": 80}},
        "required": ["name", "age", "tags", "email", "note"], "additionalProperties": false});
    let said = r#"{"name": "Ada Lovelace, Countess", "age": 36, "tags": ["red", "blue"], "email": "ada@example.com",
        "note": "She wrote of Bernoulli numbers\n and of 日本 too"}"#;
    let strict = json!({"type": "object", "properties": {"path": {"type": "string"}, "lines": {"type": "array",
        "items": {"type": "integer"}}}, "required": ["path", "lines"]});
    let tools = vec![tool("read", Arguments::Strict(strict)), tool("write", Arguments::Free)];
    let called = "\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"read\">\n<｜DSML｜parameter name=\"path\" \
        string=\"true\">/etc/hosts and more of it</｜DSML｜parameter>\n<｜DSML｜parameter name=\"lines\" string=\"false\">[1, 2]\
        </｜DSML｜parameter>\n</｜DSML｜invoke>\n<｜DSML｜invoke name=\"write\">\n<｜DSML｜parameter name=\"text\" string=\"true\">\
        fn main() {\n    println!(\"hello </b>\");\n}\n</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>";
    for (name, spec, text) in [
        ("schema", schema(person), said.to_owned()),
        (
            "wide schema",
            schema(wide()),
            r#"{"field4": "long text, of up to twenty thousand characters", "field7": {"x": 1.5},
            "field20": "b", "field21": ["a-b", "cde"]}"#
                .to_owned(),
        ),
        ("required call", calling(tools.clone(), ToolChoice::Required), called.to_owned()),
        ("strict tools", calling(tools, ToolChoice::Auto), format!("I will read it first.{called}")),
    ] {
        let begun = Instant::now();
        grammars.compile(&spec).unwrap();
        let compiled = begun.elapsed();
        let begun = Instant::now();
        grammars.compile(&spec).unwrap();
        let found = begun.elapsed();
        let mut times = follow(&grammars, &tokenizer, &spec, &text);
        times.sort_unstable();
        let mean = times.iter().sum::<Duration>() / times.len() as u32;
        let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
        println!(
            "{name}: compiled in {compiled:?}, found in {found:?}; {} tokens, mean {mean:?}, median {median:?}, worst {worst:?}",
            times.len()
        );
        assert!(median < Duration::from_millis(2), "{name}: {median:?}");
    }
}
