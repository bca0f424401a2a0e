//! Checked reading and writing of GGUF v3 files, and the scalar decoding of the block formats that DeepSeek V4 Flash uses.
//!
//! Owns the container, the tensor directory and the meaning of a block's bytes. Knows neither the model's tensor names nor
//! its dimensions, and never computes with more than one row.

mod cursor;
pub mod dequant;
mod dims;
mod dtype;
mod error;
mod file;
mod header;
mod layout;
mod metadata;
pub mod q8_k;
pub mod tables;
mod tensor;
mod value;

pub use dims::Dims;
pub use dtype::DType;
pub use error::{Error, Result, shown};
pub use file::Gguf;
pub use layout::{DEFAULT_ALIGNMENT, Layout, write_at};
pub use metadata::Metadata;
pub use tensor::{Tensor, TensorInfo};
pub use value::{Array, OwnedValue, Strings, Text, Value, ValueType};
