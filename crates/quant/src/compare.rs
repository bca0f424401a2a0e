//! One tensor converted again and held against a file that has it. Owns the counting; prints nothing.

use std::path::Path;

use ds4_gguf::{DType, Gguf, dequant};

use crate::{
    convert::Converter,
    error::{Error, Result},
    plan::Plan,
};

/// How a tensor of a file differs from the same one converted here.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// Type, taken from the file.
    pub dtype: DType,
    /// Blocks of the tensor.
    pub blocks: u64,
    /// Blocks with the same bytes.
    pub equal: u64,
    /// The first differing byte, counted from the start of the tensor: there, here.
    pub first: Option<(u64, u8, u8)>,
    /// Root mean square of the source's values; `None` for expert ids.
    pub rms: Option<f64>,
    /// Root mean square error of the file's values against the source's.
    pub error_there: Option<f64>,
    /// The same of the values here.
    pub error_here: Option<f64>,
}

/// Sums over the values so far.
#[derive(Default)]
struct Sums {
    n: u64,
    source: f64,
    there: f64,
    here: f64,
}

/// Converts `tensor` of the checkpoint in `folder` to the type it has in `file`, and compares.
///
/// Errors: no such tensor in either, other dims, a source that cannot be converted.
pub fn compare(folder: &Path, tensor: &str, file: &Gguf, imatrix: Option<&Path>) -> Result<Comparison> {
    let there = file.tensor(tensor).ok_or_else(|| {
        Error::invalid(
            file.name(),
            format!("tensor {}", crate::error::clean(tensor)),
            "nothing",
            "a tensor to compare with",
        )
    })?;
    let plan = Plan::single(folder, tensor, there.dtype, imatrix)?;
    let expected = plan.tensors[0].spec.dims;
    if there.dims != expected {
        return Err(Error::invalid(
            file.name(),
            format!("tensor {tensor}"),
            there.dims.to_string(),
            expected.to_string(),
        ));
    }
    let block = there.dtype.block_bytes();
    let mut found = Comparison {
        dtype: there.dtype,
        blocks: (there.data.len() / block) as u64,
        equal: 0,
        first: None,
        rms: None,
        error_there: None,
        error_here: None,
    };
    let mut sums = Sums::default();
    let mut converter = Converter::default();
    for piece in &plan.pieces {
        converter.convert(&plan, piece, &mut |here, at, values| {
            let there = &there.data[at as usize..][..here.len()];
            let pairs = there.chunks_exact(block).zip(here.chunks_exact(block));
            found.equal += pairs.filter(|(a, b)| a == b).count() as u64;
            if found.first.is_none() {
                let differs = there.iter().zip(here).position(|(a, b)| a != b);
                found.first = differs.map(|i| (at + i as u64, there[i], here[i]));
            }
            sums.add(found.dtype, there, here, values);
            Ok(())
        })?;
    }
    if sums.n > 0 {
        let root = |sum: f64| Some((sum / sums.n as f64).sqrt());
        (found.rms, found.error_there, found.error_here) = (root(sums.source), root(sums.there), root(sums.here));
    }
    Ok(found)
}

impl Sums {
    /// `values` is empty where nothing was decoded: ids, and FP4 that was only re-arranged, which is exact.
    fn add(&mut self, dtype: DType, there: &[u8], here: &[u8], values: &[f32]) {
        if dtype == DType::I32 {
            return;
        }
        let n = here.len() / dtype.block_bytes() * dtype.block_len();
        let mut decoded = vec![0.0; n];
        dequant::row(dtype, here, &mut decoded);
        let source = if values.is_empty() { decoded.clone() } else { values.to_vec() };
        self.n += n as u64;
        self.source += source.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
        self.here += squared_error(&source, &decoded);
        dequant::row(dtype, there, &mut decoded);
        self.there += squared_error(&source, &decoded);
    }
}

fn squared_error(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum()
}
