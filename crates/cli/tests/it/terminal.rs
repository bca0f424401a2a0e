//! The program on a pseudo-terminal: prompt, commands, Ctrl+C in each place.

use std::process::Command;

use rexpect::session::{PtySession, spawn_command};

use crate::program::{Program, fixture};

const PATIENCE_MS: u64 = 20_000;

fn start(program: &Program, args: &[&str]) -> PtySession {
    let command: Command = program.command(args);
    spawn_command(command, Some(PATIENCE_MS)).expect("a pseudo-terminal")
}

fn repl(program: &Program) -> PtySession {
    let mut session = start(program, &["-c", "2048", "-n", "6", "--seed", "1", "--nothink"]);
    session.exp_string("ds4> ").expect("a prompt");
    session
}

fn say(session: &mut PtySession, line: &str, expect: &str) {
    session.send_line(line).expect("sent");
    session.exp_string(expect).expect(expect);
    session.exp_string("ds4> ").expect("a prompt");
}

fn ends_with(session: &PtySession, code: i32) {
    match session.process().wait().expect("the program ends") {
        rexpect::process::WaitStatus::Exited(_, found) => assert_eq!(found, code),
        other => panic!("ended as {other:?}"),
    }
}

#[test]
fn turns_and_commands_work_and_the_history_is_saved() {
    let program = Program::new();
    let mut session = repl(&program);
    say(&mut session, "Hello", "seed 1");
    say(&mut session, "Again", "seed 2");
    say(&mut session, "/status", "2 turns");
    say(&mut session, "/save talk.json", "saved 2 turns");
    say(&mut session, "/undo", "1 turns left");
    say(&mut session, "/retry", "seed 3");
    say(&mut session, "/clear", "fresh conversation");
    say(&mut session, "/undo", "nothing to undo");
    say(&mut session, "/load talk.json", "loaded 2 turns");
    say(&mut session, "/think", "thinking on");
    say(&mut session, "/temp 0", "temperature 0");
    say(&mut session, "/temp x", "invalid value for /temp: x");
    say(&mut session, "/ctx 4", "the conversation has ");
    say(&mut session, "/ctx abc", "invalid value for /ctx: abc");
    say(&mut session, "/ctx 1024", "context of 1024 tokens");
    say(&mut session, "/status", "/1024 tokens, 2 turns");
    say(&mut session, "/nonsense", "unknown command: /nonsense");
    say(&mut session, "//literal", "seed 4");
    session.send_line("/quit").expect("sent");
    ends_with(&session, 0);
    let talk = program.json("talk.json");
    let roles: Vec<&str> = talk.as_array().expect("messages").iter().filter_map(|m| m["role"].as_str()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "user", "assistant"]);
    let history = String::from_utf8(program.read("home/history")).expect("text");
    assert!(history.contains("Hello") && history.contains("//literal"), "{history}");
}

#[test]
fn help_files_system_text_and_sampling_are_commands() {
    let program = Program::new();
    program.write("message.txt", "Hello\nfrom a file");
    let mut session = repl(&program);
    say(&mut session, "/help", "/retry");
    say(&mut session, "/read", "/read needs a file name");
    say(&mut session, "/read missing.txt", "cannot open file: missing.txt: No such file or directory");
    say(&mut session, "/read .", "cannot read file: .: Is a directory");
    say(&mut session, "/read message.txt", "seed 1");
    say(&mut session, "/system Answer briefly", "the whole conversation is processed again");
    say(&mut session, "/seed 77", "seed 77");
    say(&mut session, "/temp 0.5", "temperature 0.5");
    say(&mut session, "/temp -1", "invalid value for /temp: -1: expected 0..100");
    say(&mut session, "/seed -1", "invalid value for /seed: -1");
    say(&mut session, "Again", "seed 77");
    say(&mut session, "Again", "seed 78");
    say(&mut session, "/think-max", "warning: --think-max needs a context of at least 393216, got 2048");
    say(&mut session, "/status", "thinking: on");
    say(&mut session, "/nothink", "thinking off");
    say(&mut session, "/save talk.json", "saved 3 turns");
    say(&mut session, "/load message.txt", "cannot load conversation: message.txt: ");
    say(&mut session, "/status", "3 turns");
    session.send_line("/quit").expect("sent");
    ends_with(&session, 0);
    let talk = program.json("talk.json");
    assert_eq!((&talk[0]["content"], &talk[1]["content"]), (&"Answer briefly".into(), &"Hello\nfrom a file".into()));
}

#[test]
fn bytes_that_are_no_text_cost_their_line_only() {
    use std::io::Write;
    let program = Program::new();
    let mut session = repl(&program);
    session.process().get_file_handle().expect("the terminal").write_all(b"\xff\xfe").expect("sent");
    say(&mut session, "", "not valid UTF-8: the line was dropped");
    session.send_line("/quit").expect("sent");
    ends_with(&session, 0);
}

#[test]
fn a_message_that_does_not_fit_is_taken_back() {
    let program = Program::new();
    let mut session = start(&program, &["-c", "64", "-n", "4", "--nothink"]);
    session.exp_string("ds4> ").expect("a prompt");
    say(&mut session, &"many words ".repeat(40), "are free");
    say(&mut session, "/status", "0 turns");
    session.send_control('d').expect("sent");
    ends_with(&session, 0);
}

#[test]
fn at_the_prompt_ctrl_c_clears_the_line_then_hints_then_leaves() {
    let program = Program::new();
    let mut session = repl(&program);
    session.send("abc").expect("sent");
    session.flush().expect("flushed");
    session.exp_string("abc").expect("an echo");
    session.send_control('c').expect("sent");
    say(&mut session, "/status", "0 turns");
    session.send_control('c').expect("sent");
    session.exp_string("press Ctrl+C again").expect("a hint");
    session.exp_string("ds4> ").expect("a prompt");
    session.send_control('c').expect("sent");
    ends_with(&session, 130);
}

#[test]
fn ctrl_c_stops_an_answer_and_keeps_it() {
    let program = Program::endless();
    let mut session = start(&program, &["-c", "16384", "--seed", "1", "--nothink"]);
    session.exp_string("ds4> ").expect("a prompt");
    session.send_line("Hello").expect("sent");
    std::thread::sleep(std::time::Duration::from_millis(400));
    session.send_control('c').expect("sent");
    session.exp_string("seed 1").expect("a timing line");
    session.exp_string("ds4> ").expect("a prompt");
    say(&mut session, "/status", "1 turns");
    session.send_line("/exit").expect("sent");
    ends_with(&session, 0);
}

#[test]
fn ctrl_c_ends_a_one_shot_answer_with_its_timing_line() {
    let program = Program::endless();
    let mut session = start(&program, &["-p", "Hello", "-c", "16384", "--seed", "1", "--nothink"]);
    session.exp_string("memory").expect("a memory plan");
    std::thread::sleep(std::time::Duration::from_millis(600));
    session.send_control('c').expect("sent");
    session.exp_string("seed 1").expect("a timing line");
    ends_with(&session, 130);
}

/// A shell that tells the program's process id, runs it, and then tells its exit code and how the terminal is set.
fn in_a_shell(program: &Program, args: &str) -> PtySession {
    let run = format!("sh -c 'echo pid=$$; exec \"$@\"' sh {} {args}", env!("CARGO_BIN_EXE_ds4"));
    let script = format!("trap : INT; {run}; echo code=$?; stty -a");
    spawn_command(program.surrounded(Command::new("sh"), &["-c", &script]), Some(PATIENCE_MS))
        .expect("a pseudo-terminal")
}

fn leaves_the_terminal_whole(session: &mut PtySession, code: i32) {
    session.exp_string(&format!("code={code}\r\n")).expect("an exit code");
    // A line editor turns these off; the pseudo-terminal of this test has no echo to begin with.
    session.exp_regex("[^-]isig icanon iexten").expect("whole lines and signals");
}

#[test]
fn a_second_ctrl_c_in_a_prefill_leaves_the_terminal_as_it_was() {
    let program = Program::endless();
    program.write("long.txt", "the quick brown fox jumps over the lazy dog. ".repeat(420));
    let mut session = in_a_shell(&program, "-c 16384 --prefill-chunk 8192 -t 1 --nothink");
    session.exp_string("ds4> ").expect("a prompt");
    session.send_line("/read long.txt").expect("sent");
    session.exp_string(" 0/7").expect("progress");
    session.send_control('c').expect("sent");
    std::thread::sleep(std::time::Duration::from_millis(300));
    session.send_control('c').expect("sent");
    leaves_the_terminal_whole(&mut session, 130);
}

#[test]
fn sigterm_leaves_a_chat_and_the_terminal_as_it_was() {
    let program = Program::new();
    let mut session = in_a_shell(&program, "--nothink");
    let (_, pid) = session.exp_regex("pid=[0-9]+").expect("a process");
    session.exp_string("ds4> ").expect("a prompt");
    let sent = Command::new("kill").args(["-s", "TERM", &pid["pid=".len()..]]).status();
    assert!(sent.expect("kill").success());
    leaves_the_terminal_whole(&mut session, 143);
}

/// An evaluation with a screen of its own whose one case goes on for long.
fn evaluation(program: &Program) -> (PtySession, String) {
    let case = r#"{"id": "long", "kind": "exact", "question": "Say something long.", "answer": "x"}"#;
    program.write("cases.jsonl", format!("{case}\n"));
    let mut session =
        in_a_shell(program, &format!("eval -m {} --cases cases.jsonl -n 30000 --nothink", fixture("tiny/tiny-a.gguf")));
    let (_, pid) = session.exp_regex("pid=[0-9]+").expect("a process");
    session.exp_string("\x1b[?1049h").expect("the screen is taken");
    (session, pid["pid=".len()..].to_owned())
}

#[test]
fn q_ends_an_evaluation_with_its_report() {
    let program = Program::new();
    let (mut session, _) = evaluation(&program);
    session.send("q").expect("sent");
    session.flush().expect("flushed");
    session.exp_string("\x1b[?1049l").expect("the screen is given back");
    session.exp_string("ds4-eval: 0/1 passed, 0 failed, runtime").expect("a report");
    session.exp_string("stopped").expect("a table");
    leaves_the_terminal_whole(&mut session, 4);
}

#[test]
fn sigterm_ends_an_evaluation_and_gives_the_screen_back() {
    let program = Program::new();
    let (mut session, pid) = evaluation(&program);
    std::thread::sleep(std::time::Duration::from_millis(300));
    let sent = Command::new("kill").args(["-s", "TERM", &pid]).status();
    assert!(sent.expect("kill").success());
    session.exp_string("\x1b[?1049l").expect("the screen is given back");
    session.exp_string("ds4-eval: 0/1 passed, 0 failed, runtime").expect("a report");
    leaves_the_terminal_whole(&mut session, 143);
}
