//! How far every row is: what the screen shows and the report tells. Owns no thread and no model.

use ds4_engine::ClosedBy;

use super::grade::{Outcome, Verdict};

/// Where a row is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Pending,
    Prefill,
    Thinking,
    Answering,
    Passed,
    Failed,
    /// The reasoning never closed.
    Incomplete,
    /// Skipped, or the run was ended before.
    Stopped,
    /// The engine gave up on it.
    Broken,
}

impl State {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Prefill => "prefill",
            Self::Thinking => "thinking",
            Self::Answering => "answering",
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Incomplete => "incomplete",
            Self::Stopped => "stopped",
            Self::Broken => "error",
        }
    }

    pub(super) fn is_running(self) -> bool {
        matches!(self, Self::Prefill | Self::Thinking | Self::Answering)
    }
}

/// A finished run of a case.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    /// `None` if it was stopped or broke.
    pub(super) verdict: Option<Verdict>,
    pub(super) error: Option<String>,
    /// What the model drew, without the end of the turn.
    pub(super) text: String,
    pub(super) prompt: u32,
    pub(super) generated: u32,
    pub(super) seconds: f64,
    pub(super) closed: Option<Closed>,
    pub(super) seed: u64,
    /// The model ended its turn.
    pub(super) ended: bool,
    pub(super) retried: bool,
}

/// How the reasoning was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Closed {
    pub(super) by: ClosedBy,
    /// Tokens drawn before `</think>`.
    pub(super) at: u32,
    /// Ids that came before it in the logits.
    pub(super) rank: u32,
}

/// News of a row.
#[derive(Debug)]
pub(super) enum Update {
    Prefill { row: usize, done: u32, total: u32 },
    Token { row: usize, reasoning: bool, text: String },
    Finished { row: usize, attempt: Box<Attempt> },
}

/// One row.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) state: State,
    /// Prompt tokens evaluated, and in all.
    pub(super) prefill: (u32, u32),
    /// What was drawn so far: pieces of reasoning and of the answer.
    pub(super) drawn: Vec<(bool, String)>,
    pub(super) generated: u32,
    pub(super) attempt: Option<Attempt>,
}

/// All rows.
#[derive(Debug)]
pub(super) struct Board {
    pub(super) lines: Vec<Line>,
}

impl Board {
    pub(super) fn new(rows: usize) -> Self {
        let line = || Line { state: State::Pending, prefill: (0, 0), drawn: Vec::new(), generated: 0, attempt: None };
        Self { lines: (0..rows).map(|_| line()).collect() }
    }

    pub(super) fn apply(&mut self, update: Update) {
        match update {
            Update::Prefill { row, done, total } => {
                let line = &mut self.lines[row];
                // A second attempt starts over.
                (line.state, line.prefill, line.generated) = (State::Prefill, (done, total), 0);
                line.drawn.clear();
            }
            Update::Token { row, reasoning, text } => {
                let line = &mut self.lines[row];
                line.state = if reasoning { State::Thinking } else { State::Answering };
                line.generated += 1;
                match line.drawn.last_mut() {
                    Some((of_reasoning, drawn)) if *of_reasoning == reasoning => drawn.push_str(&text),
                    _ => line.drawn.push((reasoning, text)),
                }
            }
            Update::Finished { row, attempt } => {
                let line = &mut self.lines[row];
                line.state = match &attempt.verdict {
                    Some(Verdict { outcome: Outcome::Passed, .. }) => State::Passed,
                    Some(Verdict { outcome: Outcome::Failed, .. }) => State::Failed,
                    Some(Verdict { outcome: Outcome::Incomplete, .. }) => State::Incomplete,
                    None if attempt.error.is_some() => State::Broken,
                    None => State::Stopped,
                };
                line.generated = attempt.generated;
                line.attempt = Some(*attempt);
            }
        }
    }

    /// Ends what has not begun.
    pub(super) fn stop_rest(&mut self) {
        for line in &mut self.lines {
            if line.attempt.is_none() {
                line.state = State::Stopped;
            }
        }
    }

    pub(super) fn count(&self, states: &[State]) -> usize {
        self.lines.iter().filter(|line| states.contains(&line.state)).count()
    }

    pub(super) fn passed(&self) -> usize {
        self.count(&[State::Passed])
    }

    /// Rows that were run to an end and did not pass.
    pub(super) fn failed(&self) -> usize {
        self.count(&[State::Failed, State::Incomplete, State::Broken])
    }

    /// What broke first, if anything did.
    pub(super) fn error(&self) -> Option<&str> {
        self.lines.iter().find_map(|line| line.attempt.as_ref()?.error.as_deref())
    }
}
