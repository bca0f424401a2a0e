//! The vocabulary as grammars see it. Owns which ids are control tokens to them and what must not be spelled out.

use std::ops::Range;
use std::sync::Arc;

use ds4_text::Tokenizer;
use llguidance::toktrie::{TokRxInfo, TokTrie, TokenId, TokenizerEnv};

/// A tokenizer with its ids in a trie. Added tokens are not text to a grammar: it has to name them to get them.
pub(super) struct Vocabulary {
    tokenizer: Arc<Tokenizer>,
    trie: TokTrie,
    /// Added tokens.
    control: Vec<u32>,
    /// What a block's tags are made of; only its own id may write it.
    pub(super) marker: Spelling,
    /// Openers of a block in other spellings, which the reader of turns takes as well.
    pub(super) openers: [Spelling; 2],
}

impl Vocabulary {
    pub(super) fn new(tokenizer: Arc<Tokenizer>) -> Self {
        let n_vocab = tokenizer.n_vocab() as u32;
        let control: Vec<u32> = (0..n_vocab).filter(|&id| tokenizer.is_added(id)).collect();
        let word = |id| {
            let bytes = tokenizer.token_bytes(id);
            if tokenizer.is_added(id) { [&[TokTrie::SPECIAL_TOKEN_MARKER], bytes].concat() } else { bytes.to_vec() }
        };
        let words: Vec<Vec<u8>> = (0..n_vocab).map(word).collect();
        let trie = TokTrie::from(&TokRxInfo::new(n_vocab, tokenizer.special().eos), &words);
        let [marker, plain, short] =
            ["｜DSML｜", "<tool_calls>", "<DSML｜tool_calls>"].map(|text| Spelling::new(&tokenizer, text));
        Self { trie, control, marker, openers: [plain, short], tokenizer }
    }

    pub(super) fn eos(&self) -> u32 {
        self.tokenizer.special().eos
    }

    pub(super) fn dsml(&self) -> u32 {
        self.tokenizer.special().dsml
    }

    pub(super) fn bytes(&self, id: u32) -> &[u8] {
        self.tokenizer.token_bytes(id)
    }

    /// Forbids all added tokens but these.
    pub(super) fn forbid_control(&self, logits: &mut [f32], but: [u32; 2]) {
        forbid(logits, self.control.iter().copied().filter(|id| !but.contains(id)));
    }
}

impl TokenizerEnv for Vocabulary {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        self.trie.tokenize_with_greedy_fallback(bytes, |text| self.tokenizer.encode_plain(text))
    }
}

/// A text that must not appear, and the ids that would complete it.
pub(super) struct Spelling {
    text: &'static str,
    /// By bytes of it that are there: ids that bring the rest; at 0 those that bring it whole.
    completing: Vec<Vec<u32>>,
}

impl Spelling {
    fn new(tokenizer: &Tokenizer, text: &'static str) -> Self {
        let rest = text.as_bytes();
        let mut completing = vec![Vec::new(); rest.len()];
        for id in 0..tokenizer.n_vocab() as u32 {
            let bytes = tokenizer.token_bytes(id);
            for (there, ids) in completing.iter_mut().enumerate() {
                let brings = match there {
                    0 => bytes.windows(rest.len()).any(|window| window == rest),
                    _ => bytes.starts_with(&rest[there..]),
                };
                if brings && id != tokenizer.special().dsml {
                    ids.push(id);
                }
            }
        }
        Self { text, completing }
    }

    /// Forbids what would complete it after `tail`.
    pub(super) fn forbid(&self, tail: &[u8], logits: &mut [f32]) {
        for (there, ids) in self.completing.iter().enumerate() {
            if tail.ends_with(&self.text.as_bytes()[..there]) {
                forbid(logits, ids.iter().copied());
            }
        }
    }
}

/// Bytes of the answer that may be the start of something that must not appear.
pub(super) const TAIL: usize = 32;

/// The part of `bytes` that matters for what may follow.
pub(super) fn tail(bytes: &[u8]) -> Range<usize> {
    bytes.len().saturating_sub(TAIL)..bytes.len()
}

pub(super) fn forbid(logits: &mut [f32], ids: impl Iterator<Item = u32>) {
    for id in ids {
        if let Some(logit) = logits.get_mut(id as usize) {
            *logit = f32::NEG_INFINITY;
        }
    }
}
