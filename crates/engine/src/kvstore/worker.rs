//! The two threads that touch the disk, and the engine's end of them. The engine hands over and goes on: a save that finds
//! the writer too busy is dropped, a lookup answers when it is done.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::config::KvStoreConfig;
pub(crate) use super::directory::Save;
use super::directory::{Directory, Identity, Outcome};
use super::format::Kind;
use super::image::Image;
use super::key::Key;
use super::stats::Counters;
use crate::{Error, Result};

/// The engine's end of an open store. Dropped, it finishes what was handed over.
pub(crate) struct KvStore {
    config: KvStoreConfig,
    directory: Arc<Directory>,
    counters: Arc<Counters>,
    writer: Option<SyncSender<Writing>>,
    reader: Option<Sender<Reading>>,
    load: Arc<Load>,
    threads: Vec<JoinHandle<()>>,
}

/// A lookup.
pub(crate) struct Fetch {
    pub(crate) tenant: u64,
    pub(crate) tokens: Vec<u32>,
    /// What a slot holds already: only more is of use.
    pub(crate) over: u32,
    pub(crate) answer: Answer,
}

/// Hears of a lookup exactly once, even if the thread that was to answer is gone.
pub(crate) struct Answer(Option<Box<dyn FnOnce(Option<Image>) + Send>>);

impl Answer {
    pub(crate) fn new(hear: impl FnOnce(Option<Image>) + Send + 'static) -> Self {
        Answer(Some(Box::new(hear)))
    }

    fn give(mut self, image: Option<Image>) {
        if let Some(hear) = self.0.take() {
            hear(image);
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(hear) = self.0.take() {
            hear(None);
        }
    }
}

enum Writing {
    Save(Box<Save>),
    /// A lookup that one of the saves before it may answer.
    Fetch(Fetch),
    /// Answered when everything before it is done.
    Flush(Sender<()>),
}

enum Reading {
    Fetch(Fetch),
    Forget(Key),
}

/// What the writer has to do, and how.
#[derive(Default)]
struct Load {
    /// Bytes of states handed over and not written yet.
    bytes: AtomicU64,
    /// Whose sequences they are, oldest first.
    sequences: Mutex<VecDeque<(u64, Arc<[u32]>)>>,
    /// No throttle any more.
    hurry: AtomicBool,
    /// Out of time: give up.
    abort: AtomicBool,
}

impl Load {
    fn sequences(&self) -> MutexGuard<'_, VecDeque<(u64, Arc<[u32]>)>> {
        self.sequences.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a save under way is of a beginning that the lookup would like.
    fn has_beginning(&self, fetch: &Fetch) -> bool {
        self.sequences().iter().any(|(tenant, tokens)| {
            *tenant == fetch.tenant && tokens.len() > fetch.over as usize && fetch.tokens.starts_with(tokens)
        })
    }
}

impl KvStore {
    /// Opens the directory and starts the threads.
    pub(crate) fn start(config: KvStoreConfig, identity: Identity, counters: Arc<Counters>) -> Result<KvStore> {
        let directory = Directory::open(&config, identity, Arc::clone(&counters))?;
        let (mut store, Workers { reader, writer }) = KvStore::over(directory, config, counters);
        store.threads.push(spawn("ds4-kv-reader", move || reader.run())?);
        if let Some(writer) = writer {
            store.threads.push(spawn("ds4-kv-writer", move || writer.run())?);
        }
        Ok(store)
    }

    /// The engine's end of a directory, and those who work at the other one.
    pub(crate) fn over(directory: Directory, config: KvStoreConfig, counters: Arc<Counters>) -> (KvStore, Workers) {
        let directory = Arc::new(directory);
        let load = Arc::new(Load::default());
        let (reader, readings) = mpsc::channel();
        let (writer, writings) = mpsc::sync_channel(QUEUE);
        let working = Writer {
            directory: Arc::clone(&directory),
            counters: Arc::clone(&counters),
            load: Arc::clone(&load),
            reader: reader.clone(),
            free: None,
            rate: u64::from(config.write_mbps) << 20,
            full: false,
            work: writings,
        };
        let workers = Workers {
            reader: Reader { directory: Arc::clone(&directory), work: readings },
            writer: (!config.readonly).then_some(working),
        };
        let writer = (!config.readonly).then_some(writer);
        (KvStore { config, directory, counters, writer, reader: Some(reader), load, threads: Vec::new() }, workers)
    }

    pub(crate) fn config(&self) -> &KvStoreConfig {
        &self.config
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Looks a prompt up in the background; behind the saves under way, if one of them is of its beginning.
    pub(crate) fn fetch(&self, mut fetch: Fetch) {
        if let (Some(writer), true) = (&self.writer, self.load.has_beginning(&fetch)) {
            match writer.try_send(Writing::Fetch(fetch)) {
                Err(TrySendError::Full(Writing::Fetch(back))) => fetch = back,
                // A thread that is gone answers with the drop of the answer.
                _ => return,
            }
        }
        if let Some(reader) = &self.reader {
            let _ = reader.send(Reading::Fetch(fetch));
        }
    }

    /// Removes a checkpoint that the model did not take.
    pub(crate) fn forget(&self, key: Key) {
        self.counters.refused.add(1);
        if let Some(reader) = &self.reader {
            let _ = reader.send(Reading::Forget(key));
        }
    }

    /// Whether a save of `bytes` would be taken now. One that would not is counted.
    pub(crate) fn takes(&self, bytes: u64) -> bool {
        let pending = self.load.bytes.load(Ordering::Relaxed);
        let takes = self.writer.is_some() && (pending == 0 || pending.saturating_add(bytes) <= QUEUE_BYTES);
        if !takes && self.writer.is_some() {
            self.counters.queue_full.add(1);
        }
        takes
    }

    /// Hands a state over; `patience` is how long to wait for a place in the queue. Says whether it was taken.
    pub(crate) fn save(&self, save: Save, patience: Duration) -> bool {
        let Some(writer) = &self.writer else { return false };
        let bytes = save.state.len() as u64;
        let until = Instant::now() + patience;
        self.load.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.counters.pending.add(1);
        self.load.sequences().push_back((save.tenant, Arc::clone(&save.tokens)));
        let mut writing = Writing::Save(Box::new(save));
        loop {
            match writer.try_send(writing) {
                Ok(()) => return true,
                Err(TrySendError::Full(back)) if Instant::now() < until => writing = back,
                Err(TrySendError::Full(back) | TrySendError::Disconnected(back)) => {
                    if let Writing::Save(save) = back {
                        save.forget_rows();
                    }
                    self.load.bytes.fetch_sub(bytes, Ordering::Relaxed);
                    // The newest is this one: only the engine adds.
                    self.load.sequences().pop_back();
                    self.counters.pending.sub(1);
                    self.counters.queue_full.add(1);
                    return false;
                }
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Keys of all checkpoints.
    #[cfg(test)]
    pub(crate) fn checkpoints(&self) -> Vec<Key> {
        self.directory.checkpoints()
    }

    /// Whether the first `to` tokens have all their rows on disk. Waits for the index; not for the step loop.
    pub(crate) fn has_rows(&self, tenant: u64, tokens: &[u32], to: u32) -> bool {
        self.directory.has_segments(tenant, tokens, to)
    }

    /// Writes at full speed until everything is written or `until` is reached, and says whether it is. What is not written
    /// then is given up.
    pub(crate) fn flush(&self, until: Instant) -> bool {
        self.load.hurry.store(true, Ordering::Relaxed);
        let Some(writer) = &self.writer else { return true };
        let (done, wait) = mpsc::channel();
        let left = || until.saturating_duration_since(Instant::now());
        let mut flush = Writing::Flush(done);
        while let Err(TrySendError::Full(back)) = writer.try_send(flush) {
            if left().is_zero() {
                self.load.abort.store(true, Ordering::Relaxed);
                return false;
            }
            flush = back;
            thread::sleep(Duration::from_millis(1));
        }
        let written = wait.recv_timeout(left()).is_ok();
        self.load.abort.store(!written, Ordering::Relaxed);
        written
    }
}

impl Drop for KvStore {
    fn drop(&mut self) {
        self.load.hurry.store(true, Ordering::Relaxed);
        self.writer = None;
        self.reader = None;
        for thread in self.threads.drain(..) {
            // A panic there is nothing that could be mended here.
            let _ = thread.join();
        }
    }
}

/// Who does what is handed over: a thread each, or a test that lets them do one thing at a time.
pub(crate) struct Workers {
    pub(crate) reader: Reader,
    /// Absent if nothing may be written.
    pub(crate) writer: Option<Writer>,
}

pub(crate) struct Reader {
    directory: Arc<Directory>,
    work: Receiver<Reading>,
}

impl Reader {
    fn run(self) {
        self.work.iter().for_each(|reading| self.take(reading));
    }

    fn take(&self, reading: Reading) {
        match reading {
            Reading::Fetch(Fetch { tenant, tokens, over, answer }) => {
                answer.give(self.directory.fetch(tenant, &tokens, over));
            }
            Reading::Forget(key) => self.directory.remove(Kind::Tail, key),
        }
    }

    /// Does one thing, if there is any.
    #[cfg(test)]
    pub(crate) fn turn(&self) -> bool {
        self.work.try_recv().map(|reading| self.take(reading)).is_ok()
    }
}

pub(crate) struct Writer {
    directory: Arc<Directory>,
    counters: Arc<Counters>,
    load: Arc<Load>,
    reader: Sender<Reading>,
    /// When the next bytes may be written.
    free: Option<Instant>,
    /// Bytes a second; 0 for no limit.
    rate: u64,
    /// A full disk has been told of.
    full: bool,
    work: Receiver<Writing>,
}

impl Writer {
    fn run(mut self) {
        while let Ok(writing) = self.work.recv() {
            self.take(writing);
        }
    }

    fn take(&mut self, writing: Writing) {
        match writing {
            Writing::Save(save) => {
                self.save(&save);
                self.load.bytes.fetch_sub(save.state.len() as u64, Ordering::Relaxed);
                self.load.sequences().pop_front();
                self.counters.pending.sub(1);
            }
            // A reader that is gone answers with the drop of the answer.
            Writing::Fetch(fetch) => drop(self.reader.send(Reading::Fetch(fetch))),
            // Whoever asked may have run out of patience.
            Writing::Flush(done) => drop(done.send(())),
        }
    }

    /// Does one thing, if there is any.
    #[cfg(test)]
    pub(crate) fn turn(&mut self) -> bool {
        self.work.try_recv().map(|writing| self.take(writing)).is_ok()
    }

    fn save(&mut self, save: &Save) {
        let Writer { directory, counters, load, free, rate, full, .. } = self;
        let outcome = directory.store(save, &mut |bytes| pace(load, free, bytes as u64, *rate));
        match &outcome {
            Ok(Outcome::Written) => {
                *full = false;
                counters.writes.add(1);
            }
            Ok(Outcome::Duplicate) => counters.duplicate.add(1),
            Ok(Outcome::NoRoom) => counters.no_room.add(1),
            Ok(Outcome::FullDisk) => {
                counters.no_room.add(1);
                if !std::mem::replace(full, true) {
                    let what =
                        "less than 5% of its file system would stay free: nothing new is kept until there is room";
                    directory.note("directory", what);
                }
            }
            Ok(Outcome::Gap) => counters.gap.add(1),
            Err(error) => {
                counters.failed_writes.add(1);
                directory.note(save.role.name(), &format!("not saved: {error}"));
            }
        }
        if !matches!(outcome, Ok(Outcome::Written | Outcome::Duplicate)) {
            save.forget_rows();
        }
    }
}

/// Sleeps off what `bytes` take at `rate` a second, unless there is hurry.
fn pace(load: &Load, free: &mut Option<Instant>, bytes: u64, rate: u64) -> io::Result<()> {
    let now = Instant::now();
    let due = free.map_or(now, |free| free.max(now)) + Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
    *free = Some(due);
    loop {
        if load.abort.load(Ordering::Relaxed) {
            return Err(io::Error::other("out of time"));
        }
        let left = due.saturating_duration_since(Instant::now());
        if rate == 0 || left.is_zero() || load.hurry.load(Ordering::Relaxed) {
            return Ok(());
        }
        thread::sleep(left.min(Duration::from_millis(20)));
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let builder = thread::Builder::new().name(name.to_owned());
    builder.spawn(run).map_err(|error| Error::KvStore(format!("cannot start its thread: {error}")))
}

/// Saves that may wait.
const QUEUE: usize = 8;
/// Bytes of states that may wait; a larger one has to be alone.
const QUEUE_BYTES: u64 = 1 << 30;
