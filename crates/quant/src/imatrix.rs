//! Importance matrices (`.dat`, gguf.md section 8): how much each input column of a tensor was used. Owns the reading and
//! the lookup; values stay in the file until they are asked for.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    time::SystemTime,
};

use crate::{
    error::{Error, Result, clean, shown},
    source::read_at,
};

/// Longest name of an entry or a data set.
const MOST_NAME: u64 = 4096;

/// An open file: entries by name.
#[derive(Debug)]
pub(crate) struct Imatrix {
    path: PathBuf,
    file: File,
    entries: HashMap<String, Values>,
    pub(crate) chunks: Option<u64>,
    pub(crate) dataset: Option<String>,
    /// What tells a changed file from the same one.
    pub(crate) identity: String,
}

#[derive(Clone, Copy, Debug)]
struct Values {
    calls: i32,
    offset: u64,
    count: u64,
}

impl Imatrix {
    /// Reads names and places; every value is within the file.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::io(path, e))?;
        let meta = file.metadata().map_err(|e| Error::io(path, e))?;
        if !meta.is_file() {
            return Err(Error::invalid(shown(path), "file", "no regular file", "an imatrix"));
        }
        let mut from = Input { path, stream: BufReader::new(&file), at: 0, len: meta.len() };
        let n = from.count("entry count")?;
        let mut entries = HashMap::new();
        for i in 0..n {
            let name = from.text(&format!("name of entry {i}"))?;
            let place = format!("entry {}", clean(&name));
            let calls = from.i32(&place)?;
            let count = from.count(&place)?;
            let values = Values { calls, offset: from.at, count };
            from.skip(4 * count, &place)?;
            if entries.insert(name, values).is_some() {
                return Err(Error::invalid(shown(path), place, "a second entry", "one"));
            }
        }
        let (mut chunks, mut dataset) = (None, None);
        if from.at < from.len {
            chunks = Some(from.count("chunk count")?);
            dataset = (from.at < from.len).then(|| from.text("data set name")).transpose()?;
        }
        let changed = meta.modified().ok().and_then(|t| t.duration_since(SystemTime::UNIX_EPOCH).ok());
        let identity = format!("{} {} {}", shown(path), meta.len(), changed.map_or(0, |t| t.as_nanos()));
        Ok(Self { path: path.to_owned(), entries, chunks, dataset, identity, file })
    }

    /// Number of entries.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The file's name without its folders.
    pub(crate) fn file_name(&self) -> String {
        self.path.file_name().map_or_else(String::new, |name| clean(&name.to_string_lossy()))
    }

    /// The values of one matrix with `n_in` columns: of expert `e` of `n`, if it is one. `None` if no entry has a
    /// name among `names`, in this order.
    pub(crate) fn columns(
        &self,
        names: &[String],
        n_in: usize,
        expert: Option<(usize, usize)>,
    ) -> Result<Option<Vec<f32>>> {
        for name in names {
            let own = expert.iter().flat_map(|(e, _)| [format!("{name}.expert.{e}"), format!("{name}.expert_{e}")]);
            let found = own.chain([name.clone()]).find_map(|name| self.entries.get(&name).map(|v| (name, *v)));
            let Some((name, values)) = found else { continue };
            let (n_in, packed) = (n_in as u64, expert.map_or(1, |(_, n)| n as u64) * n_in as u64);
            let first = match expert {
                _ if values.count == n_in => 0,
                Some((e, _)) if values.count == packed => e as u64 * n_in,
                _ => {
                    let expected = if packed == n_in { format!("{n_in}") } else { format!("{n_in} or {packed}") };
                    let found = format!("{} values", values.count);
                    return Err(Error::invalid(shown(&self.path), format!("entry {}", clean(&name)), found, expected));
                }
            };
            return self.read(&name, values, first, n_in as usize).map(Some);
        }
        Ok(None)
    }

    fn read(&self, name: &str, values: Values, first: u64, n: usize) -> Result<Vec<f32>> {
        let mut raw = vec![0; 4 * n];
        read_at(&self.file, &mut raw, values.offset + 4 * first).map_err(|e| Error::io(&self.path, e))?;
        let divisor = if values.calls > 0 { values.calls as f32 } else { 1.0 };
        let columns: Vec<f32> = raw.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b) / divisor).collect();
        match columns.iter().position(|v| !v.is_finite() || *v < 0.0) {
            None => Ok(columns),
            Some(i) => {
                let (place, found) =
                    (format!("entry {}", clean(name)), format!("{} at {}", columns[i], first + i as u64));
                Err(Error::invalid(shown(&self.path), place, found, "a finite number that is not negative"))
            }
        }
    }
}

/// The file from its beginning, never read beyond its end.
struct Input<'a> {
    path: &'a Path,
    stream: BufReader<&'a File>,
    at: u64,
    len: u64,
}

impl Input<'_> {
    fn ends(&self, place: &str) -> Error {
        Error::invalid(shown(self.path), place.to_owned(), "the end of the file", "more of it (is it truncated?)")
    }

    fn i32(&mut self, place: &str) -> Result<i32> {
        if self.len - self.at < 4 {
            return Err(self.ends(place));
        }
        let mut bytes = [0; 4];
        self.stream.read_exact(&mut bytes).map_err(|e| Error::io(self.path, e))?;
        self.at += 4;
        Ok(i32::from_le_bytes(bytes))
    }

    fn count(&mut self, place: &str) -> Result<u64> {
        let n = self.i32(place)?;
        u64::try_from(n).map_err(|_| Error::invalid(shown(self.path), place.to_owned(), n.to_string(), "a count"))
    }

    fn text(&mut self, place: &str) -> Result<String> {
        let n = self.count(place)?;
        if n > MOST_NAME {
            let expected = format!("at most {MOST_NAME}");
            return Err(Error::invalid(shown(self.path), place.to_owned(), format!("{n} bytes"), expected));
        }
        if self.len - self.at < n {
            return Err(self.ends(place));
        }
        let mut bytes = vec![0; n as usize];
        self.stream.read_exact(&mut bytes).map_err(|e| Error::io(self.path, e))?;
        self.at += n;
        String::from_utf8(bytes)
            .map_err(|_| Error::invalid(shown(self.path), place.to_owned(), "bytes that are no UTF-8", "a name"))
    }

    fn skip(&mut self, n: u64, place: &str) -> Result<()> {
        if self.len - self.at < n {
            return Err(self.ends(place));
        }
        self.at += n;
        let seek = |e: io::Error| Error::io(self.path, e);
        self.stream.seek(SeekFrom::Start(self.at)).map(|_| ()).map_err(seek)
    }
}
