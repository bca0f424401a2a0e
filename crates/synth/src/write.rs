//! Draws a planned file into memory or onto a disk. Owns threads, positioned writes and the partial file; which bytes a
//! piece has is `plan.rs`'s.

use std::{
    fs::{self, File},
    io,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

use ds4_gguf::write_at;

use crate::{
    error::{Error, Result},
    plan::Plan,
    recipe::Recipe,
};

/// Told the bytes done and the bytes of the whole file; answers whether to go on.
type Progress<'a> = dyn FnMut(u64, u64) -> ControlFlow<()> + 'a;

/// The whole file in memory: the bytes that [`write()`] writes.
///
/// Errors: a recipe that describes no model, or a file too large for memory.
pub fn build(recipe: &Recipe) -> Result<Vec<u8>> {
    let layout = recipe.layout()?;
    let bytes = layout.file_len();
    let len = usize::try_from(bytes).map_err(|_| Error::Memory { bytes })?;
    let mut out = Vec::new();
    out.try_reserve_exact(len).map_err(|_| Error::Memory { bytes })?;
    out.extend(layout.header());
    out.resize(len, 0);
    let plan = Plan::new(recipe, &layout);
    for piece in &plan.pieces {
        plan.draw(piece, &mut out[piece.offset as usize..][..piece.len]);
    }
    Ok(out)
}

/// Writes the file as `PATH.part` with `threads` threads (at least one) and renames it when it is complete.
///
/// `sparse` writes the header only and leaves holes for the tensors, which then read as zeros. `progress` is called on this
/// thread after every piece, and once with nothing done. Whatever goes wrong, the partial file is removed.
///
/// Errors: a recipe that describes no model; a full disk; the system's refusals; `progress` answering `Break`.
pub fn write(recipe: &Recipe, path: &Path, threads: usize, sparse: bool, progress: &mut Progress<'_>) -> Result<()> {
    let layout = recipe.layout()?;
    let partial = Partial::new(path);
    let output = Output { path, bytes: layout.file_len() };
    let file = File::create(&partial.path).map_err(|e| output.failed(e))?;
    file.set_len(output.bytes).map_err(|e| output.failed(e))?;
    write_at(&file, layout.header(), 0).map_err(|e| output.failed(e))?;
    if !sparse {
        draw_all(&Plan::new(recipe, &layout), &file, threads, &output, progress)?;
        // A disk may report only now that it is full.
        file.sync_all().map_err(|e| output.failed(e))?;
    }
    drop(file);
    partial.complete(path).map_err(|e| output.failed(e))
}

/// What errors are about.
struct Output<'a> {
    path: &'a Path,
    bytes: u64,
}

impl Output<'_> {
    fn failed(&self, source: io::Error) -> Error {
        let file = self.path.display().to_string();
        match source.kind() {
            io::ErrorKind::StorageFull => Error::Full { file, bytes: self.bytes },
            _ => Error::Io { file, source },
        }
    }
}

/// A file that is not complete yet; removed unless it becomes so.
struct Partial {
    path: PathBuf,
    keep: bool,
}

impl Partial {
    fn new(path: &Path) -> Self {
        let mut name = path.as_os_str().to_owned();
        name.push(".part");
        Self { path: name.into(), keep: false }
    }

    fn complete(mut self, path: &Path) -> io::Result<()> {
        fs::rename(&self.path, path)?;
        self.keep = true;
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.keep {
            // Nothing more can be done about a file that will not go; the first error is the one to report.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn draw_all(plan: &Plan, file: &File, threads: usize, output: &Output<'_>, progress: &mut Progress<'_>) -> Result<()> {
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (report, reports) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            let report = report.clone();
            let (next, stop) = (&next, &stop);
            scope.spawn(move || work(plan, file, next, stop, &report));
        }
        drop(report);
        let outcome = watch(&reports, output, progress);
        // Workers that are still drawing must not outlive a failure by more than a piece.
        stop.store(true, Ordering::Relaxed);
        outcome
    })
}

/// One thread's share: the next piece until there is none.
fn work(plan: &Plan, file: &File, next: &AtomicUsize, stop: &AtomicBool, report: &mpsc::Sender<io::Result<u64>>) {
    let mut buffer = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let Some(piece) = plan.pieces.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
        buffer.resize(piece.len, 0);
        plan.draw(piece, &mut buffer);
        let outcome = write_at(file, &buffer, piece.offset).map(|()| piece.len as u64);
        if report.send(outcome).is_err() {
            return;
        }
    }
}

fn watch(reports: &mpsc::Receiver<io::Result<u64>>, output: &Output<'_>, progress: &mut Progress<'_>) -> Result<()> {
    let mut done = 0;
    let mut go_on = progress(done, output.bytes);
    while go_on.is_continue() {
        match reports.recv() {
            Ok(Ok(n)) => {
                done += n;
                go_on = progress(done, output.bytes);
            }
            Ok(Err(e)) => return Err(output.failed(e)),
            Err(mpsc::RecvError) => {
                // All threads are through: the header and the padding are there too.
                let _ = progress(output.bytes, output.bytes);
                return Ok(());
            }
        }
    }
    Err(Error::Stopped { file: output.path.display().to_string() })
}
