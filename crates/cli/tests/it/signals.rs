//! Ctrl+C and SIGTERM in every phase of a one-shot run: what is printed, the exit code, and how long it takes.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::program::Program;

/// Far more than an exit takes, far less than the work that is cut short.
const AT_ONCE: Duration = Duration::from_secs(3);

/// A run whose standard error has come to a line that contains `mark`.
struct Running {
    child: Child,
    err: BufReader<ChildStderr>,
}

impl Running {
    fn until(program: &Program, args: &[&str], mark: &str) -> Self {
        let mut command = program.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let mut err = BufReader::new(child.stderr.take().expect("a pipe"));
        let mut line = String::new();
        while !line.contains(mark) {
            line.clear();
            assert!(err.read_line(&mut line).expect("UTF-8") > 0, "standard error ended before {mark:?}");
        }
        Self { child, err }
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
        assert!(sent.expect("kill").success());
    }

    fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a state").is_none()
    }

    /// Exit code, standard output and the last line of standard error. The run must end within `most`.
    fn ends(mut self, most: Duration) -> (Option<i32>, String, String) {
        let started = Instant::now();
        while self.is_running() {
            if started.elapsed() > most {
                self.child.kill().expect("killed");
                panic!("still running after {most:?}");
            }
            sleep(Duration::from_millis(10));
        }
        let code = self.child.wait().expect("ended").code();
        let (mut out, mut err) = (String::new(), String::new());
        self.child.stdout.take().expect("a pipe").read_to_string(&mut out).expect("UTF-8");
        self.err.read_to_string(&mut err).expect("UTF-8");
        (code, out, err.lines().last().unwrap_or_default().to_owned())
    }
}

/// A prompt whose prefill takes seconds.
fn long_prompt(program: &Program) {
    program.write("long.txt", "the quick brown fox jumps over the lazy dog. ".repeat(420));
}

#[test]
fn a_second_ctrl_c_ends_a_prefill_that_the_first_one_cannot() {
    let program = Program::endless();
    long_prompt(&program);
    let args = ["--prompt-file", "long.txt", "--prefill-chunk", "8192", "-t", "1"];
    let mut run = Running::until(&program, &args, "0/7994");
    run.signal("INT");
    sleep(Duration::from_millis(300));
    assert!(run.is_running(), "one chunk of the whole prompt should take longer");
    run.signal("INT");
    let (code, out, _) = run.ends(AT_ONCE);
    assert_eq!((code, out.as_str()), (Some(130), ""));
}

#[test]
fn one_ctrl_c_ends_a_prefill_after_its_chunk_and_claims_no_more_than_was_done() {
    let program = Program::endless();
    long_prompt(&program);
    let run = Running::until(&program, &["--prompt-file", "long.txt", "--prefill-chunk", "32"], " 0/7994");
    sleep(Duration::from_millis(500));
    run.signal("INT");
    let (code, out, last) = run.ends(AT_ONCE);
    assert_eq!((code, out.as_str()), (Some(130), ""), "nothing was generated, so nothing is printed");
    assert!(last.starts_with("ds4: ") && last.contains("seed ") && !last.contains("generation"), "{last}");
    let speed = last.strip_prefix("ds4: prefill: ").and_then(|rest| rest.split(' ').next()).map(str::parse::<f64>);
    // All 7994 tokens within half a second would be faster than any machine that runs this.
    assert!(speed.is_none_or(|speed| speed.expect("a number") < 7994.0 / 0.5), "{last}");
}

#[test]
fn sigterm_ends_an_answer_as_ctrl_c_does_with_its_own_code() {
    let program = Program::endless();
    for (signal, expected) in [("INT", 130), ("TERM", 143)] {
        let mut run =
            Running::until(&program, &["-p", "Hello", "-c", "16384", "--nothink", "--seed", "1"], "processing");
        let mut first = [0; 1];
        run.child.stdout.as_mut().expect("a pipe").read_exact(&mut first).expect("a first byte");
        run.signal(signal);
        let (code, out, last) = run.ends(AT_ONCE);
        assert_eq!(code, Some(expected));
        assert!(out.ends_with('\n'), "{out:?}");
        assert!(last.contains("generation: ") && last.ends_with("seed 1"), "{last}");
    }
}

#[test]
fn one_signal_ends_the_program_while_it_reads_its_prompt_or_loads_its_model() {
    let program = Program::new();
    program.works(&["synth", "flash.gguf", "--preset", "flash", "--sparse", "--quiet"]);
    let warm =
        ["-m", "flash.gguf", "-p", "a", "-c", "512", "--prefill-chunk", "16", "--warm-weights", "--no-lock", "-t", "1"];
    for (signal, expected) in [("INT", 130), ("TERM", 143)] {
        let run = Running::until(&program, &warm, "memory: weights");
        run.signal(signal);
        let (code, out, last) = run.ends(AT_ONCE);
        assert_eq!((code, out.as_str(), last.as_str()), (Some(expected), "", ""));
        // Nothing says that it waits for a prompt.
        let waiting = Running::until(&program, &[], "");
        sleep(Duration::from_millis(300));
        waiting.signal(signal);
        assert_eq!(waiting.ends(AT_ONCE), (Some(expected), String::new(), String::new()));
    }
}
