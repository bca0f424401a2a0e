//! Tensor dimensions, fastest varying first as GGUF writes them. Owns the rank limit and the element count.

use std::{fmt, ops::Deref};

/// One to four dimensions, fastest first: `[n_in, n_rows]`, or `[n_in, n_rows, n_expert]`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Dims {
    len: u8,
    dims: [u64; Self::MAX_RANK],
}

impl Dims {
    /// Most dimensions a tensor of these files may have.
    pub const MAX_RANK: usize = 4;

    /// `None` unless there are one to four dimensions.
    pub fn new(dims: &[u64]) -> Option<Self> {
        if dims.is_empty() || dims.len() > Self::MAX_RANK {
            return None;
        }
        // Unused places hold 1, so that equality and hashing need not look at the rank's tail.
        let mut all = [1; Self::MAX_RANK];
        all[..dims.len()].copy_from_slice(dims);
        Some(Self { len: dims.len() as u8, dims: all })
    }

    /// Product of the dimensions; `None` if it does not fit.
    pub fn elements(&self) -> Option<u64> {
        self.iter().try_fold(1_u64, |n, &d| n.checked_mul(d))
    }
}

impl Deref for Dims {
    type Target = [u64];

    fn deref(&self) -> &[u64] {
        &self.dims[..usize::from(self.len)]
    }
}

impl<const N: usize> From<[u64; N]> for Dims {
    /// Ranks other than 1 to 4 do not compile.
    fn from(dims: [u64; N]) -> Self {
        const { assert!(N >= 1 && N <= Self::MAX_RANK, "one to four dimensions") };
        Self::new(&dims).expect("the rank was checked at compile time")
    }
}

impl fmt::Display for Dims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &**self)
    }
}

impl fmt::Debug for Dims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rank_is_one_to_four() {
        assert_eq!(Dims::new(&[]), None);
        assert_eq!(Dims::new(&[1, 1, 1, 1, 1]), None);
        assert_eq!(Dims::new(&[4096, 24]), Some(Dims::from([4096, 24])));
        assert_ne!(Dims::from([4096]), Dims::from([4096, 1]));
    }

    #[test]
    fn elements_do_not_wrap() {
        assert_eq!(Dims::from([1 << 40, 1 << 40]).elements(), None);
        assert_eq!(Dims::from([3, 5, 7]).elements(), Some(105));
        assert_eq!(Dims::from([4096, 129_280]).to_string(), "[4096, 129280]");
    }
}
