//! The directory as a whole: opening it, finding and reading a checkpoint, writing one, making room. Called from the two
//! background threads; the index is locked only while nothing touches the disk.

use std::fmt::Display;
use std::fs::{File, TryLockError};
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use ds4_model::{Part, Variant};

use super::config::KvStoreConfig;
use super::disk::{Disk, TEMPORARY};
use super::evict::{Newcomer, choose};
use super::files::{Files, Folder};
use super::format::{Bad, HEADER, Header, Kind, KvRole, MOST, decode, encode};
use super::image::{Image, Rows, ranges, split};
use super::index::{Index, Query};
use super::key::{Chain, Key, Owner};
use super::ram::Ram;
use super::stats::Counters;
use crate::{Error, Result};

/// An open store.
pub(crate) struct Directory {
    disk: Disk,
    config: KvStoreConfig,
    identity: Identity,
    index: Mutex<Index>,
    counters: Arc<Counters>,
    _lock: Option<File>,
}

/// The model whose states are kept.
#[derive(Clone, Copy)]
pub(crate) struct Identity {
    pub(crate) fingerprint: [u8; 32],
    pub(crate) variant: Variant,
}

/// A state to be written.
pub(crate) struct Save {
    pub(crate) role: KvRole,
    pub(crate) tenant: u64,
    /// All tokens before its end.
    pub(crate) tokens: Arc<[u32]>,
    /// After the last one; empty if they are not known.
    pub(crate) logits: Vec<f32>,
    /// Rows of tokens before this are believed to be there.
    pub(crate) from: u32,
    /// What the model saved for tokens from there to the end.
    pub(crate) state: Vec<u8>,
    /// Window and frontiers, if they are not those in `state`: its end is not where the sequence is.
    pub(crate) tail: Option<Vec<u8>>,
    /// What that consists of.
    pub(crate) parts: Vec<Part>,
    /// Set to 0 if rows are missing after all.
    pub(crate) on_disk: Arc<AtomicU32>,
}

/// Keeps a checkpoint from being evicted.
pub(crate) struct Pin {
    directory: Arc<Directory>,
    key: Key,
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.directory.index().unpin(self.key);
    }
}

/// How a save ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Written,
    Duplicate,
    /// The budget is taken by what is worth more.
    NoRoom,
    /// The file system has not enough left.
    FullDisk,
    Gap,
}

impl Directory {
    /// Locks and reads a directory: temporary files, damaged objects and what is left of unfinished saves go.
    pub(crate) fn open(config: &KvStoreConfig, identity: Identity, counters: Arc<Counters>) -> Result<Directory> {
        let Some(dir) = &config.dir else {
            return Directory::over(Box::new(Ram::default()), None, config, identity, counters);
        };
        let folder = Folder::new(dir);
        if !config.readonly {
            folder.create_dir().map_err(|error| failed(config, error))?;
        }
        let lock = lock(&folder, config)?;
        Directory::over(Box::new(folder), lock, config, identity, counters)
    }

    /// Reads files that nobody else writes to, for which `lock` stands.
    pub(crate) fn over(
        files: Box<dyn Files>,
        lock: Option<File>,
        config: &KvStoreConfig,
        identity: Identity,
        counters: Arc<Counters>,
    ) -> Result<Directory> {
        let disk = Disk::new(files, config.faults.clone());
        let config = config.clone();
        let index = Mutex::default();
        let directory = Directory { disk, config, identity, index, counters, _lock: lock };
        directory.scan().map_err(|error| failed(&directory.config, error))?;
        directory.make_room(0, None);
        Ok(directory)
    }

    fn scan(&self) -> io::Result<()> {
        if let (false, Err(error)) = (self.config.readonly, self.disk.settle()) {
            self.note("directory", &error.to_string());
        }
        let mut tails = Vec::new();
        let mut index = self.index();
        for entry in self.disk.list()? {
            let complete = entry.name.strip_suffix(TEMPORARY);
            let Some((kind, key)) = parse_name(complete.unwrap_or(&entry.name)) else { continue };
            if complete.is_some() {
                self.unlink(&entry.name);
                continue;
            }
            let header = match self.disk.head(&entry.name, HEADER) {
                Ok(head) => Header::parse(&head, entry.bytes),
                Err(error) => {
                    self.note(&entry.name, &error.to_string());
                    continue;
                }
            };
            match header.and_then(|h| if (h.kind, h.key) == (kind, key) { Ok(h) } else { Err(Bad("another's header")) })
            {
                Ok(header) if kind == Kind::Segment => index.add_segment(header),
                Ok(header) => tails.push((header, seconds(entry.modified))),
                Err(Bad(what)) => self.discard(&entry.name, what),
            }
        }
        for (header, used) in tails {
            if index.is_whole(&header) {
                // How often it was used is not kept, only when.
                let hits = if used > header.created + 60 { 1.0 } else { 0.0 };
                index.add_tail(header, used, hits);
            } else {
                self.discard(&header.name(), "a checkpoint without its segments");
            }
        }
        index.remove_orphans().iter().for_each(|orphan| self.unlink(&orphan.name()));
        self.publish(&index);
        Ok(())
    }

    /// The longest stored beginning of `tokens` beyond `over`, read and checked. Damaged objects are removed on the way.
    pub(crate) fn fetch(self: &Arc<Self>, tenant: u64, tokens: &[u32], over: u32) -> Option<Image> {
        loop {
            let Some((tail, segments)) = self.find(tenant, tokens, over) else {
                self.counters.absent.add(1);
                return None;
            };
            let pin = Pin { directory: Arc::clone(self), key: tail.key };
            match self.read(&tail, &segments, tokens) {
                Ok(image) => {
                    self.used(&tail);
                    return Some(Image { _pin: Some(pin), ..image });
                }
                Err(((kind, key), Trouble::Bad(Bad(what)))) => {
                    self.counters.corrupt.add(1);
                    self.note(&kind.name_of(key), &format!("{what}; removed"));
                    self.remove(kind, key);
                }
                Err(((kind, key), Trouble::Io(error))) => {
                    self.counters.unreadable.add(1);
                    self.note(&kind.name_of(key), &error.to_string());
                    if error.kind() != io::ErrorKind::NotFound {
                        return None;
                    }
                    self.remove(kind, key);
                }
            }
        }
    }

    /// Headers of the best checkpoint and of its segments, first one first. It is pinned.
    fn find(&self, tenant: u64, tokens: &[u32], over: u32) -> Option<(Header, Vec<Header>)> {
        let own = Owner { fingerprint: self.identity.fingerprint, tenant };
        let mut index = self.index();
        let owners = if self.config.reject_different_quant {
            vec![own]
        } else {
            index.relatives(own, self.identity.variant.family)
        };
        let over = over.max(self.config.min_tokens.saturating_sub(1));
        let tail = index.find(&Query { owners: &owners, tokens, over })?.header;
        let mut segments: Vec<Header> = index.chain(tail.parent).map(|segment| segment.header).collect();
        segments.reverse();
        index.pin(tail.key);
        Some((tail, segments))
    }

    fn read(&self, tail: &Header, segments: &[Header], tokens: &[u32]) -> Result<Image, (Name, Trouble)> {
        let payload = self.payload(tail).map_err(|trouble| (tail.id(), trouble))?;
        let (logits, rest) = payload.split_at(4 * tail.logits as usize);
        let logits: Vec<f32> = logits.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        if logits.iter().any(|z| !z.is_finite()) {
            return Err((tail.id(), Bad("logits that are not numbers").into()));
        }
        let mut rows = Vec::with_capacity(segments.len());
        for header in segments {
            let bytes = self.rows(header, &tail.owner, tokens).map_err(|trouble| (header.id(), trouble))?;
            rows.push(Rows { range: header.start..header.end, bytes });
        }
        Ok(Image { key: tail.key, tokens: tail.end, logits, tail: rest.to_vec(), segments: rows, _pin: None })
    }

    /// Rows of a segment whose ids are those of the prompt.
    fn rows(&self, header: &Header, owner: &Owner, tokens: &[u32]) -> Result<Vec<u8>, Trouble> {
        let mut payload = self.payload(header)?;
        let ids = &tokens[header.start as usize..header.end as usize];
        let stored = payload.get(..4 * ids.len()).ok_or(Bad("a segment without its ids"))?;
        let same = stored.as_chunks().0.iter().zip(ids).all(|(&bytes, &id)| u32::from_le_bytes(bytes) == id);
        if !same || owner.segment(header.parent, header.start, ids) != header.key {
            return Err(Bad("ids of another segment").into());
        }
        payload.drain(..4 * ids.len());
        Ok(payload)
    }

    /// The unpacked payload of an object that is still what the index says.
    fn payload(&self, expected: &Header) -> Result<Vec<u8>, Trouble> {
        let file = self.disk.read(&expected.name(), HEADER as u64 + MOST)?;
        let (header, payload) = decode(&file)?;
        if header != *expected {
            return Err(Bad("another's header").into());
        }
        let known = header.owner.fingerprint == self.identity.fingerprint
            || (!self.config.reject_different_quant && header.family == self.identity.variant.family);
        if known { Ok(payload) } else { Err(Bad("the state of another model").into()) }
    }

    fn used(&self, tail: &Header) {
        let now = now();
        if let Some(tail) = self.index().tail_mut(tail.key) {
            tail.hits = tail.hits * (-(now.saturating_sub(tail.used) as f64) / HALF_LIFE).exp2() + 1.0;
            tail.used = now;
        }
        if !self.config.readonly {
            // Only the order of eviction after the next start depends on it.
            let _ = self.disk.touch(&tail.name());
        }
    }

    /// Writes a checkpoint and the segments that are missing: first those, then the tail that makes them one.
    pub(crate) fn store(&self, save: &Save, pace: &mut dyn FnMut(usize) -> io::Result<()>) -> io::Result<Outcome> {
        let plan = match self.plan(save) {
            Ok(plan) => plan,
            Err(outcome) => return Ok(outcome),
        };
        let done = self.write(save, &plan, pace);
        let held: Vec<Key> = plan.there.iter().copied().chain(plan.missing.iter().map(|m| m.key)).collect();
        let mut index = self.index();
        let dropped = index.release(&held);
        self.publish(&index);
        drop(index);
        dropped.iter().for_each(|header| self.unlink(&header.name()));
        done
    }

    fn plan(&self, save: &Save) -> Result<Plan, Outcome> {
        let owner = Owner { fingerprint: self.identity.fingerprint, tenant: save.tenant };
        let n = save.tokens.len() as u32;
        let key = Chain::of(&owner, &save.tokens);
        let mut plan = Plan { owner, key, there: Vec::new(), missing: Vec::new() };
        let mut index = self.index();
        if index.tail(key).is_some() {
            return Err(Outcome::Duplicate);
        }
        let mut parent = Key::NONE;
        for range in ranges(0, n, self.config.step()) {
            let key = owner.segment(parent, range.start, &save.tokens[range.start as usize..range.end as usize]);
            match index.segment(key) {
                Some(_) if plan.missing.is_empty() => plan.there.push(key),
                _ => plan.missing.push(Missing { range, key, parent }),
            }
            parent = key;
        }
        if plan.missing.first().is_some_and(|missing| missing.range.start < save.from) {
            return Err(Outcome::Gap);
        }
        index.hold(&plan.there);
        Ok(plan)
    }

    fn write(&self, save: &Save, plan: &Plan, pace: &mut dyn FnMut(usize) -> io::Result<()>) -> io::Result<Outcome> {
        let n = save.tokens.len() as u32;
        let range = save.from..n;
        let all: Vec<Range<u32>> = ranges(save.from, n, self.config.step()).collect();
        let (live, mut rows) = split(&save.state, &save.parts, &range, &all).ok_or(io::ErrorKind::InvalidData)?;
        let tail = save.tail.as_ref().unwrap_or(&live);
        // Those that are there already come first.
        let rows = rows.split_off(rows.len() - plan.missing.len());
        let ids: usize = plan.missing.iter().map(|missing| 4 * missing.range.len() + HEADER).sum();
        let bytes = ids + rows.iter().map(Vec::len).sum::<usize>() + HEADER + 4 * save.logits.len() + tail.len();
        let chain: Vec<Key> = plan.there.iter().rev().copied().collect();
        let newcomer = Newcomer { role: save.role, tokens: n, bytes: bytes as u64, chain: &chain };
        if !self.make_room(bytes as u64, Some(newcomer)) {
            let full = self.disk.spare() < bytes as u64;
            return Ok(if full { Outcome::FullDisk } else { Outcome::NoRoom });
        }
        let mut written = 0;
        for (missing, rows) in plan.missing.iter().zip(rows) {
            let ids = &save.tokens[missing.range.start as usize..missing.range.end as usize];
            let payload = [ids.iter().flat_map(|id| id.to_le_bytes()).collect(), rows].concat();
            let header = Header {
                start: missing.range.start,
                end: missing.range.end,
                key: missing.key,
                parent: missing.parent,
                ..self.header(plan.owner, Kind::Segment)
            };
            let header = self.put(header, &payload, pace)?;
            written += header.file_bytes();
            let mut index = self.index();
            index.add_segment(header);
            index.hold(&[header.key]);
        }
        if !plan.missing.is_empty() {
            self.disk.sync_dir()?;
        }
        let mut payload: Vec<u8> = save.logits.iter().flat_map(|z| z.to_le_bytes()).collect();
        payload.extend_from_slice(tail);
        let last = plan.missing.last().map(|missing| missing.key).or(plan.there.last().copied());
        let header = Header {
            role: Some(save.role),
            end: n,
            key: plan.key,
            parent: last.unwrap_or(Key::NONE),
            logits: save.logits.len() as u32,
            ..self.header(plan.owner, Kind::Tail)
        };
        let header = self.put(header, &payload, pace)?;
        self.counters.written_bytes.add(written + header.file_bytes());
        self.finish(&header)
    }

    /// Makes a tail that has its name durable and known.
    fn finish(&self, header: &Header) -> io::Result<Outcome> {
        if let Err(error) = self.disk.sync_dir() {
            self.unlink(&header.name());
            return Err(error);
        }
        let mut index = self.index();
        if index.is_whole(header) {
            index.add_tail(*header, now(), 0.0);
            self.publish(&index);
            return Ok(Outcome::Written);
        }
        // A segment turned out to be damaged and was removed meanwhile.
        drop(index);
        self.unlink(&header.name());
        Ok(Outcome::Gap)
    }

    fn header(&self, owner: Owner, kind: Kind) -> Header {
        Header {
            kind,
            compression: self.config.compression,
            quant: self.identity.variant.quant,
            role: None,
            start: 0,
            end: 0,
            owner,
            family: self.identity.variant.family,
            key: Key::NONE,
            parent: Key::NONE,
            raw: 0,
            stored: 0,
            created: now(),
            logits: 0,
        }
    }

    fn put(&self, header: Header, payload: &[u8], pace: &mut dyn FnMut(usize) -> io::Result<()>) -> io::Result<Header> {
        if payload.len() as u64 > MOST {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let (header, file) = encode(header, payload);
        self.disk.write(&header.name(), &file, pace)?;
        Ok(header)
    }

    /// Evicts until `bytes` more fit into the budget and the file system, or says that they must not.
    fn make_room(&self, bytes: u64, newcomer: Option<Newcomer<'_>>) -> bool {
        if self.config.readonly {
            return false;
        }
        let spare = self.disk.spare();
        let mut index = self.index();
        let budget = self.config.space_mb.saturating_mul(1 << 20);
        let over = (index.bytes() + bytes).saturating_sub(budget);
        // Deleting for the file system's sake helps only as far as there is something to delete.
        let need = over.max(bytes.saturating_sub(spare));
        if need == 0 {
            return true;
        }
        let Some(victims) = choose(&index, need, newcomer, now()) else { return false };
        for role in victims.iter().filter_map(|&key| index.tail(key)?.header.role) {
            let at = KvRole::ALL.iter().position(|&known| known == role);
            self.counters.evictions[at.expect("all roles are known")].add(1);
        }
        let removed: Vec<Header> = victims.into_iter().flat_map(|key| index.remove_tail(key)).collect();
        self.publish(&index);
        drop(index);
        removed.iter().for_each(|header| self.unlink(&header.name()));
        true
    }

    /// Keys of all checkpoints.
    #[cfg(test)]
    pub(crate) fn checkpoints(&self) -> Vec<Key> {
        self.index().tails().map(|tail| tail.header.key).collect()
    }

    /// Whether the first `to` tokens have all their segments.
    pub(crate) fn has_segments(&self, tenant: u64, tokens: &[u32], to: u32) -> bool {
        let owner = Owner { fingerprint: self.identity.fingerprint, tenant };
        let index = self.index();
        let mut parent = Key::NONE;
        ranges(0, to, self.config.step()).all(|range| {
            parent = owner.segment(parent, range.start, &tokens[range.start as usize..range.end as usize]);
            index.segment(parent).is_some()
        })
    }

    /// Removes an object and whatever cannot be used without it.
    pub(crate) fn remove(&self, kind: Kind, key: Key) {
        let mut index = self.index();
        let removed = index.remove(kind, key);
        self.publish(&index);
        drop(index);
        removed.iter().for_each(|header| self.unlink(&header.name()));
    }

    pub(crate) fn note(&self, name: &str, what: &str) {
        self.config.log.note(&format!("kv store: {name}: {what}"));
    }

    fn discard(&self, name: &str, what: &str) {
        self.counters.corrupt.add(1);
        self.note(name, &format!("{what}; removed"));
        self.unlink(name);
    }

    /// A file that cannot be removed is out of the index all the same, and gone over again at the next opening.
    fn unlink(&self, name: &str) {
        if self.config.readonly {
            return;
        }
        match self.disk.remove(name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => self.note(name, &error.to_string()),
            _ => {}
        }
    }

    fn publish(&self, index: &Index) {
        let (objects, checkpoints) = index.counts();
        self.counters.bytes.set(index.bytes());
        self.counters.objects.set(objects as u64);
        self.counters.checkpoints.set(checkpoints as u64);
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Save {
    /// The next save of this sequence has to bring all rows.
    pub(crate) fn forget_rows(&self) {
        self.on_disk.store(0, Ordering::Relaxed);
    }
}

/// What a save has to write.
struct Plan {
    owner: Owner,
    key: Key,
    /// Segments that are there, first one first.
    there: Vec<Key>,
    missing: Vec<Missing>,
}

struct Missing {
    range: Range<u32>,
    key: Key,
    parent: Key,
}

/// An object.
type Name = (Kind, Key);

/// Why an object cannot be used.
enum Trouble {
    Bad(Bad),
    Io(io::Error),
}

impl From<Bad> for Trouble {
    fn from(bad: Bad) -> Self {
        Trouble::Bad(bad)
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::FileTooLarge => Trouble::Bad(Bad("larger than any object")),
            _ => Trouble::Io(error),
        }
    }
}

fn failed(config: &KvStoreConfig, what: impl Display) -> Error {
    let place = config.dir.as_ref().map_or_else(|| "host memory".to_owned(), |dir| dir.display().to_string());
    Error::KvStore(format!("{place}: {what}"))
}

/// One writer, or any number of readers.
fn lock(folder: &Folder, config: &KvStoreConfig) -> Result<Option<File>> {
    let failed = |what: String| failed(config, what);
    let file = match folder.lock_file(LOCK, !config.readonly) {
        Ok(file) => file,
        // Nobody ever wrote here.
        Err(error) if config.readonly && error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(format!("cannot open its lock: {error}"))),
    };
    let locked = if config.readonly { file.try_lock_shared() } else { file.try_lock() };
    match locked {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(failed("in use by another process".to_owned())),
        Err(TryLockError::Error(error)) => Err(failed(format!("cannot be locked: {error}"))),
    }
}

/// Kind and key of an object's file name.
pub(crate) fn parse_name(name: &str) -> Option<(Kind, Key)> {
    [Kind::Segment, Kind::Tail]
        .into_iter()
        .find_map(|kind| Some((kind, Key::parse(name.strip_suffix(kind.suffix())?)?)))
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn now() -> u64 {
    seconds(SystemTime::now())
}

/// Name of the locked file.
pub(crate) const LOCK: &str = "lock";
/// Seconds in which a hit loses half of its worth.
const HALF_LIFE: f64 = 6.0 * 3600.0;
