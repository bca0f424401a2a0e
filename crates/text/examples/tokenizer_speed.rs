//! Times what a server waits for: building the published tokenizer, and encoding a novel on one core.

#![expect(clippy::print_stdout, reason = "the figures are this program's output")]

use std::{path::PathBuf, time::Instant};

use ds4_text::Tokenizer;

#[path = "../tests/it/published.rs"]
mod published;

fn main() {
    let gguf = published::gguf();
    let build = best_of(3, || Tokenizer::from_metadata(gguf.metadata()).expect("the published tokenizer"));
    let novel = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/bench/promessi_sposi.txt.gz");
    let novel = published::unzipped(novel);
    let ids = published::TOKENIZER.encode(&novel).len();
    // Each on a thread of its own, so that no piece is remembered.
    let encode = best_of(3, || {
        std::thread::scope(|s| s.spawn(|| published::TOKENIZER.encode(&novel)).join().expect("encoding does not panic"))
    });
    let letters = "a".repeat(100_000);
    let long = best_of(3, || published::TOKENIZER.encode(&letters));
    println!("build {build:.3} s; encode {ids} ids {encode:.3} s; 100,000 equal letters {long:.3} s");
}

/// Seconds of the fastest run.
fn best_of<T>(runs: usize, run: impl Fn() -> T) -> f64 {
    let time = |_| {
        let start = Instant::now();
        let made = run();
        let seconds = start.elapsed().as_secs_f64();
        drop(made);
        seconds
    };
    (0..runs).map(time).fold(f64::INFINITY, f64::min)
}
