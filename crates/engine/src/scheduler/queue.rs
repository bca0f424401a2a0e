//! The queue: requests that wait for a slot, and what the store knows of them.

use crate::generation::Generation;
use crate::handle::Queued;
use crate::kvstore::Image;
use crate::{Error, Event, Request, ScoreEvent, ScoreRequest};

/// A request in the queue.
pub(super) struct Entry {
    pub(super) waiting: Waiting,
    pub(super) ticket: u64,
    pub(super) stored: Stored,
    /// Tokens that a slot held when the store was asked.
    pub(super) live: u32,
    /// The store was asked twice.
    pub(super) again: bool,
}

/// What the store has of a prompt.
pub(super) enum Stored {
    Unasked,
    Asked,
    Known(Option<Box<Image>>),
}

pub(super) enum Waiting {
    Generate(Box<Queued<Request, Event>>),
    Score(Queued<ScoreRequest, ScoreEvent>),
}

impl Entry {
    pub(super) fn is_ready(&self) -> bool {
        matches!(self.stored, Stored::Known(_))
    }
}

/// Tokens to go on from, and whose they are.
pub(super) struct Waited<'a> {
    pub(super) tokens: &'a [u32],
    pub(super) tenant: u64,
    /// The seat to take where several would do equally well.
    pub(super) hint: Option<usize>,
    /// And then the one that served this conversation.
    pub(super) affinity: Option<u64>,
    /// They are a conversation, which may go on where it was. What is scored or measured is nobody's.
    pub(super) goes_on: bool,
}

impl<'a> Waited<'a> {
    /// Tokens that are scored or measured.
    pub(super) fn by_nobody(tokens: &'a [u32]) -> Self {
        Waited { tokens, tenant: 0, hint: None, affinity: None, goes_on: false }
    }
}

impl Waiting {
    pub(super) fn history(&self) -> Waited<'_> {
        match self {
            Waiting::Generate(queued) => {
                let Request { prompt, tenant, slot, affinity, .. } = &queued.request;
                let hint = slot.map(|slot| slot as usize);
                Waited { tokens: prompt, tenant: *tenant, hint, affinity: *affinity, goes_on: true }
            }
            Waiting::Score(queued) => Waited::by_nobody(&queued.request.tokens),
        }
    }

    pub(super) fn priority(&self) -> i8 {
        match self {
            Waiting::Generate(queued) => queued.request.priority,
            Waiting::Score(_) => 0,
        }
    }

    pub(super) fn is_cancelled(&self) -> bool {
        match self {
            Waiting::Generate(queued) => queued.request.cancel.is_cancelled(),
            Waiting::Score(queued) => queued.request.cancel.is_cancelled(),
        }
    }

    pub(super) fn cancel(self) {
        match self {
            Waiting::Generate(queued) => {
                let (request, events, submitted) = queued.admit();
                Generation::unstarted(&request, submitted, events);
            }
            Waiting::Score(queued) => queued.admit().1.fail(Error::Cancelled),
        }
    }
}
