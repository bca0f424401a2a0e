//! The suite passes a device that computes the same in another way, and names what is wrong with one that does not.

use bytemuck::Zeroable;
use ds4_cpu::{Cpu, Isa, Options};
use ds4_gguf::Gguf;
use ds4_model::{Backend, Limits, Numerics, Probe, Probed, Result, Shape, Stage, Step, StepRow};
use ds4_testkit::{Part, Report, Scope, device_suite};

const STAGES: Scope<'static> = Scope { quick: true, part: Part::Stages, trained: None };

fn cpu(shape: &Shape, isa: Isa) -> Result<Cpu> {
    Cpu::with_isa(shape, Options { threads: 2, numerics: Numerics::Stored }, isa)
}

/// A fault of one stage, in the buffer that it wrote last.
#[derive(Clone, Copy)]
struct Fault {
    stage: Stage,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// The first value becomes that much of itself.
    Scale(f32),
    /// The same, in steps of several rows only.
    ScaleAmong(f32),
    NotANumber,
    /// A number of the row becomes another one.
    Number,
    /// A byte far behind what the step writes.
    Elsewhere,
}

impl<B: Backend> Probe<B> for Fault {
    fn after(&mut self, b: &mut B, stage: Stage, step: &Step<B::Buffer>, out: &mut B::Buffer) -> Result<()> {
        if stage != self.stage {
            return Ok(());
        }
        let mut word = [0; 4];
        match self.kind {
            Kind::ScaleAmong(_) if step.n == 1 => {}
            Kind::Scale(by) | Kind::ScaleAmong(by) => {
                b.read(out, 0, &mut word)?;
                b.write(out, 0, &(f32::from_le_bytes(word) * by).to_le_bytes())?;
            }
            Kind::NotANumber => b.write(out, 0, &f32::NAN.to_le_bytes())?,
            Kind::Number => {
                let mut rows = vec![StepRow::zeroed(); step.n];
                b.read(&step.rows, 0, bytemuck::cast_slice_mut(&mut rows))?;
                // Of a row that selects at all: ids past the first are beyond it, so the row stays ascending.
                for i in (0..rows.len()).filter(|&i| rows[i].pos >= 100) {
                    let at = 4 * 16 * i + 4 * 15;
                    b.read(out, at, &mut word)?;
                    b.write(out, at, &(u32::from_le_bytes(word) + 1).to_le_bytes())?;
                }
            }
            Kind::Elsewhere => b.write(out, 100, &[0xff])?,
        }
        Ok(())
    }
}

fn with_fault(stage: Stage, kind: Kind) -> Report {
    let mut open = |shape: &Shape, _: Limits| Ok(Probed::new(cpu(shape, Isa::detect())?, Fault { stage, kind }));
    device_suite(STAGES, &mut open, &mut |_| ())
}

/// Failures of the lines: stage and output.
fn lines(report: &Report) -> Vec<String> {
    let rule = |name: &String| report.rules.iter().any(|rule| rule.name == *name);
    report.failures().into_iter().filter(|name| !rule(name)).collect()
}

fn equal_to_the_bit(report: &Report) {
    assert!(report.failures().is_empty(), "{report}");
    for line in &report.lines {
        assert!(line.rows > 0 && line.calls > 0, "{report}");
        assert_eq!((line.worst, line.absolute, line.codes_differ, line.ids_differ), (0.0, 0.0, 0, 0), "{report}");
    }
    let stages = report.lines.iter().map(|line| line.stage).collect::<std::collections::HashSet<_>>();
    assert_eq!(stages.len(), 13, "every stage is seen: {report}");
}

#[test]
fn the_portable_instruction_set_is_the_same_device_to_the_bit() {
    equal_to_the_bit(&device_suite(STAGES, &mut |shape, _| cpu(shape, Isa::Portable), &mut |_| ()));
}

#[test]
fn a_device_that_is_right_passes_the_whole_suite() {
    let trained = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/ds4-mini.gguf");
    let trained = Gguf::open(trained.as_ref()).unwrap();
    let mut told = Vec::new();
    let scope = Scope { quick: true, part: Part::All, trained: Some(&trained) };
    // Not the portable one, which emulates fused multiply-adds here.
    let isa = Isa::available().into_iter().nth(1).unwrap_or(Isa::Portable);
    let report = device_suite(scope, &mut |shape, _| cpu(shape, isa), &mut |name| told.push(name.to_owned()));
    assert!(report.passed(), "{report}");
    equal_to_the_bit(&report);
    assert_eq!(told.len(), 3);
}

#[test]
fn a_small_error_of_one_stage_is_found_and_named() {
    for (stage, name) in [
        (Stage::Embed, "embed streams"),
        (Stage::HcPre, "hc_pre x"),
        (Stage::Query, "query heads"),
        (Stage::AttnOutput, "attn_output streams"),
        (Stage::Experts, "experts streams"),
        (Stage::Head, "head logits"),
    ] {
        let found = lines(&with_fault(stage, Kind::Scale(1.1)));
        assert!(!found.is_empty() && found.iter().all(|line| line.starts_with(name)), "{name}: {found:?}");
    }
}

#[test]
fn what_is_not_a_number_is_found() {
    let report = with_fault(Stage::Attend, Kind::NotANumber);
    assert_eq!(lines(&report).len(), 2 * 3, "three kinds of attention in decode and prefill: {report}");
    assert!(report.lines.iter().any(|line| line.worst == f64::INFINITY));
}

#[test]
fn codes_and_numbers_that_differ_are_found() {
    let selected = with_fault(Stage::Select, Kind::Number);
    assert_eq!(lines(&selected), ["select selected decode", "select selected prefill"], "{selected}");
    let weights = with_fault(Stage::Route, Kind::Scale(1.01));
    assert!(lines(&weights).iter().all(|line| line.starts_with("route weights")) && !weights.passed(), "{weights}");
    // The first row of slot 0: closed once, and every later time it is a write where nothing was to be written.
    let rows = with_fault(Stage::Compress, Kind::Elsewhere);
    assert!(lines(&rows).iter().any(|line| line.starts_with("compress rows")), "{rows}");
    assert!(rows.rules.iter().any(|rule| !rule.ok && rule.name.contains("nothing is written outside")), "{rows}");
}

#[test]
fn bits_that_depend_on_the_neighbours_are_found() {
    let ulp = 1.0 + f32::EPSILON;
    let fault = Fault { stage: Stage::Head, kind: Kind::ScaleAmong(ulp) };
    let mut open = |shape: &Shape, _: Limits| Ok(Probed::new(cpu(shape, Isa::detect())?, fault));
    let scope = Scope { quick: true, part: Part::Models, trained: None };
    let report = device_suite(scope, &mut open, &mut |_| ());
    let broken: Vec<&str> = report.rules.iter().filter(|rule| !rule.ok).map(|rule| rule.name.as_str()).collect();
    let expected = ["tiny q2: rows of one span have the bits of rows one by one"];
    assert_eq!(broken, expected, "{report}");
}
