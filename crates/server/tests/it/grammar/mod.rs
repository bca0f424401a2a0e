//! Demands on answers: whatever is drawn under them is what they ask for.

mod calls;
mod engine;
mod formats;
mod published;
mod refusals;
mod walk;
