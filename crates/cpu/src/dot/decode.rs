//! Block formats decoded sixteen values at a time (gguf.md section 6), in the operations and order of the scalar decoder, so
//! that every instruction set gives its bits.

use ds4_gguf::{DType, tables};
use half::{bf16, f16};

use super::lanes::Lanes;
use super::tile::LANES;
use crate::round::exp2;

/// See `Isa::decode`. Loops are written out by macros: a closure would not inherit the caller's CPU features.
#[inline(always)]
pub(super) unsafe fn decode<V: Lanes>(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    macro_rules! blocks {
        ($decode:ident, $bytes:literal, $values:literal) => {
            for (block, out) in bytes.as_chunks::<$bytes>().0.iter().zip(out.as_chunks_mut::<$values>().0) {
                // SAFETY: the caller's contract.
                unsafe { $decode::<V>(block, out) };
            }
        };
    }
    macro_rules! plain {
        ($vector:ident, $bytes:literal, $one:expr) => {{
            let whole = out.len() - out.len() % LANES;
            for i in (0..whole).step_by(LANES) {
                // SAFETY: sixteen elements from `i` on, and sixteen values.
                unsafe { V::$vector(bytes.as_ptr().add(i * $bytes).cast()).store(out.as_mut_ptr().add(i)) };
            }
            for (y, b) in out[whole..].iter_mut().zip(bytes[whole * $bytes..].as_chunks::<$bytes>().0) {
                *y = $one(*b);
            }
        }};
    }
    match dtype {
        DType::F32 => plain!(load, 4, f32::from_le_bytes),
        DType::F16 => plain!(from_f16, 2, |b| f16::from_le_bytes(b).to_f32()),
        DType::Bf16 => plain!(from_bf16, 2, |b| bf16::from_le_bytes(b).to_f32()),
        DType::Q8_0 => blocks!(q8_0, 34, 32),
        DType::Q2K => blocks!(q2_k, 84, 256),
        DType::Q4K => blocks!(q4_k, 144, 256),
        DType::Iq2Xxs => blocks!(iq2_xxs, 66, 256),
        DType::Mxfp4 => blocks!(mxfp4, 17, 32),
        DType::I32 => unreachable!("integer tables are not weights: the binder accepts them for hash tables only"),
    }
}

/// See `Isa::decode_e4m3`. A code read as a float16 with the same exponent field is 2^-8 of its value.
#[inline(always)]
pub(super) unsafe fn decode_e4m3<V: Lanes>(codes: &[u8], exponents: &[u8], out: &mut [f32]) {
    for ((codes, &exponent), out) in codes.chunks_exact(64).zip(exponents).zip(out.chunks_exact_mut(64)) {
        let scale = exp2(i32::from(exponent) - 127) * 256.0;
        for i in (0..64).step_by(LANES) {
            // SAFETY: 64 codes and 64 values.
            unsafe { V::from_e4m3(codes.as_ptr().add(i)).mul(V::splat(scale)).store(out.as_mut_ptr().add(i)) };
        }
    }
}

/// A block's float16 scale. Scalar on purpose: the vector units are what a decode waits for.
#[inline(always)]
fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

#[inline(always)]
unsafe fn q8_0<V: Lanes>(block: &[u8; 34], out: &mut [f32; 32]) {
    // SAFETY: 32 codes behind the scale, 32 values.
    unsafe {
        let d = V::splat(half_at(block, 0));
        for i in [0, 16] {
            V::from_i8(block.as_ptr().add(2 + i).cast()).mul(d).store(out.as_mut_ptr().add(i));
        }
    }
}

#[inline(always)]
unsafe fn q4_k<V: Lanes>(block: &[u8; 144], out: &mut [f32; 256]) {
    let (d, dmin) = (half_at(block, 0), half_at(block, 2));
    let q = &block[4..16];
    for g in 0..8 {
        let (s, m) = if g < 4 {
            (q[g] & 63, q[g + 4] & 63)
        } else {
            (q[g + 4] & 15 | (q[g - 4] >> 6) << 4, q[g + 4] >> 4 | (q[g] >> 6) << 4)
        };
        // SAFETY: 32 code bytes for each pair of groups, 32 values for each group.
        unsafe {
            let (scale, min) = (V::splat(d * f32::from(s)), V::splat(dmin * f32::from(m)));
            for i in [0, 16] {
                let codes = block.as_ptr().add(16 + 32 * (g / 2) + i);
                let nibbles = if g % 2 == 0 { V::from_bits::<0, 15>(codes) } else { V::from_bits::<4, 15>(codes) };
                scale.mul(nibbles).sub(min).store(out.as_mut_ptr().add(32 * g + i));
            }
        }
    }
}

#[inline(always)]
unsafe fn q2_k<V: Lanes>(block: &[u8; 84], out: &mut [f32; 256]) {
    let (d, dmin) = (half_at(block, 80), half_at(block, 82));
    let (mut scales, mut mins) = ([0f32; 16], [0f32; 16]);
    // SAFETY: 16 scale bytes, then 16 code bytes at each of four places; sixteen values for each shift.
    unsafe {
        V::splat(d).mul(V::from_bits::<0, 15>(block.as_ptr())).store(scales.as_mut_ptr());
        V::splat(dmin).mul(V::from_bits::<4, 15>(block.as_ptr())).store(mins.as_mut_ptr());
        for (n, i) in [(0, 0), (0, 16), (1, 0), (1, 16)] {
            let codes = block.as_ptr().add(16 + 32 * n + i);
            let bits = [
                V::from_bits::<0, 3>(codes),
                V::from_bits::<2, 3>(codes),
                V::from_bits::<4, 3>(codes),
                V::from_bits::<6, 3>(codes),
            ];
            for (s, bits) in bits.into_iter().enumerate() {
                let group = 8 * n + 2 * s + i / 16;
                let (scale, min) = (V::splat(scales[group]), V::splat(mins[group]));
                scale.mul(bits).sub(min).store(out.as_mut_ptr().add(128 * n + 32 * s + i));
            }
        }
    }
}

/// Byte masks of the 128 sign patterns: 0xff where the element is negative.
static SIGN_MASKS: [u64; 128] = {
    let mut masks = [0; 128];
    let mut i = 0;
    while i < 128 {
        let mut bit = 0;
        while bit < 8 {
            if tables::IQ2_XXS_SIGNS[i] >> bit & 1 == 1 {
                masks[i] |= 0xff << (8 * bit);
            }
            bit += 1;
        }
        i += 1;
    }
    masks
};

#[inline(always)]
unsafe fn iq2_xxs<V: Lanes>(block: &[u8; 66], out: &mut [f32; 256]) {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let d = half_at(block, 0);
    let (groups, _) = block[2..].as_chunks::<8>();
    for (g, group) in groups.iter().enumerate() {
        let word = u64::from_le_bytes(*group);
        let (indices, signs) = (word as u32, (word >> 32) as u32);
        let mut eights = [0u64; 4];
        for (k, eight) in eights.iter_mut().enumerate() {
            let magnitudes = tables::IQ2_XXS_GRID[(indices >> (8 * k)) as usize & 255];
            let mask = SIGN_MASKS[(signs >> (7 * k)) as usize & 127];
            // Two's complement of the masked bytes. No magnitude is zero, so no carry leaves a byte.
            *eight = (magnitudes ^ mask).wrapping_add(mask & ONES);
        }
        // SAFETY: 32 results.
        unsafe {
            let scale = V::splat(d * (0.5 + (signs >> 28) as f32) * 0.25);
            for half in [0, 1] {
                let values = V::from_i8_words([eights[2 * half], eights[2 * half + 1]]);
                scale.mul(values).store(out.as_mut_ptr().add(32 * g + 16 * half));
            }
        }
    }
}

/// Doubled E2M1 values.
static E2M1_DOUBLED: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

#[inline(always)]
unsafe fn mxfp4<V: Lanes>(block: &[u8; 17], out: &mut [f32; 32]) {
    let e = block[0];
    // Half the scale, for the doubled codes. 255 marks the block as not a number.
    let scale = match e {
        0 => f32::from_bits(1 << 21),
        1 => f32::from_bits(1 << 22),
        255 => f32::NAN,
        _ => exp2(i32::from(e) - 128),
    };
    // SAFETY: 16 code bytes, 32 values.
    unsafe {
        let codes = block.as_ptr().add(1);
        V::from_table::<0>(codes, &E2M1_DOUBLED).mul(V::splat(scale)).store(out.as_mut_ptr());
        V::from_table::<4>(codes, &E2M1_DOUBLED).mul(V::splat(scale)).store(out.as_mut_ptr().add(16));
    }
}
