//! How good a draft block is: its guesses beside what the model itself says. It measures; nothing is skipped because of a
//! guess.

use std::ops::{AddAssign, ControlFlow};

use ds4_model::{DraftRow, Model};

use crate::session::Observer;
use crate::{Cancel, Error, Result, Sampler, SamplingParams, Session};

/// Guesses of a draft block and how many of them came true.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Agreement {
    /// Tokens guessed.
    pub drafted: u32,
    /// Those that the model chose too.
    pub accepted: u32,
}

impl Agreement {
    /// The share that came true, 0 to 1; 0 when nothing was guessed.
    pub fn rate(&self) -> f64 {
        f64::from(self.accepted) / f64::from(self.drafted.max(1))
    }
}

impl AddAssign for Agreement {
    fn add_assign(&mut self, other: Agreement) {
        self.drafted += other.drafted;
        self.accepted += other.accepted;
    }
}

/// What is continued to measure agreement.
#[derive(Clone, Debug)]
pub struct AgreementRequest {
    /// Ids to continue.
    pub prompt: Vec<u32>,
    /// Most guesses.
    pub max_tokens: u32,
    /// Id behind which nothing is asked for: the end of the turn.
    pub end: Option<u32>,
    /// Set to stop between two steps.
    pub cancel: Cancel,
}

impl Session {
    /// Continues a prompt greedily and counts how often the draft block, asked as soon as a token is chosen, guesses the one
    /// after it. The session then holds the prompt and what was said.
    ///
    /// # Errors
    /// As [`Session::sync`]; a model without a draft block refuses the first guess.
    pub fn draft_agreement(&mut self, model: &mut dyn Model, request: &AgreementRequest) -> Result<Agreement> {
        let observer: Observer<'_> = &mut |_, _| {
            if request.cancel.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        self.sync(model, &request.prompt, observer)?;
        let mut greedy = Sampler::new(SamplingParams::greedy());
        let mut agreement = Agreement::default();
        let mut guesses = vec![0.0; model.shape().n_vocab];
        let mut next = greedy.sample(self.logits().unwrap_or_default(), true)?;
        while agreement.drafted < request.max_tokens
            && Some(next) != request.end
            && self.position() < model.limits().context
        {
            if request.cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let row = DraftRow { slot: self.slot(), pos: self.position() - 1, token: next };
            model.draft(&[row], &mut guesses)?;
            let guess = greedy.sample(&guesses, true)?;
            self.decode(model, next)?;
            next = greedy.sample(self.logits().unwrap_or_default(), true)?;
            agreement += Agreement { drafted: 1, accepted: u32::from(guess == next) };
        }
        Ok(agreement)
    }
}
