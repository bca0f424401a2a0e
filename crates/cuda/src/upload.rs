//! Weights from the mapped file to the card: worker threads copy pieces to page-locked memory while the copy engine and the repacking
//! kernels work on the piece before. Nothing of a tensor stays on the host.

use std::sync::Arc;
use std::thread;

use bytemuck::{Pod, Zeroable};
use cudarc::driver::result;
use ds4_gguf::{DType, Dims, Tensor, dequant};
use ds4_model::{Class, Result};
use half::f16;

use crate::backend::Cuda;
use crate::device::{Buffer, Device, Event, Pinned};
use crate::launch::Grid;
use crate::weight::{Layout, TILE_ROWS, Weight, tile, tile_bytes};

/// Bytes of a piece, but for tensors whose sixteen rows are larger.
const PIECE: usize = 64 << 20;
/// Pieces under way.
const IN_FLIGHT: usize = 3;
/// Memory of the card for them.
pub(crate) const STAGING: usize = IN_FLIGHT * PIECE;
/// Threads that read the file.
const READERS: usize = 8;

/// Told of bytes as they reach the card.
pub type Progress = Arc<dyn Fn(u64) + Send + Sync>;

/// What a tensor goes through on its way; gone with the first step.
pub(crate) struct Uploader {
    lanes: Vec<Lane>,
    next: usize,
}

struct Lane {
    pinned: Pinned,
    staging: Buffer,
    done: Event,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct RepackArgs {
    from: u64,
    to: u64,
    rows: u32,
    k: u32,
}
const _: () = assert!(size_of::<RepackArgs>() == 24);

impl Uploader {
    pub(crate) fn new(device: &Arc<Device>) -> Result<Uploader> {
        let lane = |_| {
            Ok(Lane { pinned: Pinned::new(device, PIECE)?, staging: device.alloc(PIECE)?, done: Event::new(device)? })
        };
        Ok(Uploader { lanes: (0..IN_FLIGHT).map(lane).collect::<Result<_>>()?, next: 0 })
    }

    /// Waits until all pieces have arrived: then their memory may go.
    pub(crate) fn finish(self) -> Result<()> {
        self.lanes.iter().try_for_each(|lane| lane.done.wait())
    }
}

/// Copies with several threads where it is worth while: one is slower than the bus.
pub(crate) fn copy_wide(src: &[u8], dst: &mut [u8]) {
    let part = src.len().div_ceil(READERS).next_multiple_of(4096).max(1 << 20);
    if src.len() <= part {
        return dst.copy_from_slice(src);
    }
    thread::scope(|scope| {
        for (src, dst) in src.chunks(part).zip(dst.chunks_mut(part)) {
            scope.spawn(move || dst.copy_from_slice(src));
        }
    });
}

impl Cuda {
    /// Brings a tensor to the card in the layout of its class.
    pub(crate) fn upload_tensor(&mut self, tensor: &Tensor, class: Class) -> Result<Weight> {
        let refuse = |expected: &str| {
            Err(self
                .device
                .error(format!("{}: type {} of dims {}, expected {expected}", tensor.name, tensor.dtype, tensor.dims)))
        };
        match class {
            Class::HashTable => self.upload_raw(tensor, Layout::Ids),
            Class::Embedding | Class::HcFn if tensor.dtype == DType::F16 => self.upload_raw(tensor, Layout::Rows),
            Class::HcFn if tensor.dtype == DType::F32 => self.upload_values(tensor),
            Class::Embedding | Class::HcFn => refuse("F16"),
            Class::Router if tensor.dtype == DType::F32 && tensor.n_in().is_multiple_of(64) => self.upload_twin(tensor),
            Class::Norm | Class::HcScale | Class::HcBase | Class::Sinks | Class::RouterBias | Class::CompressorApe => {
                self.upload_values(tensor)
            }
            Class::ExpertGateUp | Class::ExpertDown => match tensor.dtype {
                DType::Iq2Xxs | DType::Q2K | DType::Q4K | DType::Mxfp4
                    if tensor.n_in().is_multiple_of(256) && (tensor.dims[1] as usize).is_multiple_of(TILE_ROWS) =>
                {
                    let layout = Layout::Experts { dtype: tensor.dtype, k: tensor.n_in(), m: tensor.dims[1] as usize };
                    self.upload_tiles(tensor, layout)
                }
                _ => refuse("IQ2_XXS, Q2_K, Q4_K or MXFP4, inputs a multiple of 256, outputs of 16"),
            },
            _ => match tensor.dtype {
                DType::Q8_0 | DType::F16 if tensor.n_in().is_multiple_of(64) => {
                    let (k, m) = (tensor.n_in(), tensor.n_rows());
                    self.upload_tiles(tensor, Layout::Tiles { dtype: tensor.dtype, k, m, twin: false })
                }
                _ => refuse("Q8_0 or F16, inputs a multiple of 64"),
            },
        }
    }

    fn upload_values(&mut self, tensor: &Tensor) -> Result<Weight> {
        let mut values = vec![0f32; tensor.n_in() * tensor.n_rows()];
        for (row, out) in values.chunks_mut(tensor.n_in()).enumerate() {
            dequant::row(tensor.dtype, tensor.row(row), out);
        }
        let data = self.device.alloc(4 * values.len())?;
        self.device.write(&data, 0, bytemuck::cast_slice(&values))?;
        Ok(Weight { data, layout: Layout::Values })
    }

    /// A float32 matrix as two of float16: values and what they leave, one below the other.
    fn upload_twin(&mut self, tensor: &Tensor) -> Result<Weight> {
        let (k, m) = (tensor.n_in(), tensor.n_rows());
        let padded = m.next_multiple_of(TILE_ROWS);
        let mut halves = vec![f16::ZERO; 2 * padded * k];
        let mut values = vec![0f32; k];
        let (high, low) = halves.split_at_mut(padded * k);
        for (row, (high, low)) in high.chunks_mut(k).zip(low.chunks_mut(k)).take(m).enumerate() {
            dequant::row(tensor.dtype, tensor.row(row), &mut values);
            for ((value, high), low) in values.iter().zip(high).zip(low) {
                *high = f16::from_f32(*value);
                *low = f16::from_f32(value - high.to_f32());
            }
        }
        let bytes: Vec<u8> = halves.iter().flat_map(|half| half.to_le_bytes()).collect();
        let tensor = Tensor {
            dtype: DType::F16,
            dims: Dims::new(&[k as u64, 2 * padded as u64]).expect("two dimensions"),
            data: bytes.into(),
            ..tensor.clone()
        };
        self.upload_tiles(&tensor, Layout::Tiles { dtype: DType::F16, k, m, twin: true })
    }

    fn upload_raw(&mut self, tensor: &Tensor, layout: Layout) -> Result<Weight> {
        let data = self.device.alloc(tensor.data.len())?;
        let mut at = 0;
        for piece in tensor.data.chunks(PIECE) {
            self.stage(piece, |cuda, staged| {
                // SAFETY: `data` has room for the whole tensor.
                let copied = unsafe {
                    result::memcpy_dtod_async(data.ptr() + at as u64, staged, piece.len(), cuda.device.stream)
                };
                cuda.device.check("cannot copy a weight", copied)
            })?;
            at += piece.len();
        }
        Ok(Weight { data, layout })
    }

    fn upload_tiles(&mut self, tensor: &Tensor, layout: Layout) -> Result<Weight> {
        let (dtype, k, rows, row_bytes) = (tensor.dtype, tensor.n_in(), tensor.n_rows(), tensor.row_bytes());
        let bytes = tile_bytes(dtype, rows, k).expect("checked: whole tiles");
        let (width, tile_size) = tile(dtype).expect("checked: a type of tiles");
        let data = self.device.alloc(bytes)?;
        let kernel = match dtype {
            DType::Q8_0 => "repack_q8",
            DType::F16 => "repack_f16",
            DType::Iq2Xxs => "repack_iq2",
            DType::Q2K => "repack_q2k",
            DType::Q4K => "repack_q4k",
            _ => "repack_mxfp4",
        };
        let per_piece = (PIECE / row_bytes / TILE_ROWS).max(1) * TILE_ROWS;
        for first in (0..rows).step_by(per_piece) {
            let count = per_piece.min(rows - first);
            let to = data.ptr() + (first / TILE_ROWS * (k / width) * tile_size) as u64;
            let blocks = count.div_ceil(TILE_ROWS) as u32;
            // Dense kernels are told of rows, for the last block may not be whole; experts come in whole blocks.
            let dense = width == 64;
            let (grid, rows) = if dense { (blocks, count as u32) } else { (8 * self.device.sms, blocks) };
            self.stage(&tensor.data[first * row_bytes..][..count * row_bytes], |cuda, from| {
                cuda.launch(kernel, Grid::new(grid, 1, 256), &RepackArgs { from, to, rows, k: k as u32 })
            })?;
        }
        Ok(Weight { data, layout })
    }

    /// Brings `bytes` to staging memory on the card and enqueues `then` with its address.
    fn stage(&mut self, bytes: &[u8], then: impl FnOnce(&mut Cuda, u64) -> Result<()>) -> Result<()> {
        self.device.bind()?;
        let mut uploader = match self.uploader.take() {
            Some(uploader) => uploader,
            None => Uploader::new(&self.device)?,
        };
        let lane = &mut uploader.lanes[uploader.next];
        lane.done.wait()?;
        copy_wide(bytes, &mut lane.pinned.bytes_mut()[..bytes.len()]);
        self.device.write(&lane.staging, 0, &lane.pinned.bytes()[..bytes.len()])?;
        then(self, lane.staging.ptr())?;
        lane.done.record()?;
        uploader.next = (uploader.next + 1) % IN_FLIGHT;
        self.uploader = Some(uploader);
        if let Some(progress) = &self.progress {
            progress(bytes.len() as u64);
        }
        Ok(())
    }
}
