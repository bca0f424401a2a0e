//! CPU backend: the reference for every other device. Plain loops that read like the specification over float32
//! activations; speed comes from the leaf products in `dot` and from threading.

#![warn(missing_docs)]

mod attention;
mod backend;
mod buffer;
mod compressor;
mod dot;
mod draft;
mod embed;
mod experts;
mod hc;
mod head;
mod indexer;
mod norm;
mod project;
mod query;
mod rope;
mod round;
mod router;
mod rows;
mod weight;

pub use backend::{Cpu, Options, load, load_with_draft};
pub use buffer::Buffer;
pub use dot::Isa;
pub use weight::Weight;
