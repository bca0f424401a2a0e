//! `ds4 logits`: teacher-forced logits of every position, as raw numbers for other programs to compare.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{anyhow, bail};
use ds4_model::{Batch, LogitRows, Model, Span};
use serde_json::Value;

use crate::args::{Args, Item};
use crate::config::{ModelSource, Surroundings};
use crate::device::{Precision, load_for_test, open_gguf};
use crate::failure::usage;
use crate::file::{read_text, write_whole};
use crate::{help, terminal};

const DEFAULT_CHUNK: usize = 512;

struct Options {
    model: Option<PathBuf>,
    ids: PathBuf,
    out: PathBuf,
    chunk: usize,
    precision: Precision,
    threads: Option<usize>,
}

pub(crate) fn main(words: impl Iterator<Item = OsString>, out: &mut dyn Write) -> anyhow::Result<()> {
    let Some(options) = parse(words)? else { return terminal::show(out, help::LOGITS) };
    let ids = read_ids(&options.ids)?;
    let source = ModelSource::resolve(options.model, &Surroundings::look());
    let gguf = open_gguf(&source, false)?;
    let chunk = options.chunk.min(ids.len());
    let mut model = load_for_test(&gguf, ids.len(), chunk, options.precision, options.threads)?;
    let n_vocab = model.shape().n_vocab;
    check_ids(&ids, n_vocab)?;
    write_whole(&options.out, |file| {
        for_each_chunk(&mut *model, &ids, chunk, &mut |_, rows| {
            let bytes: Vec<u8> = rows.iter().flat_map(|z| z.to_le_bytes()).collect();
            Ok(file.write_all(&bytes)?)
        })
    })?;
    terminal::note(format_args!("ds4: wrote {} x {n_vocab} logits: {}", ids.len(), options.out.display()));
    Ok(())
}

fn parse(words: impl Iterator<Item = OsString>) -> anyhow::Result<Option<Options>> {
    let mut args = Args::new(words, "try 'ds4 logits --help'");
    let (mut model, mut ids, mut out, mut threads) = (None, None, None, None);
    let (mut chunk, mut precision) = (DEFAULT_CHUNK, Precision::Default);
    while let Some(item) = args.next()? {
        let flag = match item {
            Item::Flag(flag) => flag,
            Item::Free(word) => return Err(args.unexpected(&word)),
        };
        match flag.as_str() {
            "-h" | "--help" => return Ok(None),
            "-m" | "--model" => model = Some(args.path(&flag)?),
            "--ids" => ids = Some(args.path(&flag)?),
            "--out" => out = Some(args.path(&flag)?),
            "--chunk" => chunk = args.int(&flag, 1..=65536)? as usize,
            "-t" | "--threads" => threads = Some(args.int(&flag, 1..=1024)? as usize),
            "--mode" => precision = mode(&args.text(&flag)?)?,
            _ => return Err(args.unknown(&flag)),
        }
    }
    let ids = ids.ok_or_else(|| usage("logits needs --ids FILE"))?;
    let out = out.ok_or_else(|| usage("logits needs --out FILE"))?;
    Ok(Some(Options { model, ids, out, chunk, precision, threads }))
}

fn mode(name: &str) -> anyhow::Result<Precision> {
    match name {
        "plain" => Ok(Precision::Plain),
        "qat" => Ok(Precision::Quality),
        "default" => Ok(Precision::Default),
        other => Err(usage(format!("invalid value for --mode: {other}: expected plain, qat or default"))),
    }
}

/// A JSON array of ids, or an object with such an array as `tokens` or `ids`.
fn read_ids(path: &std::path::Path) -> anyhow::Result<Vec<u32>> {
    let name = path.display();
    let text = read_text(path, "ids file")?;
    let value: Value = serde_json::from_str(&text).map_err(|e| anyhow!("cannot read ids file: {name}: {e}"))?;
    let list = value.as_array().or_else(|| value.get("tokens")?.as_array()).or_else(|| value.get("ids")?.as_array());
    let list = list.ok_or_else(|| anyhow!("cannot read ids file: {name}: expected a JSON array of token ids"))?;
    let ids = list
        .iter()
        .map(|v| {
            v.as_u64()
                .and_then(|id| u32::try_from(id).ok())
                .ok_or_else(|| anyhow!("cannot read ids file: {name}: {v} is no token id"))
        })
        .collect::<anyhow::Result<Vec<u32>>>()?;
    if ids.is_empty() {
        bail!("cannot read ids file: {name}: expected at least one id");
    }
    Ok(ids)
}

pub(crate) fn check_ids(ids: &[u32], n_vocab: usize) -> anyhow::Result<()> {
    match ids.iter().position(|&id| id as usize >= n_vocab) {
        Some(at) => bail!("token id {} at position {at}, expected less than {n_vocab}", ids[at]),
        None => Ok(()),
    }
}

/// Feeds `ids` in chunks of at most `chunk` and hands over the first position and all logits of each.
pub(crate) fn for_each_chunk(
    model: &mut dyn Model,
    ids: &[u32],
    chunk: usize,
    take: &mut dyn FnMut(usize, &[f32]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut logits = vec![0.0; chunk.min(ids.len()) * model.shape().n_vocab];
    for (at, tokens) in ids.chunks(chunk).enumerate() {
        let pos = at * chunk;
        let span = Span { slot: 0, pos: pos as u32, len: tokens.len() as u32, logits: LogitRows::All };
        let rows = &mut logits[..tokens.len() * model.shape().n_vocab];
        model.forward(&Batch { tokens, spans: &[span] }, rows)?;
        take(pos, rows)?;
    }
    Ok(())
}
