//! `ds4 check device`: a backend against the CPU, stage by stage and as a whole. Owns the command line; what is run and what
//! is accepted is the testkit's, which backends there are is `crate::device`'s.

use std::ffi::OsString;
use std::io::Write;

use ds4_testkit::{Part, Scope};

use crate::args::{Args, Item};
use crate::config::{self, Runtime};
use crate::failure::{ChecksFailed, usage};
use crate::flags::Flags;
use crate::{device, embedded, help, terminal};

struct Options {
    runtime: Runtime,
    quick: bool,
    part: Part,
}

pub(super) fn main(words: impl Iterator<Item = OsString>, out: &mut dyn Write) -> anyhow::Result<()> {
    let Some(options) = parse(words)? else { return terminal::show(out, help::CHECK_DEVICE) };
    let trained = embedded::miniature().ok();
    let scope = Scope { quick: options.quick, part: options.part, trained: trained.as_ref() };
    let mut progress = |what: &str| terminal::note(format_args!("ds4: {what}"));
    let report = device::check(&options.runtime, scope, &mut progress)?;
    let failures = report.failures().len();
    let judged = report.lines.len() + report.rules.len();
    terminal::show(out, &format!("{report}{} passed, {failures} failed\n", judged - failures))?;
    if report.passed() { Ok(()) } else { Err(ChecksFailed.into()) }
}

fn parse(words: impl Iterator<Item = OsString>) -> anyhow::Result<Option<Options>> {
    let mut args = Args::new(words, "try 'ds4 check device --help'");
    let mut common = Flags::default();
    let mut options = Options { runtime: Runtime::default(), quick: false, part: Part::All };
    while let Some(item) = args.next()? {
        let flag = match item {
            Item::Flag(flag) => flag,
            Item::Free(word) => return Err(args.unexpected(&word)),
        };
        match flag.as_str() {
            "-h" | "--help" => return Ok(None),
            "--quick" => options.quick = true,
            "--part" => options.part = part(&args.text(&flag)?)?,
            "-t" | "--threads" => common.threads = Some(args.int(&flag, 1..=1024)? as usize),
            _ if common.place(&flag, &mut args)? => {}
            _ => return Err(args.unknown(&flag)),
        }
    }
    options.runtime = config::runtime(&common)?;
    Ok(Some(options))
}

fn part(name: &str) -> anyhow::Result<Part> {
    match name {
        "all" => Ok(Part::All),
        "stages" => Ok(Part::Stages),
        "models" => Ok(Part::Models),
        _ => Err(usage(format!("invalid value for --part: {name}: expected all, stages or models"))),
    }
}
