//! One prompt in, one answer out, on pipes, with the miniature inside the program.

use std::io::Read;
use std::process::Stdio;

use serde_json::Value;

use crate::program::{Program, fixture};

const GREEDY: &[&str] = &["--temp", "0", "-n", "12", "-c", "512", "-t", "1"];

fn greedy<'a>(more: &[&'a str]) -> Vec<&'a str> {
    GREEDY.iter().copied().chain(more.iter().copied()).collect()
}

#[test]
fn the_answer_alone_is_on_standard_output_and_ends_with_one_newline() {
    let program = Program::new();
    let ran = program.works(&greedy(&["-p", "Hello", "--seed", "7"]));
    assert!(ran.out.ends_with('\n') && !ran.out.ends_with("\n\n") && !ran.out.contains('\x1b'), "{:?}", ran.out);
    let lines: Vec<&str> = ran.err.lines().collect();
    assert!(lines[0].ends_with("using the miniature inside the program"), "{lines:?}");
    assert!(lines[1].starts_with("ds4: memory: weights ") && lines[1].contains("KV "), "{lines:?}");
    assert!(lines[2].starts_with("processing ") && lines[2].contains(" input tokens: "), "{lines:?}");
    let last = lines.last().expect("a line");
    assert!(last.starts_with("ds4: prefill: ") && last.ends_with("t/s, seed 7"), "{last}");
}

#[test]
fn quiet_says_nothing_and_the_prompt_may_come_from_anywhere() {
    let program = Program::new();
    program.write("prompt.txt", "Hello");
    let answer = program.works(&greedy(&["-p", "Hello", "--quiet"]));
    assert_eq!(answer.err, "");
    assert!(answer.out.len() > 1, "an answer of {:?}", answer.out);
    let stdin = program.run_with(&greedy(&["--quiet"]), "Hello");
    let dash = program.run_with(&greedy(&["-p", "-", "--quiet"]), "Hello");
    let file = program.works(&greedy(&["--prompt-file", "prompt.txt", "--quiet"]));
    let file_dash = program.run_with(&greedy(&["--prompt-file", "-", "--quiet"]), "Hello");
    for same in [stdin, dash, file, file_dash] {
        assert_eq!((same.code, same.out.as_str(), same.err.as_str()), (0, answer.out.as_str(), ""));
    }
}

#[test]
fn an_empty_standard_input_and_bytes_that_are_no_text_are_refused() {
    let program = Program::new();
    let ran = program.run(&[]);
    assert_eq!((ran.code, ran.err.as_str()), (2, "ds4: no prompt: standard input is empty\n"));
    program.write("bad.txt", [0xff, 0xfe]);
    let ran = program.run(&["--prompt-file", "bad.txt"]);
    assert_eq!((ran.code, ran.err.as_str()), (2, "ds4: cannot read prompt file: bad.txt: not valid UTF-8\n"));
}

/// A device that never ends, read as a prompt and as recorded truth.
#[cfg(target_os = "linux")]
#[test]
fn an_input_without_an_end_is_refused() {
    let program = Program::new();
    let ran = program.run(&["--prompt-file", "/dev/zero"]);
    assert_eq!((ran.code, ran.err.as_str()), (2, "ds4: cannot read prompt file: /dev/zero: more than 256.0 MB\n"));
    let ran = program.run(&["check", "parse", "/dev/zero"]);
    assert!(ran.code == 1 && ran.err.ends_with("/dev/zero: more than 256.0 MB\n"), "{}", ran.err);
}

#[test]
fn a_seed_repeats_an_answer_and_another_seed_changes_it() {
    let program = Program::endless();
    let draw = |seed| program.works(&["-p", "Hello", "-n", "16", "-c", "512", "--quiet", "--seed", seed]).out;
    assert_eq!(draw("0"), draw("0"));
    assert_ne!(draw("1"), draw("2"));
}

#[test]
fn json_is_one_object_with_its_parts() {
    let ran = Program::endless().works(&greedy(&["-p", "Hello", "--json", "--nothink", "--seed", "0"]));
    let value: Value = serde_json::from_str(&ran.out).expect("one object");
    assert_eq!(value["reasoning"], "");
    assert!(!value["content"].as_str().expect("text").is_empty());
    assert_eq!(value["finish_reason"], "length");
    assert_eq!(value["usage"]["completion_tokens"], 12);
    assert_eq!(value["seed"], 0);
    assert!(value["timings"]["prefill_tps"].as_f64().expect("a number") > 0.0);
    let thinking = Program::endless().works(&greedy(&["-p", "Hello", "--json"]));
    let value: Value = serde_json::from_str(&thinking.out).expect("one object");
    assert!(!value["reasoning"].as_str().expect("text").is_empty());
}

#[test]
fn json_events_add_up_to_the_result() {
    let ran = Program::new().works(&greedy(&["-p", "Hello", "--stream-json", "--nothink"]));
    let events: Vec<Value> =
        ran.out.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect();
    let text: String = events.iter().filter(|e| e["type"] == "content").filter_map(|e| e["text"].as_str()).collect();
    let last = events.last().expect("an event");
    assert_eq!((last["type"].as_str(), last["content"].as_str()), (Some("done"), Some(text.as_str())));
    assert_eq!(events[0]["type"], "prefill");
}

#[test]
fn hidden_thinking_leaves_nothing_of_an_answer_that_is_all_reasoning() {
    let program = Program::endless();
    let shown = program.works(&greedy(&["-p", "Hello", "--quiet"])).out;
    assert_ne!(shown, "");
    assert_eq!(program.works(&greedy(&["-p", "Hello", "--quiet", "--hide-thinking"])).out, "");
}

#[test]
fn a_rendered_conversation_is_not_wrapped_and_other_text_opens_no_turn() {
    let program = Program::new();
    let prompt_tokens = |args: &[&str]| -> u64 {
        let ran = program.works(&greedy(&[&["--json", "--nothink"], args].concat()));
        let value: Value = serde_json::from_str(&ran.out).expect("one object");
        value["usage"]["prompt_tokens"].as_u64().expect("a count")
    };
    let rendered = "<｜begin▁of▁sentence｜><｜User｜>a<｜Assistant｜></think>";
    assert_eq!(prompt_tokens(&["-p", rendered]), 5);
    assert_eq!(prompt_tokens(&["-p", "a", "-sys", ""]), 5);
    assert_eq!(prompt_tokens(&["-p", "a", "--raw"]), 2);
    assert!(prompt_tokens(&["-p", "<｜User｜>", "-sys", ""]) > 5, "user text became a control token");
    assert!(prompt_tokens(&["-p", "a"]) > 5, "the default system text is missing");
}

#[test]
fn a_prompt_that_does_not_fit_is_refused_with_both_numbers() {
    let ran = Program::new().run(&["-p", &"word ".repeat(100), "-c", "64", "--quiet"]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.err.starts_with("ds4: prompt has ") && ran.err.ends_with("expected fewer than --ctx=64\n"),
        "{}",
        ran.err
    );
}

#[test]
fn models_that_cannot_be_opened_are_named() {
    let program = Program::new();
    program.write("bad.gguf", b"GGUFgarbage");
    let ran = program.run(&["-m", "no.gguf", "-p", "a"]);
    assert_eq!((ran.code, ran.err.as_str()), (1, "ds4: cannot open model: no.gguf: No such file or directory\n"));
    let ran = program.run(&["-m", "bad.gguf", "-p", "a"]);
    assert!(ran.code == 1 && ran.err.starts_with("ds4: cannot open model: bad.gguf: "), "{}", ran.err);
    let output = program.command(&["-p", "a"]).env("DS4_MODEL", "env.gguf").output().expect("runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("env.gguf"));
}

#[test]
fn any_model_of_the_family_answers() {
    let ran = Program::new().works(&greedy(&["-m", &fixture("tiny/tiny-b.gguf"), "-p", "abc", "--quiet"]));
    assert!(ran.out.ends_with('\n'));
}

#[test]
fn a_reader_that_leaves_ends_the_program_quietly() {
    let program = Program::new();
    let mut command = program.command(&["-p", "Hello", "-n", "4000", "--quiet", "--seed", "1"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    let mut first = [0; 1];
    let mut pipe = child.stdout.take().expect("a pipe");
    pipe.read_exact(&mut first).expect("a first byte");
    drop(pipe);
    let output = child.wait_with_output().expect("ends");
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{output:?}");
}

/// The model inside the program is trained: it reasons, answers and ends its turns.
#[test]
fn the_miniature_answers_in_its_domain() {
    let program = Program::new();
    for (prompt, expected) in [("What is 17 + 25?", "42"), ("Sort: 9, 4, 31", "4, 9, 31"), ("Who are you?", "ds4-mini")]
    {
        for mode in ["--think", "--nothink"] {
            let ran =
                program.works(&["-p", prompt, mode, "--temp", "0", "-n", "100", "-c", "512", "--json", "--quiet"]);
            let value: Value = serde_json::from_str(&ran.out).expect("one object");
            assert!(value["content"].as_str().is_some_and(|text| text.contains(expected)), "{prompt}: {value}");
            assert_eq!(
                (value["finish_reason"].as_str(), value["reasoning"] == ""),
                (Some("stop"), mode == "--nothink")
            );
        }
    }
}
