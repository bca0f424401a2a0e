//! The file of a journal: changes of a map, one behind the other, each with its length and checksums.
//!
//! | offset | bytes | header |
//! | --- | --- | --- |
//! | 0 | 8 | `DS4LOG\r\n` |
//! | 8 | 4 | version, 1 |
//! | 12 | 4 | 0 |
//! | 16 | 32 | vocabulary |
//! | 48 | 8 | XXH3 of the 48 bytes before |
//!
//! A record: `u32` bytes of its body; the lower half of the XXH3 of these four, as `u32`; `u64` XXH3 of the body; body. The seed
//! of both hashes is the header's plus the record's offset, so that no record is read in another place or file. A body: 1
//! to put, 2 to remove; `u8` bytes of the key; key; value. Integers are little endian.
//!
//! Records are only ever appended, and counted as there once they are synced. A file of which less than half is alive is
//! written anew under another name, synced, and renamed.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tracing::warn;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::Keeper;

/// What happens to an entry.
#[derive(Debug)]
pub(super) enum Change {
    Put(Box<[u8]>, Vec<u8>),
    Remove(Box<[u8]>),
}

impl Change {
    /// Bytes of its value.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Change::Put(_, value) => value.len(),
            Change::Remove(_) => 0,
        }
    }

    fn body(&self) -> Vec<u8> {
        let (op, key, value) = match self {
            Change::Put(key, value) => (PUT, key, &value[..]),
            Change::Remove(key) => (REMOVE, key, &[][..]),
        };
        [&[op, key.len() as u8], &key[..], value].concat()
    }
}

/// What a file is opened for.
#[derive(Clone, Copy)]
pub(super) enum Mode {
    Read,
    Write {
        /// Dead bytes that a file may always have.
        slack: u64,
        /// Bytes of a file.
        most: u64,
    },
}

/// An open file and what is alive in it.
pub(super) struct Log {
    dir: PathBuf,
    name: String,
    header: [u8; HEADER],
    mode: Mode,
    /// None: there is none to read, and none is to be made.
    file: Option<File>,
    scan: Scan,
    /// Removals that could not be written; they go before the next changes.
    owed: Vec<Change>,
    /// No compaction before the file has this length: the last one failed.
    patience: u64,
}

/// What a file holds.
#[derive(Default)]
struct Scan {
    live: HashMap<Box<[u8]>, Extent>,
    /// Bytes of live records.
    live_bytes: u64,
    /// Where the next record goes.
    end: u64,
    /// Records that are no such, or whose bytes are not theirs.
    damaged: usize,
}

/// A whole record.
#[derive(Clone, Copy)]
struct Extent {
    offset: u64,
    bytes: u64,
}

impl Log {
    /// Opens a file, and makes one if there is none or if it is of another vocabulary. What is behind its last whole record is
    /// cut off; if records are damaged the others are written anew.
    pub(super) fn open(dir: &Path, name: &str, vocabulary: &[u8; 32], mode: Mode) -> io::Result<Log> {
        let header = header(vocabulary);
        let file = match open(&dir.join(name), matches!(mode, Mode::Write { .. })) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let (scan, owed) = (Scan::default(), Vec::new());
        let mut log = Log { dir: dir.to_owned(), name: name.to_owned(), header, mode, file, scan, owed, patience: 0 };
        let foreign = match &log.file {
            Some(file) if read_header(file)? == Some(header) => {
                log.scan = Scan::of(file, &header)?;
                false
            }
            Some(_) => true,
            None => false,
        };
        if foreign {
            warn!(
                journal = name,
                "it is of another vocabulary, or damaged at its beginning: nothing in it can be used"
            );
        }
        if log.scan.damaged > 0 {
            warn!(journal = name, records = log.scan.damaged, "damaged records are left out");
        }
        match mode {
            Mode::Read if foreign => log.file = None,
            Mode::Read => {}
            Mode::Write { .. } if foreign || log.file.is_none() || log.scan.damaged > 0 => log.compact()?,
            Mode::Write { .. } => log.cut()?,
        }
        Ok(log)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn is_writable(&self) -> bool {
        matches!(self.mode, Mode::Write { .. })
    }

    /// Gives `keeper` every entry; those that it does not keep are dead.
    pub(super) fn restore(&mut self, keeper: &mut dyn Keeper) -> io::Result<()> {
        let mut senseless = 0;
        for (key, extent) in self.scan.ordered() {
            let restored = match self.value(&key, extent)? {
                Some(value) => keeper.restore(&key, &value),
                None => false,
            };
            senseless += usize::from(!restored);
        }
        if senseless > 0 {
            warn!(journal = self.name, records = senseless, "records that make no sense are left out");
        }
        for (key, _) in self.scan.ordered() {
            if !keeper.keeps(&key) {
                self.scan.forget(&key);
            }
        }
        if self.is_writable() { self.compact_if_due() } else { Ok(()) }
    }

    /// Makes changes durable: all of them, or none but the removals, which are tried again.
    pub(super) fn append(&mut self, changes: Vec<Change>) -> io::Result<()> {
        let changes: Vec<Change> = self.owed.drain(..).chain(changes).collect();
        if changes.is_empty() {
            return Ok(());
        }
        let start = self.scan.end;
        let (mut bytes, mut extents) = (Vec::new(), Vec::with_capacity(changes.len()));
        for change in &changes {
            let offset = start + bytes.len() as u64;
            let record = record(&self.header, offset, &change.body());
            extents.push(Extent { offset, bytes: record.len() as u64 });
            bytes.extend(record);
        }
        if let Err(error) = self.write(start, &bytes) {
            self.owed = changes.into_iter().filter(|change| matches!(change, Change::Remove(_))).collect();
            // If this fails, too, the checksums tell.
            let _ = self.cut();
            return Err(error);
        }
        self.scan.end += bytes.len() as u64;
        for (change, extent) in changes.into_iter().zip(extents) {
            match change {
                Change::Put(key, _) => self.scan.put(key, extent),
                Change::Remove(key) => self.scan.forget(&key),
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let Mode::Write { most, .. } = self.mode else { return Err(io::ErrorKind::ReadOnlyFilesystem.into()) };
        let mut file = self.file.as_ref().ok_or(io::ErrorKind::NotFound)?;
        if offset + bytes.len() as u64 > most {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        if spare(&self.dir) < bytes.len() as u64 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        file.seek(SeekFrom::Start(offset))?;
        file.write_all(bytes)?;
        file.sync_data()
    }

    /// Removes what is behind the last whole record.
    fn cut(&self) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        if file.metadata()?.len() == self.scan.end {
            return Ok(());
        }
        file.set_len(self.scan.end)?;
        file.sync_data()
    }

    /// Writes the file anew if more of it is dead than alive.
    pub(super) fn compact_if_due(&mut self) -> io::Result<()> {
        let Mode::Write { slack, .. } = self.mode else { return Ok(()) };
        let dead = self.scan.end.saturating_sub(HEADER as u64 + self.scan.live_bytes);
        if dead <= slack.max(self.scan.live_bytes) || self.scan.end < self.patience {
            return Ok(());
        }
        let done = self.compact();
        self.patience = if done.is_err() { self.scan.end + self.scan.end / 4 } else { 0 };
        done
    }

    fn compact(&mut self) -> io::Result<()> {
        let temporary = self.dir.join(format!("{}.tmp", self.name));
        let done = self.copy(&temporary).and_then(|(file, scan)| {
            fs::rename(&temporary, self.dir.join(&self.name))?;
            sync_dir(&self.dir)?;
            Ok((file, scan))
        });
        match done {
            Ok((file, scan)) => {
                (self.file, self.scan) = (Some(file), scan);
                Ok(())
            }
            Err(error) => {
                // The next one removes it otherwise.
                let _ = fs::remove_file(&temporary);
                Err(error)
            }
        }
    }

    /// Everything that is alive, in a new file.
    fn copy(&self, path: &Path) -> io::Result<(File, Scan)> {
        if spare(&self.dir) < self.scan.live_bytes {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = create(path)?;
        let mut out = io::BufWriter::new(&file);
        out.write_all(&self.header)?;
        let mut scan = Scan { end: HEADER as u64, ..Scan::default() };
        for (key, extent) in self.scan.ordered() {
            // What has been damaged since is not worth the rest.
            let Some(value) = self.value(&key, extent)? else { continue };
            let record = record(&self.header, scan.end, &Change::Put(key.clone(), value).body());
            out.write_all(&record)?;
            scan.put(key, Extent { offset: scan.end, bytes: record.len() as u64 });
            scan.end += record.len() as u64;
        }
        out.flush()?;
        drop(out);
        file.sync_all()?;
        Ok((file, scan))
    }

    /// The value of a live record; none if it is damaged.
    fn value(&self, key: &[u8], extent: Extent) -> io::Result<Option<Vec<u8>>> {
        let Some(mut file) = self.file.as_ref() else { return Ok(None) };
        file.seek(SeekFrom::Start(extent.offset))?;
        let read = Record::read(&mut file, &self.header, extent.offset, extent.bytes)?;
        let Record::Whole(body) = read else { return Ok(None) };
        Ok(match parse(&body) {
            Some((PUT, found, value)) if found == key => Some(value.to_vec()),
            _ => None,
        })
    }
}

impl Scan {
    fn of(file: &File, header: &[u8; HEADER]) -> io::Result<Scan> {
        let length = file.metadata()?.len();
        let mut scan = Scan { end: HEADER as u64, ..Scan::default() };
        let mut input = io::BufReader::with_capacity(1 << 20, file);
        input.seek(SeekFrom::Start(scan.end))?;
        while scan.end < length {
            let offset = scan.end;
            match Record::read(&mut input, header, offset, length - offset)? {
                Record::Whole(body) => {
                    let bytes = (HEAD + body.len()) as u64;
                    match parse(&body) {
                        Some((PUT, key, _)) => scan.put(key.into(), Extent { offset, bytes }),
                        Some((_, key, _)) => scan.forget(key),
                        None => scan.damaged += 1,
                    }
                    scan.end += bytes;
                }
                Record::Damaged(bytes) => {
                    scan.damaged += 1;
                    scan.end += bytes;
                }
                Record::Cut => break,
                Record::None => {
                    // Nobody knows where the next one begins.
                    scan.damaged += 1;
                    break;
                }
            }
        }
        Ok(scan)
    }

    fn put(&mut self, key: Box<[u8]>, extent: Extent) {
        self.forget(&key);
        self.live_bytes += extent.bytes;
        self.live.insert(key, extent);
    }

    fn forget(&mut self, key: &[u8]) {
        if let Some(extent) = self.live.remove(key) {
            self.live_bytes -= extent.bytes;
        }
    }

    /// Live records in the order in which they were written.
    fn ordered(&self) -> Vec<(Box<[u8]>, Extent)> {
        let mut all: Vec<_> = self.live.iter().map(|(key, extent)| (key.clone(), *extent)).collect();
        all.sort_by_key(|(_, extent)| extent.offset);
        all
    }
}

/// What stands at an offset.
enum Record {
    /// A body with its checksum.
    Whole(Vec<u8>),
    /// So many bytes that are not what was written.
    Damaged(u64),
    /// The beginning of a record.
    Cut,
    /// Something else.
    None,
}

impl Record {
    /// Reads at most `room` bytes. Nothing is allocated before a length has its checksum and fits.
    fn read(input: &mut impl Read, header: &[u8; HEADER], offset: u64, room: u64) -> io::Result<Record> {
        let mut head = [0; HEAD];
        if room < HEAD as u64 {
            return Ok(Record::Cut);
        }
        input.read_exact(&mut head)?;
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        if head[..8] != length_field(header, offset, length) || length as usize > MAX_BODY {
            // Files grow before they are filled: a block of zeros is a beginning, too.
            return Ok(if head == [0; HEAD] { Record::Cut } else { Record::None });
        }
        if u64::from(length) > room - HEAD as u64 {
            return Ok(Record::Cut);
        }
        let mut body = Vec::new();
        body.try_reserve_exact(length as usize)?;
        body.resize(length as usize, 0);
        input.read_exact(&mut body)?;
        let sum = xxh3_64_with_seed(&body, seed(header, offset));
        Ok(if head[8..] == sum.to_le_bytes() {
            Record::Whole(body)
        } else {
            Record::Damaged((HEAD + body.len()) as u64)
        })
    }
}

/// What is wrong with a file; nothing if there is none.
pub(super) fn verify(dir: &Path, name: &str) -> io::Result<Option<String>> {
    let file = match open(&dir.join(name), false) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let Some(header) = read_header(&file)? else { return Ok(Some("no header of a journal".to_owned())) };
    let damaged = Scan::of(&file, &header)?.damaged;
    Ok((damaged > 0).then(|| format!("{damaged} damaged records")))
}

fn header(vocabulary: &[u8; 32]) -> [u8; HEADER] {
    let mut out = [0; HEADER];
    out[..8].copy_from_slice(MAGIC);
    out[8..12].copy_from_slice(&VERSION.to_le_bytes());
    out[16..48].copy_from_slice(vocabulary);
    let sum = xxh3_64(&out[..48]);
    out[48..].copy_from_slice(&sum.to_le_bytes());
    out
}

/// The header, if it is one.
fn read_header(mut file: &File) -> io::Result<Option<[u8; HEADER]>> {
    let mut found = [0; HEADER];
    if file.metadata()?.len() < HEADER as u64 {
        return Ok(None);
    }
    file.seek(SeekFrom::Start(0))?;
    file.read_exact(&mut found)?;
    let vocabulary: &[u8; 32] = found[16..48].try_into().expect("it is that long");
    Ok((header(vocabulary) == found).then_some(found))
}

fn record(header: &[u8; HEADER], offset: u64, body: &[u8]) -> Vec<u8> {
    let sum = xxh3_64_with_seed(body, seed(header, offset)).to_le_bytes();
    [&length_field(header, offset, body.len() as u32), &sum[..], body].concat()
}

/// A length and what proves it.
pub(super) fn length_field(header: &[u8; HEADER], offset: u64, length: u32) -> [u8; 8] {
    let bytes = length.to_le_bytes();
    let sum = xxh3_64_with_seed(&bytes, seed(header, offset)) as u32;
    (u64::from(sum) << 32 | u64::from(length)).to_le_bytes()
}

fn seed(header: &[u8; HEADER], offset: u64) -> u64 {
    xxh3_64(header).wrapping_add(offset)
}

/// What to do, key and value.
fn parse(body: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[op, length], rest) = body.split_first_chunk()?;
    let (key, value) = rest.split_at_checked(length.into())?;
    (op == PUT || op == REMOVE).then_some((op, key, value))
}

/// A file for the owner alone, and never through a link.
#[cfg(unix)]
fn options() -> OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;

    let mut options = OpenOptions::new();
    options.mode(0o600).custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32);
    options
}

/// Windows gives a file the rights of its folder, and lets administrators alone make links.
#[cfg(not(unix))]
fn options() -> OpenOptions {
    OpenOptions::new()
}

fn open(path: &Path, write: bool) -> io::Result<File> {
    let file = options().read(true).write(write).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("not a file")) }
}

fn create(path: &Path) -> io::Result<File> {
    match options().read(true).write(true).create_new(true).open(path) {
        // Left by a process that was killed.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(path)?;
            options().read(true).write(true).create_new(true).open(path)
        }
        other => other,
    }
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
}

/// Bytes that may still be written before less than a twentieth of the file system is free.
#[cfg(unix)]
fn spare(dir: &Path) -> u64 {
    if cfg!(test) {
        return u64::MAX; // whatever the machine has: tests set limits of their own
    }
    let Ok(stat) = rustix::fs::statvfs(dir) else { return u64::MAX };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    free.saturating_sub(stat.f_blocks.saturating_mul(stat.f_frsize) / 20)
}

/// Where it cannot be told, a full file system says so itself.
#[cfg(not(unix))]
fn spare(_dir: &Path) -> u64 {
    u64::MAX
}

const MAGIC: &[u8; 8] = b"DS4LOG\r\n";
const VERSION: u32 = 1;
pub(super) const HEADER: usize = 56;
/// Bytes of a record before its body.
const HEAD: usize = 16;
const PUT: u8 = 1;
const REMOVE: u8 = 2;
/// Bytes of a value.
pub(super) const MAX_VALUE: usize = 64 << 20;
/// Bytes of a body: a value and the longest key.
const MAX_BODY: usize = MAX_VALUE + 257;
