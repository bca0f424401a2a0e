//! Cache rows as they are held: rounded, then encoded (session.md section 3). Prefill and decode read the same bytes.

use ds4_model::{Numerics, Shape};
use half::f16;

use crate::dot::Isa;
use crate::round;

/// Rounds and encodes a window or compressed row of `head_dim` values.
pub(crate) fn encode(numerics: Numerics, s: &Shape, row: &mut [f32], out: &mut [u8]) {
    let (nope, tail) = row.split_at_mut(s.nope_dim());
    match numerics {
        Numerics::Plain => {}
        Numerics::Qat => round::e4m3(nope),
        Numerics::Stored => {
            let (codes, rest) = out.split_at_mut(nope.len());
            for ((block, codes), exponent) in nope.chunks(64).zip(codes.chunks_mut(64)).zip(&mut *rest) {
                let e = round::e4m3_exponent(block);
                *exponent = (e + 127) as u8;
                let scale = round::exp2(e);
                block.iter().zip(codes).for_each(|(x, code)| *code = round::e4m3_code(x / scale));
            }
            let at = rest.len() - 2 * tail.len();
            for (x, bytes) in tail.iter().zip(rest[at..].chunks_mut(2)) {
                bytes.copy_from_slice(&f16::from_f32(*x).to_le_bytes());
            }
            return;
        }
    }
    out.copy_from_slice(bytemuck::cast_slice(row));
}

/// Decodes what [`encode`] wrote.
pub(crate) fn decode(isa: Isa, numerics: Numerics, s: &Shape, bytes: &[u8], row: &mut [f32]) {
    if numerics == Numerics::Stored {
        let (nope, tail) = row.split_at_mut(s.nope_dim());
        let (codes, rest) = bytes.split_at(nope.len());
        isa.decode_e4m3(codes, &rest[..nope.len() / 64], nope);
        isa.decode_f16(&rest[rest.len() - 2 * tail.len()..], tail);
    } else {
        row.copy_from_slice(bytemuck::cast_slice(bytes));
    }
}

/// Transforms, rounds and encodes an indexer row of `index_dim` values.
pub(crate) fn encode_index(numerics: Numerics, row: &mut [f32], out: &mut [u8]) {
    if numerics.rounds() {
        round::hadamard(row);
    }
    match numerics {
        Numerics::Plain => {}
        Numerics::Qat => round::e2m1(row),
        Numerics::Stored => {
            let (codes, exponents) = out.split_at_mut(row.len() / 2);
            for ((block, codes), exponent) in row.chunks(32).zip(codes.chunks_mut(16)).zip(exponents) {
                let e = round::e2m1_exponent(block);
                *exponent = (e + 127) as u8;
                let scale = round::exp2(e);
                for (pair, code) in block.chunks(2).zip(codes) {
                    *code = round::e2m1_code(pair[0] / scale) | round::e2m1_code(pair[1] / scale) << 4;
                }
            }
            return;
        }
    }
    out.copy_from_slice(bytemuck::cast_slice(row));
}

/// Decodes what [`encode_index`] wrote.
pub(crate) fn decode_index(numerics: Numerics, bytes: &[u8], row: &mut [f32]) {
    if numerics == Numerics::Stored {
        let (codes, exponents) = bytes.split_at(row.len() / 2);
        for ((block, codes), &exponent) in row.chunks_mut(32).zip(codes.chunks(16)).zip(exponents) {
            let scale = round::exp2(i32::from(exponent) - 127);
            for (pair, code) in block.chunks_mut(2).zip(codes) {
                pair[0] = round::e2m1_value(code & 15) * scale;
                pair[1] = round::e2m1_value(code >> 4) * scale;
            }
        }
    } else {
        row.copy_from_slice(bytemuck::cast_slice(bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(n: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * i) as f32 * 0.37).sin() * 2f32.powi(i as i32 % 9 - 4)).collect()
    }

    #[test]
    fn stored_rows_hold_exactly_the_rounded_values() {
        let s = Shape::flash();
        let (mut rounded, mut stored) = (row(s.head_dim), vec![0; Numerics::Stored.row_bytes(&s)]);
        encode(Numerics::Stored, &s, &mut rounded.clone(), &mut stored);
        round::e4m3(&mut rounded[..s.nope_dim()]);
        rounded[s.nope_dim()..].iter_mut().for_each(|x| *x = f16::from_f32(*x).to_f32());
        for isa in Isa::available() {
            let mut found = vec![0.0; s.head_dim];
            decode(isa, Numerics::Stored, &s, &stored, &mut found);
            assert_eq!(found, rounded, "{}", isa.name());
        }
    }

    #[test]
    fn stored_index_rows_hold_exactly_the_rounded_values() {
        let s = Shape::flash();
        let (mut rounded, mut stored) = (row(s.index_dim), vec![0; Numerics::Stored.index_row_bytes(&s)]);
        encode_index(Numerics::Stored, &mut rounded.clone(), &mut stored);
        round::hadamard(&mut rounded);
        round::e2m1(&mut rounded);
        let mut found = vec![0.0; s.index_dim];
        decode_index(Numerics::Stored, &stored, &mut found);
        assert_eq!(found, rounded);
    }
}
