//! Sixteen float32 lanes: what an instruction set has to provide. Everything above is written once over this trait.

/// Sixteen lanes in registers.
///
/// # Safety
/// The methods may only be called where the implementation's CPU features are enabled, with pointers valid for the
/// sixteen elements they read or write. No alignment is needed.
pub(super) trait Lanes: Copy {
    unsafe fn load(p: *const f32) -> Self;
    unsafe fn store(self, p: *mut f32);
    unsafe fn splat(v: f32) -> Self;
    /// `self * b + c`, rounded once.
    unsafe fn fma(self, b: Self, c: Self) -> Self;
    unsafe fn mul(self, b: Self) -> Self;
    unsafe fn sub(self, b: Self) -> Self;
    unsafe fn from_i8(p: *const i8) -> Self;
    /// Sixteen bytes in two words, lowest first.
    unsafe fn from_i8_words(words: [u64; 2]) -> Self;
    unsafe fn from_f16(p: *const u8) -> Self;
    unsafe fn from_bf16(p: *const u8) -> Self;
    /// `(byte >> SHIFT) & MASK`
    unsafe fn from_bits<const SHIFT: i32, const MASK: u8>(p: *const u8) -> Self;
    /// `table[(byte >> SHIFT) & 15]`
    unsafe fn from_table<const SHIFT: i32>(p: *const u8, table: &[i8; 16]) -> Self;
    /// E4M3 codes, as values times 2^-8.
    unsafe fn from_e4m3(p: *const u8) -> Self;
}

/// The leaves of one instruction set over its lanes: register tiles of weight rows by columns, and of heads by vectors.
macro_rules! leaves {
    ($lanes:ty, tile $rows:literal x $columns:literal, mix $heads:literal x $vectors:literal $(, #[$features:meta])?) => {
        $(#[$features])?
        pub(super) unsafe fn decode(dtype: ds4_gguf::DType, bytes: &[u8], out: &mut [f32]) {
            // SAFETY: the features are enabled here; the caller checked the lengths.
            unsafe { super::decode::decode::<$lanes>(dtype, bytes, out) }
        }

        $(#[$features])?
        pub(super) unsafe fn decode_e4m3(codes: &[u8], exponents: &[u8], out: &mut [f32]) {
            // SAFETY: as above.
            unsafe { super::decode::decode_e4m3::<$lanes>(codes, exponents, out) }
        }

        $(#[$features])?
        pub(super) unsafe fn tile(w: &[f32], stride: usize, n: usize, xs: &[&[f32]], acc: &mut [f32]) {
            // SAFETY: as above.
            unsafe { super::tile::tile::<$lanes, $rows, $columns>(w, stride, n, xs, acc) }
        }

        $(#[$features])?
        pub(super) unsafe fn mix(p: &[f32], rows: &[f32], n: usize, out: &mut [f32]) {
            // SAFETY: as above.
            unsafe { super::tile::mix::<$lanes, $heads, $vectors>(p, rows, n, out) }
        }
    };
}

pub(super) use leaves;
