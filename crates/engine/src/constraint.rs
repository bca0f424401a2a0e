//! What a caller may demand of the form of the answer. Owns the seam only: grammars and schemas live above the engine.

use std::fmt;

use crate::Result;

/// A rule for the ids of an answer. It hears nothing of the reasoning: the first id it is asked for is that after
/// `</think>`.
///
/// An error ends the request that the rule belongs to and no other.
pub trait Constraint: fmt::Debug + Send {
    /// Sets the logits `[n_vocab]` of all ids that may not come next to negative infinity. The end-of-sentence stays where
    /// the answer may end.
    fn allow(&mut self, logits: &mut [f32]) -> Result<()>;

    /// Takes the id that came. True if the answer is complete and nothing but the end-of-sentence may follow.
    fn push(&mut self, id: u32) -> Result<bool>;

    /// The same rule in the same state, for another request.
    fn fork(&self) -> Box<dyn Constraint>;
}

impl Clone for Box<dyn Constraint> {
    fn clone(&self) -> Self {
        self.fork()
    }
}
