//! HTTP front end of the engine: OpenAI and Anthropic APIs, events as server-sent events. Knows no model internals.

#![forbid(unsafe_code)]

mod anthropic;
mod app;
mod config;
mod connection;
mod demand;
mod error;
mod fields;
mod gate;
pub mod grammar;
mod history;
mod job;
mod listen;
mod openai;
mod order;
mod replay;
mod reply;
mod responses;
mod routes;
mod serve;
mod sse;

pub use app::ModelInfo;
pub use config::{LogConfig, LogLevel, ServerConfig, SlotDetail};
pub use replay::load_or_create_key;
pub use serve::{Server, StartError, router};
