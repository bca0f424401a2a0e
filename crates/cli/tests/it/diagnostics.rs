//! Runs that print facts: tokens, log-probabilities, logits, perplexity, scores, comparisons, summaries.

use serde_json::{Value, json};

use crate::program::{Program, fixture};

#[test]
fn tokens_are_listed_with_control_tokens_recognised() {
    let ran = Program::new().works(&["--dump-tokens", "-p", "<｜User｜>a\n", "--quiet"]);
    let lines: Vec<&str> = ran.out.lines().collect();
    assert!(lines[0].starts_with("0 ") && lines[0].ends_with(" \"<｜User｜>\""), "{lines:?}");
    assert!(lines[2].ends_with(" \"\\n\""), "{lines:?}");
    assert_eq!(lines[3], "tokens=3");
}

#[test]
fn a_summary_names_dims_and_types_as_text_and_as_json() {
    let program = Program::new();
    let model = fixture("tiny/tiny-b.gguf");
    let text = program.works(&["--inspect", "-m", &model]).out;
    for part in ["architecture  deepseek4", "layers        3 ", "IQ2_XXS", "320 tokens"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let value: Value = serde_json::from_str(&program.works(&["--inspect", "--json", "-m", &model]).out).expect("JSON");
    assert_eq!((&value["layers"], &value["vocab"]), (&json!(3), &json!(320)));
    assert_eq!(value["classes"]["ExpertDown"]["types"]["Q2_K"], 3);
}

#[test]
fn log_probabilities_are_a_greedy_continuation_that_compares_equal_to_itself() {
    let program = Program::new();
    let dump = |file: &str, prompt: &str| {
        let args = ["--dump-logprobs", file, "--logprobs-top-k", "5", "-n", "6", "-c", "256", "-p", prompt];
        assert_eq!(program.works(&args).out, "");
        program.json(file)
    };
    let value = dump("a.json", "Hello");
    let steps = value["steps"].as_array().expect("steps");
    assert_eq!((steps.len(), value["top_k"].as_u64(), value["ctx"].as_u64()), (6, Some(5), Some(256)));
    for (at, step) in steps.iter().enumerate() {
        let top = step["top_logprobs"].as_array().expect("candidates");
        assert_eq!((step["step"].as_u64(), top.len()), (Some(at as u64), 5));
        assert_eq!(step["selected"]["id"], top[0]["token"]["id"]);
        assert!(top[0]["logprob"].as_f64() >= top[1]["logprob"].as_f64());
        assert!(step["selected"]["bytes"].is_array() && step["selected"]["text"].is_string());
    }
    dump("b.json", "Hello");
    let same = program.works(&["compare", "a.json", "b.json"]);
    assert!(same.out.starts_with("first_difference=none\nsteps_compared=6 max_logit_difference=0"), "{}", same.out);
}

#[test]
fn logits_of_unlike_prompts_differ_and_the_tolerance_decides() {
    let program = Program::new();
    for (file, prompt) in [("a.json", "a"), ("b.json", "b")] {
        program.works(&["--dump-logits", file, "-c", "256", "-p", prompt]);
    }
    let value = program.json("a.json");
    assert_eq!(value["logits"].as_array().map(|l| l.len() as u64), value["vocab"].as_u64());
    let ran = program.run(&["compare", "a.json", "b.json"]);
    assert!(ran.code == 1 && ran.out.contains("max_logit_difference="), "{}{}", ran.out, ran.err);
    assert_eq!(program.works(&["compare", "a.json", "b.json", "--tol", "1000"]).code, 0);
    program.write("none.json", "{\"prompt_tokens\": 1, \"steps\": []}");
    let message = "ds4: cannot compare: 0 and 0 steps, expected at least one in each\n";
    assert_eq!(program.run(&["compare", "none.json", "none.json"]).err, message);
    program.write("c.json", "{}");
    assert_eq!(program.run(&["compare", "a.json", "c.json"]).code, 1);
}

#[test]
fn perplexity_follows_from_its_own_numbers() {
    let program = Program::new();
    program.write("text.txt", "the quick brown fox jumps over the lazy dog. ".repeat(12));
    let ran = program.works(&["--perplexity-file", "text.txt", "-c", "512", "--quiet"]);
    let field = |name: &str| -> f64 {
        let part = ran.out.split_whitespace().find_map(|part| part.strip_prefix(name)).expect("a field");
        part.parse().expect("a number")
    };
    assert_eq!(field("tokens="), field("scored=") + 32.0);
    assert!((field("avg_nll=") - field("nll=") / field("scored=")).abs() < 1e-4, "{}", ran.out);
    assert!((field("ppl=").ln() - field("avg_nll=")).abs() < 1e-3, "{}", ran.out);
    program.write("short.txt", "too short");
    let ran = program.run(&["--perplexity-file", "short.txt", "--quiet"]);
    assert!(ran.code == 1 && ran.err.ends_with("expected more than 32\n"), "{}", ran.err);
}

#[test]
fn a_greedy_continuation_scores_as_greedy() {
    let program = Program::new();
    let args = ["--temp", "0", "--nothink", "-n", "4", "-c", "512", "--json", "-p", "Hello"];
    let value: Value = serde_json::from_str(&program.works(&args).out).expect("JSON");
    let cases = [
        json!({"prompt": "Hello", "continuation": value["content"]}),
        json!({"prompt": "Hello", "continuation": "\u{1}"}),
    ];
    program.write("cases.jsonl", cases.map(|case| case.to_string()).join("\n"));
    let ran = program.works(&["--score-file", "cases.jsonl", "--nothink", "-c", "512", "--quiet"]);
    let lines: Vec<&str> = ran.out.lines().collect();
    assert!(lines[0].starts_with("case=0 ") && lines[0].contains("first_match=1"), "{lines:?}");
    assert!(lines[1].contains("first_match=0 greedy_prefix=0"), "{lines:?}");
    assert!(lines[2].starts_with("cases=2 ") && lines[2].ends_with("first_match=1"), "{lines:?}");
    program.write("bad.jsonl", "{\"prompt\": 1}");
    let ran = program.run(&["--score-file", "bad.jsonl"]);
    assert!(ran.code == 1 && ran.err.contains("bad.jsonl: line 1: "), "{}", ran.err);
}

#[test]
fn a_text_is_scored_up_to_the_tokens_and_the_context_asked_for() {
    let program = Program::new();
    program.write("text.txt", "the quick brown fox jumps over the lazy dog. ".repeat(12));
    let counts = |more: &[&str]| {
        let ran = program.works(&[&["--perplexity-file", "text.txt", "--quiet"], more].concat());
        ran.out.split(" nll=").next().expect("a line").to_owned()
    };
    assert_eq!(counts(&["-c", "512", "-n", "10"]), "tokens=42 scored=10");
    assert_eq!(counts(&["-c", "40"]), "tokens=40 scored=8");
    let ran = program.run(&["--perplexity-file", "text.txt", "-c", "32", "--quiet"]);
    assert_eq!(ran.err, "ds4: cannot score text.txt: 32 tokens, expected more than 32\n");
}

#[test]
fn a_score_has_a_line_a_case_and_a_total_that_adds_up() {
    let program = Program::new();
    program.write(
        "cases.jsonl",
        "{\"prompt\":\"a\",\"continuation\":\"one two\"}\n\n{\"prompt\":\"b\",\"continuation\":\"c\"}\n",
    );
    let ran = program.works(&["--score-file", "cases.jsonl", "--quiet", "-c", "512"]);
    let fields = |line: &str| -> std::collections::HashMap<String, f64> {
        let field =
            |part: &str| part.split_once('=').map(|(name, value)| (name.to_owned(), value.parse().expect("a number")));
        line.split(' ').map(|part| field(part).expect("name=value")).collect()
    };
    let lines: Vec<_> = ran.out.lines().map(fields).collect();
    let [first, second, total] = lines.as_slice() else { panic!("{}", ran.out) };
    assert_eq!((first["case"], second["case"], total["cases"]), (0.0, 1.0, 2.0));
    assert_eq!(total["tokens"], first["tokens"] + second["tokens"]);
    assert!((total["nll"] - first["nll"] - second["nll"]).abs() < 1e-5, "{}", ran.out);
    assert!((total["avg_nll"] - total["nll"] / total["tokens"]).abs() < 1e-5, "{}", ran.out);
    program.write("none.jsonl", "{\"prompt\":\"a\",\"continuation\":\"\"}");
    assert_eq!(
        program.run(&["--score-file", "none.jsonl", "--quiet"]).err,
        "ds4: case 0: continuation has no tokens\n"
    );
    let ran = program.run(&["--score-file", "cases.jsonl", "--quiet", "-c", "8"]);
    assert!(ran.code == 1 && ran.err.ends_with("expected at most --ctx=8\n"), "{}", ran.err);
}

#[test]
fn forced_logits_do_not_depend_on_chunks() {
    let program = Program::new();
    let model = fixture("tiny/tiny-c.gguf");
    program.write("ids.json", "[5, 6, 7, 8, 9, 10, 11]");
    for (file, chunk) in [("a.f32", "7"), ("b.f32", "3")] {
        program
            .works(&["logits", "-m", &model, "--ids", "ids.json", "--out", file, "--chunk", chunk, "--mode", "plain"]);
    }
    assert_eq!(program.read("a.f32").len(), 7 * 320 * 4);
    assert_eq!(program.read("a.f32"), program.read("b.f32"));
    program.write("bad.json", "[5, 320]");
    let ran = program.run(&["logits", "-m", &model, "--ids", "bad.json", "--out", "c.f32"]);
    assert_eq!((ran.code, ran.err.as_str()), (1, "ds4: token id 320 at position 1, expected less than 320\n"));
    assert!(!program.path("c.f32").exists());
}
