//! `tokenizer.json` (or `tokenizer.json.gz`) to GGUF records (gguf.md section 3). Owns the reading of the file; whether its
//! tokens make a tokenizer is the text crate's to judge.

use std::{collections::HashMap, fs::File, path::Path};

use ds4_gguf::OwnedValue;
use flate2::read::GzDecoder;
use serde::Deserialize;

use crate::{
    config::Config,
    error::{Error, Result, clean, shown},
    source::{bounded, parse, read_json},
};

const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;

#[derive(Deserialize)]
struct Json {
    #[serde(default)]
    added_tokens: Vec<Added>,
    model: Model,
}

#[derive(Deserialize)]
struct Added {
    id: usize,
    content: String,
    #[serde(default)]
    special: bool,
}

#[derive(Deserialize)]
struct Model {
    vocab: HashMap<String, usize>,
    merges: Vec<Merge>,
}

/// Older and newer spelling of a merge.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Text(String),
    Pair(String, String),
}

/// The `tokenizer.ggml.*` records for a checkpoint with this configuration.
pub(crate) fn metadata(folder: &Path, config: &Config) -> Result<Vec<(String, OwnedValue)>> {
    let (plain, packed) = (folder.join("tokenizer.json"), folder.join("tokenizer.json.gz"));
    let (path, bytes) = if plain.exists() || !packed.exists() {
        let bytes = read_json(&plain)?;
        (plain, bytes)
    } else {
        let file = File::open(&packed).map_err(|e| Error::io(&packed, e))?;
        let bytes = bounded(&packed, GzDecoder::new(file))?;
        (packed, bytes)
    };
    let json: Json = parse(&path, &bytes)?;
    let (tokens, types) = tokens(&path, json.model.vocab, json.added_tokens, config.shape.n_vocab)?;
    for (what, id) in [("bos_token_id", config.bos), ("eos_token_id", config.eos), ("pad_token_id", config.pad)] {
        if id as usize >= tokens.len() {
            let expected = format!("an id below {}", tokens.len());
            return Err(Error::invalid(
                shown(&folder.join("config.json")),
                format!("key {what}"),
                id.to_string(),
                expected,
            ));
        }
    }
    let merges: Vec<String> = json.model.merges.into_iter().map(Merge::text).collect();
    let records: [(&str, OwnedValue); 10] = [
        ("model", "gpt2".into()),
        ("pre", "joyai-llm".into()),
        ("tokens", tokens.into()),
        ("token_type", types.into()),
        ("merges", merges.into()),
        ("bos_token_id", config.bos.into()),
        ("eos_token_id", config.eos.into()),
        ("padding_token_id", config.pad.into()),
        ("add_bos_token", false.into()),
        ("add_eos_token", false.into()),
    ];
    Ok(records.into_iter().map(|(key, value)| (format!("tokenizer.ggml.{key}"), value)).collect())
}

impl Merge {
    fn text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Pair(left, right) => format!("{left} {right}"),
        }
    }
}

/// Texts and types by id: every id from 0 to `n` has one.
fn tokens(path: &Path, vocab: HashMap<String, usize>, added: Vec<Added>, n: usize) -> Result<(Vec<String>, Vec<i32>)> {
    let bad = |place: String, found: String, expected: String| Err(Error::invalid(shown(path), place, found, expected));
    let mut tokens: Vec<Option<String>> = vec![None; n];
    let mut types = vec![NORMAL; n];
    // Added tokens may stand in the vocabulary too, and then have their own kind.
    let all = vocab.into_iter().map(|(text, id)| (text, id, NORMAL));
    let added = added.into_iter().map(|t| (t.content, t.id, if t.special { CONTROL } else { USER_DEFINED }));
    for (text, id, kind) in all.chain(added) {
        let Some(slot) = tokens.get_mut(id) else {
            return bad(format!("token {}", clean(&text)), format!("id {id}"), format!("an id below vocab_size {n}"));
        };
        if let Some(other) = slot.as_ref().filter(|other| **other != text) {
            return bad(format!("id {id}"), format!("{} and {}", clean(other), clean(&text)), "one text".to_owned());
        }
        *slot = Some(text);
        types[id] = kind;
    }
    if let Some(id) = tokens.iter().position(Option::is_none) {
        return bad(format!("id {id}"), "no token".to_owned(), format!("one for every id below vocab_size {n}"));
    }
    Ok((tokens.into_iter().flatten().collect(), types))
}
