//! Running the program in a folder of its own, with nothing of the surrounding environment that it would read.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use tempfile::TempDir;

pub(crate) struct Program {
    pub(crate) folder: TempDir,
}

pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Program {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir_in(roomy()).expect("a temporary folder") }
    }

    /// A program whose default model has random weights, and so never ends a turn by itself.
    pub(crate) fn endless() -> Self {
        static MODEL: LazyLock<Vec<u8>> =
            LazyLock::new(|| ds4_synth::build(&ds4_synth::preset("mini").expect("a preset")).expect("a model"));
        let program = Self::new();
        program.write("ds4flash.gguf", &*MODEL);
        program
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        self.surrounded(Command::new(env!("CARGO_BIN_EXE_ds4")), args)
    }

    /// Any command in the surroundings that the program is tested in.
    pub(crate) fn surrounded(&self, mut command: Command, args: &[&str]) -> Command {
        command.args(args).current_dir(self.folder.path()).env_remove("DS4_MODEL").env_remove("XDG_RUNTIME_DIR");
        command.env("DS4_HOME", self.path("home")).env("TERM", "xterm").env_remove("NO_COLOR");
        // The CPU, whatever the machine has.
        command.env("CUDA_VISIBLE_DEVICES", "");
        command
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), content).expect("a written file");
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).expect("a file")
    }

    pub(crate) fn json(&self, name: &str) -> serde_json::Value {
        serde_json::from_slice(&self.read(name)).expect("JSON")
    }

    /// Runs to the end with nothing on standard input.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        self.run_with(args, "")
    }

    pub(crate) fn run_with(&self, args: &[&str], input: &str) -> Ran {
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        // A program that fails early does not read its input.
        let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
        let output = child.wait_with_output().expect("the program ends");
        Ran {
            code: output.status.code().expect("an exit code"),
            out: String::from_utf8(output.stdout).expect("UTF-8"),
            err: unix_words(&String::from_utf8(output.stderr).expect("UTF-8")),
        }
    }

    /// Runs and expects success.
    pub(crate) fn works(&self, args: &[&str]) -> Ran {
        let ran = self.run(args);
        assert_eq!(ran.code, 0, "{args:?}: {}{}", ran.out, ran.err);
        ran
    }
}

/// What Windows says of missing files and folders as Unix says it.
fn unix_words(text: &str) -> String {
    let missing = "No such file or directory";
    text.replace("The system cannot find the file specified.", missing)
        .replace("The system cannot find the path specified.", missing)
}

/// A file of the recorded truth.
pub(crate) fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name);
    path.to_str().expect("a UTF-8 path").to_owned()
}

/// Where folders are made: what is kept on disk leaves a twentieth of its file system free, and the usual one may be that full.
fn roomy() -> PathBuf {
    let usual = std::env::temp_dir();
    #[cfg(unix)]
    for dir in [usual.as_path(), Path::new("/dev/shm")] {
        let Ok(stat) = rustix::fs::statvfs(dir) else { continue };
        if stat.f_bavail.saturating_sub(stat.f_blocks / 20) * stat.f_frsize > 64 << 20 {
            return dir.to_path_buf();
        }
    }
    usual
}
