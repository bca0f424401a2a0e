//! What bounds decoding: the bytes of weights that a token reads, and how fast this machine reads memory.

use std::collections::HashMap;
use std::hint::black_box;
use std::thread;
use std::time::Instant;

use ds4_gguf::Gguf;
use ds4_model::{Class, Shape, tensor_specs};

/// Larger than the caches of any machine this runs on.
const BUFFER_BYTES: usize = 1 << 30;
const PASSES: usize = 3;

/// Weights that one token touches: everything but the embedding's and the hash tables' other rows and the experts that are
/// not chosen.
pub(super) fn token_bytes(gguf: &Gguf, shape: &Shape) -> u64 {
    let bytes: HashMap<&str, u64> = gguf.tensors().iter().map(|info| (&*info.name, info.bytes)).collect();
    let share = |class: Class, bytes: u64| match class {
        Class::Embedding | Class::HashTable => bytes / shape.n_vocab as u64,
        Class::ExpertGateUp | Class::ExpertDown => bytes / shape.n_expert as u64 * shape.n_expert_used as u64,
        _ => bytes,
    };
    let of = |name: &str| bytes.get(name).copied().unwrap_or_default();
    tensor_specs(shape).iter().map(|spec| share(spec.class, of(&spec.name))).sum()
}

/// Bytes a second that all threads together sum from a buffer; the best of a few passes.
pub(super) fn read_bandwidth(threads: usize) -> f64 {
    let words = vec![1_u64; BUFFER_BYTES / 8];
    let part = words.len().div_ceil(threads);
    let pass = || {
        let started = Instant::now();
        thread::scope(|scope| {
            for words in words.chunks(part) {
                scope.spawn(move || black_box(words.iter().fold(0_u64, |sum, &word| sum.wrapping_add(word))));
            }
        });
        BUFFER_BYTES as f64 / started.elapsed().as_secs_f64()
    };
    (0..PASSES).map(|_| pass()).fold(0.0, f64::max)
}
