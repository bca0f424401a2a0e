//! A weight of the CPU backend: the tensor where it lies in the mapped file. Vectors are decoded once, when first read.

use std::sync::OnceLock;

use ds4_gguf::{DType, Tensor, dequant};

use crate::dot::{Isa, Matrix};

/// A tensor and, for the vectors of the model, its values.
#[derive(Debug)]
pub struct Weight {
    tensor: Tensor,
    matrix: Option<Matrix>,
    values: OnceLock<Vec<f32>>,
}

impl Weight {
    pub(crate) fn new(tensor: &Tensor) -> Weight {
        let matrix = (tensor.dtype != DType::I32).then(|| Matrix::new(tensor));
        Weight { tensor: tensor.clone(), matrix, values: OnceLock::new() }
    }

    /// The tensor as rows of weights.
    pub(crate) fn matrix(&self) -> &Matrix {
        self.matrix.as_ref().expect("the binder admits integer tables as hash tables only")
    }

    /// All values of a small tensor: a norm, bias, scale or base.
    pub(crate) fn values(&self, isa: Isa) -> &[f32] {
        self.values.get_or_init(|| {
            let m = self.matrix();
            let mut values = vec![0.0; m.n_in * m.n_rows];
            values.chunks_mut(m.n_in).enumerate().for_each(|(row, out)| m.decode_row(isa, row, out));
            values
        })
    }

    /// A row of an integer table.
    pub(crate) fn ids(&self, row: usize, out: &mut [i32]) {
        dequant::i32_row(self.tensor.row(row), out);
    }
}
