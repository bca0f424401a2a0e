//! Teacher forcing: which rows of logits a request is about and what is reported of them. It draws nothing.

use ds4_model::{LogitRows, Span};

use crate::handle::Sink;
use crate::{Cancel, Error, Result, ScoreEvent, ScoreRequest, TokenLogprobs, Want};

/// A running scoring.
pub(crate) struct Scoring {
    /// All ids of the request: the last one is judged but, for log-probabilities, not evaluated.
    tokens: Vec<u32>,
    from: u32,
    want: Want,
    cancel: Cancel,
    events: Sink<ScoreEvent>,
}

impl Scoring {
    /// The ids to evaluate, and what to do with their logits.
    pub(crate) fn new(request: ScoreRequest, events: Sink<ScoreEvent>) -> (Vec<u32>, Self) {
        let ScoreRequest { tokens, from, want, cancel, .. } = request;
        let evaluated = match want {
            Want::Logits => tokens.clone(),
            Want::Logprobs { .. } => tokens[..tokens.len() - 1].to_vec(),
        };
        (evaluated, Scoring { tokens, from, want, cancel, events })
    }

    /// The first position after which logits are needed: a token is judged by the row before it.
    pub(crate) fn first_row(&self) -> u32 {
        self.from - u32::from(matches!(self.want, Want::Logprobs { .. }))
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// Reports the rows of an evaluated span and says whether anyone listens.
    pub(crate) fn take(&self, evaluated: &[u32], span: &Span, rows: &[f32]) -> Result<bool> {
        if span.logits == LogitRows::All {
            let first = span.pos;
            let event = match self.want {
                Want::Logits => ScoreEvent::Logits { first, rows: rows.to_vec() },
                Want::Logprobs { top } => {
                    let judged = &self.tokens[first as usize + 1..];
                    let rows = rows.chunks_exact(rows.len() / span.len as usize);
                    let tokens = rows.zip(judged).map(|(row, &id)| TokenLogprobs::of(row, id, top));
                    ScoreEvent::Scored { first: first + 1, tokens: tokens.collect::<Result<_>>()? }
                }
            };
            self.events.send(event);
        }
        Ok(self.events.send(ScoreEvent::Progress { done: span.pos + span.len, total: evaluated.len() as u32 }))
    }

    pub(crate) fn finish(self) {
        self.events.end(ScoreEvent::Done);
    }

    pub(crate) fn fail(self, error: Error) {
        self.events.fail(error);
    }
}
