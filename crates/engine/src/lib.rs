//! Sessions, sampling, generation and the scheduler of one loaded model.
//!
//! [`EngineHandle`] is the only door for front ends: ids in, events out. Behind it one OS thread owns the model and
//! evaluates all running requests together, one forward call a step. [`Session`], [`Sampler`] and [`TokenLogprobs`] are
//! there for programs that drive a model by hand.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod block;
mod constraint;
mod draft;
mod error;
mod generation;
mod handle;
mod kvstore;
mod live_match;
mod pace;
mod plan;
mod request;
mod sampler;
mod saves;
mod scheduler;
mod score;
mod session;
mod stop;

pub use constraint::Constraint;
pub use draft::{Agreement, AgreementRequest};
pub use ds4_text::{Delta, ToolCallDelta};
pub use error::{Error, Result};
pub use handle::{Activity, EngineConfig, EngineHandle, Reopen, STEP_SIZES};
pub use kvstore::{
    KvCompression, KvFault, KvFaults, KvLog, KvMisses, KvObject, KvOp, KvRole, KvSkips, KvSpace, KvStats,
    KvStoreConfig, kv_list, kv_remove, kv_verify,
};
pub use live_match::LiveMatch;
pub use request::{
    BLOCK_TOKENS, Cancel, ClosedBy, Event, Listener, ReplyBudget, Request, ScoreEvent, ScoreRequest, ShutdownReport,
    SlotStatus, Source, StopReason, Timings, Usage, Want,
};
pub use sampler::{Candidate, Sampler, SamplingParams, TokenLogprobs};
pub use session::{CheckpointPolicy, Observer, Reuse, Session};
