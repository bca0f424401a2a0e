//! What tests lean on: a model that plays scripts, for everything above the model; and checks of any device against the CPU,
//! for everything below.
//!
//! The scripted model computes nothing: its state is the token ids it was given. The checks know no device: they see a
//! [`ds4_model::Backend`].

#![forbid(unsafe_code)]

mod alone;
mod bounds;
mod cases;
mod decode;
mod lockstep;
mod model;
mod reply;
mod report;
mod script;
mod suite;
mod tally;
mod tap;

pub use lockstep::Lockstep;
pub use model::ScriptedModel;
pub use report::{Report, Rule};
pub use script::{Error, Script};
pub use suite::{Part, Scope, device_suite, trained_states};
pub use tally::StageLine;
