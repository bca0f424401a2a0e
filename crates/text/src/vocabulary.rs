//! The tokenizer's part of the GGUF metadata, read once and checked (`spec/prompt.md` 5). Owns which keys count and what makes
//! them unusable; encoding is `tokenizer`'s.

use std::ops::RangeFrom;

use ds4_gguf::Metadata;
use tokenizers::models::bpe::{Merges, Vocab};

use crate::{
    alphabet,
    control::{BOS, EOS, REQUIRED},
    error::{Error, Result, shown},
};

/// Texts by id, merges by rank.
pub(crate) struct Vocabulary<'a> {
    pub(crate) tokens: Vec<&'a str>,
    pub(crate) ids: Vocab,
    /// Ids of the tokens recognised in text as they are spelled, increasing.
    pub(crate) added: Vec<u32>,
    /// Left and right symbol.
    pub(crate) merges: Merges,
}

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TOKEN_TYPE: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";
const BOS_ID: &str = "tokenizer.ggml.bos_token_id";
const EOS_ID: &str = "tokenizer.ggml.eos_token_id";

/// Names under which files ask for the cut of `scanner`.
const PRE_NAMES: [&str; 2] = ["joyai-llm", "deepseek-v3"];
/// In the published vocabulary these are added whatever `token_type` says: conversions classify them differently.
const PUBLISHED_LEN: usize = 129_280;
const PUBLISHED_ADDED: RangeFrom<u32> = 128_000..;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;

impl<'a> Vocabulary<'a> {
    /// Errors name the file, the key, what was found and what was expected.
    pub(crate) fn read(metadata: &'a Metadata) -> Result<Self> {
        let fault = Fault(metadata);
        let model = metadata.str(MODEL)?;
        if model != "gpt2" {
            return Err(fault.at(MODEL, shown(model), "\"gpt2\" (byte-level BPE)"));
        }
        let pre = metadata.str(PRE)?;
        if !PRE_NAMES.contains(&pre) {
            return Err(fault.at(PRE, shown(pre), format!("one of {PRE_NAMES:?}")));
        }
        let tokens: Vec<&str> = metadata.strings(TOKENS)?.collect();
        let ids = index(&tokens, &fault)?;
        check_ids(metadata, &ids, &fault)?;
        let added = added(metadata, &tokens, &ids, &fault)?;
        check_bytes(&ids, &added, &fault)?;
        let merges = merges(metadata, &ids, &fault)?;
        Ok(Self { tokens, ids, added, merges })
    }
}

struct Fault<'a>(&'a Metadata);

impl Fault<'_> {
    fn at(&self, key: &'static str, found: impl Into<String>, expected: impl Into<String>) -> Error {
        Error::Vocabulary { file: self.0.file().to_owned(), key, found: found.into(), expected: expected.into() }
    }
}

fn index(tokens: &[&str], fault: &Fault<'_>) -> Result<Vocab> {
    let mut ids = Vocab::with_capacity(tokens.len());
    for (id, &text) in (0_u32..).zip(tokens) {
        if text.is_empty() {
            return Err(fault.at(TOKENS, format!("an empty text at {id}"), "a text for every id"));
        }
        if let Some(first) = ids.insert(text.to_owned(), id) {
            let found = format!("{} at {first} and {id}", shown(text));
            return Err(fault.at(TOKENS, found, "every text once"));
        }
    }
    Ok(ids)
}

/// The seven control tokens, and that the optional ids name the ones this engine means.
fn check_ids(metadata: &Metadata, ids: &Vocab, fault: &Fault<'_>) -> Result<()> {
    if let Some(text) = REQUIRED.iter().find(|text| !ids.contains_key(**text)) {
        return Err(fault.at(TOKENS, "no such token", *text));
    }
    for (key, text) in [(BOS_ID, BOS), (EOS_ID, EOS)] {
        if !metadata.contains(key) {
            continue;
        }
        let found = metadata.u32(key)?;
        let expected = ids[text];
        if found != expected {
            let range = if (found as usize) < ids.len() { "" } else { ", beyond the vocabulary" };
            return Err(fault.at(key, format!("{found}{range}"), format!("{expected}, the id of {text}")));
        }
    }
    Ok(())
}

fn added(metadata: &Metadata, tokens: &[&str], ids: &Vocab, fault: &Fault<'_>) -> Result<Vec<u32>> {
    let mut added: Vec<u32> = REQUIRED.iter().map(|text| ids[*text]).collect();
    if metadata.contains(TOKEN_TYPE) {
        let types = metadata.i32s(TOKEN_TYPE)?;
        if types.len() != tokens.len() {
            let expected = format!("{}, one per token", tokens.len());
            return Err(fault.at(TOKEN_TYPE, format!("{} entries", types.len()), expected));
        }
        let marked = (0_u32..).zip(types).filter(|&(_, t)| t == CONTROL || t == USER_DEFINED);
        added.extend(marked.map(|(id, _)| id));
    }
    if tokens.len() == PUBLISHED_LEN {
        added.extend(0..3);
        added.extend(PUBLISHED_ADDED.take(PUBLISHED_LEN - PUBLISHED_ADDED.start as usize));
    }
    added.sort_unstable();
    added.dedup();
    Ok(added)
}

/// With a token for every byte, encoding cannot fail.
fn check_bytes(ids: &Vocab, added: &[u32], fault: &Fault<'_>) -> Result<()> {
    for byte in 0..=255_u8 {
        let letter = alphabet::letter(byte).to_string();
        if ids.get(letter.as_str()).is_none_or(|id| added.binary_search(id).is_ok()) {
            return Err(fault.at(TOKENS, format!("no ordinary token for byte {byte:#04x}"), letter));
        }
    }
    Ok(())
}

fn merges(metadata: &Metadata, ids: &Vocab, fault: &Fault<'_>) -> Result<Merges> {
    let texts = metadata.strings(MERGES)?;
    let mut merges = Merges::with_capacity(texts.len());
    let mut joined = String::new();
    for (rank, text) in texts.enumerate() {
        let pair = text.split_once(' ').filter(|(l, r)| !l.is_empty() && !r.is_empty() && !r.contains(' '));
        let Some((left, right)) = pair else {
            let found = format!("{} at {rank}", shown(text));
            return Err(fault.at(MERGES, found, "two symbols with one space between"));
        };
        joined.clear();
        joined.extend([left, right]);
        if let Some(symbol) = [left, right, &joined].into_iter().find(|symbol| !ids.contains_key(*symbol)) {
            let found = format!("{} at {rank}, whose {} is no token", shown(text), shown(symbol));
            return Err(fault.at(MERGES, found, format!("symbols of {TOKENS}")));
        }
        merges.push((left.to_owned(), right.to_owned()));
    }
    Ok(merges)
}
