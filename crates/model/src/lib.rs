//! The DeepSeek V4 forward pass, written once for every device.
//!
//! [`Model`] is what callers hold: one loaded model, one call a step. [`Backend`] is what a device implements: memory
//! and eleven stages. [`Transformer`] joins the two and holds the only text of the model.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod backend;
mod batch;
mod draft;
mod error;
mod kv;
mod model;
mod probe;
mod rope;
mod shape;
mod transformer;
mod weights;
mod workspace;

pub use backend::{Backend, Stage};
pub use batch::{Batch, GraphKey, LogitRows, NO_LOGITS, SlotId, Span, Step, StepRow};
pub use draft::draft_specs;
pub use error::{Error, Result};
pub use kv::{Compressed, IndexRows, KvLayout, LayerKv, Numerics, Rows, visible_rows};
pub use model::{Limits, MemoryPlan, Model};
pub use probe::{Probe, Probed, StreamTrace};
pub use rope::RopeTables;
pub use shape::{HC, RopeParams, Shape};
pub use transformer::Transformer;
pub use weights::{
    AttnOutputWeights, Class, CompressorWeights, ExpertWeights, HeadWeights, HyperConnection, IndexProjections,
    LayerWeights, PooledProjection, ProjectWeights, QueryWeights, RouteChoice, RouteWeights, TensorSpec, Weights,
    tensor_specs, validate,
};
pub use workspace::{LowRank, Queries, Routing, Workspace};
