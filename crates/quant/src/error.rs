//! Why a checkpoint could not be converted. Owns the wording: one line that names the file, the place in it, what was found
//! and what was expected.

use std::{io, path::Path};

pub(crate) use ds4_gguf::shown as clean;

/// Shorthand for this crate's results.
pub type Result<T> = std::result::Result<T, Error>;

/// A checkpoint, recipe or disk that does not serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused.
    #[error("{file}: {source}")]
    Io { file: String, source: io::Error },
    /// An input says one thing where another is needed. `place` is a tensor, a key, or a part of the file.
    #[error("{file}: {place}: found {found}, expected {expected}")]
    Invalid { file: String, place: String, found: String, expected: String },
    /// The checkpoint has no such tensor.
    #[error("{folder}: tensor {tensor}: missing, expected {expected}")]
    Missing { folder: String, tensor: String, expected: String },
    /// A weight that no target can hold.
    #[error("{file}: tensor {tensor}: element {element} is {value}, expected {expected}")]
    BadValue { file: String, tensor: String, element: u64, value: String, expected: String },
    /// The recipe asks for what cannot be.
    #[error("tensor {tensor}: {found}, expected {expected}")]
    Recipe { tensor: String, found: String, expected: String },
    /// No file can have this layout.
    #[error(transparent)]
    Gguf(#[from] ds4_gguf::Error),
    /// The engine would refuse this shape.
    #[error(transparent)]
    Model(Box<ds4_model::Error>),
    /// The disk is full; what was written is kept.
    #[error("{file}: disk full, the file needs {bytes} bytes; {file} is kept, the same command continues it")]
    Full { file: String, bytes: u64 },
    /// Another process writes the same file.
    #[error("{file}: another process is writing it")]
    Busy { file: String },
    /// The caller stopped it; what was written is kept.
    #[error("{file}: stopped before it was complete; the same command continues it")]
    Stopped { file: String },
}

impl Error {
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { file: shown(path), source }
    }

    pub(crate) fn invalid(
        file: impl Into<String>,
        place: impl Into<String>,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) -> Self {
        Self::Invalid { file: file.into(), place: place.into(), found: found.into(), expected: expected.into() }
    }
}

impl From<ds4_model::Error> for Error {
    fn from(e: ds4_model::Error) -> Self {
        Self::Model(Box::new(e))
    }
}

/// A path for a message.
pub(crate) fn shown(path: &Path) -> String {
    clean(&path.display().to_string())
}
