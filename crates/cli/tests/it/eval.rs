//! `ds4 eval` and `ds4 check eval` on the miniature inside the program, with cases that any model passes or fails.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;

use crate::program::{Program, fixture};

/// Two that any reply passes and one that none does.
const CASES: &str = r#"{"id": "any", "suite": "a", "kind": "regex", "question": "Say anything.", "answer": "(?s).*"}
{"id": "none", "suite": "b", "kind": "regex", "question": "Say anything.", "answer": "^\\b$"}
{"id": "also", "suite": "a", "kind": "regex", "messages": [{"role": "user", "content": "Hi"}], "answer": ""}
"#;

fn program() -> Program {
    let program = Program::new();
    program.write("cases.jsonl", CASES);
    program
}

fn rows(out: &str) -> Vec<Vec<&str>> {
    let table = out.lines().skip_while(|line| !line.trim_start().starts_with('#')).skip(1);
    table.map(|line| line.split_whitespace().collect()).collect()
}

#[test]
fn the_report_and_the_exit_code_tell_what_passed() {
    let program = program();
    let base = ["eval", "--cases", "cases.jsonl", "-n", "4", "--nothink", "--seed", "1"];
    let ran = program.run(&[&base[..], &["--json", "report.json", "--concurrency", "2"]].concat());
    assert_eq!(ran.code, 4, "{}", ran.err);
    assert!(ran.out.starts_with("ds4-eval: 2/3 passed, 1 failed, runtime 00:00:0"), "{}", ran.out);
    assert!(ran.out.contains("ds4-eval: a: 2/2\nds4-eval: b: 0/1\n") && ran.out.contains("no leaderboard"));
    let states: Vec<(&str, &str)> = rows(&ran.out).iter().map(|row| (row[1], row[row.len() - 1])).collect();
    assert_eq!(states, [("passed", "any"), ("failed", "none"), ("passed", "also")]);
    let report = program.json("report.json");
    assert_eq!(
        (&report["passed"], &report["total"], &report["cases"][1]["state"]),
        (&2.into(), &3.into(), &"failed".into())
    );
    let passing = program.works(&[&base[..], &["--suite", "a", "--repeat", "2"]].concat());
    assert!(passing.out.contains("4/4 passed") && passing.out.contains("pass@1 1.0000 ± 0.0000 (2 runs a case)"));
}

#[test]
fn reasoning_that_never_closes_is_incomplete_and_a_budget_closes_it() {
    let program = program();
    let run = |more: &[&str]| {
        let model = fixture("tiny/tiny-a.gguf");
        let base =
            ["eval", "-m", &model, "--cases", "cases.jsonl", "--questions", "1", "-n", "12", "--trace", "t.jsonl"];
        let ran = program.run(&[&base[..], more].concat());
        let trace = String::from_utf8(program.read("t.jsonl")).expect("UTF-8");
        let records: Vec<Value> = trace.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!((&records[0]["type"], &records[2]["type"]), (&"header".into(), &"summary".into()));
        (ran.code, records[1].clone())
    };
    let (code, open) = run(&["--soft-limit-reply-budget", "0", "--hard-limit-reply-budget", "0"]);
    assert_eq!((code, &open["status"], &open["thinking_closed"]), (4, &"incomplete".into(), &Value::Null));
    assert_eq!(open["generated_tokens"], 12);
    let (code, forced) = run(&["--soft-limit-reply-budget", "4", "--hard-limit-reply-budget", "4"]);
    assert_eq!((code, &forced["status"]), (0, &"passed".into()));
    assert_eq!((&forced["thinking_closed"]["by"], &forced["thinking_closed"]["at"]), (&"hard".into(), &8.into()));
    assert!(forced["output"].as_str().is_some_and(|text| text.contains("</think>")));
    let (_, retried) = run(&["--soft-limit-reply-budget", "0", "--hard-limit-reply-budget", "0", "--retry-incomplete"]);
    assert_eq!((&retried["retried"], &retried["generated_tokens"]), (&true.into(), &24.into()));
}

#[test]
fn a_trace_is_graded_again_without_a_model() {
    let program = program();
    let run = ["eval", "--cases", "cases.jsonl", "-n", "4", "--nothink", "--trace", "t.jsonl"];
    assert_eq!(program.run(&run).code, 4);
    let again = program.run(&["eval", "--regrade-trace", "t.jsonl"]);
    assert_eq!(again.code, 4);
    assert!(again.out.starts_with("ds4-eval: 2/3 passed, 1 failed, regraded, 0 changed\n"), "{}", again.out);
    let trace = String::from_utf8(program.read("t.jsonl")).expect("UTF-8");
    program.write("changed.jsonl", trace.replace(r#""answer":"^\\b$""#, r#""answer":"(?s).*""#));
    let changed = program.works(&["eval", "--regrade-trace", "changed.jsonl"]);
    assert!(changed.out.starts_with("ds4-eval: 3/3 passed, 0 failed, regraded, 1 changed\n"), "{}", changed.out);
    assert!(changed.out.contains("none (was failed)"));
    program.write("torn.jsonl", "{\"type\": \"case\"}\n");
    let torn = program.run(&["eval", "--regrade-trace", "torn.jsonl"]);
    assert_eq!(torn.code, 1);
    assert!(torn.err.starts_with("ds4-eval: cannot read trace: torn.jsonl: line 1: "), "{}", torn.err);
}

#[test]
fn a_case_that_does_not_fit_is_an_error_of_its_own() {
    let program = program();
    let long = serde_json::json!({"id": "long", "kind": "regex", "question": "word ".repeat(40_000), "answer": ""});
    program.write("long.jsonl", long.to_string());
    let args = ["eval", "--cases", "cases.jsonl", "--cases", "long.jsonl", "--suite", "a,long", "-n", "4", "--nothink"];
    let ran = program.run(&args);
    assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("2/3 passed, 1 failed") && ran.out.contains(" error "), "{}", ran.out);
    assert!(
        ran.err.contains("the model was made for ") && ran.err.contains("a case could not be run: "),
        "{}",
        ran.err
    );
}

#[test]
fn compressed_files_and_documents_are_cases_too() {
    let program = Program::new();
    let facts: Vec<String> = (0..60).map(|i| format!("The code of box {i} is {}.", 1000 + 7 * i)).collect();
    let document = serde_json::json!({"id": "d", "kind": "regex", "thinking": false, "document": facts.join(" "),
        "items": [{"question": "One?", "answer": "(?s).*"}, {"question": "Two?", "answer": "(?s).*"}]});
    let mut file = GzEncoder::new(Vec::new(), Compression::default());
    writeln!(file, "{document}").expect("compressed");
    program.write("boxes.jsonl.gz", file.finish().expect("compressed"));
    let ran = program.works(&["eval", "--cases", "boxes.jsonl.gz", "-n", "3"]);
    assert!(ran.out.contains("d.00") && ran.out.contains("d.01") && ran.out.contains("2/2 passed"), "{}", ran.out);
    let listed = program.works(&["eval", "--cases", "boxes.jsonl.gz", "--list-cases"]);
    assert!(listed.out.starts_with("   1 boxes          regex      d.00"), "{}", listed.out);
}

#[test]
fn the_grader_examines_itself_and_the_embedded_cases_are_listed() {
    let program = Program::new();
    let ran = program.works(&["eval", "--self-test-extractors"]);
    assert!(ran.out.ends_with(" passed, 0 failed\n"), "{}", ran.out);
    let listed = program.works(&["eval", "--list-cases", "--suite", "tools"]);
    assert!(listed.out.lines().all(|line| line.contains("tool_calls")), "{}", listed.out);
}

#[test]
fn what_cannot_be_run_is_told_in_one_line() {
    let program = program();
    program.write("bad.jsonl", "{\"id\": \"a\", \"kind\": \"guess\", \"question\": \"q\"}\n");
    program.write("empty.jsonl", "\n");
    program.write("half.jsonl.gz", [0x1f, 0x8b, 8, 0, 0]);
    for (args, code, start) in [
        (&["--cases", "missing.jsonl"][..], 1, "ds4-eval: cannot open cases: missing.jsonl: No such file"),
        (&["--cases", "bad.jsonl"], 1, "ds4-eval: cannot read cases: bad.jsonl: line 1: kind: found \"guess\""),
        (&["--cases", "empty.jsonl"], 1, "ds4-eval: cannot read cases: empty.jsonl: no cases"),
        (&["--cases", "half.jsonl.gz"], 1, "ds4-eval: cannot read cases: half.jsonl.gz: "),
        (
            &["--cases", "cases.jsonl", "--cases", "cases.jsonl"],
            1,
            "ds4-eval: cannot read cases: the id any stands twice",
        ),
        (&["--cases", "cases.jsonl", "--questions", "4"], 2, "ds4-eval: invalid value for --questions: 4: there are 3"),
        (&["--suite", "poetry"], 2, "ds4-eval: invalid value for --suite: poetry: expected one of chat"),
        (&["-n", "1000000"], 2, "ds4-eval: the longest prompt and --tokens need "),
        (&["-n", "10", "--hard-limit-reply-budget", "10"], 2, "ds4-eval: invalid value for --hard-limit-reply-budget"),
        (&["--nonsense"], 2, "ds4-eval: unknown option: --nonsense\ntry 'ds4-eval --help'"),
    ] {
        let ran = program.run(&[&["eval"], args].concat());
        assert_eq!((ran.code, ran.out.as_str()), (code, ""), "{args:?}: {}", ran.err);
        let last = ran.err.lines().filter(|line| line.starts_with("ds4-eval:")).count();
        assert!(ran.err.contains(start) && last == 1, "{args:?}: {}", ran.err);
    }
}

#[test]
fn the_hyphenated_program_is_the_command() {
    let program = program();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ds4-eval"));
    let output = command.args(["--list-cases", "--cases"]).arg(program.path("cases.jsonl")).output().expect("it runs");
    let listed = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(listed, program.works(&["eval", "--list-cases", "--cases", "cases.jsonl"]).out);
}

#[test]
fn the_check_has_a_row_and_a_bar_for_every_claim_it_was_asked_for() {
    let program = Program::new();
    let ran = program.run(&["check", "eval", "--suite", "json,perplexity", "-n", "4", "--dialogues", "2"]);
    assert_eq!(ran.code, 4, "no object fits in four tokens: {}{}", ran.out, ran.err);
    let firsts: Vec<&str> = ran.out.lines().map(|line| line.split_whitespace().next().unwrap_or_default()).collect();
    assert_eq!(firsts, ["json", "perplexity", "perplexity", "0"]);
    assert!(
        ran.out.lines().next().is_some_and(|line| line.contains(">= 90%") && line.ends_with("FAIL")),
        "{}",
        ran.out
    );
    let unknown = program.run(&["check", "eval", "--suite", "poetry"]);
    assert_eq!(unknown.code, 2);
    assert!(program.run(&["check", "eval", "--max-ratio", "1.03"]).err.contains("--max-ratio needs --against"));
}

#[test]
fn a_model_against_itself_has_the_ratio_one() {
    let program = Program::new();
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/ds4-mini.gguf");
    let args = ["check", "eval", "-m", model, "--suite", "perplexity", "--dialogues", "2"];
    let args = [&args[..], &["--against", model, "--max-ratio", "1.03"]].concat();
    let ran = program.works(&args);
    let ratios = ran.out.lines().filter(|line| line.starts_with("ratio ") && line.contains(" 1.0000 of "));
    assert_eq!(ratios.filter(|line| line.ends_with("PASS")).count(), 2, "{}", ran.out);
}

/// Held-out cases on the model inside the program; `ds4 check eval` runs the long suites too.
#[test]
fn the_miniature_holds_its_bars() {
    let ran = Program::new().works(&["check", "eval", "--suite", "json,retrieval-1k,draft", "-n", "100"]);
    assert!(ran.out.ends_with("3 passed, 0 failed\n"), "{}", ran.out);
}
