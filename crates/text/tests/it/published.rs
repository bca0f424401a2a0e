//! The published tokenizer as the metadata of a GGUF file.

use std::{fs::File, io::Read, path::PathBuf, sync::LazyLock};

use bytes::Bytes;
use ds4_gguf::{DEFAULT_ALIGNMENT, Gguf, Layout, OwnedValue};
use ds4_text::Tokenizer;
use flate2::read::GzDecoder;
use serde_json::Value;

pub(crate) static TOKENIZER: LazyLock<Tokenizer> =
    LazyLock::new(|| Tokenizer::from_metadata(gguf().metadata()).unwrap());

/// A file of metadata alone.
pub(crate) fn file(metadata: Vec<(String, OwnedValue)>) -> Gguf {
    let layout = Layout::new(metadata, Vec::new(), DEFAULT_ALIGNMENT).unwrap();
    Gguf::from_bytes("test.gguf", Bytes::copy_from_slice(layout.header())).unwrap()
}

pub(crate) fn gguf() -> Gguf {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../models/tokenizer.json.gz");
    let json: Value = serde_json::from_str(&unzipped(path)).unwrap();
    let mut tokens = vec![String::new(); 129_280];
    let mut types = vec![1; tokens.len()];
    for (text, id) in json["model"]["vocab"].as_object().unwrap() {
        tokens[id.as_u64().unwrap() as usize].clone_from(text);
    }
    for token in json["added_tokens"].as_array().unwrap() {
        let id = token["id"].as_u64().unwrap() as usize;
        token["content"].as_str().unwrap().clone_into(&mut tokens[id]);
        types[id] = if token["special"] == true { 3 } else { 4 };
    }
    let merges = json["model"]["merges"].as_array().unwrap();
    let merges = merges.iter().map(|m| m.as_str().unwrap().to_owned()).collect();
    file(tokenizer_keys(tokens, types, merges))
}

pub(crate) fn tokenizer_keys(tokens: Vec<String>, types: Vec<i32>, merges: Vec<String>) -> Vec<(String, OwnedValue)> {
    let keys = [
        ("model", OwnedValue::Str("gpt2".to_owned())),
        ("pre", OwnedValue::Str("joyai-llm".to_owned())),
        ("tokens", OwnedValue::Strs(tokens)),
        ("token_type", OwnedValue::I32s(types)),
        ("merges", OwnedValue::Strs(merges)),
        ("bos_token_id", OwnedValue::U32(0)),
        ("eos_token_id", OwnedValue::U32(1)),
    ];
    keys.map(|(key, value)| (format!("tokenizer.ggml.{key}"), value)).into()
}

pub(crate) fn unzipped(path: PathBuf) -> String {
    let mut text = String::new();
    GzDecoder::new(File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    text
}
