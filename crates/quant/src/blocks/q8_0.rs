//! Q8_0: 32 values, one scale, signed bytes.

use half::f16;

/// The largest magnitude becomes 127; halves round away from zero, as in no other format.
pub(super) fn encode(x: &[f32; 32]) -> [u8; 34] {
    let largest = x.iter().fold(0.0_f32, |m, x| if x.abs() > m { x.abs() } else { m });
    let d = largest / 127.0;
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    let mut out = [0; 34];
    out[..2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
    for (q, &x) in out[2..].iter_mut().zip(x) {
        *q = (x * inverse).round() as i8 as u8;
    }
    out
}
