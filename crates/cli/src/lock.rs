//! One model process per device and user. Owns the advisory lock and the line in it that tells who holds it.
//!
//! Only conversations and evaluations with a model from a file take it: they hold gigabytes and every core for as long as they run. The
//! miniature inside the program is small enough to run beside anything, and the tools are not worth refusing: looking at a
//! file or its tokens touches no weight, and checks, dumped logits and benchmarks are short runs that their user starts side
//! by side on purpose.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process;

use anyhow::bail;

use crate::config::{Backend, Config, ModelSource, Runtime};
use crate::state;

/// Holds the device until it is dropped, or for as long as the process lives.
pub(crate) struct Lock {
    _file: Option<File>,
}

impl Lock {
    /// The lock a conversation needs, if it needs one. A folder that cannot be written to has no locks and asks for none.
    pub(crate) fn for_conversation(config: &Config) -> anyhow::Result<Self> {
        Self::for_model(&config.model, &config.runtime)
    }

    /// The same for a long run with a model.
    pub(crate) fn for_model(model: &ModelSource, runtime: &Runtime) -> anyhow::Result<Self> {
        let wanted = matches!(model, ModelSource::File(_)) && !runtime.no_lock;
        let device = match runtime.backend {
            Backend::Cuda => format!("cuda{}", runtime.device),
            Backend::Gpu(api) => format!("{}{}", api.name(), runtime.device),
            _ => "cpu".to_owned(),
        };
        let file = if wanted { file(&device).and_then(|path| open(path).ok()) } else { None };
        let Some(mut file) = file else { return Ok(Self { _file: None }) };
        match file.try_lock() {
            Ok(()) => {
                // What is written here is for people: a lock without it is still a lock.
                let _ = write_holder(&mut file);
                Ok(Self { _file: Some(file) })
            }
            Err(TryLockError::WouldBlock) => {
                bail!("device {device} is in use by {}: stop it or pass --no-lock", holder(&mut file))
            }
            // A file system without locks.
            Err(TryLockError::Error(_)) => Ok(Self { _file: None }),
        }
    }
}

fn file(device: &str) -> Option<PathBuf> {
    let folder = state::path_in("XDG_RUNTIME_DIR").filter(|path| path.is_dir()).or_else(state::folder)?;
    Some(folder.join(format!("ds4-{device}.lock")))
}

/// Without truncation: the line in it may be another process's.
fn open(path: PathBuf) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn write_holder(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    writeln!(file, "{} ds4", process::id())
}

/// The other process as the file tells it, which may be anything.
fn holder(file: &mut File) -> String {
    let mut line = String::new();
    // Longer than any process id and any name of this family.
    let read = file.take(64).read_to_string(&mut line);
    let known = line.trim().split_once(' ').filter(|_| read.is_ok());
    match known.and_then(|(pid, name)| Some((pid.parse::<u32>().ok()?, name))) {
        Some((pid, name)) if name.chars().all(|c| c.is_ascii_graphic()) => format!("{name} (pid {pid})"),
        _ => "another program".to_owned(),
    }
}
