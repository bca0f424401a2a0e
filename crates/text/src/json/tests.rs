use proptest::prelude::*;

use super::*;

fn dumped(text: &str) -> Result<String, Fault> {
    Json::parse(text).map(|v| v.dump())
}

fn rows(text: &str) -> impl Iterator<Item = Value> + '_ {
    text.lines().map(|line| serde_json::from_str(line).expect("fixtures are JSON lines"))
}

#[test]
fn numbers_are_spelled_as_python_spells_them() {
    let table = include_str!("../../../../fixtures/encoding/constants/python_numbers.jsonl");
    let mut n = 0;
    for row in rows(table) {
        let [spelled, expected] = ["in", "out"].map(|k| row[k].as_str().expect("text").to_owned());
        assert_eq!(dumped(&spelled), Ok(expected), "{spelled}");
        n += 1;
    }
    assert_eq!(n, 46);
}

#[test]
fn strings_are_spelled_as_python_spells_them() {
    let table = include_str!("../../../../fixtures/encoding/constants/python_strings.jsonl");
    let mut n = 0;
    for row in rows(table) {
        assert_eq!(Json::from_value(&row["in"]).expect("shallow").dump(), row["out"].as_str().expect("text"));
        n += 1;
    }
    assert_eq!(n, 10);
}

#[test]
fn the_client_value_and_the_text_are_dumped_alike() {
    let text = r#"{"b":[1,2.50,1E5,-0,-0.0,1e400,12345678901234567890],"a":{"é":"\u00e9\n","":null},"t":true}"#;
    let expected =
        r#"{"b": [1, 2.5, 100000.0, 0, -0.0, Infinity, 12345678901234567890], "a": {"é": "é\n", "": null}, "t": true}"#;
    assert_eq!(dumped(text).as_deref(), Ok(expected));
    let value: Value = serde_json::from_str(text).expect("JSON");
    assert_eq!(Json::from_value(&value).expect("shallow").dump(), expected);
}

#[test]
fn a_repeated_key_keeps_its_first_place_and_last_value() {
    assert_eq!(dumped(r#"{"a": 1, "b": 2, "a": 3}"#).as_deref(), Ok(r#"{"a": 3, "b": 2}"#));
    let value: Value = serde_json::from_str(r#"{"a": 1, "b": 2, "a": 3}"#).expect("JSON");
    assert_eq!(Json::from_value(&value).expect("shallow").dump(), r#"{"a": 3, "b": 2}"#);
}

#[test]
fn what_python_refuses_is_refused() {
    for text in
        ["", " ", "nul", "[1,]", "{\"a\":1,}", "{'a':1}", "01", "1.", "-", "\"a\nb\"", "\"\\x\"", "[1] x", "+1", ".5"]
    {
        assert_eq!(dumped(text), Err(Fault::Syntax), "{text}");
    }
    assert_eq!(dumped("\u{feff}1"), Err(Fault::Syntax));
}

#[test]
fn half_a_surrogate_pair_is_refused_unless_the_text_is_no_json_anyway() {
    assert_eq!(dumped(r#""\ud83d\ude00""#).as_deref(), Ok("\"😀\""));
    for text in [r#""\ud83d""#, r#""\ude00""#, r#""\ud83d\u0041""#, r#"{"\ud83d": 1}"#] {
        assert_eq!(dumped(text), Err(Fault::Surrogate), "{text}");
    }
    assert_eq!(dumped(r#"["\ud83d""#), Err(Fault::Syntax));
}

#[test]
fn depth_is_bounded() {
    let nest = |n: usize| "[".repeat(n) + &"]".repeat(n);
    assert!(Json::parse(&nest(MAX_DEPTH)).is_ok());
    assert_eq!(dumped(&nest(MAX_DEPTH + 1)), Err(Fault::Depth));
    assert_eq!(dumped(&"{\"a\":".repeat(1_000_000)), Err(Fault::Depth));
}

#[test]
fn minifying_leaves_strings_alone() {
    assert_eq!(minify(" { \"a b\\\" c\" : [ 1 , 2 ] }\n"), r#"{"a b\" c":[1,2]}"#);
}

proptest! {
    #[test]
    fn nothing_panics_and_what_is_dumped_reads_back(text in "[\\[\\]{}:,\"\\\\0-9eE.+\\-aunlrtfNI é\n]{0,30}") {
        if let Ok(value) = Json::parse(&text) {
            let dump = value.dump();
            prop_assert_eq!(Json::parse(&dump).expect("dumps are JSON").dump(), dump);
        }
    }

    #[test]
    fn doubles_come_back_bit_for_bit(bits in any::<u64>()) {
        let d = f64::from_bits(bits);
        prop_assume!(d.is_finite());
        let Ok(Json::Double(back)) = Json::parse(&Json::Double(d).dump()) else { panic!("{d}") };
        prop_assert_eq!(back.to_bits(), bits);
    }
}
