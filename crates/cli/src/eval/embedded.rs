//! The cases inside the program. This list is the only place that names the files.

use anyhow::{Context, anyhow};
use flate2::read::GzDecoder;
use serde::Deserialize;

use super::case::{self, Case};
use crate::file::text_of;

/// Name of the suite and the file, in the order in which they run.
const FILES: &[(&str, &[u8])] = &[
    ("chat", include_bytes!("../../../../fixtures/eval/chat.jsonl.gz")),
    ("thinking", include_bytes!("../../../../fixtures/eval/thinking.jsonl.gz")),
    ("arithmetic", include_bytes!("../../../../fixtures/eval/arithmetic.jsonl.gz")),
    ("order", include_bytes!("../../../../fixtures/eval/order.jsonl.gz")),
    ("tools", include_bytes!("../../../../fixtures/eval/tools.jsonl.gz")),
    ("tool-result", include_bytes!("../../../../fixtures/eval/tool-result.jsonl.gz")),
    ("json", include_bytes!("../../../../fixtures/eval/json.jsonl.gz")),
    ("retrieval-1k", include_bytes!("../../../../fixtures/eval/retrieval-1k.jsonl.gz")),
    ("retrieval-4k", include_bytes!("../../../../fixtures/eval/retrieval-4k.jsonl.gz")),
    ("retrieval-16k", include_bytes!("../../../../fixtures/eval/retrieval-16k.jsonl.gz")),
];
const DIALOGUES: &[u8] = include_bytes!("../../../../fixtures/eval/dialogues.jsonl.gz");

/// All cases, suite by suite.
pub(crate) fn cases() -> anyhow::Result<Vec<Case>> {
    let mut cases = Vec::new();
    for (suite, bytes) in FILES {
        cases.extend(case::read(&unpack(bytes)?, suite).with_context(|| format!("embedded cases: {suite}"))?);
    }
    case::check_ids(&cases).context("embedded cases")?;
    Ok(cases)
}

/// A whole rendered conversation that no training has seen.
#[derive(Deserialize)]
pub(crate) struct Dialogue {
    pub(crate) id: String,
    pub(crate) text: String,
}

pub(crate) fn dialogues() -> anyhow::Result<Vec<Dialogue>> {
    let text = unpack(DIALOGUES)?;
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines.map(|line| serde_json::from_str(line).context("embedded dialogues")).collect()
}

fn unpack(bytes: &[u8]) -> anyhow::Result<String> {
    text_of(GzDecoder::new(bytes)).map_err(|why| anyhow!("embedded cases: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_embedded_file_is_readable_and_keeps_to_its_suite() {
        for (suite, bytes) in FILES {
            let cases = case::read(&unpack(bytes).expect("text"), suite).expect("cases");
            assert!(cases.iter().all(|case| case.suite == *suite), "{suite}");
        }
        assert!(cases().is_ok());
        for dialogue in dialogues().expect("dialogues") {
            assert!(dialogue.text.contains("<｜Assistant｜>"), "{}", dialogue.id);
        }
    }
}
