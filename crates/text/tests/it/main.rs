//! The crate against the repository's fixtures.

mod fixtures;
mod parsing;
mod published;
mod refusals;
mod rendering;
mod streaming;
mod tokenizing;
mod tracking;
