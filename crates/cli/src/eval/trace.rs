//! A run as JSON lines: a header, a record for each case, a summary. What is in it is enough to grade the run again without
//! a model. Written as the run goes, so that an interrupted one is usable.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use ds4_engine::ClosedBy;
use serde_json::{Map, Value, json};

use super::board::{Attempt, Board};
use super::grade::{Expect, Outcome, Reply};
use super::runner::Plan;
use crate::device::Loaded;
use crate::failure::{CasesFailed, reason};
use crate::file::read_text;
use crate::terminal;

/// A trace under way.
pub(super) struct Trace {
    file: BufWriter<File>,
    name: String,
}

impl Trace {
    /// Begins a trace with what holds for every case.
    pub(super) fn begin(path: &Path, loaded: &Loaded, plan: &Plan) -> anyhow::Result<Self> {
        let name = path.display().to_string();
        let file = File::create(path).map_err(|e| anyhow!("cannot write trace: {name}: {}", reason(&e)))?;
        let (s, limits) = (&plan.settings, loaded.engine.limits());
        let header = json!({
            "type": "header",
            "model": loaded.file.gguf.name(),
            "backend": loaded.backend,
            "ctx": limits.context,
            "slots": limits.slots,
            "cases": plan.cases.len(),
            "rows": plan.rows.len(),
            "sampling": {
                "temperature": s.sampling.temperature, "top_p": s.sampling.top_p, "min_p": s.sampling.min_p,
                "top_k": s.sampling.top_k, "presence_penalty": s.sampling.presence_penalty,
                "frequency_penalty": s.sampling.frequency_penalty, "seed": s.sampling.seed,
            },
            "tokens": s.tokens,
            "think": s.thinking,
            "reply_budget": {"soft": s.budget.soft, "rank": s.budget.rank, "hard": s.budget.hard},
        });
        let mut trace = Self { file: BufWriter::new(file), name };
        trace.write(&header)?;
        Ok(trace)
    }

    pub(super) fn case(&mut self, loaded: &Loaded, plan: &Plan, row: usize, attempt: &Attempt) -> anyhow::Result<()> {
        let case = plan.case(row);
        let prompt = &plan.prompts[plan.rows[row].case];
        let closed = attempt.closed.map(|c| json!({"by": closed_name(c.by), "at": c.at, "rank": c.rank}));
        let text = String::from_utf8_lossy(&loaded.file.tokenizer.decode(&prompt.ids)).into_owned();
        self.write(&json!({
            "type": "case",
            "id": case.id,
            "suite": case.suite,
            "source": case.source,
            "domain": case.domain,
            "title": case.title,
            "run": plan.rows[row].run,
            "status": attempt.verdict.as_ref().map_or("stopped", |v| outcome_name(v.outcome)),
            "picked": attempt.verdict.as_ref().map(|v| &v.given),
            "expected": case.expect.correct(),
            "error": attempt.error,
            "prompt_tokens": attempt.prompt,
            "generated_tokens": attempt.generated,
            "seconds": attempt.seconds,
            "seed": attempt.seed,
            "retried": attempt.retried,
            "thinking": prompt.thinking,
            "thinking_closed": closed,
            "ended": attempt.ended,
            "grading": case.grading,
            "prompt": text,
            "output": attempt.text,
        }))
    }

    pub(super) fn finish(mut self, board: &Board) -> anyhow::Result<()> {
        let (passed, failed, total) = (board.passed(), board.failed(), board.lines.len());
        self.write(&json!({"type": "summary", "passed": passed, "failed": failed, "total": total}))
    }

    fn write(&mut self, value: &Value) -> anyhow::Result<()> {
        let name = &self.name;
        writeln!(self.file, "{value}")
            .and_then(|()| self.file.flush())
            .with_context(|| format!("cannot write trace: {name}"))
    }
}

fn closed_name(by: ClosedBy) -> &'static str {
    match by {
        ClosedBy::Itself => "natural",
        ClosedBy::Soft => "soft",
        ClosedBy::Hard => "hard",
    }
}

fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Passed => "passed",
        Outcome::Failed => "failed",
        Outcome::Incomplete => "incomplete",
    }
}

/// Grades the replies of a trace again and prints what comes out and what changed.
pub(super) fn regrade(path: &Path, out: &mut dyn Write) -> anyhow::Result<()> {
    let text = read_text(path, "trace")?;
    let (mut passed, mut total, mut changed) = (0, 0, 0);
    let mut table = String::new();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let what = || format!("cannot read trace: {}: line {}", path.display(), at + 1);
        let record: Map<String, Value> = serde_json::from_str(line).with_context(what)?;
        if record.get("type").and_then(Value::as_str) != Some("case") {
            continue;
        }
        let before = record.get("status").and_then(Value::as_str).unwrap_or_default().to_owned();
        total += 1;
        let now = if before == "stopped" { "stopped" } else { again(&record).with_context(what)? };
        passed += usize::from(now == "passed");
        changed += usize::from(now != before);
        let id = record.get("id").and_then(Value::as_str).unwrap_or("?");
        let was = if now == before { String::new() } else { format!(" (was {before})") };
        let _ = writeln!(table, "{total:>4} {now:<10} {id}{was}");
    }
    if total == 0 {
        bail!("cannot read trace: {}: no cases", path.display());
    }
    let head = format!("ds4-eval: {passed}/{total} passed, {} failed, regraded, {changed} changed\n", total - passed);
    terminal::show(out, &(head + &table))?;
    if passed == total { Ok(()) } else { Err(CasesFailed.into()) }
}

fn again(record: &Map<String, Value>) -> anyhow::Result<&'static str> {
    let grading = record.get("grading").and_then(Value::as_object).context("grading: expected an object")?;
    let text = record.get("output").and_then(Value::as_str).context("output: expected a text")?;
    let flag = |name: &str| record.get(name).and_then(Value::as_bool).unwrap_or_default();
    let closed = record.get("thinking_closed").and_then(|c| c.get("by")).and_then(Value::as_str);
    let closed = match closed {
        Some("natural") => Some(ClosedBy::Itself),
        Some("soft") => Some(ClosedBy::Soft),
        Some("hard") => Some(ClosedBy::Hard),
        _ => None,
    };
    let reply = Reply { text, thinking: flag("thinking"), ended: flag("ended"), closed };
    Ok(outcome_name(Expect::read(grading)?.grade(&reply).outcome))
}
