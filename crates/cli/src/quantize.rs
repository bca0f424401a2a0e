//! `ds4 quantize`: a checkpoint becomes a model file. Owns the command line, the progress and the reports; the bytes are
//! `ds4_quant`'s.

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use ds4_gguf::{DType, Gguf};
use ds4_quant::{Family, Options, Plan, Recipe, Start, Target, Writer, compare, dtype_from_name};

use crate::args::{Args, Item};
use crate::device::threads;
use crate::failure::usage;
use crate::interrupt::Interrupt;
use crate::memory::size;
use crate::synth::bar;
use crate::{help, terminal};

/// Where no bar can be drawn, a line now and then: conversions take hours.
const LINE_EVERY: Duration = Duration::from_secs(10);

#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag that was given or not")]
struct Words {
    folder: Option<PathBuf>,
    out: Option<PathBuf>,
    target: Option<Target>,
    mtp: bool,
    families: Vec<(Family, DType)>,
    prefixes: Vec<(String, DType)>,
    imatrix: Option<PathBuf>,
    strict: bool,
    name: Option<String>,
    dry_run: bool,
    compare: Option<String>,
    with: Option<PathBuf>,
    threads: Option<usize>,
    quiet: bool,
}

pub(crate) fn main(words: impl Iterator<Item = OsString>, out: &mut dyn Write) -> anyhow::Result<()> {
    let Some(words) = parse(words)? else { return terminal::show(out, help::QUANTIZE) };
    let folder =
        words.folder.as_deref().ok_or_else(|| usage("quantize needs a checkpoint: ds4 quantize FOLDER OUT"))?;
    if let Some(tensor) = &words.compare {
        let with = words.with.as_deref().ok_or_else(|| usage("--compare-tensor needs a file: --with FILE"))?;
        return comparison(folder, tensor, with, words.imatrix.as_deref(), out);
    }
    if words.with.is_some() {
        return Err(usage("--with needs a tensor: --compare-tensor NAME"));
    }
    if words.strict && words.imatrix.is_none() {
        return Err(usage("--imatrix-strict needs --imatrix FILE"));
    }
    let target = words.target.unwrap_or(Target::Q4);
    let recipe = Recipe { target, families: words.families.clone(), prefixes: words.prefixes.clone() };
    let options = Options {
        recipe,
        mtp: words.mtp,
        name: words.name.clone(),
        imatrix: words.imatrix.clone(),
        strict: words.strict,
    };
    let path = words.out.as_deref();
    if words.dry_run {
        return terminal::show(out, &summary(&plan(folder, &options)?));
    }
    let path = path.ok_or_else(|| usage("quantize needs a file to write: ds4 quantize FOLDER OUT"))?;
    write(&plan(folder, &options)?, path, &words)
}

fn plan(folder: &Path, options: &Options) -> anyhow::Result<Plan> {
    Plan::new(folder, options).context("cannot quantize")
}

fn write(plan: &Plan, path: &Path, words: &Words) -> anyhow::Result<()> {
    let interrupt = Interrupt::install()?;
    let failed = "cannot write model";
    let writer = Writer::open(plan, path).context(failed)?;
    if !words.quiet {
        match writer.start() {
            Start::Fresh => {}
            Start::Resumed => {
                let (done, all) = (size(writer.done_bytes()), size(plan.file_len()));
                terminal::note(format_args!("ds4: continuing {}: {done} of {all} are there", path.display()));
            }
            Start::Restarted => {
                let why = "the unfinished file beside it is of another checkpoint or recipe";
                terminal::note(format_args!("ds4: starting {} again: {why}", path.display()));
            }
        }
    }
    let bar = bar(words.quiet);
    let mut lines = Lines { shown: Instant::now(), on: !words.quiet && !io::stderr().is_terminal() };
    interrupt.begin();
    let written = writer.run(threads(words.threads), &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
        lines.update(done, total);
        if interrupt.requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    bar.finish_and_clear();
    if interrupt.end() && written.is_err() {
        terminal::note(format_args!("ds4: stopped; the same command continues {}.part", path.display()));
        return Err(interrupt.ended());
    }
    written.context(failed)?;
    if !words.quiet {
        terminal::note(format_args!("ds4: wrote {} ({})", path.display(), size(plan.file_len())));
    }
    Ok(())
}

/// Progress where a bar would be noise.
struct Lines {
    shown: Instant,
    on: bool,
}

impl Lines {
    fn update(&mut self, done: u64, total: u64) {
        if self.on && self.shown.elapsed() >= LINE_EVERY {
            let percent = u128::from(done) * 100 / u128::from(total.max(1));
            terminal::note(format_args!("ds4: {} of {} ({percent}%)", size(done), size(total)));
            self.shown = Instant::now();
        }
    }
}

fn summary(plan: &Plan) -> String {
    let row = |family: &str, dtype: &str, tensors: &dyn Display, bytes: &dyn Display| {
        format!("{family:<12}{dtype:<9}{tensors:>8}{bytes:>18}\n")
    };
    let lines = plan.summary();
    let rows = lines.iter().map(|line| row(line.family, line.dtype.name(), &line.tensors, &line.bytes));
    let tensors: usize = lines.iter().map(|line| line.tensors).sum();
    let rows: String = [row("family", "type", &"tensors", &"bytes")].into_iter().chain(rows).collect();
    rows + &row("file", "", &tensors, &plan.file_len())
}

fn comparison(
    folder: &Path,
    tensor: &str,
    with: &Path,
    imatrix: Option<&Path>,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let file = Gguf::open(with).context("cannot open model")?;
    let found = compare(folder, tensor, &file, imatrix).context("cannot compare")?;
    let mut lines = vec![format!("{tensor}: {}, {} of {} blocks equal", found.dtype, found.equal, found.blocks)];
    lines.push(match found.first {
        None => "equal".to_owned(),
        Some((at, there, here)) => {
            format!("first difference at byte {at}: {there:#04x} in the file, {here:#04x} here")
        }
    });
    if let (Some(rms), Some(there), Some(here)) = (found.rms, found.error_there, found.error_here) {
        lines.push(format!("rms of the source {rms:.6e}, rms error of the file {there:.6e}, here {here:.6e}"));
    }
    terminal::show(out, &(lines.join("\n") + "\n"))?;
    if found.first.is_some() { Err(crate::failure::ChecksFailed.into()) } else { Ok(()) }
}

fn parse(words: impl Iterator<Item = OsString>) -> anyhow::Result<Option<Words>> {
    let mut args = Args::new(words, "try 'ds4 quantize --help'");
    let mut found = Words::default();
    while let Some(item) = args.next()? {
        let flag = match item {
            Item::Free(word) if found.folder.is_none() => {
                found.folder = Some(word.into());
                continue;
            }
            Item::Free(word) if found.out.is_none() => {
                found.out = Some(word.into());
                continue;
            }
            Item::Free(word) => return Err(args.unexpected(&word)),
            Item::Flag(flag) => flag,
        };
        match flag.as_str() {
            "-h" | "--help" => return Ok(None),
            "--quant" => found.target = Some(target(&args.text(&flag)?)?),
            "--mtp" => found.mtp = true,
            "--type" => found.families.push(family(&args.text(&flag)?)?),
            "--tensor" => found.prefixes.push(prefix(&args.text(&flag)?)?),
            "--imatrix" => found.imatrix = Some(args.path(&flag)?),
            "--imatrix-strict" => found.strict = true,
            "--name" => found.name = Some(args.text(&flag)?),
            "--dry-run" => found.dry_run = true,
            "--compare-tensor" => found.compare = Some(args.text(&flag)?),
            "--with" => found.with = Some(args.path(&flag)?),
            "-t" | "--threads" => found.threads = Some(args.int(&flag, 1..=1024)? as usize),
            "--quiet" => found.quiet = true,
            _ => return Err(args.unknown(&flag)),
        }
    }
    Ok(Some(found))
}

fn target(name: &str) -> anyhow::Result<Target> {
    let names = Target::ALL.map(Target::name).join(", ");
    Target::from_name(name).ok_or_else(|| usage(format!("invalid value for --quant: {name}: expected one of {names}")))
}

fn family(text: &str) -> anyhow::Result<(Family, DType)> {
    let wrong = |expected: &str| usage(format!("invalid value for --type: {text}: expected {expected}"));
    let (name, dtype) = text.split_once('=').ok_or_else(|| wrong("FAMILY=TYPE"))?;
    let families = Family::ALL.map(Family::name).join(", ");
    let family = Family::from_name(name).ok_or_else(|| wrong(&format!("a family: {families}")))?;
    Ok((family, dtype_from_name(dtype).ok_or_else(|| wrong(&types()))?))
}

fn prefix(text: &str) -> anyhow::Result<(String, DType)> {
    let wrong = |expected: &str| usage(format!("invalid value for --tensor: {text}: expected {expected}"));
    let (prefix, dtype) = text.split_once('=').filter(|(p, _)| !p.is_empty()).ok_or_else(|| wrong("PREFIX=TYPE"))?;
    Ok((prefix.to_owned(), dtype_from_name(dtype).ok_or_else(|| wrong(&types()))?))
}

fn types() -> String {
    let names = DType::ALL.into_iter().filter(|t| *t != DType::I32).map(|t| t.name().to_lowercase());
    format!("a type: {}", names.collect::<Vec<_>>().join(", "))
}
