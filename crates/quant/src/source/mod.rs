//! The checkpoint as Hugging Face publishes it (gguf.md section 9): shards, their index, and the decoding of every source
//! format to float32. Owns what lies where; knows no GGUF.

mod decode;
mod shard;

use std::{
    collections::{BTreeMap, btree_map},
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::Value;

pub(crate) use decode::{Matrix, Packed, missing};
pub(crate) use shard::{Shard, SourceType, read_at};

use crate::error::{Error, Result, clean, shown};

const INDEX: &str = "model.safetensors.index.json";
const SINGLE: &str = "model.safetensors";
/// Most bytes of a JSON file that are read: the released index has 6 MB, the tokenizer 8 MB.
const MOST_JSON: u64 = 1 << 28;

/// Tensors of a folder by name.
pub(crate) struct Checkpoint {
    folder: PathBuf,
    shards: Vec<Shard>,
    /// Name to shard.
    names: BTreeMap<String, usize>,
}

/// One tensor where it lies.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) dtype: SourceType,
    /// Row-major, slowest first.
    pub(crate) shape: Vec<u64>,
    pub(crate) shard: usize,
    /// From the start of the shard.
    pub(crate) offset: u64,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Checkpoint {
    /// Reads the index and all headers; no weight is touched.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        if !folder.is_dir() {
            let what = if folder.exists() { "a file" } else { "nothing" };
            return Err(Error::invalid(shown(folder), "folder", what, "a folder with safetensors and config.json"));
        }
        let index = folder.join(INDEX);
        if index.exists() {
            return Self::indexed(folder, &index);
        }
        let single = folder.join(SINGLE);
        if !single.exists() {
            return Err(Error::invalid(shown(folder), "folder", format!("no {INDEX}"), format!("it, or {SINGLE}")));
        }
        let shard = Shard::open(&single)?;
        let names = shard.tensors.keys().map(|name| (name.clone(), 0)).collect();
        Ok(Self { folder: folder.to_owned(), shards: vec![shard], names })
    }

    fn indexed(folder: &Path, path: &Path) -> Result<Self> {
        let index: Index = parse(path, &read_json(path)?)?;
        let mut shards = Vec::new();
        let mut numbers = BTreeMap::new();
        let mut names = BTreeMap::new();
        for (name, file) in index.weight_map {
            if Path::new(&file).file_name().is_none_or(|plain| plain != file.as_str()) {
                let (place, expected) = (format!("tensor {}", clean(&name)), "the name of a file beside it");
                return Err(Error::invalid(shown(path), place, clean(&file), expected));
            }
            let number = match numbers.entry(file) {
                btree_map::Entry::Occupied(known) => *known.get(),
                btree_map::Entry::Vacant(new) => {
                    shards.push(Shard::open(&folder.join(new.key()))?);
                    *new.insert(shards.len() - 1)
                }
            };
            if !shards[number].tensors.contains_key(&name) {
                let found = "no such tensor";
                let expected = format!("what {INDEX} says it has");
                return Err(Error::invalid(
                    shown(&shards[number].path),
                    format!("tensor {}", clean(&name)),
                    found,
                    expected,
                ));
            }
            names.insert(name, number);
        }
        Ok(Self { folder: folder.to_owned(), shards, names })
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn shards(&self) -> &[Shard] {
        &self.shards
    }

    pub(crate) fn file_of(&self, entry: &Entry) -> String {
        shown(&self.shards[entry.shard].path)
    }

    /// A tensor by name.
    pub(crate) fn find(&self, name: &str) -> Option<Entry> {
        let &shard = self.names.get(name)?;
        let place = self.shards[shard].tensors.get(name)?;
        Some(Entry {
            name: name.to_owned(),
            dtype: place.dtype,
            shape: place.shape.clone(),
            shard,
            offset: place.offset,
        })
    }

    /// Reads a part of a tensor: `out` is filled from its byte `at`.
    pub(crate) fn read(&self, entry: &Entry, at: u64, out: &mut [u8]) -> Result<()> {
        let shard = &self.shards[entry.shard];
        read_at(&shard.file, out, entry.offset + at).map_err(|e| Error::io(&shard.path, e))
    }
}

/// A whole JSON file, at most [`MOST_JSON`] bytes.
pub(crate) fn read_json(path: &Path) -> Result<Vec<u8>> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    bounded(path, file)
}

/// All of a stream that is JSON of `path`.
pub(crate) fn bounded(path: &Path, stream: impl Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.take(MOST_JSON + 1).read_to_end(&mut bytes).map_err(|e| Error::io(path, e))?;
    if bytes.len() as u64 > MOST_JSON {
        return Err(Error::invalid(shown(path), "file", format!("more than {MOST_JSON} bytes"), "fewer"));
    }
    Ok(bytes)
}

/// JSON of a certain form.
pub(crate) fn parse<T: for<'a> Deserialize<'a>>(path: &Path, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|e| Error::invalid(shown(path), "JSON", clean(&e.to_string()), "what it should hold"))
}

/// JSON of any form.
pub(crate) fn parse_value(path: &Path, bytes: &[u8]) -> Result<Value> {
    parse(path, bytes)
}
