//! Lanes as one 512-bit register. 32 registers hold a tile of 8 weight rows by 3 columns.

use std::arch::x86_64::{
    __m128i, __m512, __m512i, _mm_and_si128, _mm_loadu_si128, _mm_set_epi64x, _mm_set1_epi8, _mm_shuffle_epi8,
    _mm_srli_epi16, _mm256_and_si256, _mm256_cvtepu8_epi16, _mm256_loadu_si256, _mm256_or_si256, _mm256_set1_epi16,
    _mm256_slli_epi16, _mm512_castsi512_ps, _mm512_cvtepi8_epi32, _mm512_cvtepi32_ps, _mm512_cvtepu8_epi32,
    _mm512_cvtepu16_epi32, _mm512_cvtph_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_mul_ps, _mm512_set1_ps,
    _mm512_slli_epi32, _mm512_storeu_ps, _mm512_sub_ps,
};

use super::lanes::{Lanes, leaves};

#[derive(Clone, Copy)]
struct Zmm(__m512);

// SAFETY (all methods): the trait's contract; the loads and stores are the unaligned ones.
impl Lanes for Zmm {
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the trait's contract.
        unsafe { Zmm(_mm512_loadu_ps(p)) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the trait's contract.
        unsafe { _mm512_storeu_ps(p, self.0) }
    }
    #[inline(always)]
    unsafe fn splat(v: f32) -> Self {
        // SAFETY: the trait's contract.
        unsafe { Zmm(_mm512_set1_ps(v)) }
    }
    #[inline(always)]
    unsafe fn fma(self, b: Self, c: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { Zmm(_mm512_fmadd_ps(self.0, b.0, c.0)) }
    }
    #[inline(always)]
    unsafe fn mul(self, b: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { Zmm(_mm512_mul_ps(self.0, b.0)) }
    }
    #[inline(always)]
    unsafe fn sub(self, b: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { Zmm(_mm512_sub_ps(self.0, b.0)) }
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
        unsafe { Zmm(_mm512_cvtph_ps(_mm256_loadu_si256(p.cast()))) }
    }
    #[inline(always)]
    unsafe fn from_bf16(p: *const u8) -> Self {
        // SAFETY: the trait's contract.
        unsafe {
            let wide: __m512i = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()));
            Zmm(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide)))
        }
    }
    #[inline(always)]
    unsafe fn from_bits<const SHIFT: i32, const MASK: u8>(p: *const u8) -> Self {
        // SAFETY: the trait's contract.
        unsafe {
            let codes = _mm_and_si128(_mm_srli_epi16::<SHIFT>(_mm_loadu_si128(p.cast())), _mm_set1_epi8(MASK as i8));
            Zmm(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(codes)))
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
            let sign = _mm256_and_si256(_mm256_slli_epi16::<8>(wide), _mm256_set1_epi16(i16::MIN));
            let rest = _mm256_slli_epi16::<7>(_mm256_and_si256(wide, _mm256_set1_epi16(0x7f)));
            Zmm(_mm512_cvtph_ps(_mm256_or_si256(sign, rest)))
        }
    }
}

#[inline(always)]
unsafe fn signed(v: __m128i) -> Zmm {
    // SAFETY: called from methods under the trait's contract.
    unsafe { Zmm(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(v))) }
}

leaves!(Zmm, tile 8 x 3, mix 4 x 4, #[target_feature(enable = "avx512f,avx2,fma,f16c")]);
