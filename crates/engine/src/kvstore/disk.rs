//! Every call that touches the file system, so that a test can make each of them fail. Knows names and bytes, not what they
//! mean.

use std::fmt;
use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// One directory.
pub(crate) struct Disk {
    dir: PathBuf,
    faults: KvFaults,
}

/// What a directory entry is like.
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) bytes: u64,
    pub(crate) modified: SystemTime,
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
pub struct KvFaults(Option<Arc<Ask>>);

type Ask = dyn Fn(KvOp) -> Option<KvFault> + Send + Sync;

impl KvFaults {
    /// Asks `ask` before every call.
    pub fn new(ask: impl Fn(KvOp) -> Option<KvFault> + Send + Sync + 'static) -> Self {
        KvFaults(Some(Arc::new(ask)))
    }

    fn ask(&self, op: KvOp) -> Option<KvFault> {
        self.0.as_ref().and_then(|ask| ask(op))
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
        f.write_str(if self.0.is_some() { "KvFaults(..)" } else { "KvFaults" })
    }
}

impl Disk {
    pub(crate) fn new(dir: &Path, faults: KvFaults) -> Self {
        Disk { dir: dir.to_owned(), faults }
    }

    /// Makes the directory if it is missing, for its owner alone.
    pub(crate) fn create_dir(&self) -> io::Result<()> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&self.dir)
    }

    /// The file that is locked.
    pub(crate) fn lock_file(&self, name: &str, write: bool) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(write).create(write).truncate(false);
        private(&mut options).open(self.dir.join(name))
    }

    /// Regular files and what they are like; whatever else lies there is not ours.
    pub(crate) fn list(&self) -> io::Result<Vec<Entry>> {
        let mut out = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            // It may have gone since.
            let Ok(meta) = entry.metadata() else { continue };
            if let (true, Ok(name)) = (meta.is_file(), entry.file_name().into_string()) {
                let modified = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                out.push(Entry { name, bytes: meta.len(), modified });
            }
        }
        Ok(out)
    }

    /// The first `N` bytes of a file, or all of it if there are fewer.
    pub(crate) fn head<const N: usize>(&self, name: &str) -> io::Result<Vec<u8>> {
        let mut out = Vec::with_capacity(N);
        self.open(name)?.take(N as u64).read_to_end(&mut out)?;
        Ok(out)
    }

    /// A whole file of at most `most` bytes.
    pub(crate) fn read(&self, name: &str, most: u64) -> io::Result<Vec<u8>> {
        self.faults.check(KvOp::Read)?;
        let file = self.open(name)?;
        let bytes = file.metadata()?.len();
        if bytes > most {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let mut out = Vec::new();
        out.try_reserve_exact(bytes as usize)?;
        file.take(bytes).read_to_end(&mut out)?;
        Ok(out)
    }

    fn open(&self, name: &str) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true);
        private(&mut options).open(self.dir.join(name))
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
            fs::rename(self.dir.join(&temporary), self.dir.join(name))
        });
        if done.is_err() {
            // If this fails too, the next opening removes it.
            let _ = fs::remove_file(self.dir.join(&temporary));
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
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        let mut file = match private(&mut options).open(self.dir.join(name)) {
            // Left by a save that could not clean up behind itself.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                fs::remove_file(self.dir.join(name))?;
                private(&mut options).open(self.dir.join(name))?
            }
            other => other?,
        };
        for piece in bytes.chunks(PIECE) {
            match self.faults.ask(KvOp::Write) {
                None => file.write_all(piece)?,
                Some(KvFault::Error(kind)) => return Err(kind.into()),
                Some(KvFault::Torn) => file.write_all(&piece[..piece.len() / 2])?,
                Some(KvFault::Short) => {
                    file.write_all(&piece[..piece.len() / 2])?;
                    return Err(io::ErrorKind::StorageFull.into());
                }
            }
            pace(piece.len())?;
        }
        self.faults.check(KvOp::Sync)?;
        file.sync_all()
    }

    /// Makes names durable.
    pub(crate) fn sync_dir(&self) -> io::Result<()> {
        self.faults.check(KvOp::SyncDir)?;
        if cfg!(unix) { File::open(&self.dir)?.sync_all() } else { Ok(()) }
    }

    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        self.faults.check(KvOp::Remove)?;
        fs::remove_file(self.dir.join(name))
    }

    /// Marks a file as used now.
    pub(crate) fn touch(&self, name: &str) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.append(true);
        let file = private(&mut options).open(self.dir.join(name))?;
        file.set_times(FileTimes::new().set_modified(SystemTime::now()))
    }

    /// Bytes that may still be written before less than a twentieth of the file system is free.
    pub(crate) fn spare(&self) -> u64 {
        #[cfg(unix)]
        if let Ok(stat) = rustix::fs::statvfs(&self.dir) {
            let (free, all) =
                (stat.f_bavail.saturating_mul(stat.f_frsize), stat.f_blocks.saturating_mul(stat.f_frsize));
            return free.saturating_sub(all / 20);
        }
        u64::MAX
    }
}

/// For the owner alone, and never through a link.
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600).custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32);
    }
    options
}

/// How names end until their files are complete.
pub(crate) const TEMPORARY: &str = ".tmp";
/// Bytes of one write call.
const PIECE: usize = 1 << 20;
