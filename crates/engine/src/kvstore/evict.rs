//! Which checkpoints make room. A pure function of the index and the time (server.md 12.8).
//!
//! Worth of a checkpoint: expected reuse, times the tokens it saves beyond the next shorter checkpoint of its chain, by the bytes
//! that only it needs. Reuse is what its role promises plus its hits, which fade with a half-life of 6 hours, of 7 days for
//! beginnings. A regular point that a longer checkpoint has passed is worth next to nothing: of the points of one long
//! prompt the longest stays, and the ends of turns.

use std::collections::HashMap;

use super::format::{Header, KvRole};
use super::index::{Index, Tail};
use super::key::Key;

/// A checkpoint about to be written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Newcomer<'a> {
    pub(crate) role: KvRole,
    pub(crate) tokens: u32,
    /// Bytes that it adds.
    pub(crate) bytes: u64,
    /// Its segments that are there already, last one first. They stay.
    pub(crate) chain: &'a [Key],
}

/// The checkpoints that have to go so that `need` bytes come free, least worth first; nothing if that would cost a
/// protected one, or one worth more than the newcomer.
pub(crate) fn choose(index: &Index, need: u64, newcomer: Option<Newcomer<'_>>, now: u64) -> Option<Vec<Key>> {
    let mut field = Field::new(index, newcomer.as_ref());
    let limit = newcomer.map_or(f64::INFINITY, |n| field.worth_of(&n));
    let mut out = Vec::new();
    let mut freed = 0;
    while freed < need {
        let worth = |tail: &Tail| field.worth(tail, now);
        let least =
            field.alive.iter().map(|tail| (worth(tail), *tail)).min_by(|a, b| {
                a.0.total_cmp(&b.0).then(a.1.used.cmp(&b.1.used)).then(a.1.header.key.cmp(&b.1.header.key))
            });
        let (worth, tail) = least?;
        if worth > limit {
            return None;
        }
        freed += field.take(tail);
        out.push(tail.header.key);
    }
    Some(out)
}

/// The index with some of its checkpoints thought away.
struct Field<'a> {
    index: &'a Index,
    alive: Vec<&'a Tail>,
    refs: HashMap<Key, usize>,
    /// Checkpoints by the last segment of their chain.
    ends: HashMap<Key, Vec<&'a Tail>>,
    /// Length of the longest checkpoint in whose chain a segment is.
    longest: HashMap<Key, u32>,
}

impl<'a> Field<'a> {
    fn new(index: &'a Index, newcomer: Option<&Newcomer<'_>>) -> Self {
        let mut field =
            Field { index, alive: Vec::new(), refs: HashMap::new(), ends: HashMap::new(), longest: HashMap::new() };
        for tail in index.tails() {
            if !index.is_pinned(tail.header.key) {
                field.alive.push(tail);
            }
            field.ends.entry(tail.header.parent).or_default().push(tail);
            for segment in index.chain(tail.header.parent) {
                field.refs.insert(segment.header.key, segment.refs);
                field.passes(segment.header.key, tail.header.end);
            }
        }
        newcomer.into_iter().for_each(|n| n.chain.iter().for_each(|&key| field.passes(key, n.tokens)));
        field
    }

    fn passes(&mut self, segment: Key, end: u32) {
        let longest = self.longest.entry(segment).or_default();
        *longest = end.max(*longest);
    }

    /// Bytes that go with a checkpoint. What the newcomer needs is held, and so never needed by one alone.
    fn unique(&self, tail: &Tail) -> u64 {
        let alone = |header: &&Header| self.refs.get(&header.key) == Some(&1);
        let segments = self.index.chain(tail.header.parent).map(|segment| &segment.header).filter(alone);
        tail.header.file_bytes() + segments.map(Header::file_bytes).sum::<u64>()
    }

    fn worth(&self, tail: &Tail, now: u64) -> f64 {
        let role = tail.role();
        let age = now.saturating_sub(tail.used) as f64;
        let half_life = if role == KvRole::Cold { 7.0 * 24.0 * 3600.0 } else { 6.0 * 3600.0 };
        let mut reuse = prior(role) + tail.hits * (-age / half_life).exp2();
        let header = &tail.header;
        if role == KvRole::Continued && self.longest.get(&header.parent).is_some_and(|&end| end > header.end) {
            reuse *= 0.001;
        }
        let before = self.reach(self.index.chain(header.parent).map(|s| s.header.key), Some(header.key));
        reuse * f64::from(header.end.saturating_sub(before)) / self.unique(tail) as f64
    }

    fn worth_of(&self, newcomer: &Newcomer<'_>) -> f64 {
        let before = self.reach(newcomer.chain.iter().copied(), None);
        prior(newcomer.role) * f64::from(newcomer.tokens.saturating_sub(before)) / newcomer.bytes.max(1) as f64
    }

    /// Tokens of the longest other checkpoint at the end of one of these segments.
    fn reach(&self, chain: impl Iterator<Item = Key>, but: Option<Key>) -> u32 {
        let others = chain.filter_map(|key| self.ends.get(&key)).flatten();
        others.filter(|tail| Some(tail.header.key) != but).map(|tail| tail.header.end).max().unwrap_or(0)
    }

    /// Thinks a checkpoint away; returns what that frees.
    fn take(&mut self, tail: &Tail) -> u64 {
        let freed = self.unique(tail);
        for segment in self.index.chain(tail.header.parent) {
            if let Some(refs) = self.refs.get_mut(&segment.header.key) {
                *refs = refs.saturating_sub(1);
            }
        }
        self.alive.retain(|other| other.header.key != tail.header.key);
        if let Some(tails) = self.ends.get_mut(&tail.header.parent) {
            tails.retain(|other| other.header.key != tail.header.key);
        }
        freed
    }
}

/// Reuse that a role promises before there was any.
fn prior(role: KvRole) -> f64 {
    match role {
        KvRole::Cold => 4.0,
        KvRole::Turn => 2.0,
        KvRole::Evict | KvRole::Shutdown => 1.0,
        KvRole::Continued => 0.5,
    }
}

#[cfg(test)]
mod tests;
