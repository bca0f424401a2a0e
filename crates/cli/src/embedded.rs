//! What is inside the program: the miniature model, its draft block, and the published tokenizer.

use anyhow::Context;
use ds4_gguf::{Gguf, Layout};
use ds4_text::Tokenizer;

#[cfg(feature = "miniature")]
const MINIATURE: Option<&[u8]> = Some(include_bytes!("../../../models/ds4-mini.gguf"));
#[cfg(feature = "miniature")]
const DRAFT_BLOCK: Option<&[u8]> = Some(include_bytes!("../../../models/ds4-mini-mtp.gguf"));
#[cfg(not(feature = "miniature"))]
const MINIATURE: Option<&[u8]> = None;
#[cfg(not(feature = "miniature"))]
const DRAFT_BLOCK: Option<&[u8]> = None;

/// The miniature as if it had been opened from a file; nothing is copied.
pub(crate) fn miniature() -> anyhow::Result<Gguf> {
    open("ds4-mini.gguf", MINIATURE)
}

/// The miniature's draft block, likewise.
pub(crate) fn draft_block() -> anyhow::Result<Gguf> {
    open("ds4-mini-mtp.gguf", DRAFT_BLOCK)
}

fn open(name: &str, bytes: Option<&'static [u8]>) -> anyhow::Result<Gguf> {
    let bytes = bytes.context("this build carries no miniature: name a model with -m")?;
    Ok(Gguf::from_bytes(name, bytes.into())?)
}

/// The published tokenizer, by way of a file in memory that holds nothing else.
pub(crate) fn published_tokenizer() -> anyhow::Result<Tokenizer> {
    let layout = Layout::new(ds4_synth::Tokens::Full.metadata(), Vec::new(), 32)?;
    let file = Gguf::from_bytes("published tokenizer", layout.header().to_vec().into())?;
    Ok(Tokenizer::from_metadata(file.metadata())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_miniature_and_its_draft_block_are_small_and_belong_together() {
        let shape = ds4_model::Shape::from_gguf(&miniature().expect("a model")).expect("a shape");
        ds4_model::validate_draft(&draft_block().expect("a draft block"), &shape).expect("its draft block");
        assert!(MINIATURE.is_some_and(|bytes| bytes.len() <= 20_000_000));
        assert!(DRAFT_BLOCK.is_some_and(|bytes| bytes.len() <= 6_000_000));
    }

    #[test]
    fn the_published_tokenizer_is_whole() {
        let tokenizer = published_tokenizer().expect("a tokenizer");
        assert_eq!(tokenizer.n_vocab(), 129_280);
        assert_eq!(tokenizer.encode("Hello<｜User｜>"), [19_923, 128_803]);
    }
}
