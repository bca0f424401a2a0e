//! HTTP front end of the engine: OpenAI and Anthropic APIs, events as server-sent events. Knows no model internals.

#![forbid(unsafe_code)]

mod app;
mod config;
mod error;
mod fields;
pub mod grammar;
mod history;
mod job;
mod openai;
mod order;
mod reply;
mod routes;
mod serve;
mod sse;

pub use app::ModelInfo;
pub use config::{ServerConfig, SlotDetail};
pub use serve::serve;
