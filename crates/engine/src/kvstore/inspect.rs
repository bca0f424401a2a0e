//! A look at a store from outside: what objects are there, whether they are sound, away with them. Reads files; needs no
//! model.

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::directory::{LOCK, parse_name};
use super::disk::{Disk, KvFaults};
use super::files::{Entry, Folder};
use super::format::{Bad, HEADER, Header, Kind, KvRole, MOST, decode};
use super::index::Index;
use crate::{Error, Result};

/// An object of a store, as its header describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvObject {
    /// Its file name.
    pub name: String,
    /// Why it was written, for a checkpoint; nothing for a segment.
    pub role: Option<KvRole>,
    /// First token of a segment.
    pub start: u32,
    /// Tokens before its end.
    pub end: u32,
    /// Whose it is.
    pub tenant: u64,
    /// Identity of the model.
    pub fingerprint: [u8; 32],
    /// Storage type of the model's routed experts, as its GGUF number.
    pub quant: u8,
    /// File name of the segment before it, or of a checkpoint's last one; nothing at the beginning.
    pub parent: Option<String>,
    /// Bytes of its file.
    pub bytes: u64,
    /// Bytes of its payload, unpacked.
    pub payload: u64,
    /// When it was written.
    pub created: SystemTime,
    /// When it was last used.
    pub used: SystemTime,
}

impl KvObject {
    /// Reads and checks a whole object.
    ///
    /// # Errors
    /// `KvStore` with what is wrong.
    pub fn parse(file: &[u8]) -> Result<KvObject> {
        let (header, _) = decode(file).map_err(|Bad(what)| Error::KvStore(what.to_owned()))?;
        Ok(KvObject::of(&header, UNIX_EPOCH))
    }

    fn of(header: &Header, used: SystemTime) -> KvObject {
        let parent = Header { kind: Kind::Segment, key: header.parent, ..*header };
        KvObject {
            name: header.name(),
            role: header.role,
            start: header.start,
            end: header.end,
            tenant: header.owner.tenant,
            fingerprint: header.owner.fingerprint,
            quant: header.quant,
            parent: (header.parent != super::key::Key::NONE).then(|| parent.name()),
            bytes: header.file_bytes(),
            payload: header.raw,
            created: UNIX_EPOCH.checked_add(Duration::from_secs(header.created)).unwrap_or(UNIX_EPOCH),
            used,
        }
    }
}

/// Objects with a sound header, checkpoints first, by position. Needs no lock.
///
/// # Errors
/// `KvStore` if the directory cannot be read.
pub fn kv_list(dir: &Path) -> Result<Vec<KvObject>> {
    let disk = Disk::new(Box::new(Folder::new(dir)), KvFaults::default());
    let mut out: Vec<KvObject> = Vec::new();
    for entry in objects(&disk, dir)? {
        if let Ok(header) = header(&disk, &entry) {
            out.push(KvObject::of(&header, entry.modified));
        }
    }
    out.sort_by(|a, b| (a.role.is_none(), a.end, &a.name).cmp(&(b.role.is_none(), b.end, &b.name)));
    Ok(out)
}

/// Reads every object. File names and what is wrong with them; segments that no checkpoint needs are named too.
///
/// # Errors
/// `KvStore` if the directory cannot be read.
pub fn kv_verify(dir: &Path) -> Result<Vec<(String, String)>> {
    let disk = Disk::new(Box::new(Folder::new(dir)), KvFaults::default());
    let mut index = Index::default();
    let (mut out, mut tails, mut segments) = (Vec::new(), Vec::new(), Vec::new());
    for entry in objects(&disk, dir)? {
        let sound = header(&disk, &entry).and_then(|header| {
            let file = disk.read(&entry.name, HEADER as u64 + MOST).map_err(|error| error.to_string())?;
            decode(&file).map_err(|Bad(what)| what.to_owned()).map(|_| header)
        });
        match sound {
            Ok(header) if header.kind == Kind::Tail => tails.push(header),
            Ok(header) => {
                index.add_segment(header);
                segments.push(header);
            }
            Err(what) => out.push((entry.name, what)),
        }
    }
    for tail in tails {
        if index.is_whole(&tail) {
            index.add_tail(tail, 0, 0.0);
        } else {
            out.push((tail.name(), "a checkpoint without its segments".to_owned()));
        }
    }
    let orphans = index.remove_orphans();
    out.extend(orphans.iter().map(|orphan| (orphan.name(), "a segment without a checkpoint".to_owned())));
    Ok(out)
}

/// Removes the objects whose names begin with `prefix`, and those that are of no use without them. Returns how many files
/// and bytes went. Takes the store's lock.
///
/// # Errors
/// `KvStore` if the store is in use or a file cannot be removed.
pub fn kv_remove(dir: &Path, prefix: &str) -> Result<(usize, u64)> {
    let failed = |error: io::Error| Error::KvStore(format!("{}: {error}", dir.display()));
    let disk = Disk::new(Box::new(Folder::new(dir)), KvFaults::default());
    let entries = objects(&disk, dir)?;
    let lock = Folder::new(dir).lock_file(LOCK, true).map_err(failed)?;
    if lock.try_lock().is_err() {
        return Err(Error::KvStore(format!("{}: in use by another process", dir.display())));
    }
    let mut index = Index::default();
    let mut tails = Vec::new();
    for entry in &entries {
        match header(&disk, entry) {
            Ok(header) if header.kind == Kind::Segment => index.add_segment(header),
            Ok(header) => tails.push(header),
            Err(_) => {}
        }
    }
    tails.iter().filter(|tail| index.is_whole(tail)).copied().collect::<Vec<_>>().into_iter().for_each(|tail| {
        index.add_tail(tail, 0, 0.0);
    });
    let mut gone: Vec<String> = Vec::new();
    for entry in entries.iter().filter(|entry| entry.name.starts_with(prefix)) {
        if let Some((kind, key)) = parse_name(&entry.name) {
            gone.extend(index.remove(kind, key).iter().map(Header::name));
        }
        gone.push(entry.name.clone());
    }
    gone.sort();
    gone.dedup();
    let bytes = entries.iter().filter(|entry| gone.binary_search(&entry.name).is_ok()).map(|entry| entry.bytes).sum();
    for name in &gone {
        disk.remove(name).map_err(failed)?;
    }
    Ok((gone.len(), bytes))
}

/// Files with the name of an object.
fn objects(disk: &Disk, dir: &Path) -> Result<Vec<Entry>> {
    let entries = disk.list().map_err(|error| Error::KvStore(format!("{}: {error}", dir.display())))?;
    Ok(entries.into_iter().filter(|entry| parse_name(&entry.name).is_some()).collect())
}

fn header(disk: &Disk, entry: &Entry) -> Result<Header, String> {
    let head = disk.head(&entry.name, HEADER).map_err(|error| error.to_string())?;
    let header = Header::parse(&head, entry.bytes).map_err(|Bad(what)| what.to_owned())?;
    if header.name() == entry.name { Ok(header) } else { Err("another's header".to_owned()) }
}
