//! What can go wrong between a file, a batch and a device.

/// Errors of loading and running a model.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The container or its metadata is wrong.
    #[error(transparent)]
    Gguf(#[from] ds4_gguf::Error),
    /// A metadata value that no model of the family can have.
    #[error("{file}: {key}: found {found}, expected {expected}")]
    Metadata {
        /// The file as the user named it.
        file: String,
        /// GGUF key.
        key: String,
        /// The value in the file.
        found: String,
        /// What would have been accepted.
        expected: String,
    },
    /// A tensor of the directory is missing.
    #[error("{file}: {tensor}: missing, expected a tensor of dims {expected}")]
    MissingTensor {
        /// The file as the user named it.
        file: String,
        /// GGUF tensor name.
        tensor: String,
        /// Dims that the shape asks for.
        expected: String,
    },
    /// A tensor has other dims than the shape asks for.
    #[error("{file}: {tensor}: dims {found}, expected {expected}")]
    WrongDims {
        /// The file as the user named it.
        file: String,
        /// GGUF tensor name.
        tensor: String,
        /// Dims in the file.
        found: String,
        /// Dims that the shape asks for.
        expected: String,
    },
    /// A tensor has a type that its role cannot have.
    #[error("{file}: {tensor}: type {found}, expected {expected}")]
    WrongType {
        /// The file as the user named it.
        file: String,
        /// GGUF tensor name.
        tensor: String,
        /// Type in the file.
        found: String,
        /// Accepted types.
        expected: String,
    },
    /// A tensor holds a value that the model cannot use.
    #[error("{file}: {tensor}: {what}")]
    BadTensor {
        /// The file as the user named it.
        file: String,
        /// GGUF tensor name.
        tensor: String,
        /// What is wrong.
        what: String,
    },
    /// A batch that does not fit the model or its cache.
    #[error("batch: {0}")]
    Batch(String),
    /// Limits that no cache can be built for.
    #[error("limits: {0}")]
    Limits(String),
    /// A saved state that does not fit this model.
    #[error("state: {0}")]
    State(String),
    /// Reading or writing a saved state failed.
    #[error("state: {0}")]
    Io(#[from] std::io::Error),
    /// The device failed or is gone.
    #[error("device {device}: {what}")]
    Device {
        /// Name of the device.
        device: String,
        /// What it said.
        what: String,
    },
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;
