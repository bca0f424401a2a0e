//! What can be wrong with a vocabulary, a request or a generated turn. Owns the wording; decides nothing.

/// Shorthand for this crate's results.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Something from outside that this crate cannot use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The GGUF metadata lacks a key, or holds another type there.
    #[error(transparent)]
    Metadata(#[from] ds4_gguf::Error),
    /// The tokenizer keys contradict each other or this model.
    #[error("{file}: key {key}: found {found}, expected {expected}")]
    Vocabulary { file: String, key: &'static str, found: String, expected: String },
    /// A chat request that has no rendering. `place` is the field, such as `messages[2].content`.
    #[error("{place}: found {found}, expected {expected}")]
    Request { place: String, found: String, expected: String },
    /// A generated turn outside the official grammar. `at` counts bytes of the text.
    #[error("generated text, byte {at}: expected {expected}")]
    Turn { at: usize, expected: &'static str },
}

impl Error {
    pub(crate) fn request(place: impl Into<String>, found: impl Into<String>, expected: impl Into<String>) -> Self {
        Self::Request { place: place.into(), found: found.into(), expected: expected.into() }
    }

    /// The error with its place counted from further out.
    pub(crate) fn within(self, outer: &str) -> Self {
        match self {
            Self::Request { place, found, expected } => {
                Self::Request { place: format!("{outer}.{place}"), found, expected }
            }
            other => other,
        }
    }

    pub(crate) fn turn(at: usize, expected: &'static str) -> Self {
        Self::Turn { at, expected }
    }
}

/// Outside text as it appears in a message: on one line and not longer than a line.
pub(crate) fn shown(text: &str) -> String {
    const LONGEST: usize = 60;
    let mut out = format!("{:?}", text.chars().take(LONGEST).collect::<String>());
    if text.chars().nth(LONGEST).is_some() {
        out.push_str("...");
    }
    out
}
