//! Rounding rules, and dot products against the decoded values.

use proptest::prelude::*;

use super::*;
use crate::{DType, dequant};

fn activations(seed: u32) -> [f32; LEN] {
    let mut state = seed | 1;
    std::array::from_fn(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    })
}

#[test]
fn the_largest_magnitude_becomes_minus_127() {
    let mut x = activations(5);
    (x[77], x[78]) = (-3.0, 3.0);
    let block = Block::quantize(&x);
    assert_eq!((block.q[77], block.q[78]), (-127, 127), "the first of equals decides the sign");
    assert_eq!(block.d, 1.0 / (-127.0 / -3.0));
    x[77] = 3.0;
    let block = Block::quantize(&x);
    assert_eq!((block.q[77], block.q[78]), (-127, -127));
    assert!(block.d < 0.0);
}

#[test]
fn halves_round_to_even() {
    let mut x = [0.0; LEN];
    x[..6].copy_from_slice(&[-127.0, 0.5, 1.5, 2.5, -0.5, -1.5]);
    assert_eq!(Block::quantize(&x).q[..6], [-127, 0, 2, 2, 0, -2]);
}

#[test]
fn zeros_stay_zero_and_sums_add_up() {
    assert_eq!(Block::quantize(&[0.0; LEN]), Block::ZERO);
    let block = Block::quantize(&activations(9));
    for (j, sum) in block.bsums.iter().enumerate() {
        assert_eq!(i32::from(*sum), block.q[16 * j..][..16].iter().map(|&q| i32::from(q)).sum::<i32>());
    }
}

#[test]
fn a_row_is_quantised_block_by_block() {
    let x = [activations(1), activations(2)].concat();
    let mut blocks = [Block::ZERO; 2];
    quantize(&x, &mut blocks);
    assert_eq!(blocks, [Block::quantize(&activations(1)), Block::quantize(&activations(2))]);
}

/// The dot product of decoded blocks in 64-bit arithmetic, and the sum of its terms' magnitudes.
fn exact(dtype: DType, w: &[u8], x: &Block) -> (f64, f64) {
    let (mut a, mut b) = ([0.0; LEN], [0.0; LEN]);
    dequant::row(dtype, w, &mut a);
    x.dequantize(&mut b);
    let terms = a.iter().zip(b).map(|(&a, b)| f64::from(a) * f64::from(b));
    terms.fold((0.0, 0.0), |(sum, size), t| (sum + t, size + t.abs()))
}

fn block<const N: usize>(mut bytes: Vec<u8>, scales: [usize; 2], d: f32) -> [u8; N] {
    for at in scales {
        bytes[at..at + 2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
    }
    bytes.try_into().expect("generated at this length")
}

proptest! {
    #[test]
    fn dots_equal_the_products_of_the_decoded_values(
        q2 in prop::collection::vec(any::<u8>(), 84),
        q4 in prop::collection::vec(any::<u8>(), 144),
        iq2 in prop::collection::vec(any::<u8>(), 66),
        d in 0.001_f32..0.1,
        seed in any::<u32>(),
    ) {
        let x = Block::quantize(&activations(seed));
        let (q2, q4, iq2) = (block(q2, [80, 82], d), block(q4, [0, 2], d), block(iq2, [0, 0], d));
        for (dtype, w, dot) in [
            (DType::Q2K, &q2[..], dot_q2_k(&q2, &x)),
            (DType::Q4K, &q4[..], dot_q4_k(&q4, &x)),
            (DType::Iq2Xxs, &iq2[..], dot_iq2_xxs(&iq2, &x)),
        ] {
            let (want, size) = exact(dtype, w, &x);
            // The minimum is subtracted as a whole, so the bound is on the terms before they cancel.
            prop_assert!((f64::from(dot) - want).abs() <= 2e-5 * size.max(1.0), "{} {} {}", dtype, dot, want);
        }
    }
}
