//! Lanes as two 256-bit registers. 16 registers hold a tile of 2 weight rows by 2 columns.

use std::arch::x86_64::{
    __m128i, __m256, _mm_and_si128, _mm_loadu_si128, _mm_or_si128, _mm_set_epi64x, _mm_set1_epi8, _mm_set1_epi16,
    _mm_shuffle_epi8, _mm_slli_epi16, _mm_srli_epi16, _mm_srli_si128, _mm256_castsi256_ps, _mm256_cvtepi8_epi32,
    _mm256_cvtepi32_ps, _mm256_cvtepu8_epi16, _mm256_cvtepu16_epi32, _mm256_cvtph_ps, _mm256_extracti128_si256,
    _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_mul_ps, _mm256_set1_ps, _mm256_slli_epi32, _mm256_storeu_ps,
    _mm256_sub_ps,
};

use super::lanes::{Lanes, leaves};

#[derive(Clone, Copy)]
struct Ymm2(__m256, __m256);

impl Lanes for Ymm2 {
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the trait's contract.
        unsafe { Ymm2(_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the trait's contract.
        unsafe {
            _mm256_storeu_ps(p, self.0);
            _mm256_storeu_ps(p.add(8), self.1);
        }
    }
    #[inline(always)]
    unsafe fn splat(v: f32) -> Self {
        // SAFETY: the trait's contract.
        unsafe { Ymm2(_mm256_set1_ps(v), _mm256_set1_ps(v)) }
    }
    #[inline(always)]
    unsafe fn fma(self, b: Self, c: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { Ymm2(_mm256_fmadd_ps(self.0, b.0, c.0), _mm256_fmadd_ps(self.1, b.1, c.1)) }
    }
    #[inline(always)]
    unsafe fn mul(self, b: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { Ymm2(_mm256_mul_ps(self.0, b.0), _mm256_mul_ps(self.1, b.1)) }
    }
    #[inline(always)]
    unsafe fn sub(self, b: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { Ymm2(_mm256_sub_ps(self.0, b.0), _mm256_sub_ps(self.1, b.1)) }
    }
    #[inline(always)]
    unsafe fn from_i8(p: *const i8) -> Self {
        // SAFETY: the trait's contract.
        unsafe { signed(_mm_loadu_si128(p.cast())) }
    }
    #[inline(always)]
    unsafe fn from_i8_words(words: [u64; 2]) -> Self {
        // SAFETY: the trait's contract.
        unsafe { signed(_mm_set_epi64x(words[1] as i64, words[0] as i64)) }
    }
    #[inline(always)]
    unsafe fn from_f16(p: *const u8) -> Self {
        // SAFETY: the trait's contract.
        unsafe { half_floats(_mm_loadu_si128(p.cast()), _mm_loadu_si128(p.add(16).cast())) }
    }
    #[inline(always)]
    unsafe fn from_bf16(p: *const u8) -> Self {
        // SAFETY: the trait's contract.
        unsafe {
            let half = |p: *const u8| {
                let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
            };
            Ymm2(half(p), half(p.add(16)))
        }
    }
    #[inline(always)]
    unsafe fn from_bits<const SHIFT: i32, const MASK: u8>(p: *const u8) -> Self {
        // SAFETY: the trait's contract. Codes are below 128, so the signed conversion is right.
        unsafe {
            let bytes = _mm_srli_epi16::<SHIFT>(_mm_loadu_si128(p.cast()));
            signed(_mm_and_si128(bytes, _mm_set1_epi8(MASK as i8)))
        }
    }
    #[inline(always)]
    unsafe fn from_table<const SHIFT: i32>(p: *const u8, table: &[i8; 16]) -> Self {
        // SAFETY: the trait's contract.
        unsafe {
            let codes = _mm_and_si128(_mm_srli_epi16::<SHIFT>(_mm_loadu_si128(p.cast())), _mm_set1_epi8(15));
            signed(_mm_shuffle_epi8(_mm_loadu_si128(table.as_ptr().cast()), codes))
        }
    }
    #[inline(always)]
    unsafe fn from_e4m3(p: *const u8) -> Self {
        // SAFETY: the trait's contract.
        unsafe {
            let wide = _mm256_cvtepu8_epi16(_mm_loadu_si128(p.cast()));
            let float = |v: __m128i| {
                let sign = _mm_and_si128(_mm_slli_epi16::<8>(v), _mm_set1_epi16(i16::MIN));
                _mm_or_si128(sign, _mm_slli_epi16::<7>(_mm_and_si128(v, _mm_set1_epi16(0x7f))))
            };
            half_floats(float(_mm256_extracti128_si256::<0>(wide)), float(_mm256_extracti128_si256::<1>(wide)))
        }
    }
}

#[inline(always)]
unsafe fn signed(v: __m128i) -> Ymm2 {
    // SAFETY: called from methods under the trait's contract.
    unsafe {
        Ymm2(
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(v)),
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128::<8>(v))),
        )
    }
}

#[inline(always)]
unsafe fn half_floats(low: __m128i, high: __m128i) -> Ymm2 {
    // SAFETY: called from methods under the trait's contract.
    unsafe { Ymm2(_mm256_cvtph_ps(low), _mm256_cvtph_ps(high)) }
}

leaves!(Ymm2, tile 2 x 2, mix 2 x 2, #[target_feature(enable = "avx2,fma,f16c")]);
