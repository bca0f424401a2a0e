//! Counters of the store, shared by its threads and read by anyone without asking one of them.

use std::sync::atomic::{AtomicU64, Ordering};

use super::format::KvRole;

/// A count that only grows, or a level that is set.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn sub(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Where everybody counts.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) bytes: Counter,
    pub(crate) objects: Counter,
    pub(crate) checkpoints: Counter,
    pub(crate) hits: Counter,
    pub(crate) hit_tokens: Counter,
    pub(crate) absent: Counter,
    pub(crate) short: Counter,
    pub(crate) live: Counter,
    pub(crate) corrupt: Counter,
    pub(crate) unreadable: Counter,
    pub(crate) refused: Counter,
    pub(crate) writes: Counter,
    pub(crate) written_bytes: Counter,
    pub(crate) failed_writes: Counter,
    pub(crate) queue_full: Counter,
    pub(crate) no_room: Counter,
    pub(crate) duplicate: Counter,
    pub(crate) gap: Counter,
    /// By role, in the order of [`KvRole::ALL`].
    pub(crate) evictions: [Counter; KvRole::ALL.len()],
    pub(crate) pending: Counter,
}

/// State and history of a store since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KvStats {
    /// Bytes of all objects.
    pub bytes: u64,
    /// Objects: checkpoints and segments.
    pub objects: u64,
    /// Checkpoints.
    pub checkpoints: u64,
    /// Requests that went on from a stored state.
    pub hits: u64,
    /// Tokens they did not have to evaluate.
    pub hit_tokens: u64,
    /// Requests that did not.
    pub misses: KvMisses,
    /// Checkpoints written.
    pub writes: u64,
    /// Bytes written with them.
    pub written_bytes: u64,
    /// Saves that ended in an error of the file system.
    pub failed_writes: u64,
    /// Saves that were not made.
    pub skipped: KvSkips,
    /// Checkpoints removed to make room, by role in the order of [`KvRole::ALL`].
    pub evictions: [u64; KvRole::ALL.len()],
    /// Saves handed to the writer and not dealt with yet.
    pub pending: u64,
}

/// Why requests did not go on from a stored state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KvMisses {
    /// None is a beginning of their prompt.
    pub absent: u64,
    /// Their prompt is shorter than what is saved.
    pub short: u64,
    /// A slot held as much.
    pub live: u64,
    /// A damaged object; it was removed.
    pub corrupt: u64,
    /// A file could not be read.
    pub unreadable: u64,
    /// The model did not take the state; it was removed.
    pub refused: u64,
}

/// Why saves were not made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KvSkips {
    /// The writer had too much to do.
    pub queue_full: u64,
    /// No room without losing something worth more.
    pub no_room: u64,
    /// It was there already.
    pub duplicate: u64,
    /// Segments it builds on had been removed; the next save of the sequence is a whole one.
    pub gap: u64,
}

impl Counters {
    pub(crate) fn snapshot(&self) -> KvStats {
        KvStats {
            bytes: self.bytes.get(),
            objects: self.objects.get(),
            checkpoints: self.checkpoints.get(),
            hits: self.hits.get(),
            hit_tokens: self.hit_tokens.get(),
            misses: KvMisses {
                absent: self.absent.get(),
                short: self.short.get(),
                live: self.live.get(),
                corrupt: self.corrupt.get(),
                unreadable: self.unreadable.get(),
                refused: self.refused.get(),
            },
            writes: self.writes.get(),
            written_bytes: self.written_bytes.get(),
            failed_writes: self.failed_writes.get(),
            skipped: KvSkips {
                queue_full: self.queue_full.get(),
                no_room: self.no_room.get(),
                duplicate: self.duplicate.get(),
                gap: self.gap.get(),
            },
            evictions: std::array::from_fn(|role| self.evictions[role].get()),
            pending: self.pending.get(),
        }
    }
}
