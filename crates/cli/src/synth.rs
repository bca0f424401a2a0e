//! `ds4 synth`: a model file with random weights. Owns the command line and the progress bar; the bytes are `ds4_synth`'s.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;

use ds4_synth::{PRESETS, Quant, Recipe};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::args::{Args, Item};
use crate::device::threads;
use crate::failure::usage;
use crate::interrupt::Interrupt;
use crate::memory::size;
use crate::{help, terminal};

/// Most layers and experts that a file may be asked for.
const MOST: u64 = 4096;

#[derive(Default)]
struct Options {
    out: Option<PathBuf>,
    preset: Option<String>,
    layers: Option<usize>,
    experts: Option<usize>,
    quant: Option<Quant>,
    mtp: bool,
    seed: Option<u64>,
    threads: Option<usize>,
    sparse: bool,
    quiet: bool,
}

pub(crate) fn main(words: impl Iterator<Item = OsString>, out: &mut dyn Write) -> anyhow::Result<()> {
    let Some(options) = parse(words)? else { return terminal::show(out, help::SYNTH) };
    let recipe = recipe(&options)?;
    let path = options.out.as_deref().ok_or_else(|| usage("synth needs a file to write: ds4 synth OUT"))?;
    let interrupt = Interrupt::install()?;
    let bar = bar(options.quiet);
    interrupt.begin();
    let written = ds4_synth::write(&recipe, path, threads(options.threads), options.sparse, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
        if interrupt.requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    bar.finish_and_clear();
    if interrupt.end() {
        return Err(interrupt.ended());
    }
    written.map_err(|e| anyhow::Error::new(e).context("cannot write model"))?;
    if !options.quiet {
        let holes = if options.sparse { ", sparse" } else { "" };
        let bytes = path.metadata().map_or(0, |meta| meta.len());
        terminal::note(format_args!("ds4: wrote {} ({}{holes})", path.display(), size(bytes)));
    }
    Ok(())
}

fn parse(words: impl Iterator<Item = OsString>) -> anyhow::Result<Option<Options>> {
    let mut args = Args::new(words, "try 'ds4 synth --help'");
    let mut options = Options::default();
    while let Some(item) = args.next()? {
        let flag = match item {
            Item::Free(word) if options.out.is_none() => {
                options.out = Some(word.into());
                continue;
            }
            Item::Free(word) => return Err(args.unexpected(&word)),
            Item::Flag(flag) => flag,
        };
        match flag.as_str() {
            "-h" | "--help" => return Ok(None),
            "--preset" => options.preset = Some(args.text(&flag)?),
            "--layers" => options.layers = Some(args.int(&flag, 1..=MOST)? as usize),
            "--experts" => options.experts = Some(args.int(&flag, 1..=MOST)? as usize),
            "--quant" => options.quant = Some(quant(&args.text(&flag)?)?),
            "--mtp" => options.mtp = true,
            "--seed" => options.seed = Some(args.int(&flag, 0..=u64::MAX)?),
            "-t" | "--threads" => options.threads = Some(args.int(&flag, 1..=1024)? as usize),
            "--sparse" => options.sparse = true,
            "--quiet" => options.quiet = true,
            _ => return Err(args.unknown(&flag)),
        }
    }
    Ok(Some(options))
}

fn quant(name: &str) -> anyhow::Result<Quant> {
    let names = Quant::ALL.map(Quant::name).join(", ");
    Quant::from_name(name).ok_or_else(|| usage(format!("invalid value for --quant: {name}: expected one of {names}")))
}

fn recipe(options: &Options) -> anyhow::Result<Recipe> {
    let name = options.preset.as_deref().unwrap_or("mini");
    let mut recipe = ds4_synth::preset(name)
        .ok_or_else(|| usage(format!("invalid value for --preset: {name}: expected one of {}", PRESETS.join(", "))))?;
    if let Some(n) = options.layers {
        recipe = recipe.layers(n);
    }
    if let Some(n) = options.experts {
        recipe = recipe.experts(n);
    }
    if options.mtp && options.quant.is_some() {
        return Err(usage("--mtp and --quant cannot be combined: a support file has storage types of its own"));
    }
    if let Some(quant) = options.quant {
        recipe = recipe.quant(quant);
    }
    if let Some(seed) = options.seed {
        recipe = recipe.seed(seed);
    }
    Ok(if options.mtp { recipe.mtp() } else { recipe })
}

/// On a terminal only: elsewhere a bar is noise.
pub(crate) fn bar(quiet: bool) -> ProgressBar {
    let bar = ProgressBar::no_length();
    if quiet || !io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let style = ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
