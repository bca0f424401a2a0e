//! What a store is opened with.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::disk::KvFaults;

/// Settings of the store (server.md 12.6).
#[derive(Clone, Debug)]
pub struct KvStoreConfig {
    /// Its directory, made if it is missing. None: host memory, and gone with the process.
    pub dir: Option<PathBuf>,
    /// Most bytes of everything kept, in MiB. Beside that, 5% of the file system stay free.
    pub space_mb: u64,
    /// Shorter prefixes are neither saved nor looked for.
    pub min_tokens: u32,
    /// Longest new prompt whose beginning is saved; 0 for none.
    pub cold_max_tokens: u32,
    /// Every so many tokens, rounded up to `boundary_align`, a growing sequence is saved; 0 for never.
    pub continued_interval: u32,
    /// Tokens left out at the end of a new prompt before its length is aligned.
    pub boundary_trim: u32,
    /// Saved lengths of new prompts are multiples of this, and so are the borders of segments. 0: no alignment, and
    /// segments of 2048 tokens.
    pub boundary_align: u32,
    /// A finished turn that added so many tokens is saved; 0 for none.
    pub turn_tokens: u32,
    /// Use states of the very same weights only. Without it variants of one model with other expert types count too, whose
    /// states are close but not equal.
    pub reject_different_quant: bool,
    /// Most MiB written a second; 0 for no limit.
    pub write_mbps: u32,
    /// How payloads are kept.
    pub compression: KvCompression,
    /// Nothing is written or removed. Several readers can share a directory that nobody writes to.
    pub readonly: bool,
    /// Hears what went wrong with a file, one line each.
    pub log: KvLog,
    /// Failures to inject, for tests.
    pub faults: KvFaults,
}

impl KvStoreConfig {
    /// The defaults for a directory.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        KvStoreConfig { dir: Some(dir.into()), ..KvStoreConfig::in_memory() }
    }

    /// The defaults for host memory.
    pub fn in_memory() -> Self {
        KvStoreConfig {
            dir: None,
            space_mb: 4096,
            min_tokens: 512,
            cold_max_tokens: 30_000,
            continued_interval: 10_000,
            boundary_trim: 32,
            boundary_align: 2048,
            turn_tokens: 4096,
            reject_different_quant: false,
            write_mbps: 500,
            compression: KvCompression::default(),
            readonly: false,
            log: KvLog::default(),
            faults: KvFaults::default(),
        }
    }

    /// Tokens of a segment.
    pub(crate) fn step(&self) -> u32 {
        if self.boundary_align == 0 { 2048 } else { self.boundary_align }
    }
}

/// How payloads are kept on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvCompression {
    /// As they are.
    None,
    /// LZ4 blocks.
    #[default]
    Lz4,
}

/// Where the store's notes go. The default drops them.
#[derive(Clone, Default)]
pub struct KvLog(Option<Arc<Hear>>);

type Hear = dyn Fn(&str) + Send + Sync;

impl KvLog {
    /// Notes go to `log`, which is called from background threads.
    pub fn new(log: impl Fn(&str) + Send + Sync + 'static) -> Self {
        KvLog(Some(Arc::new(log)))
    }

    pub(crate) fn note(&self, line: &str) {
        if let Some(log) = &self.0 {
            log(line);
        }
    }
}

impl fmt::Debug for KvLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "KvLog(..)" } else { "KvLog" })
    }
}
