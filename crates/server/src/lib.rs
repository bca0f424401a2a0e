//! HTTP front end of the engine: OpenAI and Anthropic APIs, events as server-sent events. Knows no model internals.

#![forbid(unsafe_code)]

mod anthropic;
mod app;
mod aside;
mod call;
mod coding;
mod config;
mod connection;
mod demand;
mod error;
mod fields;
mod follow;
mod gate;
pub mod grammar;
mod history;
mod job;
mod journal;
mod keys;
mod lifecycle;
mod listen;
mod log;
mod mailbox;
mod metrics;
mod openai;
mod order;
mod origin;
mod path;
mod replay;
mod reply;
mod responses;
mod routes;
mod serve;
mod signals;
mod sse;
mod trace;
mod utilities;
mod wire;

pub use app::ModelInfo;
pub use config::{LogConfig, LogLevel, ServerConfig, SlotDetail};
pub use journal::verify_journals;
pub use log::start_log;
pub use replay::load_or_create_key;
pub use serve::{End, Server, Service, StartError, Switch, router};
