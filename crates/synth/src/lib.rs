//! Synthetic model files: any shape, random weights drawn directly in their storage format, the real tokenizer.
//!
//! Owns recipes and how their bytes come about. Tensor names and dims come from `ds4-model`, the container from `ds4-gguf`;
//! nothing here runs a model or quantises a value.

#![forbid(unsafe_code)]

mod error;
mod fill;
mod plan;
mod preset;
mod recipe;
mod rng;
mod stamp;
mod values;
mod vocabulary;
mod write;

pub use error::{Error, Result};
pub use preset::{PRESETS, preset};
pub use recipe::{Quant, Recipe};
pub use vocabulary::Tokens;
pub use write::{build, write};
