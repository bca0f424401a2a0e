//! What a suite has found, and the table that people read.

use std::fmt;

use ds4_model::Stage;

use crate::bounds;
use crate::tally::StageLine;

/// A rule that holds or does not.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The model it was tried on and what it says.
    pub name: String,
    /// Whether it holds.
    pub ok: bool,
    /// Figures, or what is wrong.
    pub note: String,
}

/// Everything a suite has found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// One for each output of each stage, for decode and prefill.
    pub lines: Vec<StageLine>,
    /// What is not about one stage.
    pub rules: Vec<Rule>,
}

impl Report {
    /// Whether all lines keep their bounds and all rules hold, and there is something to judge.
    pub fn passed(&self) -> bool {
        self.failures().is_empty() && !self.rules.is_empty()
    }

    /// Names of everything that does not hold.
    pub fn failures(&self) -> Vec<String> {
        let lines = self.lines.iter().filter(|line| !bounds::keeps(line)).map(name);
        lines.chain(self.rules.iter().filter(|rule| !rule.ok).map(|rule| rule.name.clone())).collect()
    }

    pub(crate) fn add(&mut self, lines: &[StageLine]) {
        for line in lines {
            let same =
                |own: &&mut StageLine| (own.stage, own.output, own.prefill) == (line.stage, line.output, line.prefill);
            match self.lines.iter_mut().find(same) {
                Some(own) => own.merge(line),
                None => self.lines.push(line.clone()),
            }
        }
    }

    pub(crate) fn rule(&mut self, name: String, outcome: Result<String, String>) {
        let ok = outcome.is_ok();
        self.rules.push(Rule { name, ok, note: outcome.unwrap_or_else(|what| what) });
    }
}

/// Stage, output and phase.
fn name(line: &StageLine) -> String {
    format!("{} {} {}", stage(line.stage), line.output, if line.prefill { "prefill" } else { "decode" })
}

/// The stage's name as its method has it.
fn stage(stage: Stage) -> &'static str {
    match stage {
        Stage::Embed => "embed",
        Stage::HcPre => "hc_pre",
        Stage::Project => "project",
        Stage::Query => "query",
        Stage::Compress => "compress",
        Stage::Select => "select",
        Stage::Attend => "attend",
        Stage::AttnOutput => "attn_output",
        Stage::Route => "route",
        Stage::Experts => "experts",
        Stage::Head => "head",
        Stage::KeepStreams => "keep_streams",
        Stage::DraftEmbed => "draft_embed",
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<12} {:<16} {:<7} {:>6} {:>8} {:>9} {:>9} {:>9} {:>7} {:>7}  {:<4} worst at",
            "stage", "output", "phase", "calls", "rows", "worst", "bound", "absolute", "codes", "ids", "ok"
        )?;
        for line in &self.lines {
            let (bound, ok) = (bounds::of(line), bounds::keeps(line));
            let codes = if line.codes == 0 { "-".to_owned() } else { format!("{:.2}%", 100.0 * line.code_share()) };
            let numbers = matches!(line.output, "ids" | "selected");
            let ids = if numbers { format!("{}/{}", line.unexplained, line.ids_differ) } else { "-".to_owned() };
            writeln!(
                f,
                "{:<12} {:<16} {:<7} {:>6} {:>8} {:>9.2e} {:>9.1e} {:>9.2e} {codes:>7} {ids:>7}  {:<4} {}",
                stage(line.stage),
                line.output,
                if line.prefill { "prefill" } else { "decode" },
                line.calls,
                line.rows,
                line.worst,
                bound.relative,
                line.absolute,
                verdict(ok),
                line.at,
            )?;
        }
        self.rules.iter().try_for_each(|rule| writeln!(f, "{:<4} {}: {}", verdict(rule.ok), rule.name, rule.note))
    }
}

fn verdict(ok: bool) -> &'static str {
    if ok { "ok" } else { "FAIL" }
}
