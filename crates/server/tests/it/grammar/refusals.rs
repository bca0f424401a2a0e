//! Demands that cannot be met.

use std::time::{Duration, Instant};

use ds4_server::grammar::{Arguments, Format, GrammarError, Spec, ToolChoice};
use serde_json::{Value, json};

use crate::grammar::walk::{TOKENIZER, calling, compile, schema, tool};

fn refusal(demanded: Value) -> String {
    compile(&schema(demanded)).unwrap_err().to_string()
}

#[test]
fn every_refusal_names_the_path() {
    let deep = (0..80).fold(json!({}), |inner, _| json!({"items": inner}));
    let table = [
        (json!({"properties": {"a": {"not": {}}}}), "response_format.schema.properties.a.not: this keyword is not"),
        (json!({"uniqueItems": true}), "schema.uniqueItems: this keyword is not supported"),
        (json!({"anyOf": [{"type": "null"}, {"if": {}}]}), "schema.anyOf[1].if: this keyword"),
        (json!({"format": "hostname"}), "schema.format: format \"hostname\" is not supported"),
        (json!({"pattern": "(?=a)b"}), "schema.pattern: the pattern (look-around"),
        (json!({"pattern": "("}), "schema.pattern: the pattern (unclosed group"),
        (json!({"pattern": "a\\bb"}), "schema.pattern: the pattern (anchors and boundaries"),
        (json!({"type": "text"}), "schema.type: \"text\", expected one or some of"),
        (json!({"type": []}), "schema.type: [], expected"),
        (json!({"properties": []}), "schema.properties: expected an object of schemas"),
        (json!({"required": "a"}), "schema.required: expected a list of names"),
        (json!({"enum": []}), "schema.enum: expected a list of at least one value"),
        (json!({"minLength": -1}), "schema.minLength: expected a whole number"),
        (json!({"minimum": "1"}), "schema.minimum: expected a number"),
        (json!({"items": 3}), "schema.items: expected an object, true or false"),
        (json!({"$ref": "#/$defs/x"}), "schema.$ref: #/$defs/x is not in response_format.schema"),
        (json!({"$ref": "https://example.com/s"}), "schema.$ref: a reference that does not start with"),
        (json!({"$defs": {"a": {"contains": {}}}, "$ref": "#/$defs/a"}), "schema.$defs.a.contains: this keyword"),
        (json!([]), "response_format.schema: expected an object, true or false"),
        (json!(false), "response_format: "),
        (json!({"type": "integer", "minimum": 3, "maximum": 2}), "response_format: "),
        (deep, "nested deeper than 64 levels"),
    ];
    for (demanded, expected) in table {
        let found = refusal(demanded);
        assert!(found.contains(expected), "{found:?}, expected {expected:?}");
        assert!(!found.contains('\n'), "{found:?}");
    }
}

#[test]
fn without_strict_what_is_not_supported_is_a_warning() {
    let demanded = json!({"type": "string", "format": "hostname", "title": "t", "x-mine": 1});
    let spec = Spec { format: Format::JsonSchema { schema: demanded, strict: false }, ..Spec::default() };
    let compiled = compile(&spec).unwrap();
    assert_eq!(
        compiled.warnings,
        [
            "response_format.schema.format: format \"hostname\" is not supported and was ignored",
            "response_format.schema.x-mine: this keyword is not supported and was ignored",
        ]
    );
    assert!(compiled.constraint.is_some());
    assert_eq!(compile(&spec).unwrap().warnings.len(), 2, "also when it was compiled before");
}

#[test]
fn other_formats_are_refused_by_name() {
    let table = [
        (Format::Regex("(?=a)".to_owned()), "response_format: the pattern (look-around"),
        (Format::Choice(Vec::new()), "response_format: expected at least one text"),
        (Format::Lark("start: nothing".to_owned()), "response_format: "),
        (Format::Lark("no grammar".to_owned()), "response_format: "),
        (Format::Lark(" ".repeat(2 << 20)), "response_format: 2097152 bytes, expected at most 1048576"),
    ];
    for (format, expected) in table {
        let found = compile(&Spec { format, ..Spec::default() }).unwrap_err().to_string();
        assert!(found.contains(expected), "{found:?}, expected {expected:?}");
    }
}

#[test]
fn tools_that_cannot_be_called_are_refused_by_path() {
    let strict = |schema: Value| vec![tool("g", Arguments::Free), tool("f", Arguments::Strict(schema))];
    let table = [
        (calling(Vec::new(), ToolChoice::Required), "tool_choice: a call is required, but there are no tools"),
        (calling(strict(json!({})), ToolChoice::Named("h".to_owned())), "tool_choice: h is not one of the tools"),
        (calling(strict(json!({"not": {}})), ToolChoice::Auto), "tools[1].parameters.not: this keyword"),
        (calling(strict(json!({"anyOf": [{}]})), ToolChoice::Auto), "tools[1].parameters.anyOf: this keyword beside"),
        (calling(strict(json!({"required": ["x"]})), ToolChoice::Auto), "tools[1].parameters.required: x is not one"),
        (
            calling(strict(json!({"properties": {"x": false}, "required": ["x"]})), ToolChoice::Auto),
            "tools[1].parameters.properties.x: no value is valid",
        ),
        (
            calling(strict(json!({"title": " ".repeat(1 << 20)})), ToolChoice::Auto),
            "tools[1].parameters: 1048588 bytes",
        ),
        (calling(vec![tool("a\"b", Arguments::Free)], ToolChoice::Required), "tools[0].name: expected a name"),
    ];
    for (spec, expected) in table {
        let found = compile(&spec).unwrap_err().to_string();
        assert!(found.contains(expected), "{found:?}, expected {expected:?}");
    }
}

#[test]
fn a_step_under_a_schema_made_to_be_slow_ends_in_time() {
    let patterns = [
        "^((a{1,1000}){1,1000}){1,1000}$",
        "^(a|b)*a(a|b){400}$",
        "(x+x+)+y",
        "^(\\w+\\s?){1,500}$",
        "^[^a]*(a[^b]*b[^c]*c){300}",
    ];
    for pattern in patterns {
        let demanded = json!({"type": "string", "pattern": pattern, "minLength": 300, "maxLength": 9000});
        let Ok(compiled) = compile(&schema(demanded)) else { continue };
        let mut constraint = compiled.constraint.unwrap();
        let mut id = TOKENIZER.encode("\"")[0];
        for step in 0..60 {
            let begun = Instant::now();
            let mut logits = vec![0.0; TOKENIZER.n_vocab()];
            let allowed = constraint.allow(&mut logits);
            let taken = begun.elapsed();
            assert!(taken < Duration::from_millis(500), "{pattern}, step {step}: {taken:?}");
            if allowed.is_err() || constraint.push(id).is_err() {
                break;
            }
            id = TOKENIZER.encode(if step % 3 == 0 { "a" } else { "b" })[0];
        }
    }
}

#[test]
fn schemas_made_to_be_slow_or_large_are_refused_in_time() {
    let many = |n: usize| (0..n).map(|i| (format!("p{i}"), json!({"type": "string"}))).collect::<Value>();
    let hard = json!({"type": "string", "pattern": "^((a{1,1000}){1,1000}){1,1000}$"});
    for demanded in [json!({"type": "object", "properties": many(5000)}), hard, json!({"enum": [" ".repeat(1 << 20)]})]
    {
        let begun = Instant::now();
        let found = compile(&schema(demanded)).map(|_| ());
        assert!(begun.elapsed() < Duration::from_secs(3), "{found:?}");
    }
    let many_properties = refusal(json!({"type": "object", "properties": many(5000)}));
    assert!(many_properties.contains("schema.properties: 5000 properties, expected at most 4096"), "{many_properties}");
    let long = compile(&schema(json!({"enum": [" ".repeat(1 << 20)]}))).unwrap_err();
    assert!(matches!(long, GrammarError::TooLarge { .. }), "{long}");
    let wide = json!({"type": "object", "properties": many(1000), "additionalProperties": false});
    assert!(compile(&schema(wide)).is_ok());
}
