//! Weights as they lie on the device.

use ds4_gguf::DType;

use crate::device::Buffer;

/// How rows of weights are held. Layouts are those of the file but for blocks that begin between words: their codes and their
/// scales stand in planes of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub(crate) enum Format {
    /// Rows of bytes; a float16 for each 32 in the other plane.
    Q8 = 0,
    /// Rows of float16.
    F16 = 1,
    /// Rows of float32; every type without a layout of its own ends up so.
    F32 = 2,
    /// Rows of 64 bytes for each 256; a float16 for each 256 in the other plane.
    Iq2 = 3,
    /// Blocks of 84 bytes.
    Q2k = 4,
    /// Blocks of 144 bytes.
    Q4k = 5,
    /// Rows of 16 bytes for each 32; an exponent for each 32 in the other plane.
    Mxfp4 = 6,
}

impl Format {
    /// Every one.
    pub(crate) const ALL: [Format; 7] =
        [Format::Q8, Format::F16, Format::F32, Format::Iq2, Format::Q2k, Format::Q4k, Format::Mxfp4];

    /// What the text of shaders calls it.
    pub(crate) fn flag(self) -> &'static str {
        match self {
            Format::Q8 => "Q8",
            Format::F16 => "F16",
            Format::F32 => "F32",
            Format::Iq2 => "IQ2",
            Format::Q2k => "Q2K",
            Format::Q4k => "Q4K",
            Format::Mxfp4 => "MXFP4",
        }
    }

    /// Format of a dense matrix.
    pub(crate) fn dense(dtype: DType) -> Format {
        match dtype {
            DType::Q8_0 => Format::Q8,
            DType::F16 => Format::F16,
            _ => Format::F32,
        }
    }

    /// Format of an expert tensor.
    pub(crate) fn expert(dtype: DType) -> Format {
        match dtype {
            DType::Iq2Xxs => Format::Iq2,
            DType::Q2K => Format::Q2k,
            DType::Q4K => Format::Q4k,
            DType::Mxfp4 => Format::Mxfp4,
            dtype => Format::dense(dtype),
        }
    }

    /// Inputs that a row is a multiple of.
    pub(crate) fn inputs(self) -> usize {
        match self {
            Format::Q8 => 64,
            Format::F16 => 8,
            Format::F32 => 4,
            _ => 256,
        }
    }

    /// Words of a row in the plane of codes and in that of scales.
    pub(crate) fn row_words(self, k: usize) -> (usize, usize) {
        match self {
            Format::Q8 => (k / 4, k / 64),
            Format::F16 => (k / 2, 0),
            Format::F32 => (k, 0),
            Format::Iq2 => (k / 16, 0),
            Format::Q2k => (k / 256 * 21, 0),
            Format::Q4k => (k / 256 * 36, 0),
            Format::Mxfp4 => (k / 8, k / 128),
        }
    }

    /// Words of `rows` rows in the two planes, each padded to sixteen bytes.
    pub(crate) fn plane_words(self, k: usize, rows: usize) -> (usize, usize) {
        let (codes, scales) = self.row_words(k);
        let scales = if self == Format::Iq2 { (rows * (k / 256)).div_ceil(2) } else { rows * scales };
        ((rows * codes).next_multiple_of(4), scales.next_multiple_of(4))
    }
}

/// Rows of a tensor that lie in one buffer.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) data: Buffer,
    /// First words of the planes.
    pub(crate) codes: u32,
    pub(crate) scales: u32,
    /// Row of the tensor that the part begins with, and its rows. Of experts: whole experts.
    pub(crate) first: usize,
    pub(crate) rows: usize,
}

/// A tensor on the device.
#[derive(Clone, Debug)]
pub struct Weight {
    pub(crate) format: Format,
    /// Inputs of a row.
    pub(crate) k: usize,
    /// Rows of the tensor.
    pub(crate) m: usize,
    /// Rows of one expert; of other tensors all.
    pub(crate) each: usize,
    pub(crate) parts: Vec<Part>,
    /// Tells weights apart.
    pub(crate) id: u64,
}

impl Weight {
    /// First word of a tensor in one part: a norm, a bias, a table.
    pub(crate) fn at(&self) -> u32 {
        self.parts[0].codes
    }

    /// The buffer of a tensor in one part.
    pub(crate) fn buffer(&self) -> &Buffer {
        &self.parts[0].data
    }
}
