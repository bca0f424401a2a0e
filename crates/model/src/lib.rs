//! The DeepSeek V4 forward pass, written once for every device.
//!
//! [`Model`] is what callers hold: one loaded model, one call a step. [`Backend`] is what a device implements: memory
//! and eleven stages, and two more for a draft block. [`Transformer`] joins the two and holds the only text of the
//! model.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod backend;
mod batch;
mod best;
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
pub use batch::{Batch, DraftRow, GraphKey, LogitRows, MAX_DRAFT, NO_LOGITS, SlotId, Span, Step, StepRow};
pub use best::Best;
pub use draft::{DraftEmbedWeights, DraftWeights, draft_specs, validate_draft};
pub use error::{Error, Result};
pub use kv::{Cache, Compressed, DraftKv, IndexRows, KvLayout, LayerKv, Numerics, Part, Rows, visible_rows};
pub use model::{Limits, MemoryPlan, Model, Variant};
pub use probe::{Probe, Probed, RandomSelect, StreamTrace};
pub use rope::RopeTables;
pub use shape::{HC, RopeParams, Shape};
pub use transformer::Transformer;
pub use weights::{
    AttnOutputWeights, Class, CompressorWeights, ExpertWeights, HeadWeights, HyperConnection, IndexProjections,
    LayerWeights, PooledProjection, ProjectWeights, QueryWeights, RouteChoice, RouteWeights, TensorSpec, Weights,
    tensor_specs, validate,
};
pub use workspace::{LowRank, Queries, Routing, Workspace};
