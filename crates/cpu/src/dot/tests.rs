//! Every instruction set against the scalar decoder and against each other.

use ds4_gguf::{DType, dequant};

use super::*;

/// Deterministic bytes.
fn noise(n: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let step = move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 11) as u8
    };
    std::iter::repeat_with(step).take(n).collect()
}

/// Random blocks whose float16 scales are finite.
fn blocks(dtype: DType, n: usize, seed: u32) -> Vec<u8> {
    let mut bytes = noise(dtype.row_bytes(n).expect("whole blocks"), seed);
    let scales: &[usize] = match dtype {
        DType::Q8_0 | DType::Iq2Xxs | DType::F16 | DType::Bf16 => &[1],
        DType::Q4K => &[1, 3],
        DType::Q2K => &[81, 83],
        DType::F32 => &[3],
        _ => &[],
    };
    for block in bytes.chunks_mut(dtype.block_bytes()) {
        scales.iter().for_each(|&at| block[at] = block[at] & 0x83 | 0x20);
    }
    if dtype == DType::Mxfp4 {
        bytes.chunks_mut(17).for_each(|block| block[0] = 100 + block[0] % 50);
    }
    bytes
}

fn floats(n: usize, seed: u32) -> Vec<f32> {
    noise(n, seed).into_iter().map(|b| f32::from(b as i8) / 37.0).collect()
}

#[test]
fn every_set_decodes_like_the_scalar_decoder() {
    for dtype in DType::ALL.into_iter().filter(|dtype| *dtype != DType::I32) {
        for seed in 0..20 {
            let bytes = blocks(dtype, 512, seed);
            let mut expected = vec![0.0; 512];
            dequant::row(dtype, &bytes, &mut expected);
            assert!(expected.iter().all(|v| v.is_finite()), "{dtype}");
            for isa in Isa::available() {
                let mut found = vec![0.0; 512];
                isa.decode(dtype, &bytes, &mut found);
                assert_eq!(found, expected, "{dtype} {}", isa.name());
            }
        }
    }
}

#[test]
fn extreme_mxfp4_scales_decode_like_the_scalar_decoder() {
    for e in [0, 1, 2, 253, 254] {
        let mut bytes = noise(17, 7);
        bytes[0] = e;
        let mut expected = vec![0.0; 32];
        dequant::row(DType::Mxfp4, &bytes, &mut expected);
        for isa in Isa::available() {
            let mut found = vec![0.0; 32];
            isa.decode(DType::Mxfp4, &bytes, &mut found);
            assert_eq!(found, expected, "{e} {}", isa.name());
        }
    }
}

#[test]
fn short_rows_of_plain_types_decode() {
    for dtype in [DType::F32, DType::F16, DType::Bf16] {
        let bytes = blocks(dtype, 21, 3);
        let mut expected = vec![0.0; 21];
        dequant::row(dtype, &bytes, &mut expected);
        for isa in Isa::available() {
            let mut found = vec![0.0; 21];
            isa.decode(dtype, &bytes, &mut found);
            assert_eq!(found, expected, "{dtype} {}", isa.name());
        }
    }
}

/// The definition in the module's head, literally.
fn defined(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0f32; LANES];
    for (k, (a, b)) in a.iter().zip(b).enumerate() {
        lanes[k % LANES] = a.mul_add(*b, lanes[k % LANES]);
    }
    tile::reduce(&lanes)
}

#[test]
fn products_have_the_defined_bits_on_every_set_and_tile() {
    for isa in Isa::available() {
        for (rows, columns, n) in [(1, 1, 512), (8, 3, 96), (16, 7, 100), (5, 2, 15), (19, 4, 33), (3, 9, 1)] {
            let w = floats(rows * n, 1);
            let x = floats(columns * n, 2);
            let xs: Vec<&[f32]> = x.chunks(n).collect();
            let mut out = vec![0.0; rows * columns];
            isa.products(&w, n, &xs, &mut out);
            for (c, x) in xs.iter().enumerate() {
                for (r, w) in w.chunks(n).enumerate() {
                    assert_eq!(out[c * rows + r].to_bits(), defined(w, x).to_bits(), "{} {r} {c}", isa.name());
                }
            }
        }
    }
}

#[test]
fn mixes_have_the_same_bits_on_every_set() {
    for (heads, js, n) in [(1, 1, 16), (4, 32, 512), (7, 5, 96), (3, 9, 50)] {
        let (p, rows, start) = (floats(heads * js, 1), floats(js * n, 2), floats(heads * n, 3));
        let mut expected = start.clone();
        for (h, d) in (0..heads).flat_map(|h| (0..n).map(move |d| (h, d))) {
            for j in 0..js {
                expected[h * n + d] = p[h * js + j].mul_add(rows[j * n + d], expected[h * n + d]);
            }
        }
        for isa in Isa::available() {
            let mut found = start.clone();
            isa.mix(&p, &rows, n, &mut found);
            assert_eq!(found, expected, "{}", isa.name());
        }
    }
}
