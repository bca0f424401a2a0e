//! Where everything of a file to be written goes. Owns the header's bytes and the offsets; the caller writes the tensors,
//! in any order and from any thread, or leaves holes.

use std::collections::HashSet;

use crate::{
    DType, Dims, OwnedValue,
    error::{Fault, Result, shown},
    header::{ALIGNMENT_KEY, MAGIC, VERSION, byte_count, check_alignment},
    value::write_str,
};

/// Alignment of files that do not say otherwise (`general.alignment`).
pub const DEFAULT_ALIGNMENT: u32 = 32;

/// The plan of a file. Each tensor starts at, and is padded to, a multiple of the alignment.
#[derive(Clone, Debug)]
pub struct Layout {
    header: Vec<u8>,
    tensors: Vec<Place>,
    file_len: u64,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    offset: u64,
    bytes: u64,
}

impl Layout {
    /// Plans a file with these records and tensors, in this order. An alignment other than 32 is added to the records.
    ///
    /// Errors: a key or tensor named twice, rows that are not whole blocks, no elements, sizes beyond 2^64, a bad alignment,
    /// or one that contradicts the records.
    pub fn new(
        mut metadata: Vec<(String, OwnedValue)>,
        tensors: Vec<(String, DType, Dims)>,
        alignment: u32,
    ) -> Result<Self> {
        check_alignment(alignment).map_err(|e| e.in_layout("alignment"))?;
        state_alignment(&mut metadata, alignment)?;
        let mut header = Vec::new();
        header.extend(MAGIC);
        header.extend(VERSION.to_le_bytes());
        header.extend((tensors.len() as u64).to_le_bytes());
        header.extend((metadata.len() as u64).to_le_bytes());
        write_records(&mut header, &metadata)?;
        let (mut places, data_len) = write_directory(&mut header, tensors, u64::from(alignment))?;
        header.resize(header.len().next_multiple_of(alignment as usize), 0);
        let start = header.len() as u64;
        for place in &mut places {
            place.offset += start;
        }
        let file_len = start.checked_add(data_len).ok_or_else(|| too_long().in_layout("file"))?;
        Ok(Self { header, tensors: places, file_len })
    }

    /// The file's first bytes, through the padding before the data.
    pub fn header(&self) -> &[u8] {
        &self.header
    }

    /// Where tensor data begins: the length of [`Layout::header`].
    pub fn data_start(&self) -> u64 {
        self.header.len() as u64
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// True for a file without tensors.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// First byte of tensor `i`, counted from the start of the file.
    pub fn offset(&self, i: usize) -> u64 {
        self.tensors[i].offset
    }

    /// Bytes of tensor `i` without padding.
    pub fn tensor_bytes(&self, i: usize) -> u64 {
        self.tensors[i].bytes
    }

    /// Bytes of the whole file, the last tensor's padding included.
    pub fn file_len(&self) -> u64 {
        self.file_len
    }
}

fn too_long() -> Fault {
    Fault::new("more than 2^64 bytes", "fewer")
}

fn state_alignment(metadata: &mut Vec<(String, OwnedValue)>, alignment: u32) -> Result<()> {
    match metadata.iter().find(|(key, _)| key == ALIGNMENT_KEY) {
        Some((_, OwnedValue::U32(n))) if *n == alignment => {}
        Some((_, other)) => {
            let fault = Fault::new(format!("{other:?}"), format!("u32 {alignment}"));
            return Err(fault.in_layout(format!("key {ALIGNMENT_KEY}")));
        }
        None if alignment != DEFAULT_ALIGNMENT => metadata.push((ALIGNMENT_KEY.to_owned(), alignment.into())),
        None => {}
    }
    Ok(())
}

fn write_records(out: &mut Vec<u8>, metadata: &[(String, OwnedValue)]) -> Result<()> {
    let mut seen = HashSet::new();
    for (key, value) in metadata {
        if !seen.insert(key) {
            return Err(Fault::new("a second record", "one").in_layout(format!("key {}", shown(key))));
        }
        write_str(out, key);
        value.write(out);
    }
    Ok(())
}

/// Offsets relative to the data, and the data's length.
fn write_directory(
    out: &mut Vec<u8>,
    tensors: Vec<(String, DType, Dims)>,
    alignment: u64,
) -> Result<(Vec<Place>, u64)> {
    let mut seen = HashSet::new();
    let mut places = Vec::with_capacity(tensors.len());
    let mut end = 0_u64;
    for (name, dtype, dims) in tensors {
        let place = || format!("tensor {}", shown(&name));
        if seen.contains(&name) {
            return Err(Fault::new("a second entry", "one").in_layout(place()));
        }
        let bytes = byte_count(dtype, &dims).map_err(|e| e.in_layout(place()))?;
        write_str(out, &name);
        out.extend((dims.len() as u32).to_le_bytes());
        out.extend(dims.iter().flat_map(|d| d.to_le_bytes()));
        out.extend(dtype.id().to_le_bytes());
        out.extend(end.to_le_bytes());
        places.push(Place { offset: end, bytes });
        let next = end.checked_add(bytes).and_then(|n| n.checked_next_multiple_of(alignment));
        end = next.ok_or_else(|| too_long().in_layout(place()))?;
        seen.insert(name);
    }
    Ok((places, end))
}

/// Writes all of `bytes` at `offset`, whatever other threads do with the same file: for writers of a planned file.
///
/// Errors: the system's refusals.
#[cfg(unix)]
pub fn write_at(file: &std::fs::File, bytes: &[u8], offset: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

/// Writes all of `bytes` at `offset`, whatever other threads do with the same file: for writers of a planned file.
///
/// Errors: the system's refusals.
#[cfg(windows)]
pub fn write_at(file: &std::fs::File, mut bytes: &[u8], mut offset: u64) -> std::io::Result<()> {
    while !bytes.is_empty() {
        let n = std::os::windows::fs::FileExt::seek_write(file, bytes, offset)?;
        if n == 0 {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[n..];
        offset += n as u64;
    }
    Ok(())
}
