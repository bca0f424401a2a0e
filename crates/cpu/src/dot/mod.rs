//! The leaf products: the only SIMD, and with the shared output view the only unsafe code of this crate.
//!
//! A product of two rows is *defined* as sixteen float32 lanes, lane `l` accumulating elements `16 i + l` in order with
//! fused multiply-adds, summed by one fixed tree. Every instruction set and every tile shape follows that definition, so
//! a result does not depend on the machine's vector width, on the rows beside it, or on how a batch was cut.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod decode;
mod lanes;
mod matmul;
mod portable;
#[cfg(test)]
mod tests;
mod tile;

pub(crate) use matmul::{Matrix, Out, Product, run};
pub(crate) use tile::LANES;

use ds4_gguf::DType;

/// Instruction set of the leaves, found at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// Sixteen-lane arrays that the compiler vectorises for the target's baseline: NEON on aarch64.
    Portable,
    /// 256-bit vectors, FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// 512-bit vectors.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

/// Calls `$f` of the module that implements the instruction set.
macro_rules! dispatch {
    ($isa:expr, $f:ident($($arg:expr),*)) => {
        match $isa {
            // SAFETY: portable lanes need no feature.
            Isa::Portable => unsafe { portable::$f($($arg),*) },
            // SAFETY: the value exists only where `Isa::available` found the features.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => unsafe { avx2::$f($($arg),*) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => unsafe { avx512::$f($($arg),*) },
        }
    };
}

impl Isa {
    /// Every instruction set this machine can run, best last.
    pub fn available() -> Vec<Isa> {
        let all = [
            Isa::Portable,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512,
        ];
        all.into_iter().filter(|isa| isa.runs()).collect()
    }

    /// Whether this machine has all that the set's code uses.
    fn runs(self) -> bool {
        match self {
            Isa::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => {
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => Isa::Avx2.runs() && is_x86_feature_detected!("avx512f"),
        }
    }

    /// The best instruction set of this machine.
    pub fn detect() -> Isa {
        *Isa::available().last().expect("the portable set is always there")
    }

    /// Name for reports.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable if cfg!(target_arch = "aarch64") => "neon",
            Isa::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => "avx512",
        }
    }

    /// Decodes whole blocks: `out.len()` values. Bit for bit `ds4_gguf::dequant::row`.
    pub(crate) fn decode(self, dtype: DType, bytes: &[u8], out: &mut [f32]) {
        assert_eq!(dtype.row_bytes(out.len()), Some(bytes.len()), "whole blocks");
        dispatch!(self, decode(dtype, bytes, out));
    }

    /// Decodes E4M3 codes with one exponent byte per 64 values (session.md section 3).
    pub(crate) fn decode_e4m3(self, codes: &[u8], exponents: &[u8], out: &mut [f32]) {
        assert!(codes.len() == out.len() && out.len() == 64 * exponents.len(), "a code per value, an exponent per 64");
        dispatch!(self, decode_e4m3(codes, exponents, out));
    }

    /// Decodes float16 values.
    pub(crate) fn decode_f16(self, bytes: &[u8], out: &mut [f32]) {
        self.decode(DType::F16, bytes, out);
    }

    /// `acc[c][r][lane] += w[r][k] * x[c][k]` for `k` of `n` elements; `w` row `r` starts at `r * stride`.
    pub(crate) fn tile(self, w: &[f32], stride: usize, n: usize, xs: &[&[f32]], acc: &mut [f32]) {
        let rows = acc.len() / (LANES * xs.len().max(1));
        assert!(rows == 0 || w.len() >= (rows - 1) * stride + n, "weight rows inside the panel");
        assert!(xs.iter().all(|x| x.len() >= n) && acc.len() == rows * xs.len() * LANES, "columns and accumulators");
        dispatch!(self, tile(w, stride, n, xs, acc));
    }

    /// Product of two rows of equal length.
    pub(crate) fn dot(self, a: &[f32], b: &[f32]) -> f32 {
        assert_eq!(a.len(), b.len(), "rows of equal length");
        let mut acc = [0f32; LANES];
        self.tile(a, 0, a.len(), &[b], &mut acc);
        tile::reduce(&acc)
    }

    /// All products of `rows` rows of `w` (`n` wide, contiguous) with each of `xs`: `out[c * rows + r]`.
    pub(crate) fn products(self, w: &[f32], n: usize, xs: &[&[f32]], out: &mut [f32]) {
        const CHUNK: usize = 1024;
        let rows = out.len() / xs.len().max(1);
        let mut acc = [0f32; CHUNK * LANES];
        let columns = (CHUNK / rows.max(1)).max(1);
        assert!(rows <= CHUNK, "a panel of at most {CHUNK} rows");
        for (xs, out) in xs.chunks(columns).zip(out.chunks_mut(columns * rows)) {
            let acc = &mut acc[..xs.len() * rows * LANES];
            acc.fill(0.0);
            self.tile(w, n, n, xs, acc);
            for (y, lanes) in out.iter_mut().zip(acc.as_chunks::<LANES>().0) {
                *y = tile::reduce(lanes);
            }
        }
    }

    /// `out[h][d] += p[h][j] * rows[j][d]` over the `j` in order, with fused multiply-adds; `d` of `n` values.
    pub(crate) fn mix(self, p: &[f32], rows: &[f32], n: usize, out: &mut [f32]) {
        let (heads, js) = (out.len() / n, rows.len() / n);
        assert!(p.len() == heads * js && out.len() == heads * n && rows.len() == js * n, "whole rows");
        dispatch!(self, mix(p, rows, n, out));
    }
}
