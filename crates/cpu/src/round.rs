//! The roundings that are part of the model (model.md 2.3, 2.4): E4M3 blocks of 64, the Hadamard transform, E2M1 blocks of 32.

/// Largest E4M3 value.
const E4M3_MAX: f32 = 448.0;
/// Largest E2M1 value.
const E2M1_MAX: f32 = 6.0;
/// E2M1 magnitudes by code.
pub(crate) const E2M1: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];

/// `2^e` for `e` in -127..=128 (infinity).
#[inline(always)]
pub(crate) fn exp2(e: i32) -> f32 {
    if e == -127 { f32::from_bits(1 << 22) } else { f32::from_bits(((e + 127) as u32) << 23) }
}

/// Exact `ceil(log2 t)` of a normal positive number, at most 128.
fn ceil_log2(t: f32) -> i32 {
    let bits = t.to_bits();
    (bits >> 23 & 0xff) as i32 - 127 + i32::from(bits & 0x7f_ffff != 0)
}

fn largest(block: &[f32]) -> f32 {
    block.iter().fold(0.0, |max: f32, x| max.max(x.abs()))
}

/// Exponent of the power-of-two scale of a block of 64.
pub(crate) fn e4m3_exponent(block: &[f32]) -> i32 {
    ceil_log2(largest(block).max(1e-4) * (1.0 / E4M3_MAX)).clamp(-127, 127)
}

/// Nearest E4M3 code of `x` in units of the scale, ties to the even code.
pub(crate) fn e4m3_code(x: f32) -> u8 {
    let sign = if x.is_sign_negative() { 0x80 } else { 0 };
    let magnitude = x.abs().min(E4M3_MAX);
    // Below the smallest normal value codes are multiples of 2^-9; above, three mantissa bits remain.
    let code = if magnitude < exp2(-6) {
        (magnitude * 512.0).round_ties_even() as u32
    } else {
        let bits = magnitude.to_bits();
        let rounded = bits + 0x7_ffff + (bits >> 20 & 1);
        (rounded >> 20) - (120 << 3)
    };
    sign | code.min(0x7e) as u8
}

/// Value of an E4M3 code in units of the scale.
pub(crate) fn e4m3_value(code: u8) -> f32 {
    let magnitude = match code & 0x7f {
        code @ 0..8 => f32::from(code) * exp2(-9),
        code => f32::from_bits((u32::from(code) << 20) + (120 << 23)),
    };
    if code & 0x80 != 0 { -magnitude } else { magnitude }
}

/// The E4M3 round trip of a row's first part, in blocks of 64.
pub(crate) fn e4m3(nope: &mut [f32]) {
    for block in nope.chunks_mut(64) {
        let scale = exp2(e4m3_exponent(block));
        block.iter_mut().for_each(|x| *x = e4m3_value(e4m3_code(*x / scale)) * scale);
    }
}

/// Orthonormal Walsh-Hadamard transform in natural order; the length is a power of two.
pub(crate) fn hadamard(row: &mut [f32]) {
    let n = row.len();
    let mut half = 1;
    while half < n {
        for pair in row.chunks_mut(2 * half) {
            let (a, b) = pair.split_at_mut(half);
            for (a, b) in a.iter_mut().zip(b) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
    let scale = 1.0 / (n as f32).sqrt();
    row.iter_mut().for_each(|x| *x *= scale);
}

/// Exponent of the power-of-two scale of a block of 32.
pub(crate) fn e2m1_exponent(block: &[f32]) -> i32 {
    ceil_log2(largest(block).max(E2M1_MAX * exp2(-126)) * (1.0 / E2M1_MAX)).clamp(-127, 127)
}

/// Nearest E2M1 code of `x` in units of the scale, ties to the even code; bit 3 is the sign.
pub(crate) fn e2m1_code(x: f32) -> u8 {
    let magnitude = x.abs().min(E2M1_MAX);
    let code = (1..8).take_while(|&code| {
        let middle = (E2M1[code - 1] + E2M1[code]) / 2.0;
        magnitude > middle || (magnitude == middle && code % 2 == 0)
    });
    code.count() as u8 | if x.is_sign_negative() { 8 } else { 0 }
}

/// Value of an E2M1 code in units of the scale.
pub(crate) fn e2m1_value(code: u8) -> f32 {
    let magnitude = E2M1[usize::from(code & 7)];
    if code & 8 != 0 { -magnitude } else { magnitude }
}

/// The E2M1 round trip of a row, in blocks of 32.
pub(crate) fn e2m1(row: &mut [f32]) {
    for block in row.chunks_mut(32) {
        let scale = exp2(e2m1_exponent(block));
        block.iter_mut().for_each(|x| *x = e2m1_value(e2m1_code(*x / scale)) * scale);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e4m3_gives_the_check_values_of_the_specification() {
        let mut row: Vec<f32> = (0..64).map(|j| 3.0 * (0.37 * f64::from(j)).sin() as f32).collect();
        assert_eq!(e4m3_exponent(&row), -7);
        e4m3(&mut row);
        assert_eq!(row[..8], [0.0, 1.125, 2.0, 2.75, 3.0, 3.0, 2.5, 1.625]);
        assert_eq!(row.iter().sum::<f32>(), 7.527_343_75);
    }

    #[test]
    fn hadamard_and_e2m1_give_the_check_values_of_the_specification() {
        let value = |j: i32| (0.11 * f64::from(j)).cos() + 0.25 * (0.7 * f64::from(j)).sin();
        let mut row: Vec<f32> = (0..128).map(|j| value(j) as f32).collect();
        hadamard(&mut row);
        for (found, expected) in row.iter().zip([0.864_274, 0.023_921, 0.043_371, -0.011_643, -0.083_935, -0.055_239]) {
            assert!((found - expected).abs() < 1e-5, "{found} {expected}");
        }
        let scales: Vec<f32> = row.chunks(32).map(|block| exp2(e2m1_exponent(block))).collect();
        assert_eq!(scales, [0.25, 1.0, 0.125, 0.5]);
        e2m1(&mut row);
        assert_eq!(row[..8], [0.75, 0.0, 0.0, 0.0, -0.125, 0.0, -0.125, 0.125]);
        assert_eq!(row.iter().sum::<f32>(), 12.5625);
    }

    #[test]
    fn every_e4m3_code_survives_a_round_trip() {
        for code in (0..=0x7e).chain(0x80..=0xfe) {
            assert_eq!(e4m3_code(e4m3_value(code)), code);
        }
        assert_eq!(e4m3_value(0x7e), 448.0);
        assert_eq!(e4m3_value(1), 2f32.powi(-9));
    }

    #[test]
    fn ties_go_to_the_even_code() {
        let between = |a: u8| (e4m3_value(a) + e4m3_value(a + 1)) / 2.0;
        for code in 0..0x7e {
            assert_eq!(e4m3_code(between(code)), code + code % 2, "{code}");
        }
        for code in 0..7u8 {
            assert_eq!(e2m1_code((e2m1_value(code) + e2m1_value(code + 1)) / 2.0), code + code % 2);
        }
    }
}
