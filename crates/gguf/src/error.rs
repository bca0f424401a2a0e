//! What can be wrong with a file. Owns the wording: one line that names the file, the place in it, what was found and what
//! was expected. Decides nothing.

use std::io;

/// Shorthand for this crate's results.
pub type Result<T> = std::result::Result<T, Error>;

/// A file that cannot be read, or does not hold what it should.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused.
    #[error("{file}: {source}")]
    Io { file: String, source: io::Error },
    /// The file says one thing where the format or the caller needs another. `place` is `header`, `key NAME` or `tensor NAME`.
    #[error("{file}: {place}: found {found}, expected {expected}")]
    Invalid { file: String, place: String, found: String, expected: String },
    /// A metadata key that the caller needs is not there.
    #[error("{file}: key {key}: missing, expected {expected}")]
    MissingKey { file: String, key: String, expected: &'static str },
    /// A [`crate::Layout`] that no file can have.
    #[error("layout: {place}: found {found}, expected {expected}")]
    Layout { place: String, found: String, expected: String },
}

impl Error {
    pub(crate) fn io(file: &str, source: io::Error) -> Self {
        Self::Io { file: file.to_owned(), source }
    }
}

/// Something wrong whose file and place the caller still has to name.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) found: String,
    pub(crate) expected: String,
}

impl Fault {
    pub(crate) fn new(found: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { found: found.into(), expected: expected.into() }
    }

    pub(crate) fn at(self, file: &str, place: impl Into<String>) -> Error {
        Error::Invalid { file: file.to_owned(), place: place.into(), found: self.found, expected: self.expected }
    }

    pub(crate) fn in_layout(self, place: impl Into<String>) -> Error {
        Error::Layout { place: place.into(), found: self.found, expected: self.expected }
    }
}

/// A name from outside for a message: what would break the line is escaped, what would fill the screen is cut.
pub fn shown(name: &str) -> String {
    const LONGEST: usize = 120;
    if name.is_empty() {
        return "(empty name)".to_owned();
    }
    let clean = |c: char| !c.is_control() && c != '\u{2028}' && c != '\u{2029}';
    if name.len() <= LONGEST && name.chars().all(clean) {
        return name.to_owned();
    }
    let mut out = String::new();
    for (i, c) in name.chars().enumerate() {
        if i == LONGEST {
            out.push_str("...");
            break;
        }
        if clean(c) {
            out.push(c);
        } else {
            out.extend(c.escape_unicode());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_line_break_stays_on_one_line() {
        assert_eq!(shown("a\nb"), "a\\u{a}b");
        assert_eq!(shown(""), "(empty name)");
        assert_eq!(shown("blk.0.attn_q_a.weight"), "blk.0.attn_q_a.weight");
        assert!(shown(&"x".repeat(1 << 20)).len() < 200);
    }
}
