//! The tensor types this engine reads (GGUF spec section 1). Owns ids, names and block sizes, not the meaning of the bytes.

use std::fmt;

/// A tensor's storage format; the discriminant is the GGUF type id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum DType {
    F32 = 0,
    F16 = 1,
    Q8_0 = 8,
    Q2K = 10,
    Q4K = 12,
    Iq2Xxs = 16,
    I32 = 26,
    Bf16 = 30,
    Mxfp4 = 39,
}

impl DType {
    /// Every type, in the order of the ids.
    pub const ALL: [Self; 9] =
        [Self::F32, Self::F16, Self::Q8_0, Self::Q2K, Self::Q4K, Self::Iq2Xxs, Self::I32, Self::Bf16, Self::Mxfp4];

    /// The type of a GGUF type id, if it is one of ours.
    pub fn from_id(id: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.id() == id)
    }

    /// GGUF type id.
    pub const fn id(self) -> u32 {
        self as u32
    }

    /// The usual name: `Q8_0`, `IQ2_XXS`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Q8_0 => "Q8_0",
            Self::Q2K => "Q2_K",
            Self::Q4K => "Q4_K",
            Self::Iq2Xxs => "IQ2_XXS",
            Self::I32 => "I32",
            Self::Bf16 => "BF16",
            Self::Mxfp4 => "MXFP4",
        }
    }

    /// Elements per block.
    pub const fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 | Self::I32 => 1,
            Self::Q8_0 | Self::Mxfp4 => 32,
            Self::Q2K | Self::Q4K | Self::Iq2Xxs => 256,
        }
    }

    /// Bytes per block.
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q8_0 => 34,
            Self::Q2K => 84,
            Self::Q4K => 144,
            Self::Iq2Xxs => 66,
            Self::Mxfp4 => 17,
        }
    }

    /// Bytes of a row of `n` elements; `None` unless `n` is a whole number of blocks whose bytes can be counted.
    pub const fn row_bytes(self, n: usize) -> Option<usize> {
        if !n.is_multiple_of(self.block_len()) {
            return None;
        }
        (n / self.block_len()).checked_mul(self.block_bytes())
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_leads_back_to_its_type_and_no_other_does() {
        for t in DType::ALL {
            assert_eq!(DType::from_id(t.id()), Some(t));
        }
        let known = (0..100_000).filter(|&id| DType::from_id(id).is_some()).count();
        assert_eq!(known, DType::ALL.len());
        assert_eq!(DType::from_id(15), None, "Q8_K never lies in a file");
    }

    #[test]
    fn a_row_is_whole_blocks() {
        assert_eq!(DType::Iq2Xxs.row_bytes(4096), Some(16 * 66));
        assert_eq!(DType::Q8_0.row_bytes(33), None);
        assert_eq!(DType::F32.row_bytes(usize::MAX), None);
        assert_eq!(format!("{:>8}", DType::Q2K), "    Q2_K");
    }
}
