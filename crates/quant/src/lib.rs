//! Hugging Face checkpoints to GGUF files (gguf.md sections 7 to 10): [`Plan`] joins a checkpoint with a recipe, [`Writer`]
//! writes it, [`compare`] holds one tensor against a file that others made.
//!
//! Owns the quantisers, the recipes, the way from Hugging Face names and numbers to ours, and unfinished files. The list of
//! tensors is `ds4-model`'s, the container and the decoding of blocks are `ds4-gguf`'s.

#![forbid(unsafe_code)]

pub mod blocks;
mod compare;
mod config;
mod convert;
mod error;
mod imatrix;
mod journal;
mod names;
mod plan;
mod recipe;
mod source;
mod tokenizer;
mod write;

pub use compare::{Comparison, compare};
pub use error::{Error, Result};
pub use plan::{Line, Options, Plan};
pub use recipe::{Family, Recipe, Target, dtype_from_name};
pub use write::{Start, Writer};
