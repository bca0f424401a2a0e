//! A directory in host memory. What is there is durable as long as the process is.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::disk::KvSpace;
use super::files::{Entry, Files, NewFile};

/// Clones share the directory.
#[derive(Clone, Default)]
pub(crate) struct Ram(Arc<Mutex<HashMap<String, Contents>>>);

struct Contents {
    bytes: Vec<u8>,
    modified: SystemTime,
}

impl Ram {
    fn files(&self) -> MutexGuard<'_, HashMap<String, Contents>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, name: &str, work: impl FnOnce(&mut Contents) -> T) -> io::Result<T> {
        self.files().get_mut(name).map(work).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Files for Ram {
    fn list(&self) -> io::Result<Vec<Entry>> {
        let entry = |(name, file): (&String, &Contents)| Entry {
            name: name.clone(),
            bytes: file.bytes.len() as u64,
            modified: file.modified,
        };
        Ok(self.files().iter().map(entry).collect())
    }

    fn len(&self, name: &str) -> io::Result<u64> {
        self.with(name, |file| file.bytes.len() as u64)
    }

    fn read(&self, name: &str, most: u64) -> io::Result<Vec<u8>> {
        self.with(name, |file| {
            let part = &file.bytes[..file.bytes.len().min(usize::try_from(most).unwrap_or(usize::MAX))];
            let mut out = Vec::new();
            out.try_reserve_exact(part.len())?;
            out.extend_from_slice(part);
            Ok(out)
        })?
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn NewFile>> {
        let mut files = self.files();
        if files.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        files.insert(name.to_owned(), Contents { bytes: Vec::new(), modified: SystemTime::now() });
        Ok(Box::new(Growing { directory: self.clone(), name: name.to_owned() }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.files();
        let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files().remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }

    fn touch(&self, name: &str) -> io::Result<()> {
        self.with(name, |file| file.modified = SystemTime::now())
    }

    fn space(&self) -> Option<KvSpace> {
        None
    }
}

/// A file that is being written.
struct Growing {
    directory: Ram,
    name: String,
}

impl NewFile for Growing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.directory.with(&self.name, |file| {
            file.bytes.try_reserve(bytes.len())?;
            file.bytes.extend_from_slice(bytes);
            Ok(())
        })?
    }

    fn sync(&mut self) -> io::Result<()> {
        // What it grew by beyond its size would stay taken for as long as it lives.
        self.directory.with(&self.name, |file| file.bytes.shrink_to_fit())
    }
}
