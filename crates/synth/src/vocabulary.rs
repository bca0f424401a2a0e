//! The published tokenizer as GGUF metadata (GGUF spec section 3), whole or cut down to its first merges. Owns the embedded
//! file and what a cut keeps; encoding text is the text crate's.

use std::{collections::HashMap, io::Read, sync::OnceLock};

use ds4_gguf::OwnedValue;
use flate2::read::GzDecoder;
use serde::Deserialize;

/// Which tokenizer a file carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tokens {
    /// All 129,280 ids.
    Full,
    /// The three leading control tokens, the 256 bytes, the tokens of the first merges, and the protocol's tokens, numbered
    /// without gaps in the order of the published ids.
    Pruned { merges: usize },
}

/// Token texts by id, their types, and the merges by rank.
struct Vocabulary {
    tokens: Vec<String>,
    types: Vec<i32>,
    merges: Vec<String>,
}

const FILE: &[u8] = include_bytes!("../../../models/tokenizer.json.gz");

/// Control tokens at ids 0, 1, 2; then the bytes; then one token per merge.
const CONTROLS: usize = 3;
const BYTES: usize = 256;
/// Added tokens that chats use: beginning with fill-in-the-middle, ending before the image place holders.
const PROTOCOL: std::ops::RangeInclusive<usize> = 128_800..=128_846;
/// Place holders among them.
const UNUSED: [usize; 2] = [128_823, 128_824];

const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;

impl Tokens {
    /// Number of ids.
    pub fn count(self) -> usize {
        self.ids().count()
    }

    /// The merges that the file has; a cut beyond them keeps all.
    fn merges(self) -> usize {
        let all = published().merges.len();
        match self {
            Self::Full => all,
            Self::Pruned { merges } => merges.min(all),
        }
    }

    /// Published ids of the tokens kept, ascending.
    fn ids(self) -> Box<dyn Iterator<Item = usize>> {
        match self {
            Self::Full => Box::new(0..published().tokens.len()),
            Self::Pruned { .. } => {
                let protocol = PROTOCOL.filter(|id| !UNUSED.contains(id));
                Box::new((0..CONTROLS + BYTES + self.merges()).chain(protocol))
            }
        }
    }

    /// The `tokenizer.ggml.*` records of a file with this tokenizer (GGUF spec section 3): all that a tokenizer is read from.
    pub fn metadata(self) -> Vec<(String, OwnedValue)> {
        let all = published();
        let tokens: Vec<String> = self.ids().map(|id| all.tokens[id].clone()).collect();
        let types: Vec<i32> = self.ids().map(|id| all.types[id]).collect();
        let records: [(&str, OwnedValue); 10] = [
            ("model", "gpt2".into()),
            ("pre", "joyai-llm".into()),
            ("tokens", tokens.into()),
            ("token_type", types.into()),
            ("merges", all.merges[..self.merges()].to_vec().into()),
            ("bos_token_id", 0_u32.into()),
            ("eos_token_id", 1_u32.into()),
            ("padding_token_id", 1_u32.into()),
            ("add_bos_token", false.into()),
            ("add_eos_token", false.into()),
        ];
        records.into_iter().map(|(key, value)| (format!("tokenizer.ggml.{key}"), value)).collect()
    }
}

fn published() -> &'static Vocabulary {
    static PUBLISHED: OnceLock<Vocabulary> = OnceLock::new();
    PUBLISHED.get_or_init(|| read().expect("the embedded tokenizer is sound, as the tests show"))
}

#[derive(Deserialize)]
struct Json {
    added_tokens: Vec<Added>,
    model: Model,
}

#[derive(Deserialize)]
struct Added {
    id: usize,
    content: String,
    special: bool,
}

#[derive(Deserialize)]
struct Model {
    vocab: HashMap<String, usize>,
    merges: Vec<String>,
}

/// `None` if the embedded file is not what it should be.
fn read() -> Option<Vocabulary> {
    let mut text = Vec::new();
    GzDecoder::new(FILE).read_to_end(&mut text).ok()?;
    let json: Json = serde_json::from_slice(&text).ok()?;
    let n = json.added_tokens.iter().map(|t| t.id).chain(json.model.vocab.values().copied()).max()? + 1;
    let mut tokens = vec![String::new(); n];
    let mut types = vec![NORMAL; n];
    for (text, id) in json.model.vocab {
        tokens[id] = text;
    }
    for added in json.added_tokens {
        types[added.id] = if added.special { CONTROL } else { USER_DEFINED };
        tokens[added.id] = added.content;
    }
    tokens.iter().all(|t| !t.is_empty()).then_some(Vocabulary { tokens, types, merges: json.model.merges })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_tokenizer_has_its_counts() {
        let all = published();
        assert_eq!((all.tokens.len(), all.merges.len()), (129_280, 127_741));
        assert_eq!(&all.merges[..3], ["Ġ t", "Ġ a", "i n"]);
        assert_eq!(all.types.iter().filter(|&&t| t == CONTROL).count(), 1230);
        assert_eq!(all.types.iter().filter(|&&t| t == USER_DEFINED).count(), 53);
        for (id, text) in [(0, "<｜begin▁of▁sentence｜>"), (128_803, "<｜User｜>"), (128_825, "｜DSML｜"), (1718, "</")]
        {
            assert_eq!(all.tokens[id], text);
        }
    }

    #[test]
    fn the_tokens_after_the_bytes_are_the_merges_in_rank_order() {
        let all = published();
        for (rank, merge) in all.merges.iter().enumerate() {
            assert_eq!(all.tokens[CONTROLS + BYTES + rank], merge.replacen(' ', "", 1), "rank {rank}");
        }
    }

    #[test]
    fn a_cut_is_closed_under_its_merges_and_keeps_the_protocol() {
        for merges in [0, 16, 2736] {
            let cut = Tokens::Pruned { merges };
            let tokens: Vec<&String> = cut.ids().map(|id| &published().tokens[id]).collect();
            assert_eq!(tokens.len(), CONTROLS + BYTES + merges + 45);
            assert_eq!(cut.count(), tokens.len());
            let known: std::collections::HashSet<&str> = tokens.iter().map(|t| t.as_str()).collect();
            assert_eq!(known.len(), tokens.len(), "no token twice");
            for merge in &published().merges[..merges] {
                let (left, right) = merge.split_once(' ').unwrap();
                assert!(
                    known.contains(left) && known.contains(right) && known.contains(format!("{left}{right}").as_str())
                );
            }
            for needed in [
                "<｜begin▁of▁sentence｜>",
                "<｜end▁of▁sentence｜>",
                "<｜▁pad▁｜>",
                "<｜User｜>",
                "<｜Assistant｜>",
                "<think>",
                "</think>",
                "｜DSML｜",
                "<｜latest_reminder｜>",
                "<｜action｜>",
                "<｜query｜>",
                "<｜authority｜>",
                "<｜domain｜>",
                "<｜title｜>",
                "<｜read_url｜>",
            ] {
                assert!(known.contains(needed), "{needed}");
            }
            assert!(!tokens.iter().any(|t| t.contains("holder")), "place holders are left out");
        }
    }

    #[test]
    fn a_cut_beyond_the_merges_keeps_them_all() {
        assert_eq!(Tokens::Pruned { merges: usize::MAX }.count(), CONTROLS + BYTES + 127_741 + 45);
    }
}
