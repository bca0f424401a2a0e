//! A slot with its history and what runs in it: what it asks of the next step, what it makes of the logits, how it ends.

use std::cmp::Reverse;

use ds4_model::Span;

use crate::generation::{Flow, Generation};
use crate::kvstore::Key;
use crate::plan::{Demand, Kind};
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
}

pub(super) enum Task {
    /// `prompt` tokens are given, those after them were drawn.
    Generate {
        prompt: u32,
        generation: Box<Generation>,
    },
    Score(Scoring),
}

impl Seat {
    pub(super) fn new(session: Session) -> Self {
        Seat { session, job: None, used: 0, tenant: 0, trail: Trail::default(), restored: None, refused: None }
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

    pub(super) fn status(&self) -> SlotStatus {
        SlotStatus {
            slot: self.session.slot(),
            tokens: self.session.tokens().to_vec(),
            busy: self.job.is_some(),
            checkpoint_bytes: self.session.checkpoint_bytes(),
        }
    }

    /// What it could evaluate now. With a store a prompt pauses where it is to be saved.
    pub(super) fn demand(&self, kv: Option<&KvStoreConfig>) -> Option<Demand> {
        let job = self.job.as_ref()?;
        let pos = self.session.position();
        let kind = match &job.task {
            Task::Generate { prompt, .. } if pos >= *prompt => Kind::Decode,
            Task::Generate { .. } => Kind::Prefill,
            Task::Score(scoring) => Kind::Score { from: scoring.first_row() },
        };
        let pause = match (kv, kind) {
            (Some(kv), Kind::Prefill) => self.trail.until_stop(kv, pos),
            _ => u32::MAX,
        };
        Some(Demand { slot: self.session.slot(), pos, len: (job.tokens.len() as u32 - pos).min(pause), kind })
    }

    pub(super) fn pending(&self, span: &Span) -> &[u32] {
        let job = self.job.as_ref().expect("spans are planned for running jobs");
        &job.tokens[span.pos as usize..(span.pos + span.len) as usize]
    }

    /// The evaluated rows of `span` with their logits.
    pub(super) fn take(&mut self, span: &Span, rows: &[f32], rewind: u32) {
        let Seat { session, job, .. } = self;
        let Some(Job { tokens, task }) = job else { return };
        let n_vocab = rows.len() / span.logit_rows().max(1);
        let last = if rows.is_empty() { None } else { Some(&rows[rows.len() - n_vocab..]) };
        session.advance(&tokens[span.pos as usize..(span.pos + span.len) as usize], last, rewind);
        let done = session.position();
        match task {
            Task::Score(scoring) => {
                let listening = scoring.take(tokens, span, rows);
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
                }
                if in_prompt && !generation.prefilled(done) {
                    self.end(StopReason::Cancelled);
                } else if done >= *prompt {
                    self.sample(rows);
                }
            }
        }
    }

    /// Draws the next token and goes on with it, or ends.
    pub(super) fn sample(&mut self, logits: &[f32]) {
        let Some(Job { tokens, task: Task::Generate { generation, .. } }) = &mut self.job else { return };
        match generation.advance(logits) {
            Ok(flow) => {
                self.restored = None;
                match flow {
                    Flow::Next(id) => tokens.push(id),
                    Flow::Stop(reason) => self.end(reason),
                }
            }
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

    /// Ends the request with an error. Nothing is known of the slot's state then, unless only the constraint failed. If that
    /// state came from the store, which is reason enough to doubt it, the request starts again from nothing instead.
    pub(super) fn fail(&mut self, error: Error) {
        let constraint = matches!(error, Error::Constraint(_));
        if !constraint {
            self.session.clear();
            self.trail = Trail::default();
        }
        let device = matches!(error, Error::Device(_));
        if let (Some(key), Some(Job { task: Task::Generate { generation, .. }, .. }), false) =
            (self.restored.take(), &mut self.job, device || constraint)
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
    pub(super) fn is_cancelled(&self) -> bool {
        match &self.task {
            Task::Generate { generation, .. } => generation.is_cancelled(),
            Task::Score(scoring) => scoring.is_cancelled(),
        }
    }
}

/// The idle seat for `tokens`, if there is one. A seat that they continue comes first: one of which they share at least
/// half, most shared first. Then an empty one, so that a short common start does not cost another conversation its
/// state. Then the one that shares most, and among equals the one that was used longest ago.
pub(super) fn choose_seat(seats: &[Seat], tokens: &[u32], tenant: u64, rewind: u32) -> Option<usize> {
    let idle = seats.iter().enumerate().filter(|(_, seat)| seat.job.is_none());
    let rank = |seat: &Seat| {
        let held = seat.session.position();
        let shared = if seat.tenant == tenant { seat.session.common_prefix(tokens) } else { 0 };
        let kept = seat.reusable(tokens, tenant, rewind);
        let class = match () {
            () if kept > 0 && u64::from(shared) * 2 >= u64::from(held) => 2,
            () if held == 0 => 1,
            () => 0,
        };
        (class, kept, Reverse(seat.used), Reverse(seat.session.slot()))
    };
    idle.max_by_key(|(_, seat)| rank(seat)).map(|(at, _)| at)
}
