//! Ids of recorded strings: rows `{text, ids, ids_plain?, bytes_hex?}`, rows `{id, text}` of added tokens, or a file of
//! counts beside the prompts it counts.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use ds4_text::{ChatRequest, Message, Role, Thinking, Tokenizer, render};
use flate2::read::GzDecoder;
use serde_json::{Map, Value};

use super::{Options, Report, ids, ids_differ, name_of, open_tokenizer, rows, text};
use crate::file::{read_text, text_of};

pub(super) fn check(path: &Path, options: &Options, report: &mut Report<'_>) -> anyhow::Result<()> {
    let tokenizer = open_tokenizer(options)?;
    if path.extension().is_some_and(|e| e == "json") {
        return check_counts(path, &tokenizer, report);
    }
    for (line, row) in rows(path)? {
        let difference = check_row(&tokenizer, &row).with_context(|| format!("line {line}"))?;
        report.case(&name_of(line, &row), difference)?;
    }
    Ok(())
}

fn check_row(tokenizer: &Tokenizer, row: &Map<String, Value>) -> anyhow::Result<Option<String>> {
    let expected_text = text(row, "text")?;
    if let (Some(id), false) = (row.get("id").and_then(Value::as_u64), row.contains_key("ids")) {
        let id = u32::try_from(id).with_context(|| format!("id: {id} is no token id"))?;
        let difference = ids_differ("id", &[id], &tokenizer.encode(expected_text));
        return Ok(difference.or_else(|| decoded(tokenizer, expected_text, &[id])));
    }
    // Rows that record disagreements of another tokenizer name the published ids `hf_ids`.
    let rendered = ids(row, "ids")?.map_or_else(|| ids(row, "hf_ids"), |ids| Ok(Some(ids)))?.context("ids: missing")?;
    let plain = ids(row, "ids_plain")?.unwrap_or_else(|| rendered.clone());
    let bytes = match row.get("bytes_hex") {
        Some(_) => from_hex(text(row, "bytes_hex")?)?,
        None => expected_text.as_bytes().to_vec(),
    };
    let input = String::from_utf8_lossy(&bytes);
    let found = tokenizer.encode(&input);
    let mut difference = ids_differ("ids", &rendered, &found);
    if row.contains_key("ids") {
        let found_plain = tokenizer.encode_plain(&input);
        difference = difference.or_else(|| ids_differ("ids_plain", &plain, &found_plain));
        difference = difference.or_else(|| decoded(tokenizer, expected_text, &found_plain));
    }
    Ok(difference.or_else(|| decoded(tokenizer, expected_text, &found)))
}

fn decoded(tokenizer: &Tokenizer, expected: &str, ids: &[u32]) -> Option<String> {
    let bytes = tokenizer.decode(ids);
    (bytes != expected.as_bytes())
        .then(|| format!("decoding: expected {expected:?}, got {:?}", String::from_utf8_lossy(&bytes)))
}

fn from_hex(hex: &str) -> anyhow::Result<Vec<u8>> {
    if !hex.len().is_multiple_of(2) || !hex.is_ascii() {
        bail!("bytes_hex: found {hex:?}, expected pairs of hex digits");
    }
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16);
    let bytes = (0..hex.len()).step_by(2).map(byte).collect::<Result<_, _>>();
    bytes.with_context(|| format!("bytes_hex: found {hex:?}, expected pairs of hex digits"))
}

/// `{prompts: {NAME: {user_text_ids, rendered_ids}}, rendered_prompts: {FILE: COUNT}, bench: {FILE: {published_tokenizer}}}`;
/// prompts lie in `prompts/NAME.txt`, bench texts in `../bench/`, as they are or gzipped.
fn check_counts(path: &Path, tokenizer: &Tokenizer, report: &mut Report<'_>) -> anyhow::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let value: Value = serde_json::from_str(&read_text(path, "fixture")?)?;
    let section = |name: &str| match value.get(name) {
        None => Ok(Map::new()),
        Some(Value::Object(map)) => Ok(map.clone()),
        Some(_) => bail!("{name}: expected an object"),
    };
    for (name, counts) in section("prompts")? {
        let text = read_text(&folder.join("prompts").join(format!("{name}.txt")), "prompt")?;
        let request =
            ChatRequest { thinking: Thinking::None, ..ChatRequest::new(vec![Message::new(Role::User, text.as_str())]) };
        let rendered = tokenizer.encode_prompt(&render(&request)?).len();
        let found = [("user_text_ids", tokenizer.encode_plain(&text).len()), ("rendered_ids", rendered)];
        for (field, found) in found {
            let expected = counts.get(field).and_then(Value::as_u64);
            let expected = expected.with_context(|| format!("prompts.{name}.{field}: expected a count"))?;
            report.case(&format!("{name} {field}"), count_differs(expected, found))?;
        }
    }
    for (name, count) in section("rendered_prompts")? {
        let text = read_text(&folder.join(&name), "prompt")?;
        let expected = count.as_u64().with_context(|| format!("rendered_prompts.{name}: expected a count"))?;
        report.case(&name, count_differs(expected, tokenizer.encode(&text).len()))?;
    }
    for (name, counts) in section("bench")? {
        let expected = counts.get("published_tokenizer").and_then(Value::as_u64);
        let expected = expected.with_context(|| format!("bench.{name}.published_tokenizer: expected a count"))?;
        let text = bench_text(&folder.join("../bench").join(&name))?;
        report.case(&name, count_differs(expected, tokenizer.encode(&text).len()))?;
    }
    Ok(())
}

fn bench_text(path: &Path) -> anyhow::Result<String> {
    let mut zipped = path.as_os_str().to_owned();
    zipped.push(".gz");
    let Ok(file) = File::open(&zipped) else { return read_text(path, "bench text") };
    text_of(GzDecoder::new(file)).map_err(|why| anyhow!("cannot read bench text: {}: {why}", zipped.display()))
}

fn count_differs(expected: u64, found: usize) -> Option<String> {
    (expected != found as u64).then(|| format!("expected {expected} ids, got {found}"))
}
