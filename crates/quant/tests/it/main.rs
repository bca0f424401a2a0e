//! Checkpoints of every source format, made in a folder, through the whole conversion.

mod bad_input;
mod checkpoint;
mod imatrix;
mod resume;
mod targets;
