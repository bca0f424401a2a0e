//! Metadata that is no tokenizer of this model.

use ds4_gguf::OwnedValue;
use ds4_text::Tokenizer;
use proptest::prelude::*;

use crate::published::{file, tokenizer_keys};

const CONTROL: [&str; 7] = [
    "<｜begin▁of▁sentence｜>",
    "<｜end▁of▁sentence｜>",
    "<｜User｜>",
    "<｜Assistant｜>",
    "<think>",
    "</think>",
    "｜DSML｜",
];

type Keys = Vec<(String, OwnedValue)>;

/// Control tokens, bytes, one merge.
fn small() -> Keys {
    let mut tokens: Vec<String> = CONTROL.map(str::to_owned).into();
    let mut spare = 0x100;
    for byte in 0..256_u32 {
        let itself = matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
        let code = if itself { byte } else { spare };
        spare += u32::from(!itself);
        tokens.push(char::from_u32(code).unwrap().to_string());
    }
    tokens.push("ab".to_owned());
    let mut types = vec![1; tokens.len()];
    types[..2].fill(3);
    tokenizer_keys(tokens, types, vec!["a b".to_owned()])
}

fn edit(key: &str, change: impl FnOnce(&mut OwnedValue)) -> Keys {
    let mut keys = small();
    let name = format!("tokenizer.ggml.{key}");
    change(&mut keys.iter_mut().find(|(key, _)| *key == name).unwrap().1);
    keys
}

fn strings(value: &mut OwnedValue) -> &mut Vec<String> {
    let OwnedValue::Strs(list) = value else { panic!("{value:?}") };
    list
}

fn message(keys: Keys) -> String {
    Tokenizer::from_metadata(file(keys).metadata()).unwrap_err().to_string()
}

#[test]
fn the_unedited_metadata_is_a_tokenizer_and_the_control_tokens_are_found_by_text() {
    let tokenizer = Tokenizer::from_metadata(file(small()).metadata()).unwrap();
    assert_eq!(tokenizer.encode("<think>ab"), [4, 7 + 256]);
    assert_eq!(tokenizer.encode("ba"), [7 + 98, 7 + 97]);
    let mut keys = small();
    keys.retain(|(key, _)| ["model", "pre", "tokens", "merges"].iter().any(|k| key.ends_with(k)));
    assert!(Tokenizer::from_metadata(file(keys).metadata()).is_ok());
}

#[test]
fn of_added_tokens_the_leftmost_and_then_the_longest_counts() {
    let mut keys = small();
    for text in ["<a", "<a>b", "a>", "<a>"] {
        strings(&mut keys[2].1).push(text.to_owned());
        let OwnedValue::I32s(types) = &mut keys[3].1 else { panic!("{keys:?}") };
        types.push(4);
    }
    let tokenizer = Tokenizer::from_metadata(file(keys).metadata()).unwrap();
    assert_eq!(tokenizer.encode("<a>b"), [265]);
    assert_eq!(tokenizer.encode("<a>"), [267]);
    assert_eq!(tokenizer.encode("<aa>"), [264, 266]);
    assert_eq!(tokenizer.encode_plain("<a"), [7 + 60, 7 + 97]);
}

#[test]
fn a_missing_key_is_named() {
    for key in ["model", "pre", "tokens", "merges"] {
        let mut keys = small();
        let name = format!("tokenizer.ggml.{key}");
        keys.retain(|(key, _)| *key != name);
        let message = message(keys);
        assert!(message.starts_with(&format!("test.gguf: key {name}: missing, expected ")), "{message}");
    }
}

#[test]
fn each_fault_names_the_key_what_was_found_and_what_was_expected() {
    let at = |key: &str, rest: &str| format!("test.gguf: key tokenizer.ggml.{key}: {rest}");
    let set = |key: &str, value: OwnedValue| message(edit(key, |old| *old = value));
    let text = |text: &str| OwnedValue::Str(text.to_owned());
    assert_eq!(set("model", text("llama")), at("model", "found \"llama\", expected \"gpt2\" (byte-level BPE)"));
    let pre = at("pre", "found \"deepseek-llm\", expected one of [\"joyai-llm\", \"deepseek-v3\"]");
    assert_eq!(set("pre", text("deepseek-llm")), pre);
    assert_eq!(set("tokens", OwnedValue::U32(1)), at("tokens", "found u32, expected array of string"));
    let eos = "found 999, beyond the vocabulary, expected 1, the id of <｜end▁of▁sentence｜>";
    assert_eq!(set("eos_token_id", OwnedValue::U32(999)), at("eos_token_id", eos));
    let bos = "found 1, expected 0, the id of <｜begin▁of▁sentence｜>";
    assert_eq!(set("bos_token_id", OwnedValue::U32(1)), at("bos_token_id", bos));
    let types = "found 2 entries, expected 264, one per token";
    assert_eq!(set("token_type", OwnedValue::I32s(vec![1, 1])), at("token_type", types));

    let tokens = |change: fn(&mut Vec<String>)| message(edit("tokens", |value| change(strings(value))));
    assert_eq!(
        tokens(|t| t[263] = "a".to_owned()),
        at("tokens", "found \"a\" at 104 and 263, expected every text once")
    );
    assert_eq!(tokens(|t| t[263].clear()), at("tokens", "found an empty text at 263, expected a text for every id"));
    assert_eq!(tokens(|t| t[4] = "<thonk>".to_owned()), at("tokens", "found no such token, expected <think>"));
    let byte = "found no ordinary token for byte 0x20, expected Ġ";
    assert_eq!(tokens(|t| t[7 + 32] = "space".to_owned()), at("tokens", byte));

    let merges = |merge: &str| message(edit("merges", |value| strings(value)[0] = merge.to_owned()));
    let unknown = "found \"a c\" at 0, whose \"ac\" is no token, expected symbols of tokenizer.ggml.tokens";
    assert_eq!(merges("a c"), at("merges", unknown));
    for bad in ["ab", " ab", "a ", "a b c", ""] {
        let expected = format!("found {bad:?} at 0, expected two symbols with one space between");
        assert_eq!(merges(bad), at("merges", &expected));
    }
}

fn value() -> impl Strategy<Value = OwnedValue> {
    let text = prop::sample::select(&["gpt2", "joyai-llm", "a b", "a", "", "<think>", "Ġ", "｜", "b a"][..]);
    prop_oneof![
        any::<u32>().prop_map(OwnedValue::U32),
        any::<bool>().prop_map(OwnedValue::Bool),
        text.clone().prop_map(|t| OwnedValue::Str(t.to_owned())),
        prop::collection::vec(any::<i32>(), 0..300).prop_map(OwnedValue::I32s),
        prop::collection::vec(text.prop_map(str::to_owned), 0..5).prop_map(OwnedValue::Strs),
    ]
}

proptest! {
    #[test]
    fn no_metadata_panics(which in 0..7_usize, value in value(), extra in prop::collection::vec("[ab<>|Ġ ]{0,4}", 0..4)) {
        let mut keys = small();
        keys[which].1 = value;
        if let OwnedValue::Strs(tokens) = &mut keys[2].1 {
            tokens.extend(extra);
        }
        if let Ok(tokenizer) = Tokenizer::from_metadata(file(keys).metadata()) {
            prop_assert_eq!(tokenizer.decode(&tokenizer.encode("ab <think> é")), "ab <think> é".as_bytes());
        }
    }
}
