//! Which pieces of an unfinished file are on the disk. Owns the file beside it; a piece is noted only after its bytes were
//! synchronised, so that a note survives only what its bytes survive.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use crate::{
    error::{Error, Result, shown},
    plan::Plan,
};

/// Raised when the same plan would give other bytes than before.
const VERSION: &str = "ds4-quantize 1";
/// Most bytes that are read: ten digits a piece, many times the released model's pieces.
const MOST: u64 = 1 << 26;

/// The notes of one unfinished file, locked against other processes.
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    title: String,
}

impl Journal {
    /// Opens or creates the notes and tells which pieces of this very plan are done; `None` if there are no notes, or they
    /// are of other work.
    pub(crate) fn open(path: &Path, plan: &Plan) -> Result<(Self, Option<Vec<usize>>)> {
        let failed = |e| Error::io(path, e);
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Err(Error::Busy { file: shown(path) }),
            // A file system without locks: two writers are then the user's to avoid.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        let mut text = Vec::new();
        (&mut file).take(MOST).read_to_end(&mut text).map_err(failed)?;
        let journal = Self { path: path.to_owned(), file, title: title(plan) };
        let done = journal.read(&String::from_utf8_lossy(&text), plan.pieces.len());
        Ok((journal, done))
    }

    /// Numbers of the pieces noted. A line without an end was being written when the process ended.
    fn read(&self, text: &str, pieces: usize) -> Option<Vec<usize>> {
        let rest = text.strip_prefix(&self.title)?;
        let whole = &rest[..rest.rfind('\n').map_or(0, |end| end + 1)];
        whole.lines().map(|line| line.parse().ok().filter(|&n| n < pieces)).collect()
    }

    /// Forgets everything; the next notes are of this plan. Call when the file to be written is there.
    pub(crate) fn start(&mut self) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(0))?;
        self.file.set_len(0)?;
        self.file.write_all(self.title.as_bytes())?;
        self.file.sync_data()
    }

    /// Forgets everything, before the file to be written is touched.
    pub(crate) fn clear(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.sync_data()
    }

    /// Goes on behind the last whole note.
    pub(crate) fn resume(&mut self) -> io::Result<()> {
        let mut text = Vec::new();
        self.file.seek(SeekFrom::Start(0))?;
        (&mut self.file).take(MOST).read_to_end(&mut text)?;
        let end = text.iter().rposition(|&b| b == b'\n').map_or(0, |end| end as u64 + 1);
        self.file.set_len(end)?;
        self.file.seek(SeekFrom::Start(end)).map(|_| ())
    }

    /// Notes pieces whose bytes are on the disk.
    pub(crate) fn note(&mut self, pieces: &[usize]) -> io::Result<()> {
        let mut lines = Vec::new();
        for n in pieces {
            writeln!(lines, "{n}")?;
        }
        self.file.write_all(&lines)?;
        self.file.sync_data()
    }

    /// The file is complete, or will not be: nothing is left to continue.
    pub(crate) fn remove(self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }
}

fn title(plan: &Plan) -> String {
    let mut hash = Sha256::new();
    for part in plan.identity() {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    format!("{VERSION} {:x}\n", hash.finalize())
}
