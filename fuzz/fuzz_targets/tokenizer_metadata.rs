//! Any bytes as a model file whose tokenizer is built and used.
#![no_main]

use ds4_gguf::Gguf;
use ds4_text::Tokenizer;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(file) = Gguf::from_bytes("fuzz", data.to_vec().into()) else { return };
    let Ok(tokenizer) = Tokenizer::from_metadata(file.metadata()) else { return };
    let text = String::from_utf8_lossy(&data[..data.len().min(256)]);
    let encode = || {
        for ids in [tokenizer.encode(&text), tokenizer.encode_plain(&text)] {
            assert_eq!(tokenizer.decode(&ids), text.as_bytes(), "decoding gives the text back");
            assert!(ids.iter().all(|&id| (id as usize) < tokenizer.n_vocab()));
        }
    };
    // The BPE library keeps a piece cache per thread and tokenizer until the thread ends.
    std::thread::scope(|scope| scope.spawn(encode).join().expect("the thread ends without a panic"));
});
