//! Conformance vectors of GGUF spec section 6, and the corners of the small formats.

use half::f16;

use super::*;

/// Block byte `i` is `(37 i + 11) mod 256`, then f16 scale fields are overwritten.
pub(crate) fn pattern(dtype: DType, scales: &[(usize, f32)]) -> Vec<u8> {
    let mut block: Vec<u8> = (0..dtype.block_bytes()).map(|i| (37 * i + 11) as u8).collect();
    for &(at, d) in scales {
        block[at..at + 2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
    }
    block
}

pub(crate) fn decoded(dtype: DType, bytes: &[u8]) -> Vec<f32> {
    let mut out = vec![0.0; bytes.len() / dtype.block_bytes() * dtype.block_len()];
    row(dtype, bytes, &mut out);
    out
}

fn check(y: &[f32], at: &[(usize, f32)], sum: f32, magnitude: f32) {
    for &(i, want) in at {
        assert_eq!(y[i], want, "element {i}");
    }
    assert_eq!(y.iter().sum::<f32>(), sum);
    assert_eq!(y.iter().map(|y| y.abs()).sum::<f32>(), magnitude);
}

#[test]
fn q8_0_matches_its_vector() {
    let y = decoded(DType::Q8_0, &pattern(DType::Q8_0, &[(0, 0.5)]));
    check(&y, &[(0, 42.5), (1, 61.0), (2, -48.5), (31, -24.0)], -88.0, 1086.0);
}

#[test]
fn q4_k_matches_its_vector() {
    let y = decoded(DType::Q4K, &pattern(DType::Q4K, &[(0, 0.5), (2, 0.25)]));
    let first = [(0, 157.75), (1, -12.75), (2, 64.75), (31, 80.25)];
    let rest = [(32, 4.0), (63, 20.0), (100, 47.5), (200, 69.25), (255, 24.25)];
    check(&y, &[&first[..], &rest].concat(), 27220.0, 27514.0);
}

#[test]
fn q2_k_matches_its_vector() {
    let y = decoded(DType::Q2K, &pattern(DType::Q2K, &[(80, 0.5), (82, 0.25)]));
    let first = [(0, 16.5), (1, 0.0), (2, 5.5), (31, -0.75)];
    let rest = [(32, 3.75), (63, 3.25), (100, 10.0), (200, 4.0), (255, 2.25)];
    check(&y, &[&first[..], &rest].concat(), 1029.5, 1282.0);
}

#[test]
fn iq2_xxs_matches_its_vector() {
    let y = decoded(DType::Iq2Xxs, &pattern(DType::Iq2Xxs, &[(0, 0.5)]));
    let first = [(0, -29.5625), (1, 29.5625), (2, 17.1875), (31, 17.1875)];
    let rest = [(32, -26.5625), (63, -45.6875), (100, 13.5), (200, -4.5), (255, -40.3125)];
    check(&y, &[&first[..], &rest].concat(), 381.875, 5283.5);
}

#[test]
fn mxfp4_matches_its_vector() {
    let mut block = pattern(DType::Mxfp4, &[]);
    block[0] = 128;
    let y = decoded(DType::Mxfp4, &block);
    let head = [(0, 0.0), (1, 6.0), (2, -2.0), (3, -12.0)];
    let tail = [(16, 3.0), (17, 6.0), (18, 12.0), (19, -1.0)];
    check(&y, &[&head[..], &tail].concat(), 25.0, 151.0);
}

#[test]
fn mxfp4_scales_reach_both_ends() {
    let mut block = [0x22_u8; 17];
    for (e, want) in [(0, f32::MIN_POSITIVE / 2.0), (1, f32::MIN_POSITIVE), (127, 1.0), (254, 2.0_f32.powi(127))] {
        block[0] = e;
        assert_eq!(decoded(DType::Mxfp4, &block)[0], want, "e {e}");
    }
    block[0] = 255;
    assert!(decoded(DType::Mxfp4, &block)[0].is_nan());
}

#[test]
fn plain_formats_are_little_endian() {
    assert_eq!(decoded(DType::F32, &[0, 0, 0x20, 0xc1, 0, 0, 0x80, 0x3f]), [-10.0, 1.0]);
    assert_eq!(decoded(DType::F16, &[0x00, 0x3c, 0x01, 0x00]), [1.0, 2.0_f32.powi(-24)]);
    assert_eq!(decoded(DType::Bf16, &[0x80, 0x3f, 0x20, 0xc1]), [1.0, -10.0]);
    let mut ids = [0; 2];
    i32_row(&[1, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff], &mut ids);
    assert_eq!(ids, [1, -2]);
}

#[test]
fn a_row_of_several_blocks_is_its_blocks_in_order() {
    for dtype in DType::ALL.into_iter().filter(|&t| t != DType::I32) {
        let one: Vec<u8> = (0..dtype.block_bytes()).map(|i| (29 * i + 3) as u8 & 0x7b).collect();
        let two: Vec<u8> = (0..dtype.block_bytes()).map(|i| (53 * i + 7) as u8 & 0x7b).collect();
        let row = decoded(dtype, &[one.clone(), two.clone()].concat());
        assert_eq!(row, [decoded(dtype, &one), decoded(dtype, &two)].concat(), "{dtype}");
    }
}

#[test]
#[should_panic(expected = "33 elements of Q8_0 in 34 bytes")]
fn a_row_that_does_not_fit_its_bytes_is_refused() {
    row(DType::Q8_0, &[0; 34], &mut [0.0; 33]);
}
