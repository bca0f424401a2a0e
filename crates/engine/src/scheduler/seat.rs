//! A slot with its history and what runs in it: what it asks of the next step, what it makes of the logits, how it ends.

use std::time::Instant;

use ds4_model::Span;

use super::queue::Waited;
use crate::generation::{Flow, Generation, Prediction};
use crate::kvstore::Key;
use crate::plan::{Demand, Kind, TURN};
use crate::saves::Trail;
use crate::score::Scoring;
use crate::{Error, KvStoreConfig, Session, SlotStatus, Source, StopReason};

/// A slot with its history and the request that runs in it.
pub(super) struct Seat {
    pub(super) session: Session,
    pub(super) job: Option<Job>,
    pub(super) used: u64,
    /// Whose sequence it is: nobody else goes on from it.
    pub(super) tenant: u64,
    /// The conversation that it last served, as its caller calls it.
    pub(super) affinity: Option<u64>,
    /// Tokens at its beginning that other conversations may have too. Who shares more goes on with this one.
    pub(super) opening: u32,
    /// Length at which its prompt pauses, for somebody who waits for so much of it.
    pub(super) meet: Option<u32>,
    /// Length at which its prompt pauses, as its last user turn begins there.
    pub(super) turn: Option<u32>,
    pub(super) trail: Trail,
    /// Where its state came from, until a token was drawn from it.
    pub(super) restored: Option<Key>,
    /// A state that came from the store and did not work.
    pub(super) refused: Option<Key>,
}

/// A running request.
pub(super) struct Job {
    /// The history to be evaluated; the session holds its beginning.
    pub(super) tokens: Vec<u32>,
    pub(super) task: Task,
    /// Which came first.
    pub(super) order: u64,
    /// When it last had a row in a step.
    pub(super) served: Instant,
    /// Its listener has enough for now.
    pub(super) paused: bool,
    /// `tokens` are fewer than were evaluated: the session is to follow.
    pub(super) goes_back: bool,
}

pub(super) enum Task {
    /// `prompt` tokens are given, those after them were drawn. What is kept of an answer that goes back counts as given.
    Generate {
        prompt: u32,
        generation: Box<Generation>,
    },
    Score(Scoring),
}

impl Seat {
    pub(super) fn new(session: Session) -> Self {
        Seat {
            session,
            job: None,
            used: 0,
            tenant: 0,
            affinity: None,
            opening: 0,
            meet: None,
            turn: None,
            trail: Trail::default(),
            restored: None,
            refused: None,
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Seat { used: self.used, ..Seat::new(self.session.emptied()) };
    }

    /// Nobody goes on from another tenant's sequence.
    pub(super) fn give_to(&mut self, tenant: u64) {
        if self.tenant != tenant {
            self.clear();
            self.tenant = tenant;
        }
        self.restored = None;
    }

    /// Tokens of a tenant's prompt that would not have to be evaluated again.
    pub(super) fn reusable(&self, prompt: &[u32], tenant: u64, rewind: u32) -> u32 {
        if self.tenant == tenant { self.session.reusable(prompt, rewind) } else { 0 }
    }

    /// Whether a history goes on with this conversation, or takes nothing of it away.
    pub(super) fn is_continued_by(&self, wanted: &Waited<'_>) -> bool {
        let shared = self.session.common_prefix(wanted.tokens);
        let goes_on = wanted.goes_on && (shared == self.session.position() || shared >= self.opening);
        self.tenant == wanted.tenant && (goes_on || self.opening == 0)
    }

    /// The prompt that is being evaluated.
    pub(super) fn prompt_under_way(&self) -> Option<&[u32]> {
        match self.job.as_ref()? {
            Job { tokens, task: Task::Generate { prompt, .. }, .. } if self.session.position() < *prompt => {
                Some(&tokens[..*prompt as usize])
            }
            _ => None,
        }
    }

    pub(super) fn status(&self) -> SlotStatus {
        SlotStatus {
            slot: self.session.slot(),
            tokens: self.session.tokens().to_vec(),
            busy: self.job.is_some(),
            checkpoint_bytes: self.session.checkpoint_bytes(),
        }
    }

    /// What it could evaluate now. A prompt pauses where somebody waits for it, where its last user turn begins, and with a store
    /// where it is to be saved.
    pub(super) fn demand(&self, kv: Option<&KvStoreConfig>, now: Instant) -> Option<Demand> {
        let job = self.job.as_ref().filter(|job| !job.paused)?;
        let pos = self.session.position();
        let kind = match &job.task {
            Task::Generate { prompt, .. } if pos >= *prompt => Kind::Decode,
            Task::Generate { .. } => Kind::Prefill,
            Task::Score(scoring) => Kind::Score { from: scoring.first_row() },
        };
        let pause = if kind == Kind::Prefill {
            let saved = kv.map_or(u32::MAX, |kv| self.trail.until_stop(kv, pos));
            let until = |at: Option<u32>| at.filter(|&at| at > pos).map_or(u32::MAX, |at| at - pos);
            saved.min(until(self.meet)).min(until(self.turn))
        } else {
            u32::MAX
        };
        let left = job.tokens.len() as u32 - pos;
        let age = now.saturating_duration_since(job.served).as_secs() / TURN.as_secs();
        Some(Demand {
            slot: self.session.slot(),
            pos,
            len: left.min(pause),
            left,
            order: job.order,
            priority: job.priority(),
            age: u32::try_from(age).unwrap_or(u32::MAX),
            kind,
        })
    }

    pub(super) fn pending(&self, span: &Span) -> &[u32] {
        let job = self.job.as_ref().expect("spans are planned for running jobs");
        &job.tokens[span.pos as usize..(span.pos + span.len) as usize]
    }

    /// Whether the best token is all that is wanted of the last row of `span`: an answer that goes on. What comes after a prompt
    /// is kept for who asks for the same again.
    pub(super) fn wants_best(&self, span: &Span) -> bool {
        let task = self.job.as_ref().map(|job| &job.task);
        matches!(task, Some(Task::Generate { prompt, generation }) if span.pos >= *prompt && generation.wants_best())
    }

    /// The evaluated rows of `span`, with what the model says behind those that were wanted.
    pub(super) fn take(&mut self, span: &Span, prediction: Prediction<'_>, rewind: u32) {
        let Seat { session, job, .. } = self;
        let Some(Job { tokens, task, .. }) = job else { return };
        let logits = if let Prediction::Logits(logits) = prediction { logits } else { &[] };
        let n_vocab = logits.len() / span.logit_rows().max(1);
        let last = if logits.is_empty() { None } else { Some(&logits[logits.len() - n_vocab..]) };
        session.advance(&tokens[span.pos as usize..(span.pos + span.len) as usize], last, rewind);
        let done = session.position();
        match task {
            Task::Score(scoring) => {
                let listening = scoring.take(tokens, span, logits);
                match listening {
                    Err(error) => self.fail(error),
                    Ok(true) if (done as usize) < tokens.len() => {}
                    Ok(_) => self.end(StopReason::EndOfTurn),
                }
            }
            Task::Generate { prompt, generation } => {
                let in_prompt = span.pos < *prompt;
                if in_prompt && done == *prompt {
                    session.mark_prompt_end(rewind);
                } else if self.meet == Some(done) || self.turn == Some(done) {
                    // Who waited may get a seat later only; who asks the same with other words comes later, too.
                    session.mark(done);
                }
                if in_prompt && !generation.prefilled(done) {
                    self.end(StopReason::Cancelled);
                } else if done >= *prompt {
                    self.sample(prediction);
                }
            }
        }
    }

    /// Draws the next token and goes on with it, or ends.
    pub(super) fn sample(&mut self, prediction: Prediction<'_>) {
        let Some(Job { tokens, task: Task::Generate { prompt, generation }, goes_back, .. }) = &mut self.job else {
            return;
        };
        let flow = loop {
            match generation.advance(prediction) {
                // Without the logits, which now are wanted, the last token is evaluated again.
                Ok(Flow::Again(0)) if matches!(prediction, Prediction::Logits(_)) => {}
                flow => break flow,
            }
        };
        if flow.is_ok() {
            self.restored = None;
        }
        match flow {
            Ok(Flow::Next(id)) => tokens.push(id),
            Ok(Flow::Again(dropped)) => {
                tokens.truncate(tokens.len() - dropped as usize);
                (*prompt, *goes_back) = (tokens.len() as u32, true);
            }
            Ok(Flow::Stop(reason)) => self.end(reason),
            Err(error) => self.fail(error),
        }
    }

    /// Ends the request; what the slot holds stays for the next one.
    pub(super) fn end(&mut self, reason: StopReason) {
        match self.job.take() {
            Some(Job { task: Task::Generate { generation, .. }, .. }) => generation.finish(reason),
            Some(Job { task: Task::Score(scoring), .. }) if reason == StopReason::Cancelled => {
                scoring.fail(Error::Cancelled);
            }
            Some(Job { task: Task::Score(scoring), .. }) => scoring.finish(),
            None => {}
        }
    }

    /// Ends the request with an error. Nothing is known of the slot's state then, unless only the answer's form was wrong. If that
    /// state came from the store, which is reason enough to doubt it, the request starts again from nothing instead.
    pub(super) fn fail(&mut self, error: Error) {
        let form = matches!(error, Error::Constraint(_) | Error::CallLoops(_));
        if !form {
            self.session.clear();
            self.trail = Trail::default();
        }
        let device = matches!(error, Error::Device(_));
        if let (Some(key), Some(Job { task: Task::Generate { generation, .. }, .. }), false) =
            (self.restored.take(), &mut self.job, device || form)
        {
            self.refused = Some(key);
            generation.reuses(0, Source::None);
            generation.prefilled(0);
            return;
        }
        match self.job.take() {
            Some(Job { task: Task::Generate { generation, .. }, .. }) => generation.fail(error),
            Some(Job { task: Task::Score(scoring), .. }) => scoring.fail(error),
            None => {}
        }
    }
}

impl Job {
    pub(super) fn new(tokens: Vec<u32>, task: Task) -> Self {
        Job { tokens, task, order: 0, served: Instant::now(), paused: false, goes_back: false }
    }

    fn priority(&self) -> i8 {
        match &self.task {
            Task::Generate { generation, .. } => generation.priority(),
            Task::Score(_) => 0,
        }
    }

    pub(super) fn is_cancelled(&self) -> bool {
        match &self.task {
            Task::Generate { generation, .. } => generation.is_cancelled(),
            Task::Score(scoring) => scoring.is_cancelled(),
        }
    }

    pub(super) fn is_full(&self) -> bool {
        matches!(&self.task, Task::Generate { generation, .. } if generation.is_full())
    }
}
