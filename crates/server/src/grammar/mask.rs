//! One answer under its rules, token by token. Owns where in the answer which rule holds; the grammar itself is the parser's.

use std::fmt;
use std::sync::Arc;

use ds4_engine::{Constraint, Error, Result};
use llguidance::Matcher;
use llguidance::toktrie::SimpleVob;

use super::vocabulary::{Vocabulary, forbid, tail};

/// The rules of one answer.
pub(super) struct Mask {
    vocabulary: Arc<Vocabulary>,
    phase: Phase,
    /// The end of the answer so far.
    tail: Vec<u8>,
}

pub(super) enum Phase {
    /// Free text. A block may begin if there is a grammar for what follows its first marker.
    Text { block: Option<Matcher> },
    /// Text of a grammar. If that may hold a block, nothing but the marker's id may spell the marker.
    Grammar { matcher: Matcher, block: bool },
}

/// What stands before the first marker of a block.
const BEFORE_BLOCK: &[u8] = b"\n\n<";

impl Mask {
    pub(super) fn new(vocabulary: Arc<Vocabulary>, phase: Phase) -> Self {
        Mask { vocabulary, phase, tail: Vec::new() }
    }
}

impl Constraint for Mask {
    fn allow(&mut self, logits: &mut [f32]) -> Result<()> {
        let Mask { vocabulary, phase, tail } = self;
        let marker = vocabulary.dsml();
        match phase {
            Phase::Text { block } => {
                for spelling in vocabulary.openers.iter().chain([&vocabulary.marker]) {
                    spelling.forbid(tail, logits);
                }
                if block.is_none() || !tail.ends_with(BEFORE_BLOCK) {
                    forbid(logits, [marker].into_iter());
                }
            }
            Phase::Grammar { matcher, block } => {
                keep(&matcher.compute_mask_or_eos().map_err(|e| failed(&e))?, logits);
                let eos = vocabulary.eos();
                vocabulary.forbid_control(logits, [eos, if *block { marker } else { eos }]);
                if *block {
                    vocabulary.marker.forbid(tail, logits);
                }
            }
        }
        Ok(())
    }

    fn push(&mut self, id: u32) -> Result<bool> {
        self.tail.extend_from_slice(self.vocabulary.bytes(id));
        self.tail = self.tail[tail(&self.tail)].to_vec();
        match &mut self.phase {
            Phase::Text { block } => {
                if id == self.vocabulary.dsml()
                    && let Some(matcher) = block.take()
                {
                    self.phase = Phase::Grammar { matcher, block: true };
                }
                Ok(false)
            }
            Phase::Grammar { matcher, .. } => {
                matcher.consume_token(id).map_err(|e| failed(&e))?;
                Ok(matcher.is_stopped())
            }
        }
    }

    fn fork(&self) -> Box<dyn Constraint> {
        // Lexer states are copied too: what one request makes of them can't hurt another.
        let phase = match &self.phase {
            Phase::Text { block } => Phase::Text { block: block.as_ref().map(Matcher::deep_clone) },
            Phase::Grammar { matcher, block } => Phase::Grammar { matcher: matcher.deep_clone(), block: *block },
        };
        Box::new(Mask { vocabulary: Arc::clone(&self.vocabulary), phase, tail: self.tail.clone() })
    }
}

impl fmt::Debug for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phase = match &self.phase {
            Phase::Text { .. } => "text",
            Phase::Grammar { .. } => "grammar",
        };
        f.debug_struct("Mask").field("phase", &phase).finish_non_exhaustive()
    }
}

/// Forbids what is not in the set, whole words of it at once.
fn keep(set: &SimpleVob, logits: &mut [f32]) {
    let words = set.as_slice();
    for (at, chunk) in logits.chunks_mut(32).enumerate() {
        match words.get(at).copied().unwrap_or(0) {
            0 => chunk.fill(f32::NEG_INFINITY),
            u32::MAX => {}
            word => {
                for (bit, logit) in chunk.iter_mut().enumerate() {
                    *logit = if word >> bit & 1 == 1 { *logit } else { f32::NEG_INFINITY };
                }
            }
        }
    }
}

fn failed(error: &impl fmt::Display) -> Error {
    Error::Constraint(first_line(&error.to_string()).to_owned())
}

/// What the parser says before it goes into its own state.
pub(super) fn first_line(message: &str) -> &str {
    message.lines().find(|line| !line.trim().is_empty()).unwrap_or("the grammar cannot go on").trim()
}
