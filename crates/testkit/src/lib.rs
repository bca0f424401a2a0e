//! A model that plays scripts, for tests of everything above the model.
//!
//! Owns the script's format and the rule for what comes next. Computes nothing: its state is the token ids it was given.

#![forbid(unsafe_code)]

mod model;
mod reply;
mod script;

pub use model::ScriptedModel;
pub use script::{Error, Script};
