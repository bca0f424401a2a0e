//! One safetensors file: u64 length, JSON header, data. Owns the header's checks; a shard that passes them has every byte
//! that its header promises.

use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, IgnoredAny, MapAccess, Visitor},
};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result, clean, shown};

/// Most bytes of a header: the format's own limit.
const MOST_HEADER: u64 = 100_000_000;

/// Storage formats of checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[expect(non_camel_case_types, reason = "spelt as in the files")]
pub(crate) enum SourceType {
    F32,
    F16,
    BF16,
    F8_E4M3,
    F8_E8M0,
    /// Two four-bit floats a byte.
    F4,
    I8,
    U8,
    I32,
    I64,
    /// Known to the format, of no use here.
    #[serde(other)]
    Unknown,
}

/// An open file and what its header says.
pub(crate) struct Shard {
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    pub(crate) tensors: BTreeMap<String, Place>,
    /// File length, time of change and hash of the header: what tells a changed shard from the same one.
    pub(crate) identity: String,
}

/// One tensor of a shard.
pub(crate) struct Place {
    pub(crate) dtype: SourceType,
    pub(crate) shape: Vec<u64>,
    /// From the start of the file.
    pub(crate) offset: u64,
}

#[derive(Deserialize)]
struct Record {
    dtype: SourceType,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// The header's object: tensors by name, each once; `__metadata__` is of no use here.
struct Header(BTreeMap<String, Record>);

impl Shard {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let bad = |place: String, found: String, expected: String| Error::invalid(shown(path), place, found, expected);
        let meta = path.metadata().map_err(|e| Error::io(path, e))?;
        if !meta.is_file() {
            return Err(bad("file".into(), "no regular file".into(), "safetensors".into()));
        }
        let file = File::open(path).map_err(|e| Error::io(path, e))?;
        let mut length = [0; 8];
        if meta.len() < 8 {
            return Err(bad("file".into(), format!("{} bytes", meta.len()), "safetensors".into()));
        }
        read_at(&file, &mut length, 0).map_err(|e| Error::io(path, e))?;
        let length = u64::from_le_bytes(length);
        if length > MOST_HEADER || length > meta.len() - 8 {
            let expected = format!("at most {}", MOST_HEADER.min(meta.len() - 8));
            return Err(bad("header".into(), format!("a length of {length} bytes"), expected));
        }
        let mut json = vec![0; length as usize];
        read_at(&file, &mut json, 8).map_err(|e| Error::io(path, e))?;
        let Header(records) = serde_json::from_slice(&json)
            .map_err(|e| bad("header".into(), clean(&e.to_string()), "tensors by name".into()))?;
        let (start, data) = (8 + length, meta.len() - 8 - length);
        let mut tensors = BTreeMap::new();
        let mut ends = 0;
        for (name, record) in records {
            let place = place(&record, start, data)
                .map_err(|(found, expected)| bad(format!("tensor {}", clean(&name)), found, expected))?;
            ends = ends.max(record.data_offsets.1);
            tensors.insert(name, place);
        }
        if ends != data {
            return Err(bad(
                "file".into(),
                format!("{data} bytes of data"),
                format!("{ends}, where its last tensor ends"),
            ));
        }
        let changed = meta.modified().ok().and_then(|t| t.duration_since(SystemTime::UNIX_EPOCH).ok());
        let nanos = changed.map_or(0, |t| t.as_nanos());
        let identity = format!("{} {} {nanos} {:x}", shown(path), meta.len(), Sha256::digest(&json));
        Ok(Self { path: path.to_owned(), file, tensors, identity })
    }
}

/// Checks a record against the data there is; else what was found and what was expected.
fn place(record: &Record, start: u64, data: u64) -> std::result::Result<Place, (String, String)> {
    let (from, to) = record.data_offsets;
    if from > to || to > data {
        return Err((
            format!("bytes {from} to {to}"),
            format!("them within the {data} bytes of data (is it truncated?)"),
        ));
    }
    if let Some(bits) = record.dtype.bits() {
        let elements = record.shape.iter().try_fold(1_u64, |n, &d| n.checked_mul(d));
        let bytes =
            elements.and_then(|n| n.checked_mul(bits)).filter(|bits| bits.is_multiple_of(8)).map(|bits| bits / 8);
        if bytes != Some(to - from) {
            let expected = bytes.map_or("fewer elements".to_owned(), |n| format!("{n}"));
            return Err((format!("{} bytes for {:?} of {}", to - from, record.shape, record.dtype), expected));
        }
    }
    Ok(Place { dtype: record.dtype, shape: record.shape.clone(), offset: start + from })
}

impl SourceType {
    /// Bits of an element; `None` if the type is not known.
    pub(crate) fn bits(self) -> Option<u64> {
        Some(match self {
            Self::F4 => 4,
            Self::F8_E4M3 | Self::F8_E8M0 | Self::I8 | Self::U8 => 8,
            Self::F16 | Self::BF16 => 16,
            Self::F32 | Self::I32 => 32,
            Self::I64 => 64,
            Self::Unknown => return None,
        })
    }
}

impl fmt::Display for SourceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("an unknown type"),
            known => write!(f, "{known:?}"),
        }
    }
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        struct Tensors;

        impl<'de> Visitor<'de> for Tensors {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Header, A::Error> {
                let mut records = BTreeMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    let record = map.next_value()?;
                    let place = clean(&name);
                    if records.insert(name, record).is_some() {
                        return Err(A::Error::custom(format!("tensor {place} twice")));
                    }
                }
                Ok(Header(records))
            }
        }

        from.deserialize_map(Tensors)
    }
}

/// Fills `out` from byte `at`, whatever other threads read meanwhile.
#[cfg(unix)]
pub(crate) fn read_at(file: &File, out: &mut [u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, out, at)
}

/// Fills `out` from byte `at`, whatever other threads read meanwhile.
#[cfg(windows)]
pub(crate) fn read_at(file: &File, mut out: &mut [u8], mut at: u64) -> io::Result<()> {
    while !out.is_empty() {
        let n = std::os::windows::fs::FileExt::seek_read(file, out, at)?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        out = &mut out[n..];
        at += n as u64;
    }
    Ok(())
}
