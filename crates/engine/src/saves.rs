//! When a sequence is saved (server.md 12.6): positions on its way, and what its end is worth. Pure; the copying is the
//! scheduler's, the writing the store's.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::KvStoreConfig;
use crate::kvstore::KvRole;

/// What a slot's sequence has to do with the store.
#[derive(Debug, Default)]
pub(crate) struct Trail {
    /// Tokens, a multiple of the segment length, whose rows were handed to the writer; it goes back to 0 if they are not
    /// there after all.
    on_disk: Arc<AtomicU32>,
    /// Length at which the sequence was last saved or restored; 0 for none.
    saved: u32,
    /// Tokens that were there when the present turn began.
    turn_start: u32,
    /// Length at which the beginning of a new prompt is saved; 0 for none.
    cold: u32,
    /// Tokens of the present turn's prompt.
    prompt: u32,
    /// No conversation: not worth saving.
    scratch: bool,
}

impl Trail {
    /// Of a sequence that nobody will go on with, such as one that was scored.
    pub(crate) fn scratch() -> Self {
        Trail { scratch: true, ..Trail::default() }
    }

    /// A turn begins: `cached` tokens of a prompt of `prompt` are there.
    pub(crate) fn begin(&mut self, config: &KvStoreConfig, cached: u32, prompt: u32, anchor: Option<u32>) {
        self.cut(config, cached);
        (self.turn_start, self.prompt, self.scratch) = (cached, prompt, false);
        self.cold = anchor.filter(|&at| at > cached).unwrap_or(0);
    }

    /// Of a sequence that begins like this one: its beginning is on disk as far as this one's is.
    pub(crate) fn branch(&self) -> Self {
        Trail { on_disk: Arc::new(AtomicU32::new(self.on_disk())), saved: self.saved, ..Trail::default() }
    }

    /// The sequence goes on behind its first `at` tokens.
    pub(crate) fn cut(&mut self, config: &KvStoreConfig, at: u32) {
        let step = config.step();
        // Saves still on their way speak of the old sequence only.
        self.on_disk = Arc::new(AtomicU32::new(self.on_disk().min(at / step * step)));
        self.saved = if self.saved <= at { self.saved } else { 0 };
    }

    /// The sequence is what the store holds.
    pub(crate) fn restored(&mut self, config: &KvStoreConfig, at: u32) {
        *self = Trail::default();
        self.handed_over(config, at);
    }

    /// The first `at` tokens are on their way to the disk. Returns what [`Trail::take_back`] needs.
    pub(crate) fn handed_over(&mut self, config: &KvStoreConfig, at: u32) -> (u32, u32) {
        let step = config.step();
        let before = (self.on_disk.swap(at / step * step, Ordering::Relaxed), self.saved);
        self.saved = at;
        before
    }

    /// They are not after all.
    pub(crate) fn take_back(&mut self, before: (u32, u32)) {
        self.on_disk.store(before.0, Ordering::Relaxed);
        self.saved = before.1;
    }

    /// Tokens whose rows need not be saved again.
    pub(crate) fn on_disk(&self) -> u32 {
        self.on_disk.load(Ordering::Relaxed)
    }

    /// What the writer tells when they have to.
    pub(crate) fn share(&self) -> Arc<AtomicU32> {
        Arc::clone(&self.on_disk)
    }

    /// Whether a sequence of `len` tokens is worth a save that it does not have.
    pub(crate) fn wants(&self, config: &KvStoreConfig, len: u32) -> bool {
        !config.readonly && !self.scratch && len >= config.min_tokens.max(1) && len != self.saved
    }

    /// How many tokens to prefill from `pos` at most, so that no step passes a length that is to be saved.
    pub(crate) fn until_stop(&self, config: &KvStoreConfig, pos: u32) -> u32 {
        let cold = if self.cold > pos { self.cold - pos } else { u32::MAX };
        let regular = interval(config).map_or(u32::MAX, |every| every - pos % every);
        cold.min(regular)
    }

    /// Why the sequence is saved at `len`, in the middle of its turn.
    pub(crate) fn on_the_way(&self, config: &KvStoreConfig, len: u32) -> Option<KvRole> {
        if len == self.cold {
            Some(KvRole::Cold)
        } else if len > 0 && interval(config).is_some_and(|every| len.is_multiple_of(every)) {
            Some(KvRole::Continued)
        } else {
            None
        }
    }

    /// Lengths between which a rewind point of a finished turn is worth its own tail: what is drawn next to the prompt may
    /// not come back in the next one, as reasoning does not.
    pub(crate) fn question(&self, config: &KvStoreConfig) -> RangeInclusive<u32> {
        config.min_tokens.max(self.turn_start + 1)..=self.prompt
    }

    /// Whether a turn that ended at `len` was long enough.
    pub(crate) fn was_long_turn(&self, config: &KvStoreConfig, len: u32) -> bool {
        config.turn_tokens > 0 && len.saturating_sub(self.turn_start) >= config.turn_tokens
    }
}

/// Tokens between regular saves.
fn interval(config: &KvStoreConfig) -> Option<u32> {
    (config.continued_interval > 0).then(|| config.continued_interval.next_multiple_of(config.boundary_align.max(1)))
}

/// The length at which the beginning of a new prompt is saved: its last user turn before the first answer, where what an
/// agent sends with every conversation ends; or its length, trimmed and aligned if something is left of it.
pub(crate) fn anchor(config: &KvStoreConfig, prompt: &[u32], user: u32, assistant: u32) -> Option<u32> {
    let len = prompt.len() as u32;
    let least = config.min_tokens.max(1);
    if len < least || len > config.cold_max_tokens {
        return None;
    }
    let opening = prompt.iter().position(|&id| id == assistant).unwrap_or(prompt.len());
    let turn = prompt[..opening].iter().rposition(|&id| id == user).map(|at| at as u32);
    if let Some(at) = turn.filter(|&at| at >= least) {
        return Some(at);
    }
    let trimmed = len.saturating_sub(config.boundary_trim);
    let aligned = trimmed - trimmed % config.boundary_align.max(1);
    Some(if aligned >= least { aligned } else { len })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> KvStoreConfig {
        KvStoreConfig::new("")
    }

    #[test]
    fn the_beginning_ends_before_the_last_user_turn_of_the_opening_or_where_the_trimmed_length_is_aligned() {
        let (user, assistant) = (1, 2);
        let at = |prompt: &[u32]| anchor(&config(), prompt, user, assistant);
        let mut prompt = vec![0; 5000];
        assert_eq!(at(&prompt), Some(4096));
        assert_eq!(at(&prompt[..4127]), Some(2048));
        assert_eq!(at(&prompt[..1000]), Some(1000), "nothing is left: as it is");
        assert_eq!(at(&prompt[..511]), None);
        assert_eq!(at(&vec![0; 30_001]), None);
        (prompt[100], prompt[900], prompt[1200], prompt[2000]) = (user, user, assistant, user);
        assert_eq!(at(&prompt), Some(900));
        prompt[900] = 0;
        assert_eq!(at(&prompt), Some(4096), "the turn at 100 is too early");
    }

    #[test]
    fn prefill_stops_where_something_is_saved() {
        let config = config();
        let mut trail = Trail::default();
        trail.begin(&config, 0, 5000, Some(900));
        assert_eq!((trail.until_stop(&config, 0), trail.until_stop(&config, 900)), (900, 9340));
        assert_eq!(trail.until_stop(&config, 10_240), 10_240);
        let roles = [900, 901, 10_240].map(|len| trail.on_the_way(&config, len));
        assert_eq!(roles, [Some(KvRole::Cold), None, Some(KvRole::Continued)]);
        assert!(trail.was_long_turn(&config, 4096) && !trail.was_long_turn(&config, 4095));
        let never = KvStoreConfig { continued_interval: 0, ..config };
        assert_eq!((trail.until_stop(&never, 900), trail.on_the_way(&never, 10_240)), (u32::MAX, None));
    }

    #[test]
    fn rows_on_disk_are_forgotten_from_the_point_where_a_sequence_parts() {
        let config = config();
        let mut trail = Trail::default();
        trail.restored(&config, 5000);
        assert_eq!((trail.on_disk(), trail.wants(&config, 5000), trail.wants(&config, 5001)), (4096, false, true));
        let old = trail.share();
        trail.cut(&config, 4000);
        old.store(0, Ordering::Relaxed);
        assert_eq!((trail.on_disk(), trail.wants(&config, 4000)), (2048, true));
    }
}
