//! Files as this program reads and writes them: whole or not at all.

use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, anyhow};

use crate::failure::reason;

/// Writes under a temporary name in the same folder and renames, so that `path` never holds half a file. Devices and
/// pipes, which cannot be replaced, are written in place.
pub(crate) fn write_whole(path: &Path, write: impl FnOnce(&mut dyn Write) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let what = || format!("cannot write file: {}", path.display());
    if path.metadata().is_ok_and(|meta| !meta.is_file()) {
        let mut file = std::fs::OpenOptions::new().write(true).open(path).with_context(what)?;
        return write(&mut file).with_context(what);
    }
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let named = tempfile::Builder::new().prefix(".ds4-").tempfile_in(folder).map_err(|e| {
        // The temporary name is nothing the user typed.
        anyhow!("{}: {}", what(), reason(&std::io::Error::from(e.kind())))
    })?;
    let mut file = BufWriter::new(named);
    write(&mut file).with_context(what)?;
    let named = file.into_inner().map_err(std::io::IntoInnerError::into_error).with_context(what)?;
    let file = named.persist(path).map_err(|e| e.error).with_context(what)?;
    widen(&file);
    Ok(())
}

/// Temporary files are private; what the user asked for has the usual rights.
fn widen(file: &std::fs::File) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let _ = file.set_permissions(std::fs::Permissions::from_mode(0o644));
    }
    #[cfg(not(unix))]
    let _ = file;
}

/// A text file, with the error named after what it was to be.
pub(crate) fn read_text(path: &Path, what: &str) -> anyhow::Result<String> {
    let name = path.display();
    let bytes = std::fs::read(path).map_err(|e| anyhow!("cannot open {what}: {name}: {}", reason(&e)))?;
    String::from_utf8(bytes).map_err(|_| anyhow!("cannot read {what}: {name}: not valid UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a");
        write_whole(&path, |f| Ok(f.write_all(b"old")?)).expect("written");
        let failed = write_whole(&path, |f| {
            f.write_all(b"new")?;
            Err(anyhow!("stopped"))
        });
        assert!(failed.is_err());
        assert_eq!(std::fs::read(&path).expect("read"), b"old");
        assert_eq!(std::fs::read_dir(folder.path()).expect("folder").count(), 1);
    }
}
