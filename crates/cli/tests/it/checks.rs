//! `ds4 check` on the recorded truth, and on files that must never pass.

use crate::program::{Program, fixture};

fn passes(kind: &str, files: &[&str], cases: usize) {
    let files: Vec<String> = files.iter().map(|name| fixture(name)).collect();
    let args: Vec<&str> = ["check", kind].into_iter().chain(files.iter().map(String::as_str)).collect();
    let ran = Program::new().works(&args);
    assert!(ran.out.ends_with(&format!("{cases} passed, 0 failed\n")), "{}", ran.out);
}

#[test]
fn recorded_ids_are_reproduced() {
    passes("tokenizer", &["tokenizer/vectors.jsonl", "official-vectors/token_counts.json"], 1197 + 12);
    passes("tokenizer", &["tokenizer/added_tokens.jsonl"], 1283);
}

#[test]
fn recorded_prompts_are_reproduced() {
    let files = [
        "encoding/generated/render.jsonl",
        "encoding/generated/effort_0731.jsonl",
        "encoding/official/test_input_1.json",
        "encoding/official/test_input_2.json",
        "encoding/official/test_input_4.json",
    ];
    passes("render", &files, 140 + 16 + 3);
    passes("render", &["encoding/constants/python_numbers.jsonl", "encoding/constants/python_strings.jsonl"], 46 + 10);
}

#[test]
fn recorded_turns_are_read_as_recorded() {
    passes("parse", &["encoding/generated/parse.jsonl"], 51);
}

#[test]
fn recorded_logits_are_reproduced() {
    // Five prompts: two modes fed two ways, a trace for one prompt in each mode, and the numerics users get.
    for model in ["tiny-a", "tiny-b", "tiny-c"] {
        passes("logits", &[&format!("tiny/{model}.golden.json")], 5 * 5 + 2);
    }
}

#[test]
fn recorded_logits_are_reproduced_in_chunks_too() {
    let ran = Program::new().works(&["check", "logits", &fixture("tiny/tiny-a.golden.json"), "--chunk", "37"]);
    assert!(ran.out.ends_with("37 passed, 0 failed\n"), "{}", ran.out);
}

#[test]
fn a_backend_is_examined_stage_by_stage() {
    let ran = Program::new().works(&["check", "device", "--quick", "--part", "stages", "-t", "2"]);
    let (table, verdicts): (Vec<&str>, Vec<&str>) =
        ran.out.lines().partition(|line| !line.starts_with("ok ") && !line.ends_with(" failed"));
    let columns = ["stage", "output", "phase", "calls", "rows", "worst", "bound", "absolute", "codes", "ids", "ok"];
    assert_eq!(table[0].split_whitespace().take(11).collect::<Vec<_>>(), columns);
    for stage in
        ["embed", "hc_pre", "project", "query", "compress", "select", "attend", "attn_output", "route", "experts"]
    {
        for phase in ["decode", "prefill"] {
            let mut lines = table.iter().filter(|line| line.split_whitespace().next() == Some(stage));
            let line = lines.find(|line| line.contains(&format!(" {phase} ")));
            assert!(line.is_some_and(|line| line.contains("  ok ")), "{stage} {phase}: {}", ran.out);
        }
    }
    assert_eq!(verdicts.len(), 2, "{}", ran.out);
    assert!(verdicts[0].contains(": nothing is written outside the outputs: "), "{}", ran.out);
    assert_eq!(verdicts[1], format!("{} passed, 0 failed", table.len()), "{}", ran.out);
    assert_eq!(ran.err, "ds4: tiny q2 with a draft block\n");
}

#[test]
fn logits_recorded_from_another_model_are_an_error() {
    let program = Program::new();
    program.write("tiny-b.golden.json", std::fs::read(fixture("tiny/tiny-b.golden.json")).expect("a golden"));
    program.write("tiny-b.golden.f32", std::fs::read(fixture("tiny/tiny-b.golden.f32")).expect("values"));
    let mut model = std::fs::read(fixture("tiny/tiny-b.gguf")).expect("a model");
    *model.last_mut().expect("bytes") ^= 1;
    program.write("tiny-b.gguf", model);
    let ran = program.run(&["check", "logits", "tiny-b.golden.json"]);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    assert!(ran.err.contains("tiny-b.gguf: sha256 ") && ran.err.contains(", expected cffb722e0ff1"), "{}", ran.err);
}

#[test]
fn a_difference_is_shown_and_counted() {
    let program = Program::new();
    program.write("ids.jsonl", "{\"text\": \"Hello\", \"ids\": [1]}\n{\"text\": \"Hello\", \"ids\": [19923]}\n");
    let ran = program.run(&["check", "tokenizer", "ids.jsonl"]);
    assert_eq!(ran.code, 1);
    assert_eq!(ran.out, "FAIL line 1: ids: at 0: expected 1, got 19923\n1 passed, 1 failed\n");
}

#[test]
fn files_that_hold_no_case_or_no_truth_are_errors() {
    let program = Program::new();
    program.write("empty.jsonl", "\n");
    program.write("torn.jsonl", "{\"text\": \"a\", \"ids\": [");
    program.write("wrong.jsonl", "{\"text\": \"a\"}");
    program.write("list.jsonl", "[1]");
    for kind in ["tokenizer", "render", "parse", "logits"] {
        for file in ["empty.jsonl", "torn.jsonl", "wrong.jsonl", "list.jsonl", "missing.jsonl"] {
            let ran = program.run(&["check", kind, file]);
            assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{kind} {file}");
            assert!(ran.err.starts_with(&format!("ds4: cannot check {file}: ")), "{kind} {file}: {}", ran.err);
        }
    }
}

#[test]
fn a_golden_whose_values_are_cut_short_is_an_error() {
    let program = Program::new();
    let golden = std::fs::read_to_string(fixture("tiny/tiny-b.golden.json")).expect("a golden");
    program.write("tiny-b.golden.json", golden);
    program.write("tiny-b.golden.f32", [0; 16]);
    let ran = program.run(&["check", "logits", "tiny-b.golden.json"]);
    assert!(ran.code == 1 && ran.err.contains("16 bytes, expected "), "{}", ran.err);
}
