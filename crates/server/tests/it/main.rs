//! The crate from outside.

mod grammar;
