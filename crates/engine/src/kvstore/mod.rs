//! Prefixes on disk: states of sequences that outlive their slot and the process. Owns the files, what is in them, which of
//! them stay, and the two threads that touch them. It decides neither when a state is saved (`saves`) nor what becomes of
//! one that was read (`scheduler`). `docs/kvstore.md` has the format and the argument why a crash cannot hurt.
//!
//! A *checkpoint* is a position of some sequence from which any continuation can go on. It is one small *tail* (window,
//! frontiers, logits) and a chain of *segments* (the append-only rows of fixed ranges of tokens), which checkpoints of one
//! beginning share. Every failure here is a miss or a skipped save, never an error of a request.

mod config;
mod directory;
mod disk;
mod evict;
mod files;
mod format;
mod image;
mod index;
mod inspect;
mod key;
#[cfg(test)]
mod memory;
mod ram;
mod stats;
mod worker;

pub use config::{KvCompression, KvLog, KvStoreConfig};
pub use disk::{KvFault, KvFaults, KvOp, KvSpace};
pub use format::KvRole;
pub use inspect::{KvObject, kv_list, kv_remove, kv_verify};
pub use stats::{KvMisses, KvSkips, KvStats};

#[cfg(test)]
pub(crate) use directory::Directory;
pub(crate) use directory::Identity;
pub(crate) use image::Image;
pub(crate) use key::Key;
#[cfg(test)]
pub(crate) use memory::Memory;
pub(crate) use stats::Counters;
pub(crate) use worker::{Answer, Fetch, KvStore, Save};
#[cfg(test)]
pub(crate) use worker::{Workers, Writer};
