//! Weights as they lie on the card.

use ds4_gguf::DType;

use crate::device::Buffer;

/// A tensor in the layout of its role.
#[derive(Debug)]
pub struct Weight {
    pub(crate) data: Buffer,
    pub(crate) layout: Layout,
}

/// How a tensor lies on the card; tiles are described in `kernels/repack.cu` and `kernels/repack_experts.cu`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Float32, as in the file: a norm, bias, scale or base.
    Values,
    /// Indices, as in the file.
    Ids,
    /// F16 rows, as in the file.
    Rows,
    /// Tiles of 16 rows and 64 inputs.
    Tiles {
        /// Q8_0 or F16.
        dtype: DType,
        /// Inputs.
        k: usize,
        /// Outputs.
        m: usize,
        /// Below the outputs' rows, padded to whole tiles, stand those of what float16 leaves of a float32 matrix.
        twin: bool,
    },
    /// Tiles of 16 rows and 256 inputs, expert after expert.
    Experts {
        /// One of the four expert formats.
        dtype: DType,
        /// Inputs.
        k: usize,
        /// Outputs of one expert.
        m: usize,
    },
}

/// Rows of a tile.
pub(crate) const TILE_ROWS: usize = 16;

/// Inputs and bytes of a tile, for types that come in tiles.
pub(crate) fn tile(dtype: DType) -> Option<(usize, usize)> {
    match dtype {
        DType::Q8_0 => Some((64, 1088)),
        DType::F16 => Some((64, 2048)),
        DType::Iq2Xxs => Some((256, 1120)),
        DType::Q2K => Some((256, 1344)),
        DType::Q4K => Some((256, 2304)),
        DType::Mxfp4 => Some((256, 2176)),
        DType::F32 | DType::Bf16 | DType::I32 => None,
    }
}

/// Bytes of `rows` rows of `k` inputs in tiles.
pub(crate) fn tile_bytes(dtype: DType, rows: usize, k: usize) -> Option<usize> {
    let (width, bytes) = tile(dtype)?;
    k.is_multiple_of(width).then(|| rows.div_ceil(TILE_ROWS) * (k / width) * bytes)
}

impl Weight {
    pub(crate) fn ptr(&self) -> u64 {
        self.data.ptr()
    }
}
