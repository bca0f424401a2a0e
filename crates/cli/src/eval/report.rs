//! What a run came to: the report on standard output, the JSON file, and the numbers of both.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::board::{Board, State};
use super::runner::Plan;

/// Characters of an answer in the table.
const SHOWN: usize = 24;

/// Passed and total rows of one suite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Score {
    pub(crate) suite: String,
    pub(crate) passed: usize,
    pub(crate) total: usize,
}

/// Scores of the suites in the order of their first case.
pub(super) fn scores(plan: &Plan, board: &Board) -> Vec<Score> {
    let mut scores: Vec<Score> = Vec::new();
    for (row, line) in board.lines.iter().enumerate() {
        let suite = &plan.case(row).suite;
        let at = scores.iter().position(|score| score.suite == *suite).unwrap_or_else(|| {
            scores.push(Score { suite: suite.clone(), passed: 0, total: 0 });
            scores.len() - 1
        });
        scores[at].total += 1;
        scores[at].passed += usize::from(line.state == State::Passed);
    }
    scores
}

/// The report.
pub(super) fn text(plan: &Plan, board: &Board, runtime: Duration) -> String {
    let (passed, total, failed) = (board.passed(), board.lines.len(), board.failed());
    let mut out = format!("ds4-eval: {passed}/{total} passed, {failed} failed, runtime {}\n", clock(runtime));
    let runs = plan.rows.last().map_or(1, |row| row.run + 1);
    if runs > 1 {
        let (mean, error) = pass_at_1(plan, board);
        let _ = writeln!(out, "ds4-eval: pass@1 {mean:.4} ± {error:.4} ({runs} runs a case)");
    }
    let scores = scores(plan, board);
    if scores.len() > 1 {
        for Score { suite, passed, total } in &scores {
            let _ = writeln!(out, "ds4-eval: {suite}: {passed}/{total}");
        }
    }
    out.push_str("These cases show whether an installation works; they are no leaderboard.\n");
    let _ = writeln!(
        out,
        "{:>4} {:<10} {:>6} {:>6} {:>6} {:<SHOWN$} {:<SHOWN$} test",
        "#", "state", "prompt", "gen", "total", "given", "correct"
    );
    for (row, line) in board.lines.iter().enumerate() {
        let case = plan.case(row);
        let (prompt, generated, given) = match &line.attempt {
            Some(attempt) => (attempt.prompt, attempt.generated, given(attempt)),
            None => (0, 0, String::new()),
        };
        let run = plan.rows[row].run;
        let test = if runs > 1 { format!("{} run {}", case.id, run + 1) } else { case.id.clone() };
        let _ = writeln!(
            out,
            "{:>4} {:<10} {prompt:>6} {generated:>6} {:>6} {:<SHOWN$} {:<SHOWN$} {test}",
            row + 1,
            line.state.name(),
            prompt + generated,
            short(&given),
            short(&case.expect.correct()),
        );
    }
    out
}

fn given(attempt: &super::board::Attempt) -> String {
    match (&attempt.verdict, &attempt.error) {
        (Some(verdict), _) => verdict.given.clone(),
        (None, Some(error)) => error.clone(),
        (None, None) => String::new(),
    }
}

/// One line of a table cell.
pub(super) fn short(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut chars = plain.chars();
    let head: String = chars.by_ref().take(SHOWN).collect();
    if chars.next().is_none() {
        return head;
    }
    head.chars().take(SHOWN - 1).chain(['…']).collect()
}

/// `HH:MM:SS`
pub(super) fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// Mean over the cases of the share of runs that passed, and its standard error.
pub(super) fn pass_at_1(plan: &Plan, board: &Board) -> (f64, f64) {
    let mut shares = vec![(0.0, 0.0); plan.cases.len()];
    for (row, line) in plan.rows.iter().zip(&board.lines) {
        shares[row.case].0 += f64::from(u8::from(line.state == State::Passed));
        shares[row.case].1 += 1.0;
    }
    mean_and_error(&shares.iter().map(|(passed, runs)| passed / runs).collect::<Vec<f64>>())
}

fn mean_and_error(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    if values.len() < 2 {
        return (mean, 0.0);
    }
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean, (variance / n).sqrt())
}

/// The object of `--json`.
pub(super) fn json(plan: &Plan, board: &Board, runtime: Duration, model: &str) -> Value {
    let (mean, error) = pass_at_1(plan, board);
    let cases: Vec<Value> = board.lines.iter().enumerate().map(|(row, line)| case(plan, row, line)).collect();
    let suite = |s: &Score| json!({"suite": s.suite, "passed": s.passed, "total": s.total});
    json!({
        "model": model,
        "passed": board.passed(),
        "failed": board.failed(),
        "total": board.lines.len(),
        "pass_at_1": mean,
        "stderr": error,
        "runtime_seconds": runtime.as_secs_f64(),
        "suites": scores(plan, board).iter().map(suite).collect::<Vec<_>>(),
        "cases": cases,
    })
}

fn case(plan: &Plan, row: usize, line: &super::board::Line) -> Value {
    let case = plan.case(row);
    let attempt = line.attempt.as_ref();
    json!({
        "id": case.id,
        "suite": case.suite,
        "run": plan.rows[row].run,
        "state": line.state.name(),
        "given": attempt.map(given),
        "correct": case.expect.correct(),
        "prompt_tokens": attempt.map(|a| a.prompt),
        "generated_tokens": attempt.map(|a| a.generated),
        "seconds": attempt.map(|a| a.seconds),
        "seed": attempt.map(|a| a.seed),
        "retried": attempt.map(|a| a.retried),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_short_and_of_one_line() {
        assert_eq!(short("a\nb"), "a b");
        assert_eq!(short(&"x".repeat(24)), "x".repeat(24));
        assert_eq!(short(&"x".repeat(25)), format!("{}…", "x".repeat(23)));
        assert_eq!(clock(Duration::from_secs(3_725)), "01:02:05");
    }

    #[test]
    fn the_error_of_the_mean_is_that_of_the_cases() {
        assert_eq!(mean_and_error(&[1.0, 0.0, 1.0, 0.0]), (0.5, (1.0_f64 / 3.0 / 4.0).sqrt()));
        assert_eq!(mean_and_error(&[1.0]), (1.0, 0.0));
    }
}
