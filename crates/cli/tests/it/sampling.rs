//! The flags that change what is drawn, each against the answer without it.

use serde_json::Value;

use crate::program::Program;

/// The result of a short answer without reasoning.
fn draw(program: &Program, more: &[&str]) -> Value {
    let args = [&["-p", "Hello", "-n", "40", "-c", "512", "--json", "--quiet"], more].concat();
    serde_json::from_str(&program.works(&args).out).expect("one object")
}

fn content(program: &Program, more: &[&str]) -> String {
    draw(program, &[&["--nothink"], more].concat())["content"].as_str().expect("text").to_owned()
}

#[test]
fn cuts_that_leave_one_candidate_are_greedy_whatever_the_seed() {
    let program = Program::endless();
    let greedy = content(&program, &["--temp", "0"]);
    for cut in [["--top-k", "1"], ["--min-p", "1"], ["--top-p", "0.000001"]] {
        assert_eq!(content(&program, &[&cut[..], &["--seed", "3"]].concat()), greedy, "{cut:?}");
    }
    for open in [["--top-k", "0"], ["--top-p", "0"], ["--top-p", "1"]] {
        assert_ne!(content(&program, &[&open[..], &["--seed", "3"]].concat()), greedy, "{open:?}");
    }
}

#[test]
fn penalties_drive_a_greedy_answer_away_from_its_own_tokens() {
    let program = Program::endless();
    let greedy = content(&program, &["--temp", "0"]);
    for name in ["--presence-penalty", "--frequency-penalty"] {
        assert_eq!(content(&program, &["--temp", "0", name, "0"]), greedy, "{name}");
        let away = content(&program, &["--temp", "0", name, "2"]);
        // The first token of an answer has nothing to be penalised for.
        assert!(away != greedy && away.chars().next() == greedy.chars().next(), "{name}: {away}");
        let attracted = content(&program, &["--temp", "0", name, "-2"]);
        let most = |text: &str| text.split_whitespace().map(|word| text.matches(word).count()).max();
        assert!(most(&attracted) > most(&greedy), "{name}: {attracted}");
    }
}

#[test]
fn a_thinking_budget_ends_the_reasoning_and_leaves_room_for_an_answer() {
    let program = Program::endless();
    let endless = draw(&program, &["--temp", "0"]);
    assert_eq!((endless["usage"]["reasoning_tokens"].as_u64(), &endless["content"]), (Some(40), &Value::from("")));
    for budget in [4_u64, 8] {
        let value = draw(&program, &["--temp", "0", "--think-budget-tokens", &budget.to_string()]);
        // A quarter of grace, and the closing tag.
        let most = budget + budget / 4 + 1;
        let used = value["usage"]["reasoning_tokens"].as_u64().expect("a count");
        assert!((budget..=most).contains(&used), "{used} tokens of a budget of {budget}");
        assert!(!value["content"].as_str().expect("text").is_empty());
    }
}

#[test]
fn thinking_at_length_needs_a_context_that_allows_it() {
    let ran = Program::new().works(&["-p", "a", "-n", "2", "-c", "512", "--think-max"]);
    let warning = "ds4: warning: --think-max needs a context of at least 393216, got 512: using normal thinking\n";
    assert!(ran.err.contains(warning), "{}", ran.err);
}

#[test]
fn weights_warmed_or_kept_in_float32_answer_all_the_same() {
    let program = Program::new();
    let answer = content(&program, &["--temp", "0", "-n", "3"]);
    assert_eq!(content(&program, &["--temp", "0", "-n", "3", "--warm-weights"]), answer);
    let quality = program.works(&["-p", "a", "-n", "2", "-c", "512", "--quality"]);
    let default = program.works(&["-p", "a", "-n", "2", "-c", "512"]);
    let kv = |err: &str| err.split("KV ").nth(1).and_then(|rest| rest.split(' ').next()).map(str::parse::<f64>);
    let (quality, default) = (kv(&quality.err).expect("KV"), kv(&default.err).expect("KV"));
    assert!(quality.expect("a number") > default.expect("a number"), "float32 rows take more memory");
}
