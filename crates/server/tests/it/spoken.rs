//! A model that says given ids, however oddly they cut their text.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::ops::Range;
use std::sync::LazyLock;

use ds4_model::{Batch, Limits, LogitRows, Model, Result, Shape, SlotId};

use crate::support::{LIMITS, TOKENIZER, shape};

/// Its state is the ids it was given; of a conversation it answers every turn with the same ids.
pub(crate) struct Spoken {
    shape: Shape,
    slots: Vec<Vec<u32>>,
    ids: Vec<u32>,
}

impl Spoken {
    pub(crate) fn new(ids: Vec<u32>) -> Self {
        Spoken { shape: shape(), slots: vec![Vec::new(); LIMITS.slots as usize], ids }
    }

    fn next(&self, history: &[u32]) -> u32 {
        let special = TOKENIZER.special();
        let marker = history.iter().rposition(|&id| id == special.assistant);
        let said = marker.map_or(0, |at| history.len().saturating_sub(at + 2));
        self.ids.get(said).copied().unwrap_or(special.eos)
    }
}

impl Model for Spoken {
    fn shape(&self) -> &Shape {
        &self.shape
    }

    fn limits(&self) -> Limits {
        LIMITS
    }

    fn forward(&mut self, batch: &Batch<'_>, logits: &mut [f32]) -> Result<()> {
        let (mut tokens, mut rows) = (batch.tokens, logits.chunks_exact_mut(self.shape.n_vocab));
        for span in batch.spans {
            for i in 0..span.len {
                let slot = &mut self.slots[span.slot as usize];
                slot.truncate((span.pos + i) as usize);
                assert_eq!(slot.len() as u32, span.pos + i, "positions follow one another");
                slot.push(tokens[0]);
                tokens = &tokens[1..];
                if span.logits == LogitRows::All || (i + 1 == span.len && span.logits == LogitRows::Last) {
                    let next = self.next(&self.slots[span.slot as usize]);
                    let row = rows.next().unwrap();
                    row.fill(0.0);
                    row[next as usize] = 100.0;
                }
            }
        }
        Ok(())
    }

    fn save(&mut self, _: SlotId, _: Range<u32>, _: &mut dyn Write) -> Result<()> {
        Ok(())
    }

    fn load(&mut self, _: SlotId, _: Range<u32>, _: &mut dyn Read) -> Result<()> {
        Ok(())
    }

    fn state_bytes(&self, _: Range<u32>) -> u64 {
        0
    }

    fn parts(&self, _: u32) -> Vec<ds4_model::Part> {
        Vec::new()
    }

    fn fingerprint(&self) -> [u8; 32] {
        [9; 32]
    }
}

static BY_BYTES: LazyLock<HashMap<Vec<u8>, u32>> = LazyLock::new(|| {
    let ids = (0..TOKENIZER.n_vocab() as u32).filter(|&id| !TOKENIZER.is_added(id));
    ids.map(|id| (TOKENIZER.token_bytes(id).to_vec(), id)).collect()
});

/// Ids of a text, cut at places that `next` chooses: markup by its control tokens, the rest by any tokens that fit.
pub(crate) fn cut(text: &str, mut next: impl FnMut() -> usize) -> Vec<u32> {
    let mut out = Vec::new();
    for id in TOKENIZER.encode(text) {
        if TOKENIZER.is_added(id) {
            out.push(id);
            continue;
        }
        let mut bytes = TOKENIZER.token_bytes(id);
        while !bytes.is_empty() {
            let most = (1 + next() % 4).min(bytes.len());
            let len = (1..=most).rev().find(|&n| BY_BYTES.contains_key(&bytes[..n])).expect("every byte has a token");
            out.push(BY_BYTES[&bytes[..len]]);
            bytes = &bytes[len..];
        }
    }
    out
}
