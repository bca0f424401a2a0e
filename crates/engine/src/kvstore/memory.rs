//! A directory in memory, for simulations: it knows what a loss of power would leave of it.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use super::disk::KvSpace;
use super::files::{Entry, Files, NewFile};

/// Clones share the directory.
#[derive(Clone, Default)]
pub(crate) struct Memory(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    files: Vec<Bytes>,
    names: BTreeMap<String, usize>,
    /// Names as the medium has them.
    durable: BTreeMap<String, usize>,
    room: u64,
    /// Changes until the power goes; none while that is not due.
    fuse: Option<u64>,
}

#[derive(Clone, Default)]
struct Bytes {
    all: Vec<u8>,
    /// So many of them are on the medium.
    durable: usize,
}

impl Memory {
    pub(crate) fn new(room: u64) -> Self {
        let memory = Memory::default();
        memory.state().room = room;
        memory
    }

    /// Lets the power go before the change after the next `changes` ones.
    pub(crate) fn light(&self, changes: u64) {
        self.state().fuse = Some(changes);
    }

    /// Whether the power has gone.
    pub(crate) fn is_dark(&self) -> bool {
        self.state().fuse == Some(0)
    }

    /// A directory as the medium has it after a loss of power: names and bytes that were not made durable are there, or not,
    /// or in part, as `chance` (a number below its argument) decides. Whoever holds the old one writes to nowhere.
    pub(crate) fn after_crash(&self, chance: &mut dyn FnMut(u64) -> u64) -> Memory {
        let old = self.state();
        let mut names = BTreeMap::new();
        for name in old.names.keys().chain(old.durable.keys()) {
            let (now, then) = (old.names.get(name), old.durable.get(name));
            let survivor = if now == then || chance(2) == 0 { then } else { now };
            names.extend(survivor.map(|&file| (name.clone(), file)));
        }
        let cut = |bytes: &Bytes, chance: &mut dyn FnMut(u64) -> u64| {
            let lost = (bytes.all.len() - bytes.durable) as u64;
            let len = bytes.durable + chance(lost + 1) as usize;
            Bytes { all: bytes.all[..len].to_vec(), durable: len }
        };
        let files = old.files.iter().map(|bytes| cut(bytes, chance)).collect();
        let state = State { files, durable: names.clone(), names, room: old.room, fuse: None };
        Memory(Arc::new(Mutex::new(state)))
    }

    /// Turns over one bit of some file that has any.
    pub(crate) fn flip_a_bit(&self, chance: &mut dyn FnMut(u64) -> u64) {
        let mut state = self.state();
        let named: Vec<usize> = state.names.values().copied().collect();
        if named.is_empty() {
            return;
        }
        let file = &mut state.files[named[chance(named.len() as u64) as usize]].all;
        if !file.is_empty() {
            let at = chance(file.len() as u64) as usize;
            file[at] ^= 1 << chance(8);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nobody panics while holding it")
    }
}

impl State {
    fn file(&mut self, name: &str) -> io::Result<&mut Bytes> {
        let file = *self.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(&mut self.files[file])
    }

    /// To be asked before every change.
    fn burn(&mut self) -> io::Result<()> {
        match &mut self.fuse {
            Some(0) => Err(io::ErrorKind::BrokenPipe.into()),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn used(&self) -> u64 {
        self.names.values().map(|&file| self.files[file].all.len() as u64).sum()
    }
}

impl Files for Memory {
    fn list(&self) -> io::Result<Vec<Entry>> {
        let state = self.state();
        let entry = |(name, &file): (&String, &usize)| {
            let bytes = state.files[file].all.len() as u64;
            Entry { name: name.clone(), bytes, modified: SystemTime::UNIX_EPOCH }
        };
        Ok(state.names.iter().map(entry).collect())
    }

    fn len(&self, name: &str) -> io::Result<u64> {
        Ok(self.state().file(name)?.all.len() as u64)
    }

    fn read(&self, name: &str, most: u64) -> io::Result<Vec<u8>> {
        let mut state = self.state();
        let bytes = &state.file(name)?.all;
        Ok(bytes[..bytes.len().min(most as usize)].to_vec())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn NewFile>> {
        let mut state = self.state();
        state.burn()?;
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.files.push(Bytes::default());
        let file = state.files.len() - 1;
        state.names.insert(name.to_owned(), file);
        Ok(Box::new(Open { memory: self.clone(), file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.burn()?;
        let file = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.burn()?;
        state.names.remove(name).map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.state();
        state.burn()?;
        state.durable = state.names.clone();
        Ok(())
    }

    fn touch(&self, name: &str) -> io::Result<()> {
        self.state().file(name).map(drop)
    }

    fn space(&self) -> Option<KvSpace> {
        let state = self.state();
        Some(KvSpace { free: state.room.saturating_sub(state.used()), total: state.room })
    }
}

struct Open {
    memory: Memory,
    file: usize,
}

impl NewFile for Open {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.memory.state();
        state.burn()?;
        let fits = state.room.saturating_sub(state.used()).min(bytes.len() as u64) as usize;
        state.files[self.file].all.extend_from_slice(&bytes[..fits]);
        if fits == bytes.len() { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.memory.state();
        state.burn()?;
        let file = &mut state.files[self.file];
        file.durable = file.all.len();
        Ok(())
    }
}
