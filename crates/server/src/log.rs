//! The log of the process: to standard error or a file that can be opened again after somebody has moved it away.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tracing::Level;
use tracing_subscriber::fmt;

use crate::config::{LogConfig, LogLevel};

static FILE: OnceLock<LogFile> = OnceLock::new();

/// Begins to log. Once per process; what was begun before stays.
///
/// # Errors
/// If the file cannot be opened.
pub fn start_log(config: &LogConfig) -> io::Result<()> {
    let level = match config.level {
        LogLevel::Error => Level::ERROR,
        LogLevel::Warn => Level::WARN,
        LogLevel::Info => Level::INFO,
        LogLevel::Debug => Level::DEBUG,
    };
    let colour = config.colour && config.file.is_none() && io::stderr().is_terminal();
    let output = match &config.file {
        Some(path) => Output::File(FILE.get_or_init(|| LogFile::new(path)).opened()?),
        None => Output::Stderr,
    };
    let builder = fmt().with_max_level(level).with_target(false).with_ansi(colour).with_writer(move || output.clone());
    // A second server in the same process logs where the first one does.
    let _ = match config.json {
        true => tracing::subscriber::set_global_default(builder.json().flatten_event(true).finish()),
        false => tracing::subscriber::set_global_default(builder.finish()),
    };
    Ok(())
}

/// Opens the file under its name again.
pub(crate) fn reopen() {
    if let Some(file) = FILE.get()
        && let Err(error) = file.open()
    {
        tracing::error!(%error, "cannot open the log again");
    }
}

/// A file that is appended to and may be opened again.
#[derive(Clone)]
pub(crate) struct LogFile {
    path: PathBuf,
    file: Arc<Mutex<Option<File>>>,
}

impl LogFile {
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), file: Arc::default() }
    }

    pub(crate) fn opened(&self) -> io::Result<Self> {
        self.open().map(|()| self.clone())
    }

    pub(crate) fn open(&self) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.append(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&self.path)?;
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
        Ok(())
    }

    /// All of `bytes`, with nothing of anybody else's between them.
    pub(crate) fn append(&self, bytes: &[u8]) -> io::Result<()> {
        match self.file.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            Some(file) => file.write_all(bytes),
            None => Ok(()),
        }
    }
}

/// Where lines go.
#[derive(Clone)]
enum Output {
    Stderr,
    File(LogFile),
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Output::Stderr => io::stderr().write(bytes),
            Output::File(file) => file.append(bytes).map(|()| bytes.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
