//! Where a request goes: into which seat, from whose state, and whether it had better wait for a prompt that is being
//! evaluated anyway. Looks at seats, changes none.

use std::cmp::Reverse;

use super::queue::Waited;
use super::seat::Seat;
use crate::session::common_prefix;

/// A seat, and what its new sequence starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) at: usize,
    /// The seat whose state is copied; without one the seat goes on from what it holds itself.
    pub(super) from: Option<usize>,
    /// Tokens whose state is there then.
    pub(super) kept: u32,
}

/// The idle seat for a history, if there is one. A conversation goes on where it is. Anything else takes an empty seat, or
/// the one that was used longest ago, and what another one, idle or busy, has of it is copied: a common start, such as a
/// system prompt, costs no conversation its own end. What the caller says of slots and conversations decides between equals
/// only, and a conversation's name does not make its slot the one to give up: some clients send one name with all they do at
/// once.
pub(super) fn place(seats: &[Seat], wanted: &Waited<'_>, rewind: u32) -> Option<Place> {
    let oldest = |at: usize| Reverse((seats[at].used, seats[at].session.slot()));
    let idle = || (0..seats.len()).filter(|&at| seats[at].job.is_none());
    let free = idle().max_by_key(|&at| (seats[at].session.position() == 0, wanted.hint == Some(at), oldest(at)))?;
    // Only now: a full house is asked by everyone who waits, in every step.
    let kept: Vec<u32> = seats.iter().map(|seat| seat.reusable(wanted.tokens, wanted.tenant, rewind)).collect();
    let best = (0..seats.len()).max_by_key(|&at| (kept[at], oldest(at))).filter(|&at| kept[at] >= WORTH);
    let conversation = || idle().filter(|&at| kept[at] > 0 && seats[at].is_continued_by(wanted));
    let longest = conversation().map(|at| kept[at]).max().unwrap_or(0);
    let equal = |at: usize| kept[at] + WORTH > longest;
    let served = |at: usize| wanted.affinity.is_some() && seats[at].affinity == wanted.affinity;
    let own = conversation().max_by_key(|&at| {
        (equal(at), equal(at) && wanted.hint == Some(at), equal(at) && served(at), kept[at], oldest(at))
    });
    Some(match (own, best) {
        (Some(at), None) => Place { at, from: None, kept: kept[at] },
        (Some(at), Some(best)) if kept[at] + WORTH > kept[best] => Place { at, from: None, kept: kept[at] },
        (_, Some(best)) if best != free => Place { at: free, from: Some(best), kept: kept[best] },
        _ => Place { at: free, from: None, kept: kept[free] },
    })
}

/// The seat in whose prompt more of a history is still to come than any other has, or than the `read` tokens from the store,
/// and how many tokens there are then. That seat gets on, or its request ends; whoever waits looks again after every step.
pub(super) fn awaited(seats: &[Seat], wanted: &Waited<'_>, read: u32, rewind: u32) -> Option<(usize, u32)> {
    let to_come = |seat: &Seat| {
        let prompt = seat.prompt_under_way().filter(|_| seat.tenant == wanted.tenant);
        let shared = prompt.map_or(0, |prompt| common_prefix(prompt, wanted.tokens));
        (shared > seat.session.position()).then_some(shared)
    };
    let coming: Vec<Option<u32>> = seats.iter().map(to_come).collect();
    let best = coming
        .iter()
        .enumerate()
        .filter_map(|(at, &shared)| Some((at, shared?)))
        .max_by_key(|&(at, most)| (most, Reverse(at)))?;
    let there = seats.iter().zip(&coming).filter(|(_, coming)| coming.is_none());
    let elsewhere = there.map(|(seat, _)| seat.reusable(wanted.tokens, wanted.tenant, rewind)).max();
    let elsewhere = elsewhere.unwrap_or(0).max(read);
    (best.1 >= elsewhere.saturating_add(WORTH)).then_some(best)
}

/// Fewer tokens are evaluated sooner than their state is copied or waited for.
const WORTH: u32 = 32;
