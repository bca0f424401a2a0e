//! HTTP front end of the engine: OpenAI and Anthropic APIs, events as server-sent events. Knows no model internals.

#![forbid(unsafe_code)]

pub mod grammar;
