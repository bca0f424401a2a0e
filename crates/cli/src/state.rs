//! The folder that outlives a run: `$DS4_HOME` or `~/.ds4`. Owns where it is and who may read it, not what lies in it.

use std::env;
use std::fs::DirBuilder;
use std::path::PathBuf;

/// The folder, made if it is not there, for nobody else to read; `None` if there is no place for it.
pub(crate) fn folder() -> Option<PathBuf> {
    let folder = path_in("DS4_HOME").or_else(|| path_in("HOME").map(|home| home.join(".ds4")))?;
    if !folder.is_dir() {
        let mut builder = DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.recursive(true).create(&folder).ok()?;
    }
    Some(folder)
}

/// The path in an environment variable that is set and not empty.
pub(crate) fn path_in(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}
