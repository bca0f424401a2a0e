//! Answers in a form.

use ds4_server::grammar::{Format, Spec};
use serde_json::{Value, json};

use crate::grammar::walk::{TOKENIZER, answers, compile, schema, walk};

fn format(format: Format) -> Spec {
    Spec { format, ..Spec::default() }
}

/// Every keyword that is supported, one or a few at a time.
fn schemas() -> Vec<Value> {
    vec![
        json!({"type": "object", "properties": {"b": {"type": "string"}, "a": {"type": "integer"}}, "required": ["b", "a"]}),
        json!({"type": "object", "properties": {"x": {"type": "boolean"}}, "additionalProperties": false}),
        json!({"type": "object", "additionalProperties": {"type": "null"}}),
        json!({"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 4}),
        json!({"prefixItems": [{"type": "string"}, {"type": "integer"}], "items": false, "minItems": 2, "type": "array"}),
        json!({"enum": ["red", "green", 3, null, {"k": [1, "v"]}]}),
        json!({"const": {"answer": 42}}),
        json!({"anyOf": [{"type": "integer", "minimum": -3, "maximum": 12}, {"type": "string", "maxLength": 4}]}),
        json!({"oneOf": [{"type": "null"}, {"type": "array", "items": {"type": "boolean"}}]}),
        json!({"allOf": [{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
            {"type": "object", "properties": {"b": {"type": "null"}}, "required": ["b"]}]}),
        json!({"type": "string", "minLength": 3, "maxLength": 5}),
        json!({"type": "string", "pattern": "^[a-c]{2,3}-\\d+$"}),
        json!({"type": ["integer", "null"], "exclusiveMinimum": 0, "exclusiveMaximum": 10}),
        json!({"$defs": {"node": {"type": "object", "properties": {"value": {"type": "integer", "minimum": 0, "maximum": 9},
            "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}}, "required": ["value", "next"],
            "additionalProperties": false}}, "$ref": "#/$defs/node"}),
        json!({"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#"}, "maxItems": 2}},
            "additionalProperties": false}),
        json!({"type": "object", "properties": {"a/b": {"type": "integer"}, "c": {"$ref": "#/properties/a~1b"}},
            "required": ["c"], "additionalProperties": false}),
        json!({"type": "array", "minItems": 1, "items": {"anyOf": [{"type": "string", "format": "date"},
            {"type": "string", "format": "uuid"}, {"type": "string", "format": "ipv4"},
            {"type": "string", "format": "date-time"}, {"type": "string", "format": "time"}]}}),
        json!({"type": "string", "format": "email"}),
        json!({"type": "string", "format": "ipv6"}),
        json!(true),
    ]
}

#[test]
fn whatever_is_drawn_under_a_schema_is_valid() {
    for demanded in schemas() {
        let validator = jsonschema::options().should_validate_formats(true).build(&demanded).unwrap();
        for answer in answers(&schema(demanded.clone()), 12, &[]) {
            let value: Value = serde_json::from_str(&answer).unwrap_or_else(|e| panic!("{demanded}: {answer}: {e}"));
            assert!(validator.is_valid(&value), "{demanded}: {answer}");
        }
    }
}

#[test]
fn properties_come_in_the_order_of_the_schema() {
    let demanded = json!({"type": "object", "properties": {"z": {"type": "null"}, "a": {"type": "null"}},
        "required": ["a", "z"], "additionalProperties": false});
    for answer in answers(&schema(demanded), 4, &[]) {
        let bare: String = answer.split_whitespace().collect();
        assert_eq!(bare, r#"{"z":null,"a":null}"#);
    }
}

#[test]
fn a_json_object_is_one_object_and_nothing_else() {
    for answer in answers(&format(Format::JsonObject), 20, &["{", "\""]) {
        let value: Value = serde_json::from_str(&answer).unwrap_or_else(|e| panic!("{answer}: {e}"));
        assert!(value.is_object(), "{answer}");
        assert_eq!(answer.trim(), answer, "no white space around it");
    }
}

#[test]
fn an_expression_matches_the_whole_answer() {
    for pattern in [r"^\d{3}-\d{4}$", r"\d{3}-\d{4}", "(?:^[0-9]{3}-[0-9]{4}$)"] {
        for answer in answers(&format(Format::Regex(pattern.to_owned())), 10, &[]) {
            let digits = |part: &str, n| part.len() == n && part.bytes().all(|b| b.is_ascii_digit());
            let (left, right) = answer.split_once('-').unwrap();
            assert!(digits(left, 3) && digits(right, 4), "{pattern}: {answer}");
        }
    }
}

#[test]
fn a_choice_is_one_of_its_texts() {
    let texts = ["yes", "no", "yes, but", "\"quoted\"\n", "ü"];
    let all = texts.map(str::to_owned).to_vec();
    let answers = answers(&format(Format::Choice(all)), 40, &[]);
    assert!(answers.iter().all(|answer| texts.contains(&answer.as_str())), "{answers:?}");
    assert!(texts.iter().filter(|text| answers.iter().any(|answer| answer == *text)).count() >= 4, "{answers:?}");
}

#[test]
fn a_grammar_is_followed() {
    let sums = "start: NUMBER (\" + \" NUMBER)+\nNUMBER: /[0-9]{1,3}/";
    for answer in answers(&format(Format::Lark(sums.to_owned())), 10, &[]) {
        assert!(answer.split(" + ").all(|n| n.parse::<u32>().is_ok()) && answer.contains('+'), "{answer}");
    }
}

#[test]
fn no_control_token_gets_into_an_answer_even_if_a_grammar_asks_for_it() {
    let user = TOKENIZER.special().user;
    let asking = Format::Lark(format!("start: \"a\" (<[{user}]> | \"b\")"));
    let mut constraint = compile(&format(asking)).unwrap().constraint.unwrap();
    constraint.push(TOKENIZER.encode("a")[0]).unwrap();
    let mut logits = vec![0.0; TOKENIZER.n_vocab()];
    constraint.allow(&mut logits).unwrap();
    assert!(!logits[user as usize].is_finite() && logits[TOKENIZER.encode("b")[0] as usize].is_finite());
}

#[test]
fn the_end_is_allowed_only_where_the_answer_is_whole() {
    let spec = format(Format::Choice(vec!["a".to_owned(), "abc".to_owned()]));
    let mut constraint = compile(&spec).unwrap().constraint.unwrap();
    let eos = TOKENIZER.special().eos as usize;
    let ends = |constraint: &mut Box<dyn ds4_engine::Constraint>| {
        let mut logits = vec![0.0; TOKENIZER.n_vocab() + 7];
        constraint.allow(&mut logits).unwrap();
        assert!(logits[TOKENIZER.n_vocab()..].iter().all(|z| !z.is_finite()), "rows of no token");
        logits[eos].is_finite()
    };
    assert!(!ends(&mut constraint));
    assert!(!constraint.push(TOKENIZER.encode("a")[0]).unwrap());
    assert!(ends(&mut constraint));
    let fork = constraint.fork();
    assert!(!constraint.push(TOKENIZER.encode("b")[0]).unwrap());
    assert!(!ends(&mut constraint));
    assert!(constraint.push(TOKENIZER.encode("c")[0]).unwrap(), "complete");
    assert_eq!(walk(fork, 1, &[]).map(|rest| rest.is_empty() || rest == "bc"), Some(true), "a state of its own");
}

#[test]
fn an_id_that_was_not_allowed_is_an_error_and_so_is_everything_after_it() {
    let spec = format(Format::JsonObject);
    let mut constraint = compile(&spec).unwrap().constraint.unwrap();
    let wrong = TOKENIZER.encode("x")[0];
    assert!(constraint.push(wrong).is_err());
    assert!(constraint.allow(&mut vec![0.0; TOKENIZER.n_vocab()]).is_err());
    assert!(compile(&spec).unwrap().constraint.unwrap().push(TOKENIZER.encode("{")[0]).is_ok(), "only that one");
}

#[test]
fn free_text_needs_no_constraint() {
    let compiled = compile(&Spec::default()).unwrap();
    assert!(compiled.constraint.is_none() && compiled.warnings.is_empty());
}
