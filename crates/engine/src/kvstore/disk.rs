//! How files come and go, and every fault that a test can inject on the way. Knows names and bytes, not what they mean; the
//! calls themselves are `files`'.

use std::fmt;
use std::io;
use std::sync::Arc;

use super::files::{Entry, Files};

/// One directory.
pub(crate) struct Disk {
    files: Box<dyn Files>,
    faults: KvFaults,
}

/// Room on a file system, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvSpace {
    /// What may still be written.
    pub free: u64,
    /// All there is.
    pub total: u64,
}

/// A call that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KvOp {
    /// A new file.
    Create,
    /// Bytes into it.
    Write,
    /// Its bytes to the medium.
    Sync,
    /// Its final name.
    Rename,
    /// That name to the medium.
    SyncDir,
    /// A whole file.
    Read,
    /// Away with a file.
    Remove,
}

/// How it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvFault {
    /// With this error, nothing done.
    Error(io::ErrorKind),
    /// A write leaves half of its bytes and reports a full disk.
    Short,
    /// A write leaves half of its bytes and reports success.
    Torn,
}

/// Failures to inject: asked before every call. The default injects none.
#[derive(Clone, Default)]
pub struct KvFaults {
    ask: Option<Arc<Ask>>,
    space: Option<Arc<Measure>>,
}

type Ask = dyn Fn(KvOp) -> Option<KvFault> + Send + Sync;
type Measure = dyn Fn() -> KvSpace + Send + Sync;

impl KvFaults {
    /// Asks `ask` before every call.
    pub fn new(ask: impl Fn(KvOp) -> Option<KvFault> + Send + Sync + 'static) -> Self {
        KvFaults { ask: Some(Arc::new(ask)), space: None }
    }

    /// The same on a file system that has what `measure` says, whatever the real one has.
    #[must_use]
    pub fn with_space(self, measure: impl Fn() -> KvSpace + Send + Sync + 'static) -> Self {
        KvFaults { space: Some(Arc::new(measure)), ..self }
    }

    fn ask(&self, op: KvOp) -> Option<KvFault> {
        self.ask.as_ref().and_then(|ask| ask(op))
    }

    fn check(&self, op: KvOp) -> io::Result<()> {
        match self.ask(op) {
            None => Ok(()),
            Some(KvFault::Error(kind)) => Err(kind.into()),
            Some(KvFault::Short | KvFault::Torn) => Err(io::ErrorKind::StorageFull.into()),
        }
    }
}

impl fmt::Debug for KvFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let none = self.ask.is_none() && self.space.is_none();
        f.write_str(if none { "KvFaults" } else { "KvFaults(..)" })
    }
}

impl Disk {
    pub(crate) fn new(files: Box<dyn Files>, faults: KvFaults) -> Self {
        Disk { files, faults }
    }

    /// Regular files and what they are like; whatever else lies there is not ours.
    pub(crate) fn list(&self) -> io::Result<Vec<Entry>> {
        self.files.list()
    }

    /// The first `n` bytes of a file, or all of it if there are fewer.
    pub(crate) fn head(&self, name: &str, n: usize) -> io::Result<Vec<u8>> {
        self.files.read(name, n as u64)
    }

    /// A whole file of at most `most` bytes.
    pub(crate) fn read(&self, name: &str, most: u64) -> io::Result<Vec<u8>> {
        self.faults.check(KvOp::Read)?;
        let bytes = self.files.len(name)?;
        if bytes > most {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.files.read(name, bytes)
    }

    /// Writes `bytes` under a name of its own, makes them durable and gives them their name. `pace` is called after every
    /// piece and may take its time or give up. Whatever happens, no other name holds anything of it afterwards.
    pub(crate) fn write(
        &self,
        name: &str,
        bytes: &[u8],
        pace: &mut dyn FnMut(usize) -> io::Result<()>,
    ) -> io::Result<()> {
        let temporary = format!("{name}{TEMPORARY}");
        let done = self.write_temporary(&temporary, bytes, pace).and_then(|()| {
            self.faults.check(KvOp::Rename)?;
            self.files.rename(&temporary, name)
        });
        if done.is_err() {
            // If this fails too, the next opening removes it.
            let _ = self.files.remove(&temporary);
        }
        done
    }

    fn write_temporary(
        &self,
        name: &str,
        bytes: &[u8],
        pace: &mut dyn FnMut(usize) -> io::Result<()>,
    ) -> io::Result<()> {
        self.faults.check(KvOp::Create)?;
        let mut file = match self.files.create(name) {
            // Left by a save that could not clean up behind itself.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.files.remove(name)?;
                self.files.create(name)?
            }
            other => other?,
        };
        for piece in bytes.chunks(PIECE) {
            match self.faults.ask(KvOp::Write) {
                None => file.write(piece)?,
                Some(KvFault::Error(kind)) => return Err(kind.into()),
                Some(KvFault::Torn) => file.write(&piece[..piece.len() / 2])?,
                Some(KvFault::Short) => {
                    file.write(&piece[..piece.len() / 2])?;
                    return Err(io::ErrorKind::StorageFull.into());
                }
            }
            pace(piece.len())?;
        }
        self.faults.check(KvOp::Sync)?;
        file.sync()
    }

    /// Makes the names durable that are found at the opening: a save may have failed after giving one.
    pub(crate) fn settle(&self) -> io::Result<()> {
        self.files.sync_dir()
    }

    /// Makes names durable.
    pub(crate) fn sync_dir(&self) -> io::Result<()> {
        self.faults.check(KvOp::SyncDir)?;
        self.files.sync_dir()
    }

    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        self.faults.check(KvOp::Remove)?;
        self.files.remove(name)
    }

    /// Marks a file as used now.
    pub(crate) fn touch(&self, name: &str) -> io::Result<()> {
        self.files.touch(name)
    }

    /// Bytes that may still be written before less than a twentieth of the file system is free; what cannot be told is no
    /// limit.
    pub(crate) fn spare(&self) -> u64 {
        let space = self.faults.space.as_ref().map(|measure| measure()).or_else(|| self.files.space());
        space.map_or(u64::MAX, |space| space.free.saturating_sub(space.total / 20))
    }
}

/// How names end until their files are complete.
pub(crate) const TEMPORARY: &str = ".tmp";
/// Bytes of one write call.
const PIECE: usize = 1 << 20;
