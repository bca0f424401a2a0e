//! What is inside the program: the miniature model and the published tokenizer.

use std::ops::ControlFlow;

use anyhow::Context;
use ds4_gguf::Gguf;
use ds4_text::Tokenizer;

static MINIATURE: &[u8] = include_bytes!("../../../models/ds4-mini.gguf");

/// The miniature as if it had been opened from a file; nothing is copied.
pub(crate) fn miniature() -> ds4_gguf::Result<Gguf> {
    Gguf::from_bytes("ds4-mini.gguf", MINIATURE.into())
}

/// The published tokenizer: the header of a synthetic file that carries all of it, its weights left as holes.
pub(crate) fn published_tokenizer() -> anyhow::Result<Tokenizer> {
    let recipe = ds4_synth::preset("tiny").context("the tiny preset is missing")?.tokens(ds4_synth::Tokens::Full);
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let path = folder.path().join("tokenizer.gguf");
    ds4_synth::write(&recipe, &path, 1, true, &mut |_, _| ControlFlow::Continue(()))?;
    Ok(Tokenizer::from_metadata(Gguf::open(&path)?.metadata())?)
}
