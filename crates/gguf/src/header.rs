//! Everything before the tensor data: magic, version, metadata, tensor directory (GGUF spec section 1). Checks each number
//! against the file before anything is made from it. Reads no tensor data.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use bytes::Bytes;

use crate::{
    DType, Dims, Metadata, TensorInfo, Value,
    cursor::Cursor,
    error::{Fault, Result, shown},
    layout::DEFAULT_ALIGNMENT,
};

/// A checked header: every tensor lies inside the file.
pub(crate) struct Header {
    pub(crate) metadata: Metadata,
    pub(crate) tensors: Vec<TensorInfo>,
    pub(crate) index: HashMap<Arc<str>, usize>,
    pub(crate) data_start: u64,
}

pub(crate) const MAGIC: [u8; 4] = *b"GGUF";
pub(crate) const VERSION: u32 = 3;
pub(crate) const ALIGNMENT_KEY: &str = "general.alignment";

/// Empty key, type and a one-byte value.
const SMALLEST_RECORD: u64 = 8 + 4 + 1;
/// Empty name, rank 1, type and offset.
const SMALLEST_TENSOR: u64 = 8 + 4 + 8 + 4 + 8;

impl Header {
    pub(crate) fn read(file: &Arc<str>, bytes: &Bytes) -> Result<Self> {
        let mut from = Cursor::new(bytes);
        let (n_tensor, n_record) = counts(&mut from).map_err(|e| e.at(file, "header"))?;
        let metadata = records(&mut from, file, n_record)?;
        let alignment = alignment(&metadata)?;
        let mut tensors = directory(&mut from, file, n_tensor)?;
        let data_start = (from.at() as u64).next_multiple_of(alignment);
        let mut index = HashMap::with_capacity(tensors.len());
        for (i, tensor) in tensors.iter_mut().enumerate() {
            let fault = place(tensor, data_start, alignment, bytes.len() as u64);
            fault.map_err(|e| e.at(file, tensor_place(&tensor.name)))?;
            match index.entry(tensor.name.clone()) {
                Entry::Vacant(free) => drop(free.insert(i)),
                Entry::Occupied(_) => {
                    return Err(Fault::new("a second entry", "one").at(file, tensor_place(&tensor.name)));
                }
            }
        }
        Ok(Self { metadata, tensors, index, data_start })
    }
}

fn counts(from: &mut Cursor<'_>) -> std::result::Result<(u64, u64), Fault> {
    let magic = from.take(4)?;
    if magic != MAGIC {
        return Err(Fault::new(format!("magic {}", magic.escape_ascii()), "GGUF"));
    }
    let version = from.u32()?;
    if version != VERSION {
        return Err(Fault::new(format!("version {version}"), format!("version {VERSION}")));
    }
    let (n_tensor, n_record) = (from.u64()?, from.u64()?);
    from.fits(n_record, SMALLEST_RECORD)?;
    from.fits(n_tensor, SMALLEST_TENSOR)?;
    Ok((n_tensor, n_record))
}

fn records(from: &mut Cursor<'_>, file: &Arc<str>, n: u64) -> Result<Metadata> {
    let mut metadata = Metadata::new(file.clone());
    for i in 0..n {
        let key = from.str().map_err(|e| e.at(file, format!("metadata record {i}")))?;
        let place = || format!("key {}", shown(key));
        let value = Value::read(from).map_err(|e| e.at(file, place()))?;
        if !metadata.insert(key, value) {
            return Err(Fault::new("a second record", "one").at(file, place()));
        }
    }
    Ok(metadata)
}

fn alignment(metadata: &Metadata) -> Result<u64> {
    if !metadata.contains(ALIGNMENT_KEY) {
        return Ok(u64::from(DEFAULT_ALIGNMENT));
    }
    let n = metadata.u32(ALIGNMENT_KEY)?;
    check_alignment(n).map_err(|e| e.at(metadata.file(), format!("key {ALIGNMENT_KEY}")))?;
    Ok(u64::from(n))
}

/// Below 8 a mapped row of floats would not be aligned in memory; above 64 KiB it is a mistake.
pub(crate) fn check_alignment(n: u32) -> std::result::Result<(), Fault> {
    if n.is_power_of_two() && (8..=1 << 16).contains(&n) {
        return Ok(());
    }
    Err(Fault::new(n.to_string(), "a power of two from 8 to 65536"))
}

fn tensor_place(name: &str) -> String {
    format!("tensor {}", shown(name))
}

/// The directory as it stands, offsets still relative to the data.
fn directory(from: &mut Cursor<'_>, file: &Arc<str>, n: u64) -> Result<Vec<TensorInfo>> {
    let mut tensors = Vec::new();
    for i in 0..n {
        let name = from.str().map_err(|e| e.at(file, format!("tensor record {i}")))?;
        let tensor: std::result::Result<_, Fault> = (|| {
            let dims = dims(from)?;
            let id = from.u32()?;
            let dtype = DType::from_id(id).ok_or_else(|| Fault::new(format!("tensor type {id}"), known_types()))?;
            Ok(TensorInfo { name: name.into(), dtype, dims, offset: from.u64()?, bytes: byte_count(dtype, &dims)? })
        })();
        tensors.push(tensor.map_err(|e| e.at(file, tensor_place(name)))?);
    }
    Ok(tensors)
}

fn known_types() -> String {
    let names = DType::ALL.map(|t| format!("{} ({t})", t.id()));
    format!("one of {}", names.join(", "))
}

fn dims(from: &mut Cursor<'_>) -> std::result::Result<Dims, Fault> {
    let rank = from.u32()?;
    if rank == 0 || rank as usize > Dims::MAX_RANK {
        return Err(Fault::new(format!("{rank} dimensions"), format!("1 to {}", Dims::MAX_RANK)));
    }
    let mut dims = [0; Dims::MAX_RANK];
    for d in &mut dims[..rank as usize] {
        *d = from.u64()?;
    }
    Ok(Dims::new(&dims[..rank as usize]).expect("the rank was checked"))
}

/// Bytes of a tensor without padding. Rows must be whole blocks and nothing may overflow.
pub(crate) fn byte_count(dtype: DType, dims: &Dims) -> std::result::Result<u64, Fault> {
    let elements = dims.elements().filter(|&n| n > 0);
    let elements = elements.ok_or_else(|| Fault::new(format!("dims {dims}"), "from 1 to 2^64 elements"))?;
    let block = dtype.block_len() as u64;
    if !dims[0].is_multiple_of(block) {
        return Err(Fault::new(format!("dims {dims}"), format!("rows of whole {dtype} blocks of {block}")));
    }
    let bytes = (elements / block).checked_mul(dtype.block_bytes() as u64);
    bytes.ok_or_else(|| Fault::new(format!("dims {dims} of {dtype}"), "fewer than 2^64 bytes"))
}

/// Turns the offset into an absolute one and checks the range.
fn place(tensor: &mut TensorInfo, data_start: u64, alignment: u64, file_len: u64) -> std::result::Result<(), Fault> {
    if !tensor.offset.is_multiple_of(alignment) {
        return Err(Fault::new(format!("offset {}", tensor.offset), format!("a multiple of {alignment}")));
    }
    let end = data_start.checked_add(tensor.offset).and_then(|at| at.checked_add(tensor.bytes));
    if end.is_none_or(|end| end > file_len) {
        let found = format!("{} bytes at {data_start} + {}", tensor.bytes, tensor.offset);
        return Err(Fault::new(found, format!("a range inside the file of {file_len} bytes")));
    }
    tensor.offset += data_start;
    Ok(())
}
