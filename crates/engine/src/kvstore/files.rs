//! The calls of a file system that the store makes, all of them by name in one directory. The real one is here; a simulated
//! one takes its place in tests.

use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::disk::KvSpace;

/// Files of one directory.
pub(crate) trait Files: Send + Sync {
    /// Regular files; other things are left out.
    fn list(&self) -> io::Result<Vec<Entry>>;
    fn len(&self, name: &str) -> io::Result<u64>;
    /// The first `most` bytes, or all if there are fewer.
    fn read(&self, name: &str, most: u64) -> io::Result<Vec<u8>>;
    /// A new file; one of that name must not be there.
    fn create(&self, name: &str) -> io::Result<Box<dyn NewFile>>;
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes names durable.
    fn sync_dir(&self) -> io::Result<()>;
    /// Sets the time of the last change to now.
    fn touch(&self, name: &str) -> io::Result<()>;
    /// Room on the file system, if it can be told.
    fn space(&self) -> Option<KvSpace>;
}

/// A file that is being written.
pub(crate) trait NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Makes its bytes durable.
    fn sync(&mut self) -> io::Result<()>;
}

/// What a directory entry is like.
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) bytes: u64,
    pub(crate) modified: SystemTime,
}

/// A directory of the operating system.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(dir: &Path) -> Self {
        Folder(dir.to_owned())
    }

    /// Makes the directory if it is missing, for its owner alone.
    pub(crate) fn create_dir(&self) -> io::Result<()> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&self.0)
    }

    /// The file that is locked.
    pub(crate) fn lock_file(&self, name: &str, write: bool) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(write).create(write).truncate(false);
        private(&mut options).open(self.0.join(name))
    }

    fn open(&self, name: &str) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true);
        private(&mut options).open(self.0.join(name))
    }
}

impl Files for Folder {
    fn list(&self) -> io::Result<Vec<Entry>> {
        let mut out = Vec::new();
        for entry in fs::read_dir(&self.0)? {
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

    fn len(&self, name: &str) -> io::Result<u64> {
        Ok(self.open(name)?.metadata()?.len())
    }

    fn read(&self, name: &str, most: u64) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        out.try_reserve_exact(most as usize)?;
        self.open(name)?.take(most).read_to_end(&mut out)?;
        Ok(out)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn NewFile>> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        Ok(Box::new(private(&mut options).open(self.0.join(name))?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.0.join(from), self.0.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.0.join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        if cfg!(unix) { File::open(&self.0)?.sync_all() } else { Ok(()) }
    }

    fn touch(&self, name: &str) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.append(true);
        let file = private(&mut options).open(self.0.join(name))?;
        file.set_times(FileTimes::new().set_modified(SystemTime::now()))
    }

    fn space(&self) -> Option<KvSpace> {
        #[cfg(unix)]
        if let Ok(stat) = rustix::fs::statvfs(&self.0) {
            let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
            return Some(KvSpace { free: bytes(stat.f_bavail), total: bytes(stat.f_blocks) });
        }
        None
    }
}

impl NewFile for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
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
