//! GPUs through wgpu: Vulkan, and Metal on Apple's machines. Adapters are found at run time: the program starts without any, and
//! needs no library to be built. Device memory, pipelines and the stages; the order of a layer's stages is `ds4-model`'s.

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
#[cfg(test)]
mod failures;
mod hc;
mod head;
mod indexer;
mod plan;
mod program;
mod project;
mod query;
mod record;
mod router;
mod scratch;
mod upload;
mod weight;

pub use backend::{Options, Wgpu};
pub use clock::StageClock;
pub use device::{Api, Buffer, Gpu, Memory, adapters, available, has_gpus};
pub use plan::plan;
pub use program::{Shader, shaders};
pub use upload::Progress;
pub use weight::Weight;
