//! A plan onto a disk: `OUT.part` beside `OUT`, pieces in any order by any number of threads, a journal of what is done, and
//! the final name only when all of it is synchronised. Owns files, threads and the order of these steps.

use std::{
    fs::{self, File, OpenOptions},
    io,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use ds4_gguf::write_at;

use crate::{
    convert::Converter,
    error::{Error, Result, shown},
    journal::Journal,
    plan::{Piece, Plan},
};

/// Told the bytes done and the bytes of the whole file; answers whether to go on.
type Progress<'a> = dyn FnMut(u64, u64) -> ControlFlow<()> + 'a;

/// What a stop may cost: pieces finished within this time are converted again.
const NOTE_EVERY: Duration = Duration::from_secs(1);

/// What a writer found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Nothing.
    Fresh,
    /// An unfinished file of the same checkpoint and recipe, which it continues.
    Resumed,
    /// An unfinished file of another checkpoint, recipe or version, which it replaces.
    Restarted,
}

/// A file about to be written.
pub struct Writer<'a> {
    plan: &'a Plan,
    path: &'a Path,
    part: PathBuf,
    file: File,
    journal: Journal,
    done: Vec<bool>,
    start: Start,
}

impl<'a> Writer<'a> {
    /// Opens `PATH.part` and its journal, or makes them.
    ///
    /// Errors: the system's refusals, a full disk, another process at the same file.
    pub fn open(plan: &'a Plan, path: &'a Path) -> Result<Self> {
        let (part, notes) = (with_suffix(path, ".part"), with_suffix(path, ".part.journal"));
        let before = part.exists();
        let (mut journal, noted) = Journal::open(&notes, plan)?;
        let failed = |e| failure(&part, plan, e);
        let whole = fs::metadata(&part).is_ok_and(|meta| meta.is_file() && meta.len() == plan.file_len());
        let mut done = vec![false; plan.pieces.len()];
        if let (Some(noted), true) = (noted, whole) {
            noted.into_iter().for_each(|n| done[n] = true);
            journal.resume().map_err(failed)?;
            let file = OpenOptions::new().write(true).open(&part).map_err(failed)?;
            return Ok(Self { plan, path, part, file, journal, done, start: Start::Resumed });
        }
        journal.clear().map_err(failed)?;
        let file = File::create(&part).map_err(failed)?;
        file.set_len(plan.file_len()).map_err(failed)?;
        write_at(&file, plan.layout.header(), 0).map_err(failed)?;
        file.sync_data().map_err(failed)?;
        journal.start().map_err(failed)?;
        let start = if before { Start::Restarted } else { Start::Fresh };
        Ok(Self { plan, path, part, file, journal, done, start })
    }

    /// What it found.
    pub fn start(&self) -> Start {
        self.start
    }

    /// Bytes of the pieces that are done already.
    pub fn done_bytes(&self) -> u64 {
        let pieces = self.plan.pieces.iter().zip(&self.done);
        pieces.filter(|(_, done)| **done).map(|(piece, _)| self.plan.piece_bytes(piece)).sum()
    }

    /// Writes the rest with `threads` threads (at least one) and gives the file its name. `progress` is called on this
    /// thread after every piece, and once before.
    ///
    /// After a full disk, a refusal of the system or `Break` the unfinished file stays, for the same plan to continue; after
    /// weights that cannot be converted it is removed.
    pub fn run(mut self, threads: usize, progress: &mut Progress<'_>) -> Result<()> {
        let outcome = self.convert_all(threads, progress);
        if let Err(error) = outcome {
            if matches!(error, Error::Invalid { .. } | Error::BadValue { .. } | Error::Recipe { .. }) {
                // Nothing more can be done about files that will not go; the first error is the one to report.
                let _ = fs::remove_file(&self.part);
                let _ = self.journal.remove();
            }
            return Err(error);
        }
        let (part, plan) = (self.part.clone(), self.plan);
        // A disk may report only now that it is full.
        self.file.sync_all().map_err(|e| failure(&part, plan, e))?;
        drop(self.file);
        fs::rename(&part, self.path).map_err(|e| Error::io(self.path, e))?;
        sync_folder(self.path);
        self.journal.remove().map_err(|e| Error::io(self.path, e))
    }

    fn convert_all(&mut self, threads: usize, progress: &mut Progress<'_>) -> Result<()> {
        let left: Vec<usize> = (0..self.done.len()).filter(|&n| !self.done[n]).collect();
        let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let work = Work { plan: self.plan, file: &self.file, part: &self.part, left: &left, next: &next, stop: &stop };
        let bytes = self.plan.layout.header().len() as u64 + self.done_bytes();
        let (report, reports) = mpsc::channel();
        thread::scope(|scope| {
            for _ in 0..threads.max(1) {
                let report = report.clone();
                let work = &work;
                scope.spawn(move || work.run(&report));
            }
            drop(report);
            let mut watch =
                Watch { work: &work, journal: &mut self.journal, finished: Vec::new(), noted: Instant::now() };
            watch.run(&reports, bytes, progress)
        })
    }
}

/// What all threads share.
struct Work<'a> {
    plan: &'a Plan,
    file: &'a File,
    part: &'a Path,
    left: &'a [usize],
    next: &'a AtomicUsize,
    stop: &'a AtomicBool,
}

impl Work<'_> {
    /// One thread's share: the next piece until there is none.
    fn run(&self, report: &mpsc::Sender<Result<usize>>) {
        let mut converter = Converter::default();
        while !self.stop.load(Ordering::Relaxed) {
            let Some(&n) = self.left.get(self.next.fetch_add(1, Ordering::Relaxed)) else { return };
            let piece = &self.plan.pieces[n];
            let start = self.plan.layout.offset(piece.tensor);
            let outcome = converter.convert(self.plan, piece, &mut |bytes, at, _| {
                if self.stop.load(Ordering::Relaxed) {
                    return Err(self.stopped());
                }
                write_at(self.file, bytes, start + at).map_err(|e| failure(self.part, self.plan, e))
            });
            if report.send(outcome.map(|()| n)).is_err() {
                return;
            }
        }
    }

    fn stopped(&self) -> Error {
        Error::Stopped { file: shown(self.part) }
    }
}

/// The thread that counts and takes notes.
struct Watch<'a> {
    work: &'a Work<'a>,
    journal: &'a mut Journal,
    /// Written, but not yet known to be on the disk.
    finished: Vec<usize>,
    noted: Instant,
}

impl Watch<'_> {
    fn run(&mut self, reports: &mpsc::Receiver<Result<usize>>, done: u64, progress: &mut Progress<'_>) -> Result<()> {
        let outcome = self.collect(reports, done, progress);
        self.work.stop.store(true, Ordering::Relaxed);
        // Threads end after their current chunk; what they finished meanwhile counts.
        self.finished.extend(reports.iter().flatten());
        // The first failure is the one to report: on a full disk the notes may fail too.
        let noted = self.note();
        outcome.and(noted)
    }

    fn collect(
        &mut self,
        reports: &mpsc::Receiver<Result<usize>>,
        mut done: u64,
        progress: &mut Progress<'_>,
    ) -> Result<()> {
        let (plan, total) = (self.work.plan, self.work.plan.file_len());
        let mut go_on = progress(done, total);
        while go_on.is_continue() {
            match reports.recv() {
                Ok(Ok(n)) => {
                    self.finished.push(n);
                    done += plan.piece_bytes(&plan.pieces[n]);
                    if self.noted.elapsed() >= NOTE_EVERY {
                        self.note()?;
                    }
                    go_on = progress(done, total);
                }
                Ok(Err(e)) => return Err(e),
                Err(mpsc::RecvError) => {
                    // All threads are through: the padding is there too.
                    let _ = progress(total, total);
                    return Ok(());
                }
            }
        }
        Err(self.work.stopped())
    }

    fn note(&mut self) -> Result<()> {
        let failed = |e| failure(self.work.part, self.work.plan, e);
        if !self.finished.is_empty() {
            self.work.file.sync_data().map_err(failed)?;
            self.journal.note(&self.finished).map_err(failed)?;
            self.finished.clear();
        }
        self.noted = Instant::now();
        Ok(())
    }
}

impl Plan {
    fn piece_bytes(&self, piece: &Piece) -> u64 {
        let tensor = &self.tensors[piece.tensor];
        tensor.dtype.row_bytes(tensor.spec.dims[0] as usize).expect("the recipe checked whole blocks") as u64
            * piece.rows
    }
}

fn failure(part: &Path, plan: &Plan, source: io::Error) -> Error {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    match source.kind() {
        StorageFull | QuotaExceeded | FileTooLarge => Error::Full { file: shown(part), bytes: plan.file_len() },
        _ => Error::io(part, source),
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// So that the new name outlives a power cut. Not every system can do it, and the file is complete anyway.
fn sync_folder(path: &Path) {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
}
