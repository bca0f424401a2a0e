//! Any bytes as a chat request: rendering never panics, and untrusted text never becomes a control token.
#![no_main]

use std::sync::LazyLock;

use ds4_gguf::Gguf;
use ds4_text::{ChatRequest, Piece, Tokenizer, render};
use libfuzzer_sys::fuzz_target;

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| {
    let model = include_bytes!("../../fixtures/tiny/tiny-a.gguf");
    let file = Gguf::from_bytes("tiny-a", (&model[..]).into()).expect("a fixture");
    Tokenizer::from_metadata(file.metadata()).expect("a fixture")
});

fuzz_target!(|data: &[u8]| {
    let Ok(row) = serde_json::from_slice::<serde_json::Value>(data) else { return };
    let Ok(request) = ChatRequest::from_fixture(&row) else { return };
    let Ok(prompt) = render(&request) else { return };
    let added = |ids: &[u32]| ids.iter().filter(|&&id| TOKENIZER.is_added(id)).count();
    let template: usize = prompt
        .pieces()
        .map(|piece| match piece {
            Piece::Template(text) => added(&TOKENIZER.encode(text)),
            Piece::Untrusted(_) => 0,
        })
        .sum();
    assert_eq!(added(&TOKENIZER.encode_prompt(&prompt)), template, "control tokens of the template alone");
});
