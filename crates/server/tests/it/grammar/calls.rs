//! Calls under a choice of tools, read back by the strict reader.

use ds4_server::grammar::{Arguments, Format, Spec, ToolChoice, ToolSpec};
use ds4_text::parse::strict;
use ds4_text::{Call, Turn};
use serde_json::{Value, json};

use crate::grammar::walk::{TOKENIZER, answers, calling, compile, tool, walk};

fn weather() -> Value {
    json!({"type": "object", "properties": {
        "city": {"type": "string", "maxLength": 12},
        "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 14},
        "code": {"type": "string", "pattern": "^[A-Z]{2}\\d$"},
        "when": {"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}]},
        "spot": {"$ref": "#/$defs/spot"}
    }, "required": ["city", "days", "when"], "additionalProperties": false,
    "$defs": {"spot": {"type": "object", "properties": {"lat": {"type": "number"}, "names": {"type": "array",
        "items": {"type": "string"}}}, "required": ["lat"], "additionalProperties": false}}})
}

fn tools() -> Vec<ToolSpec> {
    vec![
        tool("get_weather", Arguments::Strict(weather())),
        tool("ping", Arguments::Strict(json!({"type": "object", "properties": {}}))),
        tool("search", Arguments::Free),
    ]
}

fn read(answer: &str) -> Turn {
    strict(&format!("{answer}<｜end▁of▁sentence｜>"), false).unwrap_or_else(|e| panic!("{answer:?}: {e}"))
}

fn arguments(call: &Call) -> Value {
    serde_json::from_str(&call.arguments).unwrap_or_else(|e| panic!("{}: {e}", call.arguments))
}

fn check(call: &Call) {
    let validator = jsonschema::options().should_validate_formats(true).build(&weather()).unwrap();
    match call.name.as_str() {
        "get_weather" => assert!(validator.is_valid(&arguments(call)), "{}", call.arguments),
        "ping" => assert_eq!(arguments(call), json!({})),
        name => assert_eq!(name, "search"),
    }
}

#[test]
fn a_required_call_is_whole_and_nothing_else_is_said() {
    let spec = calling(tools(), ToolChoice::Required);
    let mut names = std::collections::BTreeSet::new();
    for answer in answers(&spec, 40, &[]) {
        let turn = read(&answer);
        assert!(turn.content.is_empty() && !turn.calls.is_empty(), "{answer}");
        turn.calls.iter().for_each(check);
        names.extend(turn.calls.into_iter().map(|call| call.name));
    }
    assert_eq!(names.len(), 3, "{names:?}");
}

#[test]
fn what_is_forced_comes_in_the_ids_that_the_model_knows() {
    let spec = calling(vec![tools().remove(1)], ToolChoice::Required);
    let spec = Spec { single_call: true, ..spec };
    let mut constraint = compile(&spec).unwrap().constraint.unwrap();
    let mut ids = Vec::new();
    loop {
        let mut logits = vec![0.0; TOKENIZER.n_vocab()];
        constraint.allow(&mut logits).unwrap();
        let allowed: Vec<u32> = (0..).zip(&logits).filter(|(_, z)| z.is_finite()).map(|(id, _)| id).collect();
        ids.push(allowed[0]);
        assert_eq!(allowed.len(), 1, "{:?}", String::from_utf8_lossy(&TOKENIZER.decode(&ids)));
        if constraint.push(allowed[0]).unwrap() {
            break;
        }
    }
    let text = String::from_utf8(TOKENIZER.decode(&ids)).unwrap();
    assert_eq!(read(&text).calls[0].name, "ping");
    assert_eq!(ids, TOKENIZER.encode(&text));
}

#[test]
fn a_named_tool_is_the_one_that_is_called_and_once_if_once_is_demanded() {
    let spec = calling(tools(), ToolChoice::Named("get_weather".to_owned()));
    let spec = Spec { single_call: true, ..spec };
    for answer in answers(&spec, 30, &[]) {
        let turn = read(&answer);
        assert_eq!(turn.calls.len(), 1);
        assert_eq!(turn.calls[0].name, "get_weather");
        check(&turn.calls[0]);
    }
}

#[test]
fn allowed_tools_are_the_only_ones() {
    let choice = |required| ToolChoice::Allowed { names: vec!["ping".to_owned()], required };
    for answer in answers(&calling(tools(), choice(true)), 10, &[]) {
        assert!(read(&answer).calls.iter().all(|call| call.name == "ping"), "{answer}");
    }
    let compiled = compile(&calling(tools(), choice(false))).unwrap();
    let opened = said(compiled.constraint.clone().unwrap(), "hello\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"");
    assert_eq!(walk(opened, 3, &[]).map(|rest| rest.starts_with("ping")), Some(true));
}

/// A constraint after this text.
fn said(mut constraint: Box<dyn ds4_engine::Constraint>, text: &str) -> Box<dyn ds4_engine::Constraint> {
    for id in TOKENIZER.encode(text) {
        let mut logits = vec![0.0; TOKENIZER.n_vocab()];
        constraint.allow(&mut logits).unwrap();
        let token = String::from_utf8_lossy(TOKENIZER.token_bytes(id)).into_owned();
        assert!(logits[id as usize].is_finite(), "{token:?} of {text:?}");
        constraint.push(id).unwrap();
    }
    constraint
}

/// Whether `id` may follow `text`.
fn may_follow(spec: &Spec, text: &str, id: u32) -> bool {
    let mut constraint = said(compile(spec).unwrap().constraint.unwrap(), text);
    let mut logits = vec![0.0; TOKENIZER.n_vocab()];
    constraint.allow(&mut logits).unwrap();
    logits[id as usize].is_finite()
}

#[test]
fn with_choice_none_no_block_can_begin() {
    let spec = calling(tools(), ToolChoice::None);
    let dsml = TOKENIZER.special().dsml;
    let last = |text: &str| *TOKENIZER.encode_plain(text).last().unwrap();
    assert!(!may_follow(&spec, "hello\n\n<", dsml));
    assert!(!may_follow(&spec, "so: <tool_calls", last(">")), "nor in another spelling");
    assert!(may_follow(&spec, "so: <tool_call", last(">")));
    assert!(may_follow(&spec, "done.", TOKENIZER.special().eos));
    let object = Spec { format: Format::JsonObject, ..spec };
    for answer in answers(&object, 4, &[]) {
        assert!(serde_json::from_str::<Value>(&answer).is_ok());
    }
}

#[test]
fn with_strict_tools_text_is_free_and_blocks_are_not() {
    let spec = calling(tools(), ToolChoice::Auto);
    let dsml = TOKENIZER.special().dsml;
    assert!(may_follow(&spec, "hello\n\n<", dsml) && !may_follow(&spec, "hello <", dsml));
    assert!(may_follow(&spec, "hello", TOKENIZER.special().eos));
    let begun =
        "It is 3 < 4.\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"get_weather\">\n<｜DSML｜parameter name=\"";
    let compiled = compile(&spec).unwrap();
    for seed in 0..10 {
        let constraint = said(compiled.constraint.clone().unwrap(), begun);
        let Some(rest) = walk(constraint, seed, &[]) else { continue };
        assert!(rest.starts_with("city\" string=\"true\">"), "{rest}");
        let turn = read(&format!("{begun}{rest}"));
        assert_eq!(turn.content, "It is 3 < 4.");
        turn.calls.iter().for_each(check);
    }
}

#[test]
fn plain_tools_need_no_constraint() {
    let spec = calling(vec![tool("search", Arguments::Free)], ToolChoice::Auto);
    assert!(compile(&spec).unwrap().constraint.is_none());
}

#[test]
fn beside_a_format_the_answer_is_either() {
    let spec = Spec { format: Format::JsonObject, ..calling(tools(), ToolChoice::Auto) };
    let (mut objects, mut called) = (0, 0);
    for answer in answers(&spec, 40, &["\n\n"]) {
        if answer.starts_with('{') {
            objects += 1;
            assert!(serde_json::from_str::<Value>(&answer).is_ok(), "{answer}");
        } else {
            called += 1;
            read(&answer).calls.iter().for_each(check);
        }
    }
    assert!(called > 0, "{objects} objects");
    let opened = compile(&spec).unwrap().constraint.unwrap();
    let object = said(opened, "{\"a\": 1}");
    assert_eq!(walk(object, 1, &[]).as_deref(), Some(""));
}

#[test]
fn a_value_may_hold_anything_but_the_marker() {
    let values =
        ["a </b> < / <", "<tool_calls>\n\n{\"x\": [1]}", "<｜DSML", "｜｜", "", "line\nline\n", "\"}]", "ü€😀"];
    let spec = calling(vec![tool("search", Arguments::Free)], ToolChoice::Required);
    let head =
        "\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"search\">\n<｜DSML｜parameter name=\"q\" string=\"true\">";
    let tail = "</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>";
    for value in values {
        let mut constraint = compile(&spec).unwrap().constraint.unwrap();
        constraint = said(constraint, &format!("{head}{value}</"));
        let whole = format!("{head}{value}{tail}");
        assert_eq!(arguments(&read(&whole).calls[0]), json!({"q": value}));
        let rest = TOKENIZER.encode(&tail[2..]);
        let ends: Vec<bool> = rest.iter().map(|&id| constraint.push(id).unwrap()).collect();
        assert_eq!(ends.iter().position(|end| *end), Some(rest.len() - 1), "{value:?}");
    }
    let bar = *TOKENIZER.encode_plain("｜").last().unwrap();
    assert!(!may_follow(&spec, &format!("{head}<｜DSML"), bar), "the marker is one id or nothing");
}

#[test]
fn a_custom_tool_takes_one_text() {
    let custom = |grammar| {
        calling(vec![tool("patch", Arguments::Custom { parameter: "input".to_owned(), grammar })], ToolChoice::Required)
    };
    let lark = Format::Lark("start: \"add \" /[a-z]{1,5}/ \"\\n\"".to_owned());
    let regex = Format::Regex("^add [a-z]{1,5}\n$".to_owned());
    for (grammar, n) in [(None, 6), (Some(lark), 10), (Some(regex), 10)] {
        let limited = grammar.is_some();
        for answer in answers(&custom(grammar), n, &[]) {
            for call in read(&answer).calls {
                let value = arguments(&call);
                let text = value["input"].as_str().unwrap();
                assert_eq!((call.name.as_str(), value.as_object().unwrap().len()), ("patch", 1));
                assert!(!limited || (text.starts_with("add ") && text.ends_with('\n')), "{text:?}");
            }
        }
    }
}
