//! The folders that outlive a run: `$DS4_HOME` or `~/.ds4`, and the user's cache. Owns where they are and who may read them, not
//! what lies in them.

use std::env;
use std::fs::DirBuilder;
use std::path::PathBuf;

/// The folder, made if it is not there, for nobody else to read; `None` if there is no place for it.
pub(crate) fn folder() -> Option<PathBuf> {
    let folder = path_in("DS4_HOME").or_else(|| home().map(|home| home.join(".ds4")))?;
    if !folder.is_dir() {
        let mut builder = DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.recursive(true).create(&folder).ok()?;
    }
    Some(folder)
}

/// Where things are kept that can be made again: `$XDG_CACHE_HOME/ds4` or `~/.cache/ds4`, whether it is there or not.
pub(crate) fn cache() -> Option<PathBuf> {
    let folder = path_in("XDG_CACHE_HOME").or_else(|| home().map(|home| home.join(".cache")))?;
    Some(folder.join("ds4"))
}

/// `$HOME`; Windows sets another variable.
fn home() -> Option<PathBuf> {
    path_in("HOME").or_else(|| if cfg!(windows) { path_in("USERPROFILE") } else { None })
}

/// The path in an environment variable that is set and not empty.
pub(crate) fn path_in(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}
