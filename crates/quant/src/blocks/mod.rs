//! Numbers to blocks: the inverse of `ds4_gguf::dequant`, byte for byte by the rules of gguf.md section 7.
//!
//! Owns the arithmetic of every target type, one row at a time. All of it is float32 in index order without fused
//! multiply-add, so a matrix has the same bytes on every machine and for any number of threads.

mod iq2_xxs;
mod mxfp4;
mod q2_k;
mod q4_k;
mod q8_0;
mod search;

use ds4_gguf::DType;
use half::{bf16, f16};

/// Largest magnitude that F16, and with it every block format, can hold.
pub const F16_MAX: f32 = 65504.0;

/// True for types whose encoding needs a weight per column: without an imatrix they get a synthetic one.
pub fn needs_importance(dtype: DType) -> bool {
    dtype == DType::Iq2Xxs
}

/// True for types whose encoding weighs columns if it is told how.
pub fn uses_importance(dtype: DType) -> bool {
    matches!(dtype, DType::Q4K | DType::Q2K | DType::Iq2Xxs)
}

/// Encodes one row of finite numbers into `out`.
///
/// `importance` holds one weight per column; types that do not use it ignore it.
///
/// # Panics
/// If `out` is not exactly the row's blocks, for `I32`, and for IQ2_XXS without importance.
pub fn encode_row(dtype: DType, row: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    assert_eq!(dtype.row_bytes(row.len()), Some(out.len()), "{} elements of {dtype} in {} bytes", row.len(), out.len());
    if let Some(v) = importance {
        assert_eq!(v.len(), row.len(), "one weight per column");
    }
    match dtype {
        DType::F32 => each(row, out, f32::to_le_bytes),
        DType::F16 => each(row, out, |x| f16::from_f32(x).to_le_bytes()),
        DType::Bf16 => each(row, out, |x| bf16::from_f32(x).to_le_bytes()),
        DType::Q8_0 => blocks(row, out, q8_0::encode),
        DType::Mxfp4 => blocks(row, out, mxfp4::encode),
        DType::Q4K => match importance {
            None => blocks(row, out, q4_k::encode),
            Some(v) => weighted(row, v, out, q4_k::encode_weighted),
        },
        DType::Q2K => match importance {
            None => blocks(row, out, q2_k::encode),
            Some(v) => weighted(row, v, out, q2_k::encode_weighted),
        },
        DType::Iq2Xxs => {
            let v = importance.expect("callers give IQ2_XXS its importance");
            let grid = iq2_xxs::Grid::get();
            weighted(row, v, out, |x, v| iq2_xxs::encode(grid, x, v));
        }
        DType::I32 => panic!("I32 rows hold indices, not numbers"),
    }
}

/// Rows of packed FP4 with their scales as MXFP4, without rounding.
pub(crate) fn rearrange_fp4(codes: &[u8], scales: &[u8], out: &mut [u8]) {
    mxfp4::rearrange(codes, scales, out);
}

/// Adds the squares of a row to the synthetic importance of its matrix.
pub fn add_squares(row: &[f32], importance: &mut [f32]) {
    for (v, &x) in importance.iter_mut().zip(row) {
        *v += x * x;
    }
}

fn each<const N: usize>(row: &[f32], out: &mut [u8], write: impl Fn(f32) -> [u8; N]) {
    for (&x, out) in row.iter().zip(out.as_chunks_mut().0) {
        *out = write(x);
    }
}

fn blocks<const LEN: usize, const BYTES: usize>(row: &[f32], out: &mut [u8], encode: fn(&[f32; LEN]) -> [u8; BYTES]) {
    for (x, out) in row.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
        *out = encode(x);
    }
}

fn weighted<const LEN: usize, const BYTES: usize>(
    row: &[f32],
    importance: &[f32],
    out: &mut [u8],
    encode: impl Fn(&[f32; LEN], &[f32; LEN]) -> [u8; BYTES],
) {
    let columns = row.as_chunks().0.iter().zip(importance.as_chunks().0);
    for ((x, v), out) in columns.zip(out.as_chunks_mut().0) {
        *out = encode(x, v);
    }
}

#[cfg(test)]
mod tests;
