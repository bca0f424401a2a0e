//! Files as this program reads and writes them: whole or not at all.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::Path;

use anyhow::{Context, anyhow};

use crate::failure::reason;
use crate::memory::size;

/// Bytes of text that are read: many times what any context holds.
const MOST_TEXT: u64 = 256_000_000;

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
        // The temporary name that follows the system's reason is nothing the user typed.
        anyhow!("{}: {}", what(), reason(&e).split(" at path ").next().unwrap_or_default())
    })?;
    let mut file = BufWriter::new(named);
    write(&mut file).with_context(what)?;
    let named = file.into_inner().map_err(std::io::IntoInnerError::into_error).with_context(what)?;
    let file = named.persist(path).map_err(|e| e.error).with_context(what)?;
    widen(&file);
    Ok(())
}

/// Temporary files are private; what the user asked for has the usual rights.
fn widen(file: &File) {
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
    let file = File::open(path).map_err(|e| anyhow!("cannot open {what}: {name}: {}", reason(&e)))?;
    text_of(file).map_err(|why| anyhow!("cannot read {what}: {name}: {why}"))
}

/// All of a stream as text, or why not. A stream without an end must not take all memory.
pub(crate) fn text_of(stream: impl Read) -> Result<String, String> {
    let mut bytes = Vec::new();
    stream.take(MOST_TEXT + 1).read_to_end(&mut bytes).map_err(|e| reason(&e))?;
    if bytes.len() as u64 > MOST_TEXT {
        return Err(format!("more than {}", size(MOST_TEXT)));
    }
    String::from_utf8(bytes).map_err(|_| "not valid UTF-8".to_owned())
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

    #[test]
    fn a_folder_that_is_not_there_is_told_as_the_system_tells_it() {
        let error = write_whole(Path::new("no-such-folder/a"), |_| Ok(())).expect_err("no folder");
        let system = File::open("no-such-folder/a").expect_err("no folder");
        assert_eq!(error.to_string(), format!("cannot write file: no-such-folder/a: {}", reason(&system)));
    }

    #[test]
    fn a_stream_without_an_end_is_refused() {
        assert_eq!(text_of(std::io::repeat(b'a')), Err("more than 256.0 MB".to_owned()));
        assert_eq!(text_of(&b"a\xff"[..]), Err("not valid UTF-8".to_owned()));
        assert_eq!(text_of(&b"text"[..]), Ok("text".to_owned()));
    }
}
