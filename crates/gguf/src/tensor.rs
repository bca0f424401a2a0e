//! One tensor where it lies in the file. Owns the view and its row arithmetic; the bytes belong to the mapping.

use std::sync::Arc;

use bytes::Bytes;

use crate::{DType, Dims};

/// A tensor's bytes, shared with the mapping: cloning copies nothing.
///
/// Made by [`crate::Gguf::tensor`], which checks that `data` is exactly the rows that `dims` and `dtype` say and that it
/// starts at an address divisible by 8.
#[derive(Clone, Debug)]
pub struct Tensor {
    pub name: Arc<str>,
    pub dtype: DType,
    pub dims: Dims,
    pub data: Bytes,
}

impl Tensor {
    /// Elements per row: `dims[0]`.
    pub fn n_in(&self) -> usize {
        self.dims[0] as usize
    }

    /// Rows: the product of all dimensions but the first.
    pub fn n_rows(&self) -> usize {
        self.dims[1..].iter().product::<u64>() as usize
    }

    /// Bytes per row.
    pub fn row_bytes(&self) -> usize {
        self.dtype.row_bytes(self.n_in()).expect("a tensor's rows are whole blocks")
    }

    /// Bytes of row `i`, `0..n_rows()`.
    pub fn row(&self, i: usize) -> &[u8] {
        let n = self.row_bytes();
        &self.data[i * n..][..n]
    }
}

/// One entry of the tensor directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    pub name: Arc<str>,
    pub dtype: DType,
    pub dims: Dims,
    /// First byte, counted from the start of the file.
    pub offset: u64,
    /// Bytes without padding.
    pub bytes: u64,
}
