//! Weights from the mapped file to the device, piece by piece: threads bring a piece into its layout while the one before is on
//! its way. Small tensors share buffers, so that products of one input can share a dispatch; what a binding cannot hold is cut.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use ds4_gguf::{DType, Tensor, dequant};
use ds4_model::{Class, Result, TensorSpec};

use crate::backend::Wgpu;
use crate::device::{Buffer, Device};
use crate::weight::{Format, Part, Weight};

/// Told of bytes as they reach the device.
pub type Progress = Arc<dyn Fn(u64) + Send + Sync>;

/// Bytes of the file in a piece, but for tensors whose sixteen rows are larger.
const PIECE: usize = 32 << 20;
/// Most bytes of a buffer that tensors share: where one ends, a stage's weights may lie in two and take a dispatch more.
pub(crate) const SHARED: u64 = 1 << 30;
/// Bytes of the first one; each is four times as large as the one before.
pub(crate) const FIRST_SHARED: u64 = 16 << 20;

/// Buffers that tensors share, and what is under way.
#[derive(Default)]
pub(crate) struct Uploader {
    shared: Option<(Buffer, usize)>,
    next: u64,
    under_way: Option<wgpu::SubmissionIndex>,
}

impl Uploader {
    /// Room for so many words: a buffer and the first word in it.
    fn place(&mut self, device: &Device, words: usize) -> Result<(Buffer, usize)> {
        let words = words.next_multiple_of(4);
        let bytes = 4 * words as u64;
        if let Some((buffer, used)) = &mut self.shared
            && (*used + words) * 4 <= buffer.bytes
        {
            let at = *used;
            *used += words;
            return Ok((buffer.clone(), at));
        }
        let size = self.next.clamp(FIRST_SHARED, SHARED).min(device.abilities.weights);
        if 2 * bytes > size {
            return Ok((device.alloc(bytes as usize)?, 0));
        }
        self.next = 4 * size;
        let buffer = device.alloc(size as usize)?;
        self.shared = Some((buffer.clone(), words));
        Ok((buffer, 0))
    }

    /// Sends a piece off, and waits for the one before.
    fn send(&mut self, device: &Device) -> Result<()> {
        let index = device.queue.submit([]);
        if let Some(before) = self.under_way.replace(index) {
            device.wait_for(Some(before))?;
        }
        device.check()
    }
}

/// The layout that a tensor of this role and type has on the device.
pub(crate) fn format_of(class: Class, dtype: DType) -> Format {
    match class {
        Class::ExpertGateUp | Class::ExpertDown => Format::expert(dtype),
        Class::Embedding | Class::HcFn if dtype == DType::F16 => Format::F16,
        Class::Embedding
        | Class::HcFn
        | Class::Norm
        | Class::HcScale
        | Class::HcBase
        | Class::Sinks
        | Class::RouterBias
        | Class::CompressorApe
        | Class::HashTable => Format::F32,
        _ => Format::dense(dtype),
    }
}

impl Wgpu {
    /// Brings a tensor to the device in the layout of its role.
    pub(crate) fn upload_tensor(&mut self, tensor: &Tensor, class: Class) -> Result<Weight> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let format = format_of(class, tensor.dtype);
        let (k, m) = (tensor.n_in(), tensor.n_rows());
        let experts = matches!(class, Class::ExpertGateUp | Class::ExpertDown);
        if !is_vector(class) && !k.is_multiple_of(format.inputs()) {
            let (name, dtype, dims) = (&tensor.name, tensor.dtype, tensor.dims);
            let what =
                format!("{name}: type {dtype} of dims {dims}, expected inputs a multiple of {}", format.inputs());
            return Err(self.device.error(what));
        }
        if experts {
            self.program.prepare(&self.device, &self.shape, &crate::experts::kernels(format))?;
        }
        let each = if experts { tensor.dims[1] as usize } else { m };
        let unit = if experts { each } else { 1 };
        let whole = is_vector(class) || class == Class::HcFn;
        let per_part = rows_of_a_part(self.device.abilities.weights, format, k, unit);
        if per_part == 0 || (whole && per_part < m) {
            let most = self.device.abilities.weights;
            let what = format!("{}: the adapter binds at most {most} bytes: use --cpu", tensor.name);
            return Err(self.device.error(what));
        }
        let mut parts = Vec::new();
        for first in (0..m).step_by(per_part) {
            let rows = per_part.min(m - first);
            parts.push(self.upload_part(tensor, (class, format), first, rows)?);
        }
        Ok(Weight { format, k, m, each, parts, id: NEXT.fetch_add(1, Ordering::Relaxed) })
    }

    fn upload_part(
        &mut self,
        tensor: &Tensor,
        (class, format): (Class, Format),
        first: usize,
        rows: usize,
    ) -> Result<Part> {
        let (k, row_bytes) = (tensor.n_in(), tensor.row_bytes());
        let (codes, scales) = format.plane_words(k, rows);
        // Others are repacked, or so small that they had better share a buffer.
        let large = matches!(class, Class::ExpertGateUp | Class::ExpertDown | Class::Embedding);
        if large && in_file_order(format, tensor.dtype) {
            let bytes = tensor.data.slice(first * row_bytes..(first + rows) * row_bytes);
            if let Some((data, at)) = self.device.in_place(&bytes, &self.landing) {
                if let Some(progress) = &self.progress {
                    progress(bytes.len() as u64);
                }
                return Ok(Part { data, codes: at as u32 / 4, scales: 0, first, rows });
            }
        }
        let (data, at) = if is_vector(class) {
            self.place_values(tensor, codes)?
        } else {
            self.uploader.place(&self.device, codes + scales)?
        };
        let (code_words, _) = format.row_words(k);
        let per_piece = (PIECE / row_bytes / 16).max(1) * 16;
        for start in (0..rows).step_by(per_piece) {
            let count = per_piece.min(rows - start);
            let bytes = &tensor.data[(first + start) * row_bytes..][..count * row_bytes];
            let to = 4 * (at + start * code_words);
            if in_file_order(format, tensor.dtype) {
                self.device.write(&data, to, &whole_words(bytes))?;
            } else {
                let (codes_of, scales_of) = repack(format, tensor.dtype, k, bytes);
                self.device.write(&data, to, &codes_of)?;
                let scale_bytes = scale_bytes(format, k);
                self.device.write(&data, 4 * (at + codes) + start * scale_bytes, &whole_words(&scales_of))?;
            }
            self.uploader.send(&self.device)?;
            if let Some(progress) = &self.progress {
                progress(bytes.len() as u64);
            }
        }
        Ok(Part { data, codes: at as u32, scales: (at + codes) as u32, first, rows })
    }
}

impl Wgpu {
    /// Room among the vectors, which all share one buffer.
    fn place_values(&mut self, tensor: &Tensor, words: usize) -> Result<(Buffer, usize)> {
        let at = self.values_used;
        if (at + words) * 4 > self.values.bytes {
            return Err(self.device.error(format!("{}: belongs to no model of this shape", tensor.name)));
        }
        self.values_used = at + words;
        Ok((self.values.clone(), at))
    }
}

/// Words of all vectors of a model.
pub(crate) fn value_words(specs: &[TensorSpec]) -> usize {
    let words = |spec: &TensorSpec| spec.dims.elements().map_or(0, |n| (n as usize).next_multiple_of(4));
    specs.iter().filter(|spec| is_vector(spec.class)).map(words).sum()
}

/// Whether a tensor is read value by value, not as rows of a matrix.
fn is_vector(class: Class) -> bool {
    matches!(
        class,
        Class::Norm
            | Class::HcScale
            | Class::HcBase
            | Class::Sinks
            | Class::RouterBias
            | Class::CompressorApe
            | Class::HashTable
    )
}

/// Most rows, whole units, that a binding holds.
pub(crate) fn rows_of_a_part(binding: u64, format: Format, k: usize, unit: usize) -> usize {
    let (codes, scales) = format.plane_words(k, unit.max(16));
    let bytes = 4 * (codes + scales) as u64 / (unit.max(16) / unit.max(1)).max(1) as u64;
    // Planes are padded: leave room.
    ((binding - 64) / bytes.max(1)) as usize * unit
}

/// Bytes end with a whole word.
fn whole_words(bytes: &[u8]) -> std::borrow::Cow<'_, [u8]> {
    if bytes.len().is_multiple_of(4) {
        return bytes.into();
    }
    let mut padded = bytes.to_vec();
    padded.resize(bytes.len().next_multiple_of(4), 0);
    padded.into()
}

fn in_file_order(format: Format, dtype: DType) -> bool {
    match format {
        Format::F16 | Format::Q2k | Format::Q4k => true,
        Format::F32 => matches!(dtype, DType::F32 | DType::I32),
        _ => false,
    }
}

/// Bytes of a row's scales.
fn scale_bytes(format: Format, k: usize) -> usize {
    match format {
        Format::Q8 => k / 16,
        Format::Iq2 => k / 128,
        Format::Mxfp4 => k / 32,
        _ => 0,
    }
}

/// Rows of the file as the two planes. Threads share the rows.
fn repack(format: Format, dtype: DType, k: usize, bytes: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let row_bytes = dtype.row_bytes(k).expect("a tensor's rows are whole blocks");
    let rows = bytes.len() / row_bytes;
    let (code_row, scale_row) = (4 * format.row_words(k).0, scale_bytes(format, k));
    let (mut codes, mut scales) = (vec![0; rows * code_row], vec![0; rows * scale_row]);
    let threads = thread::available_parallelism().map_or(1, std::num::NonZero::get).min(16);
    let each = rows.div_ceil(threads).max(1);
    thread::scope(|scope| {
        let mut scales = scales.chunks_mut((each * scale_row).max(1));
        for (bytes, codes) in bytes.chunks(each * row_bytes).zip(codes.chunks_mut(each * code_row)) {
            let scales = scales.next().unwrap_or_default();
            scope.spawn(move || repack_rows(format, dtype, (k, row_bytes), bytes, (codes, scales)));
        }
    });
    (codes, scales)
}

fn repack_rows(
    format: Format,
    dtype: DType,
    (k, row_bytes): (usize, usize),
    bytes: &[u8],
    (codes, scales): (&mut [u8], &mut [u8]),
) {
    // Bytes of a block: in the file, of its scale, and where the scale stands.
    let (block, scale) = match format {
        Format::Q8 => (34, 2),
        Format::Iq2 => (66, 2),
        Format::Mxfp4 => (17, 1),
        _ => {
            let mut values = vec![0f32; k];
            for (row, codes) in bytes.chunks(row_bytes).zip(codes.chunks_mut(4 * k)) {
                dequant::row(dtype, row, &mut values);
                codes.copy_from_slice(bytemuck::cast_slice(&values));
            }
            return;
        }
    };
    for ((from, codes), scales) in
        bytes.chunks(block).zip(codes.chunks_mut(block - scale)).zip(scales.chunks_mut(scale))
    {
        scales.copy_from_slice(&from[..scale]);
        codes.copy_from_slice(&from[scale..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_part_into_codes_and_scales() {
        let block: Vec<u8> = (0..66).collect();
        let bytes: Vec<u8> = [block.clone(), block].concat();
        let (codes, scales) = repack(Format::Iq2, DType::Iq2Xxs, 256, &bytes);
        assert_eq!((codes.len(), scales.as_slice()), (128, &[0, 1, 0, 1][..]));
        assert_eq!((codes[0], codes[63], codes[64]), (2, 65, 2));
        let (codes, scales) = repack(Format::Mxfp4, DType::Mxfp4, 32, &[9; 17]);
        assert_eq!((codes.len(), scales.len()), (16, 1));
        let (codes, _) = repack(Format::F32, DType::Bf16, 2, &[0x80, 0x3f, 0, 0x40]);
        assert_eq!(bytemuck::pod_collect_to_vec::<u8, f32>(&codes), [1.0, 2.0]);
    }

    #[test]
    fn parts_hold_whole_units_and_fit_their_binding() {
        for (format, k, unit) in [(Format::Q8, 4096, 1), (Format::Iq2, 256, 256), (Format::Q2k, 2048, 4096)] {
            let binding = 128 << 20;
            let rows = rows_of_a_part(binding, format, k, unit);
            let (codes, scales) = format.plane_words(k, rows);
            assert!(rows > 0 && rows.is_multiple_of(unit) && 4 * (codes + scales) as u64 <= binding, "{format:?}");
        }
        assert_eq!(rows_of_a_part(1 << 20, Format::F32, 4096, 256), 0);
    }
}
