//! Why a synthetic file could not be made.

use std::io;

/// Shorthand for this crate's results.
pub type Result<T> = std::result::Result<T, Error>;

/// A recipe that describes no model, or a file that could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No file can have this layout: rows that are not whole blocks, sizes beyond 64 bits.
    #[error(transparent)]
    Gguf(#[from] ds4_gguf::Error),
    /// The engine would refuse a file of this shape.
    #[error(transparent)]
    Model(Box<ds4_model::Error>),
    /// A part of the recipe contradicts another.
    #[error("recipe: {what}: found {found}, expected {expected}")]
    Recipe { what: &'static str, found: String, expected: String },
    /// The file is larger than memory can hold.
    #[error("recipe: {bytes} bytes do not fit in memory")]
    Memory { bytes: u64 },
    /// The disk is full; what was written is removed.
    #[error("{file}: disk full, the file needs {bytes} bytes")]
    Full { file: String, bytes: u64 },
    /// The operating system refused; what was written is removed.
    #[error("{file}: {source}")]
    Io { file: String, source: io::Error },
    /// The caller stopped it; what was written is removed.
    #[error("{file}: stopped before it was complete")]
    Stopped { file: String },
}

impl From<ds4_model::Error> for Error {
    fn from(e: ds4_model::Error) -> Self {
        Self::Model(Box::new(e))
    }
}
