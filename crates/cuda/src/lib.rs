//! CUDA backend: NVIDIA GPUs. Driver and compiler are opened at run time, so a program with this crate starts anywhere;
//! kernels are text in the program, compiled once for the card that is there. `docs/performance.md` says what each stage
//! costs.

#![warn(missing_docs)]

mod attention;
mod backend;
mod best;
mod clock;
mod compressor;
mod dense;
mod device;
mod draft;
mod embed;
mod experts;
mod gemm;
mod graph;
mod hc;
mod head;
mod indexer;
mod launch;
mod plan;
mod program;
mod project;
mod query;
mod router;
mod scratch;
mod upload;
mod weight;

pub use backend::{Cuda, Notice, Options};
pub use clock::StageClock;
pub use device::{Buffer, Card, available, has_cards, memory};
pub use plan::plan;
pub use program::check;
pub use upload::Progress;
pub use weight::Weight;
