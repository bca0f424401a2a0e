//! Text on its way into the model and out of it: ids from bytes, prompts from chat requests, turns from generated text.
//!
//! Owns the vocabulary, the prompt protocol and the tool-call grammar (`spec/prompt.md`). Knows no weights, no sampling and
//! no HTTP; nothing here does input or output.

#![forbid(unsafe_code)]

mod alphabet;
mod chat;
mod control;
mod detokenize;
mod error;
mod json;
mod normalize;
pub mod parse;
mod prompt;
pub mod render;
mod scanner;
mod tokenizer;
mod tracker;
mod vocabulary;

pub use chat::{ChatRequest, Content, Message, Revision, Role, Sampled, Thinking, ToolCall};
pub use control::Special;
pub use detokenize::Detokenizer;
pub use error::{Error, Result};
pub use parse::{Call, Delta, StreamParser, ToolCallDelta, ToolCallKind, Turn};
pub use prompt::{Exact, Piece, Prompt};
pub use render::render;
pub use tokenizer::Tokenizer;
pub use tracker::{DsmlTracker, Position, SamplingState};
