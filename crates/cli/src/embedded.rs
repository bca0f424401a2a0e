//! What is inside the program: the miniature model and the published tokenizer.

use ds4_gguf::{Gguf, Layout};
use ds4_text::Tokenizer;

static MINIATURE: &[u8] = include_bytes!("../../../models/ds4-mini.gguf");

/// The miniature as if it had been opened from a file; nothing is copied.
pub(crate) fn miniature() -> ds4_gguf::Result<Gguf> {
    Gguf::from_bytes("ds4-mini.gguf", MINIATURE.into())
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
    fn the_published_tokenizer_is_whole() {
        let tokenizer = published_tokenizer().expect("a tokenizer");
        assert_eq!(tokenizer.n_vocab(), 129_280);
        assert_eq!(tokenizer.encode("Hello<｜User｜>"), [19_923, 128_803]);
    }
}
