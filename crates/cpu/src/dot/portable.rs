//! Lanes as arrays. The compiler vectorises them for the baseline of the target; where that has no fused multiply-add the
//! results stay the same and only the speed is lost.

use half::{bf16, f16};

use super::lanes::{Lanes, leaves};

#[derive(Clone, Copy)]
struct Array([f32; 16]);

#[inline(always)]
fn map<T: Copy>(p: *const T, f: impl Fn(T) -> f32) -> Array {
    // SAFETY: the caller of a `Lanes` method guarantees sixteen readable elements; the read is unaligned.
    let values = unsafe { p.cast::<[T; 16]>().read_unaligned() };
    Array(values.map(f))
}

#[inline(always)]
fn pair(p: *const u8, f: impl Fn(u16) -> f32) -> Array {
    map(p.cast::<[u8; 2]>(), |bytes| f(u16::from_le_bytes(bytes)))
}

impl Lanes for Array {
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        map(p, |v| v)
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller guarantees sixteen writable elements.
        unsafe { p.cast::<[f32; 16]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn splat(v: f32) -> Self {
        Array([v; 16])
    }
    #[inline(always)]
    unsafe fn fma(mut self, b: Self, c: Self) -> Self {
        for l in 0..16 {
            self.0[l] = self.0[l].mul_add(b.0[l], c.0[l]);
        }
        self
    }
    #[inline(always)]
    unsafe fn mul(mut self, b: Self) -> Self {
        for l in 0..16 {
            self.0[l] *= b.0[l];
        }
        self
    }
    #[inline(always)]
    unsafe fn sub(mut self, b: Self) -> Self {
        for l in 0..16 {
            self.0[l] -= b.0[l];
        }
        self
    }
    #[inline(always)]
    unsafe fn from_i8(p: *const i8) -> Self {
        map(p, f32::from)
    }
    #[inline(always)]
    unsafe fn from_i8_words(words: [u64; 2]) -> Self {
        Array(std::array::from_fn(|l| f32::from((words[l / 8] >> (8 * (l % 8))) as i8)))
    }
    #[inline(always)]
    unsafe fn from_f16(p: *const u8) -> Self {
        pair(p, |bits| f16::from_bits(bits).to_f32())
    }
    #[inline(always)]
    unsafe fn from_bf16(p: *const u8) -> Self {
        pair(p, |bits| bf16::from_bits(bits).to_f32())
    }
    #[inline(always)]
    unsafe fn from_bits<const SHIFT: i32, const MASK: u8>(p: *const u8) -> Self {
        map(p, |byte| f32::from(byte >> SHIFT & MASK))
    }
    #[inline(always)]
    unsafe fn from_table<const SHIFT: i32>(p: *const u8, table: &[i8; 16]) -> Self {
        map(p, |byte| f32::from(table[usize::from(byte >> SHIFT & 15)]))
    }
    #[inline(always)]
    unsafe fn from_e4m3(p: *const u8) -> Self {
        map(p, |code| f16::from_bits(u16::from(code & 0x80) << 8 | u16::from(code & 0x7f) << 7).to_f32())
    }
}

leaves!(Array, tile 2 x 2, mix 2 x 2);
