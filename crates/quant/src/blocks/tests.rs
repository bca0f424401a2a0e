use std::io::Read;
use std::path::Path;

use ds4_gguf::{DType, dequant};
use flate2::read::GzDecoder;

use super::*;

const COLUMNS: usize = 512;

fn fixture(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/quant").join(format!("{name}.gz"));
    let mut bytes = Vec::new();
    GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_end(&mut bytes).unwrap();
    bytes
}

fn floats(name: &str) -> Vec<f32> {
    fixture(name).as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

fn encoded(dtype: DType, input: &[f32], importance: Option<&[f32]>) -> Vec<u8> {
    let row_bytes = dtype.row_bytes(COLUMNS).unwrap();
    let mut out = vec![0; input.len() / COLUMNS * row_bytes];
    for (row, out) in input.chunks_exact(COLUMNS).zip(out.chunks_exact_mut(row_bytes)) {
        encode_row(dtype, row, importance, out);
    }
    out
}

#[test]
fn blocks_are_those_of_ggml_byte_for_byte() {
    let (input, importance) = (floats("input.f32"), floats("importance.f32"));
    for (dtype, name, weighted) in [
        (DType::Q8_0, "q8_0.bin", false),
        (DType::Mxfp4, "mxfp4.bin", false),
        (DType::Q4K, "q4_k.bin", false),
        (DType::Q4K, "q4_k-weighted.bin", true),
        (DType::Q2K, "q2_k.bin", false),
        (DType::Q2K, "q2_k-weighted.bin", true),
        (DType::Iq2Xxs, "iq2_xxs-weighted.bin", true),
    ] {
        let expected = fixture(name);
        let found = encoded(dtype, &input, weighted.then_some(&importance[..]));
        let size = dtype.block_bytes();
        assert_eq!(found.len(), expected.len());
        for (block, (found, expected)) in found.chunks_exact(size).zip(expected.chunks_exact(size)).enumerate() {
            assert_eq!(found, expected, "{name}: block {block}");
        }
    }
}

/// Root mean square error over that of the values, in rows that look like weights.
fn relative_error(dtype: DType, input: &[f32], importance: Option<&[f32]>) -> f32 {
    let mut decoded = vec![0.0; input.len()];
    dequant::row(dtype, &encoded(dtype, input, importance), &mut decoded);
    let square = |sum: f32, x: f32| sum + x * x;
    let error = input.iter().zip(&decoded).map(|(x, y)| x - y).fold(0.0, square);
    (error / input.iter().copied().fold(0.0, square)).sqrt()
}

#[test]
fn errors_are_those_that_the_bits_allow() {
    let (input, importance) = (floats("input.f32"), vec![1.0; COLUMNS]);
    let normal = &input[..8 * COLUMNS];
    for (dtype, most) in [
        (DType::F32, 0.0),
        (DType::F16, 0.0005),
        (DType::Bf16, 0.004),
        (DType::Q8_0, 0.01),
        (DType::Q4K, 0.08),
        (DType::Mxfp4, 0.15),
        (DType::Q2K, 0.35),
        (DType::Iq2Xxs, 0.45),
    ] {
        let error = relative_error(dtype, normal, Some(&importance));
        assert!(error <= most, "{dtype}: {error}");
    }
}

#[test]
fn rounding_is_to_even_as_far_as_codes_go() {
    for (x, n) in
        [(0.5, 0), (1.5, 2), (2.5, 2), (-0.5, 0), (-1.5, -2), (4_194_303.0, 4_194_303), (-4_194_303.0, -4_194_303)]
    {
        assert_eq!(search::nint(x), n, "{x}");
    }
}

#[test]
fn fp4_is_rearranged_without_loss() {
    let codes: Vec<u8> = (0..32_u8).map(|i| i.wrapping_mul(37)).collect();
    let mut out = [0; 34];
    rearrange_fp4(&codes, &[100, 200], &mut out);
    let mut decoded = [0.0; 64];
    dequant::row(DType::Mxfp4, &out, &mut decoded);
    for (i, y) in decoded.into_iter().enumerate() {
        let code = codes[i / 2] >> (4 * (i % 2)) & 15;
        let scale = if i < 32 { f32::exp2(-27.0) } else { f32::exp2(73.0) };
        assert_eq!(y, ds4_gguf::tables::MXFP4_VALUES[usize::from(code)] * scale, "{i}");
    }
    // Values of the format stay what they are when they are rounded to it.
    let (mut again, mut decoded_again) = ([0; 34], [0.0; 64]);
    encode_row(DType::Mxfp4, &decoded, None, &mut again);
    dequant::row(DType::Mxfp4, &again, &mut decoded_again);
    assert_eq!(decoded, decoded_again);
}
