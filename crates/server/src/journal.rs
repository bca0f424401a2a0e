//! Maps that outlive the process, one file each: what the server remembers of turns and responses. Callers keep their entries in
//! memory and hand changes over; a thread writes them. Whatever fails here, memory is what the server answers from. The file
//! is `log`'s.

mod log;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use tracing::{info, warn};

use log::{Change, Log, Mode};

/// Where journals are, and whose.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) dir: PathBuf,
    /// Nothing is written.
    pub(crate) readonly: bool,
    /// The vocabulary that ids in them are of.
    pub(crate) vocabulary: [u8; 32],
}

/// Whoever keeps the entries.
pub(crate) trait Keeper {
    /// Takes an entry from an earlier run; entries come in the order in which they were put. False: it makes no sense.
    fn restore(&mut self, key: &[u8], value: &[u8]) -> bool;

    /// Whether an entry is wanted, now that all of them were seen.
    fn keeps(&self, key: &[u8]) -> bool;
}

/// The writing end of one. The default writes nowhere.
#[derive(Clone, Default)]
pub(crate) struct Journal(Option<Writer>);

#[derive(Clone)]
struct Writer {
    work: Sender<Work>,
    /// Bytes of values handed over and not written yet.
    pending: Arc<AtomicUsize>,
}

enum Work {
    Change(Change),
    /// Answered when everything before it is durable, or given up.
    Flush(Sender<()>),
}

impl Journal {
    /// Gives `keeper` what an earlier run left. If the file cannot be used at all, nothing is kept of this run.
    pub(crate) fn open(place: &Place, name: &str, keeper: &mut dyn Keeper) -> Journal {
        let mode = if place.readonly { Mode::Read } else { Mode::Write { slack: SLACK, most: MOST } };
        Journal::start(Log::open(&place.dir, name, &place.vocabulary, mode), name, keeper)
    }

    fn start(log: std::io::Result<Log>, name: &str, keeper: &mut dyn Keeper) -> Journal {
        let started = log.and_then(|mut log| {
            log.restore(keeper)?;
            if !log.is_writable() {
                return Ok(Journal::default());
            }
            let (work, rest) = mpsc::channel();
            let pending = Arc::<AtomicUsize>::default();
            let count = Arc::clone(&pending);
            thread::Builder::new().name("ds4-journal".to_owned()).spawn(move || write_all(log, &rest, &count))?;
            Ok(Journal(Some(Writer { work, pending })))
        });
        started.unwrap_or_else(|error| {
            warn!(journal = name, %error, "this journal cannot be used: what it would keep is lost at the end");
            Journal::default()
        })
    }

    /// Keeps an entry, instead of an older one with this key. Dropped if the thread has too much to do.
    pub(crate) fn put(&self, key: &[u8], value: impl FnOnce() -> Vec<u8>) {
        let Some(writer) = &self.0 else { return };
        let value = value();
        let bytes = value.len();
        if bytes > log::MAX_VALUE || writer.pending.load(Ordering::Relaxed) + bytes > PENDING {
            // Nothing older may come back in its place.
            self.remove(key);
            return;
        }
        writer.pending.fetch_add(bytes, Ordering::Relaxed);
        // A thread that is gone writes nothing; memory has the entry.
        let _ = writer.work.send(Work::Change(Change::Put(key.into(), value)));
    }

    /// Forgets an entry.
    pub(crate) fn remove(&self, key: &[u8]) {
        if let Some(writer) = &self.0 {
            let _ = writer.work.send(Work::Change(Change::Remove(key.into())));
        }
    }

    /// Waits until everything handed over is dealt with, and says whether it is.
    pub(crate) fn flush(&self, limit: Duration) -> bool {
        let Some(writer) = &self.0 else { return true };
        let (done, wait) = mpsc::channel();
        writer.work.send(Work::Flush(done)).is_ok() && wait.recv_timeout(limit).is_ok()
    }
}

/// What is wrong with the journals of a directory, by file name. What a killed process leaves at their ends is nothing wrong.
///
/// # Errors
/// If a journal that is there cannot be read.
pub fn verify_journals(dir: &Path) -> std::io::Result<Vec<(String, String)>> {
    let mut problems = Vec::new();
    for name in NAMES {
        if let Some(problem) = log::verify(dir, name)? {
            problems.push((name.to_owned(), problem));
        }
    }
    Ok(problems)
}

/// Writes what has come together, syncs it, and only then looks for more.
fn write_all(mut log: Log, work: &Receiver<Work>, pending: &AtomicUsize) {
    let mut failing = false;
    while let Ok(first) = work.recv() {
        let (mut changes, mut waiting, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut next = Some(first);
        while let Some(item) = next {
            match item {
                Work::Change(change) => {
                    bytes += change.bytes();
                    changes.push(change);
                }
                Work::Flush(done) => waiting.push(done),
            }
            next = if bytes < BATCH { work.try_recv().ok() } else { None };
        }
        let written = log.append(changes).and_then(|()| log.compact_if_due());
        pending.fetch_sub(bytes, Ordering::Relaxed);
        match (&written, failing) {
            (Err(error), false) => warn!(journal = log.name(), %error, "cannot be written, memory has to do"),
            (Ok(()), true) => info!(journal = log.name(), "is written again"),
            _ => {}
        }
        failing = written.is_err();
        // Whoever asked may have run out of patience.
        for done in waiting {
            let _ = done.send(());
        }
    }
}

/// Finished turns.
pub(crate) const TURNS: &str = "turns.journal";
/// Stored responses.
pub(crate) const RESPONSES: &str = "responses.journal";
/// For what waits at the end.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
const NAMES: [&str; 2] = [TURNS, RESPONSES];
/// Bytes of values that may wait for the thread.
const PENDING: usize = 128 << 20;
/// Bytes that are written before they are synced.
const BATCH: usize = 8 << 20;
/// Dead bytes that are not worth writing a file anew.
const SLACK: u64 = 4 << 20;
/// Bytes of a file; what its keepers hold is far below.
const MOST: u64 = 2 << 30;

#[cfg(test)]
mod tests;
