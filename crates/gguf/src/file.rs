//! An open model file: the mapping and its checked header. Owns the bytes' lifetime; tensors share them.

use std::{
    fs::{self, File},
    path::Path,
    sync::Arc,
};

use bytes::Bytes;
use memmap2::{Mmap, MmapMut};

use crate::{
    Metadata, Tensor, TensorInfo,
    error::{Error, Fault, Result, shown},
    header::Header,
};

/// A GGUF v3 file, mapped or in memory. Cloning shares everything.
#[derive(Clone)]
pub struct Gguf(Arc<Inner>);

struct Inner {
    name: Arc<str>,
    bytes: Bytes,
    header: Header,
}

/// Tensor data starts at addresses divisible by this: the least alignment a file may have, and enough to read any number.
const MEMORY_ALIGNMENT: usize = 8;

impl Gguf {
    /// Maps a file and checks its whole header. Tensor data is not touched.
    ///
    /// The file must not be changed while it is open: a shortened file would end the process when its pages are read.
    pub fn open(path: &Path) -> Result<Self> {
        let name = shown(&path.display().to_string());
        // Asked before opening, because opening a pipe waits for its other end.
        let kind = fs::metadata(path).map_err(|e| Error::io(&name, e))?;
        if !kind.is_file() {
            let found = if kind.is_dir() { "a directory" } else { "a special file" };
            return Err(Fault::new(found, "a GGUF file").at(&name, "file"));
        }
        if kind.len() == 0 {
            return Err(Fault::new("0 bytes", "a GGUF file").at(&name, "file"));
        }
        let file = File::open(path).map_err(|e| Error::io(&name, e))?;
        // SAFETY: the mapping is read only. That nobody changes the file meanwhile cannot be checked and is asked of the
        // caller; headers are validated once and read again only through functions that cannot leave the mapping.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| Error::io(&name, e))?;
        Self::parse(name.into(), Bytes::from_owner(map))
    }

    /// The same for bytes in memory; `name` stands for the file in messages. Bytes at an odd address are copied once.
    pub fn from_bytes(name: &str, bytes: Bytes) -> Result<Self> {
        let name = shown(name);
        let bytes = aligned(bytes).map_err(|e| Error::io(&name, e))?;
        Self::parse(name.into(), bytes)
    }

    fn parse(name: Arc<str>, bytes: Bytes) -> Result<Self> {
        let header = Header::read(&name, &bytes)?;
        Ok(Self(Arc::new(Inner { name, bytes, header })))
    }

    /// The path, or the name given to [`Gguf::from_bytes`].
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The metadata records.
    pub fn metadata(&self) -> &Metadata {
        &self.0.header.metadata
    }

    /// A tensor by its full name, its data shared with the mapping.
    pub fn tensor(&self, name: &str) -> Option<Tensor> {
        let info = &self.tensors()[*self.0.header.index.get(name)?];
        let start = info.offset as usize;
        let data = self.0.bytes.slice(start..start + info.bytes as usize);
        Some(Tensor { name: info.name.clone(), dtype: info.dtype, dims: info.dims, data })
    }

    /// The directory in file order.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.0.header.tensors
    }

    /// Size of the whole file.
    pub fn file_bytes(&self) -> u64 {
        self.0.bytes.len() as u64
    }

    /// Where tensor data begins.
    pub fn data_start(&self) -> u64 {
        self.0.header.data_start
    }

    /// The whole file, shared with the mapping.
    pub fn bytes(&self) -> Bytes {
        self.0.bytes.clone()
    }
}

impl std::fmt::Debug for Gguf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gguf({}, {} tensors)", self.name(), self.tensors().len())
    }
}

/// Embedded bytes may lie anywhere; kernels want to read rows of floats in place.
fn aligned(bytes: Bytes) -> std::io::Result<Bytes> {
    if bytes.is_empty() || bytes.as_ptr().addr().is_multiple_of(MEMORY_ALIGNMENT) {
        return Ok(bytes);
    }
    let mut copy = MmapMut::map_anon(bytes.len())?;
    copy.copy_from_slice(&bytes);
    Ok(Bytes::from_owner(copy.make_read_only()?))
}
