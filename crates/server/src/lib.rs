//! HTTP front end of the engine: OpenAI and Anthropic APIs, events as server-sent events. Knows no model internals.

#![forbid(unsafe_code)]

mod app;
mod config;
mod connection;
mod error;
mod fields;
mod gate;
pub mod grammar;
mod history;
mod job;
mod listen;
mod openai;
mod order;
mod reply;
mod routes;
mod serve;
mod sse;

pub use app::ModelInfo;
pub use config::{LogConfig, LogLevel, ServerConfig, SlotDetail};
pub use serve::{Server, StartError};
