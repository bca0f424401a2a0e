//! `ds4 check`: this program against recorded truth. Owns the command line, the counting and the report; each kind reads
//! its own files; `device` and `eval`, which need none, have command lines of their own. A file that cannot be read is an error, never a pass, and so is a run without a single case.

mod device;
mod eval;
mod logits;
mod parse;
mod render;
mod tokenizer;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use ds4_text::Tokenizer;
use serde_json::{Map, Value};

use crate::args::{Args, Item};
use crate::failure::{ChecksFailed, usage};
use crate::file::read_text;
use crate::{help, terminal};

/// Differences shown in full.
const SHOWN: usize = 10;

struct Options {
    files: Vec<PathBuf>,
    model: Option<PathBuf>,
    chunk: Option<usize>,
    threads: Option<usize>,
}

/// Passed and failed cases so far.
struct Report<'a> {
    out: &'a mut dyn Write,
    passed: usize,
    failed: usize,
}

impl Report<'_> {
    /// Counts a case; `difference` says what is wrong with it.
    fn case(&mut self, name: &str, difference: Option<String>) -> anyhow::Result<()> {
        let Some(difference) = difference else {
            self.passed += 1;
            return Ok(());
        };
        self.failed += 1;
        match self.failed {
            n if n <= SHOWN => terminal::show(self.out, &format!("FAIL {name}: {difference}\n")),
            n if n == SHOWN + 1 => terminal::show(self.out, "further differences are only counted\n"),
            _ => Ok(()),
        }
    }

    fn note(&mut self, line: &str) -> anyhow::Result<()> {
        terminal::show(self.out, &format!("{line}\n"))
    }
}

pub(crate) fn main(words: impl Iterator<Item = OsString>, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut words = words.peekable();
    if words.next_if(|word| word == "eval").is_some() {
        return eval::main(words, out);
    }
    if words.next_if(|word| word == "device").is_some() {
        return device::main(words, out);
    }
    let Some((kind, options)) = parse_args(words)? else { return terminal::show(out, help::CHECK) };
    let mut report = Report { out, passed: 0, failed: 0 };
    for file in &options.files {
        let before = report.passed + report.failed;
        let checked = match kind.as_str() {
            "tokenizer" => tokenizer::check(file, &options, &mut report),
            "render" => render::check(file, &options, &mut report),
            "parse" => parse::check(file, &mut report),
            _ => logits::check(file, &options, &mut report),
        };
        checked.with_context(|| format!("cannot check {}", file.display()))?;
        if report.passed + report.failed == before {
            bail!("cannot check {}: no cases", file.display());
        }
    }
    let (passed, failed) = (report.passed, report.failed);
    terminal::show(report.out, &format!("{passed} passed, {failed} failed\n"))?;
    if failed == 0 { Ok(()) } else { Err(ChecksFailed.into()) }
}

fn parse_args(words: impl Iterator<Item = OsString>) -> anyhow::Result<Option<(String, Options)>> {
    let mut args = Args::new(words, "try 'ds4 check --help'");
    let mut kind = None;
    let mut options = Options { files: Vec::new(), model: None, chunk: None, threads: None };
    while let Some(item) = args.next()? {
        match item {
            Item::Free(word) if kind.is_none() => {
                let name = word.to_string_lossy().into_owned();
                if !["tokenizer", "render", "parse", "logits"].contains(&name.as_str()) {
                    return Err(usage(format!(
                        "unknown kind of check: {name}: expected tokenizer, render, parse, logits, device or eval"
                    )));
                }
                kind = Some(name);
            }
            Item::Free(word) => options.files.push(word.into()),
            Item::Flag(flag) => match flag.as_str() {
                "-h" | "--help" => return Ok(None),
                "-m" | "--model" => options.model = Some(args.path(&flag)?),
                "--chunk" => options.chunk = Some(args.int(&flag, 1..=65536)? as usize),
                "-t" | "--threads" => options.threads = Some(args.int(&flag, 1..=1024)? as usize),
                _ => return Err(args.unknown(&flag)),
            },
        }
    }
    let kind = kind.ok_or_else(|| usage("check needs a kind: tokenizer, render, parse, logits, device or eval"))?;
    if options.files.is_empty() {
        return Err(usage("check needs at least one file"));
    }
    Ok(Some((kind, options)))
}

/// The tokenizer of `-m`, or the published one.
fn open_tokenizer(options: &Options) -> anyhow::Result<Tokenizer> {
    crate::device::tokenizer(options.model.as_deref())
}

/// The objects of a JSON-lines file, with their line numbers.
fn rows(path: &Path) -> anyhow::Result<Vec<(usize, Map<String, Value>)>> {
    let text = read_text(path, "fixture")?;
    let mut rows = Vec::new();
    for (at, line) in text.split('\n').enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let line_number = at + 1;
        let value: Value = serde_json::from_str(line).map_err(|e| anyhow!("line {line_number}: {e}"))?;
        match value {
            Value::Object(row) => rows.push((line_number, row)),
            other => bail!("line {line_number}: found {}, expected an object", kind_of(&other)),
        }
    }
    Ok(rows)
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A row's name in the report: its id, or its line.
fn name_of(line: usize, row: &Map<String, Value>) -> String {
    match row.get("id") {
        Some(Value::String(id)) => id.clone(),
        _ => format!("line {line}"),
    }
}

fn text<'a>(row: &'a Map<String, Value>, field: &str) -> anyhow::Result<&'a str> {
    match row.get(field) {
        Some(Value::String(text)) => Ok(text),
        other => bail!("{field}: found {}, expected a string", other.map_or("nothing", kind_of)),
    }
}

/// Token ids of a field, if it is there.
fn ids(row: &Map<String, Value>, field: &str) -> anyhow::Result<Option<Vec<u32>>> {
    let list = match row.get(field) {
        None => return Ok(None),
        Some(Value::Array(list)) => list,
        Some(other) => bail!("{field}: found {}, expected a list of ids", kind_of(other)),
    };
    let id = |v: &Value| v.as_u64().and_then(|id| u32::try_from(id).ok());
    let ids =
        list.iter().map(|v| id(v).with_context(|| format!("{field}: {v} is no token id"))).collect::<Result<_, _>>()?;
    Ok(Some(ids))
}

/// Where two lists of ids part.
fn ids_differ(what: &str, expected: &[u32], found: &[u32]) -> Option<String> {
    if expected == found {
        return None;
    }
    let at = expected.iter().zip(found).take_while(|(a, b)| a == b).count();
    let around = |ids: &[u32]| {
        let tail = ids.iter().skip(at).take(8).map(u32::to_string).collect::<Vec<_>>().join(" ");
        if tail.is_empty() { "the end".to_owned() } else { tail }
    };
    Some(format!("{what}: at {at}: expected {}, got {}", around(expected), around(found)))
}

/// Where two texts part.
fn texts_differ(what: &str, expected: &str, found: &str) -> Option<String> {
    if expected == found {
        return None;
    }
    let at = expected.char_indices().zip(found.chars()).find(|((_, a), b)| a != b);
    let at = at.map_or(expected.len().min(found.len()), |((at, _), _)| at);
    let around = |text: &str| text.get(at..).unwrap_or_default().chars().take(60).collect::<String>();
    let mut line = format!("{what}: at byte {at}: ");
    let _ = write!(line, "expected {:?}, got {:?}", around(expected), around(found));
    Some(line)
}
