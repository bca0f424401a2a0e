//! `ds4 kv`: what a store of prefixes holds. Reads headers and files by the engine's own reader; runs no model.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::bail;
use ds4_engine::{KvObject, KvRole, kv_list, kv_remove, kv_verify};
use ds4_server::verify_journals;
use serde_json::{Value, json};

use crate::args::{Args, Item};
use crate::failure::{ChecksFailed, usage};
use crate::{help, terminal};

/// What to do.
enum Action {
    List,
    Show,
    Remove,
    Verify,
}

pub(crate) fn main(words: impl Iterator<Item = OsString>, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut args = Args::new(words, "try 'ds4 kv --help'");
    let (mut free, mut as_json, mut all) = (Vec::new(), false, false);
    while let Some(item) = args.next()? {
        match item {
            Item::Free(word) => free.push(word),
            Item::Flag(flag) => match flag.as_str() {
                "-h" | "--help" => return terminal::show(out, help::KV),
                "--json" => as_json = true,
                "--all" => all = true,
                _ => return Err(args.unknown(&flag)),
            },
        }
    }
    let mut free = free.into_iter();
    let action = match free.next().as_ref().and_then(|word| word.to_str()) {
        Some("ls") => Action::List,
        Some("show") => Action::Show,
        Some("rm") => Action::Remove,
        Some("verify") => Action::Verify,
        _ => return Err(usage("kv needs one of ls, show, rm, verify")),
    };
    let Some(dir) = free.next().map(PathBuf::from) else { return Err(usage("kv needs a directory")) };
    let names: Vec<String> = free.map(|word| word.to_string_lossy().into_owned()).collect();
    if all && !matches!(action, Action::Remove) || as_json && !matches!(action, Action::List) {
        return Err(usage("--all is for rm, --json for ls"));
    }
    match (action, &names[..]) {
        (Action::List, []) => list(&dir, as_json, out),
        (Action::Show, [name]) => show(&dir, name, out),
        (Action::Remove, []) if all => remove(&dir, &[String::new()], out),
        (Action::Remove, [_, ..]) if !all => remove(&dir, &names, out),
        (Action::Verify, []) => verify(&dir, out),
        (Action::Show, _) => Err(usage("kv show needs one name")),
        (Action::Remove, _) => Err(usage("kv rm needs names, or --all")),
        (Action::List | Action::Verify, _) => Err(usage("kv ls and kv verify take no names")),
    }
}

fn list(dir: &Path, as_json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let objects = kv_list(dir)?;
    if as_json {
        let objects: Vec<Value> = objects.iter().map(to_json).collect();
        return terminal::show(out, &format!("{}\n", json!(objects)));
    }
    let mut text = String::new();
    for object in &objects {
        let KvObject { name, start, end, bytes, .. } = object;
        let short = name.get(..16).unwrap_or(name);
        let kind = object.role.map_or("segment", KvRole::name);
        let _ = writeln!(text, "{short}  {kind:<9}  {start:>7}..{end:<7}  {bytes:>12}  {}", ago(object.used));
    }
    let bytes: u64 = objects.iter().map(|object| object.bytes).sum();
    let checkpoints = objects.iter().filter(|object| object.role.is_some()).count();
    let _ = writeln!(text, "{checkpoints} checkpoints, {} segments, {bytes} bytes", objects.len() - checkpoints);
    terminal::show(out, &text)
}

fn show(dir: &Path, name: &str, out: &mut dyn Write) -> anyhow::Result<()> {
    let objects = kv_list(dir)?;
    let mut found = objects.iter().filter(|object| object.name.starts_with(name));
    match (found.next(), found.next()) {
        (Some(object), None) => terminal::show(out, &format!("{:#}\n", to_json(object))),
        (None, _) => bail!("no object whose name begins with {name}"),
        (Some(_), Some(_)) => bail!("several objects have names that begin with {name}"),
    }
}

fn remove(dir: &Path, names: &[String], out: &mut dyn Write) -> anyhow::Result<()> {
    let (mut files, mut bytes) = (0, 0);
    for name in names {
        let gone = kv_remove(dir, name)?;
        (files, bytes) = (files + gone.0, bytes + gone.1);
    }
    terminal::show(out, &format!("{files} files, {bytes} bytes removed\n"))
}

fn verify(dir: &Path, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut problems = kv_verify(dir)?;
    problems.extend(verify_journals(dir)?);
    let mut text = problems.iter().fold(String::new(), |text, (name, what)| text + name + ": " + what + "\n");
    let _ = writeln!(text, "{} problems", problems.len());
    terminal::show(out, &text)?;
    if problems.is_empty() { Ok(()) } else { Err(ChecksFailed.into()) }
}

fn to_json(object: &KvObject) -> Value {
    json!({
        "name": object.name,
        "kind": if object.role.is_some() { "checkpoint" } else { "segment" },
        "role": object.role.map(KvRole::name),
        "start": object.start,
        "end": object.end,
        "tenant": object.tenant,
        "model": hex(&object.fingerprint),
        "quant": object.quant,
        "parent": object.parent,
        "bytes": object.bytes,
        "payload_bytes": object.payload,
        "created": seconds(object.created),
        "used": seconds(object.used),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// How long ago something was, in the largest unit of which there are two.
fn ago(time: SystemTime) -> String {
    let seconds = SystemTime::now().duration_since(time).map_or(0, |since| since.as_secs());
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}
