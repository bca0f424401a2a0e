//! Text to ids and ids to bytes. Owns where added tokens are recognised and the seams between template and untrusted text;
//! the cut into pieces is `scanner`'s, merging is the `tokenizers` crate's.

use std::ops::Range;

use aho_corasick::{AhoCorasick, Input, MatchKind};
use ds4_gguf::Metadata;
use tokenizers::{Model as _, models::bpe::BPE};

use crate::{
    alphabet,
    control::Special,
    error::{Error, Result},
    prompt::{Exact, Prompt},
    scanner::scan,
    vocabulary::Vocabulary,
};

/// The byte-level BPE of one model file. Immutable; one serves all threads.
pub struct Tokenizer {
    bpe: BPE,
    /// Finds the texts of `added_ids`, leftmost and then longest.
    added: AhoCorasick,
    added_ids: Vec<u32>,
    /// What each id stands for; `bytes[ends[id - 1]..ends[id]]`.
    bytes: Vec<u8>,
    ends: Vec<usize>,
    special: Special,
}

/// Ids that are not to be looked for, and the text they stand for.
struct Found<'a> {
    ids: &'a [u32],
    at: Range<usize>,
}

impl Tokenizer {
    /// Reads `tokenizer.ggml.{model,pre,tokens,token_type,merges,bos_token_id,eos_token_id}`.
    ///
    /// Errors: a missing key, a tokenizer of another kind, a missing control or byte token, a text that stands twice, a
    /// merge of unknown symbols, a BOS or EOS id that is not that token's.
    pub fn from_metadata(metadata: &Metadata) -> Result<Self> {
        let vocabulary = Vocabulary::read(metadata)?;
        let added_texts = vocabulary.added.iter().map(|&id| vocabulary.tokens[id as usize]);
        let added = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(added_texts)
            .map_err(|e| unusable(metadata, "tokenizer.ggml.tokens", e))?;
        let (bytes, ends) = token_bytes(&vocabulary);
        let bpe = BPE::builder()
            .vocab_and_merges(vocabulary.ids, vocabulary.merges)
            .cache_capacity(CACHED_PIECES)
            .build()
            .map_err(|e| unusable(metadata, "tokenizer.ggml.merges", e))?;
        let special = Special::find(|text| bpe.token_to_id(text)).expect("the vocabulary was checked for these");
        Ok(Self { bpe, added, added_ids: vocabulary.added, bytes, ends, special })
    }

    /// Ids of a rendered text: every added token that it spells is recognised (`spec/prompt.md` 4, rendered mode). Adds no
    /// BOS. For text from outside use [`Tokenizer::encode_prompt`].
    pub fn encode(&self, text: &str) -> Vec<u32> {
        self.encode_around(text, self.find_added(text, 0..text.len()))
    }

    /// Ids of a text in which nothing is control (plain mode): `<think>` is seven characters.
    pub fn encode_plain(&self, text: &str) -> Vec<u32> {
        self.encode_around(text, std::iter::empty())
    }

    /// [`Tokenizer::encode`] of bytes; what is not UTF-8 becomes U+FFFD, one per maximal subpart.
    pub fn encode_bytes(&self, bytes: &[u8]) -> Vec<u32> {
        self.encode(&String::from_utf8_lossy(bytes))
    }

    /// Ids of a prompt: added tokens are recognised only where the template spells them, while merges cross the seams as in
    /// one string. Known ids stay as they are. Equal to `encode(prompt.text())` when there are none and the untrusted text
    /// spells no added token.
    pub fn encode_prompt(&self, prompt: &Prompt) -> Vec<u32> {
        let text = prompt.text();
        let added = prompt.template().iter().flat_map(|range| self.find_added(text, range.clone()));
        let exact = prompt.exact().iter().map(|(at, ids)| Found { ids, at: at.clone() });
        let mut found: Vec<Found<'_>> = added.chain(exact).collect();
        found.sort_by_key(|found| found.at.start);
        self.encode_around(text, found.into_iter())
    }

    /// Ids with the text they spell.
    pub fn exact(&self, ids: &[u32]) -> Exact {
        Exact { ids: ids.to_vec(), text: String::from_utf8_lossy(&self.decode(ids)).into_owned() }
    }

    /// Number of ids.
    pub fn n_vocab(&self) -> usize {
        self.ends.len()
    }

    /// The bytes an id stands for, an added token its spelling; empty for an id beyond the vocabulary.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        let id = id as usize;
        let Some(&end) = self.ends.get(id) else { return &[] };
        let start = if id == 0 { 0 } else { self.ends[id - 1] };
        &self.bytes[start..end]
    }

    /// The bytes of all ids, joined. Characters may span ids, so only the whole need be UTF-8.
    pub fn decode(&self, ids: &[u32]) -> Vec<u8> {
        ids.iter().flat_map(|&id| self.token_bytes(id)).copied().collect()
    }

    /// The id of a token by its text in the vocabulary: added tokens as spelled, others in the byte alphabet.
    pub fn id_of(&self, text: &str) -> Option<u32> {
        self.bpe.token_to_id(text)
    }

    /// Whether `encode` recognises this id by its spelling.
    pub fn is_added(&self, id: u32) -> bool {
        self.added_ids.binary_search(&id).is_ok()
    }

    /// Ids of the control tokens.
    pub fn special(&self) -> &Special {
        &self.special
    }

    /// Added tokens that lie completely inside `range`.
    fn find_added(&self, text: &str, range: Range<usize>) -> impl Iterator<Item = Found<'_>> {
        self.added
            .find_iter(Input::new(text).range(range))
            .map(|m| Found { ids: std::slice::from_ref(&self.added_ids[m.pattern().as_usize()]), at: m.range() })
    }

    fn encode_around<'a>(&self, text: &str, found: impl Iterator<Item = Found<'a>>) -> Vec<u32> {
        let mut ids = Vec::with_capacity(text.len() / 3);
        let mut spelled = String::new();
        let mut at = 0;
        for token in found {
            self.encode_ordinary(&text[at..token.at.start], &mut spelled, &mut ids);
            ids.extend(token.ids);
            at = token.at.end;
        }
        self.encode_ordinary(&text[at..], &mut spelled, &mut ids);
        ids
    }

    fn encode_ordinary(&self, text: &str, spelled: &mut String, ids: &mut Vec<u32>) {
        scan(text, |piece| {
            spelled.clear();
            alphabet::spell(piece, spelled);
            let tokens = self.bpe.tokenize(spelled).expect("without dropout and unknown token merging cannot fail");
            ids.extend(tokens.iter().map(|t| t.id));
        });
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let added = self.added_ids.len();
        f.debug_struct("Tokenizer").field("n_vocab", &self.n_vocab()).field("added", &added).finish_non_exhaustive()
    }
}

fn unusable(metadata: &Metadata, key: &'static str, why: impl std::fmt::Display) -> Error {
    let expected = "a usable vocabulary".to_owned();
    Error::Vocabulary { file: metadata.file().to_owned(), key, found: why.to_string(), expected }
}

/// Merged pieces remembered per thread.
const CACHED_PIECES: usize = 20_000;

fn token_bytes(vocabulary: &Vocabulary<'_>) -> (Vec<u8>, Vec<usize>) {
    let mut bytes = Vec::with_capacity(vocabulary.tokens.iter().map(|text| text.len()).sum());
    let mut ends = Vec::with_capacity(vocabulary.tokens.len());
    for (id, text) in (0_u32..).zip(&vocabulary.tokens) {
        let literal = vocabulary.added.binary_search(&id).is_ok();
        if literal || !alphabet::unspell(text, &mut bytes) {
            bytes.extend(text.as_bytes());
        }
        ends.push(bytes.len());
    }
    (bytes, ends)
}
