//! Times one draw over the full vocabulary, for the settings that differ in how much of it they have to look at.

#![expect(clippy::print_stdout, reason = "the figures are this program's output")]

use std::time::Instant;

use ds4_engine::{Sampler, SamplingParams, TokenLogprobs};

const VOCAB: u32 = 129_280;
const RUNS: u32 = 200;

fn main() {
    // Spread evenly over -12..12 in an order without pattern.
    let logits: Vec<f32> =
        (0..VOCAB).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 24) as f32 * 24.0 - 12.0).collect();
    let default = SamplingParams::default();
    let cases = [
        ("temperature 1, min-p 0.05", default),
        ("greedy", SamplingParams::greedy()),
        ("no cut", SamplingParams { min_p: 0.0, ..default }),
        ("top-p 0.95, no min-p", SamplingParams { min_p: 0.0, top_p: 0.95, ..default }),
        ("top-k 40, top-p 0.95", SamplingParams { top_k: 40, top_p: 0.95, ..default }),
        ("presence penalty", SamplingParams { presence_penalty: 1.0, ..default }),
    ];
    for (name, params) in cases {
        let mut sampler = Sampler::new(params);
        report(name, || sampler.sample(&logits, false).expect("finite logits"));
    }
    let mut id = 0;
    report("log-probabilities, top 20", || {
        id += 1;
        TokenLogprobs::of(&logits, id, 20).expect("finite logits").rank
    });
}

fn report(name: &str, mut run: impl FnMut() -> u32) {
    let start = Instant::now();
    let sum: u64 = (0..RUNS).map(|_| u64::from(run())).sum();
    println!("{name}: {:.3} ms (results sum to {sum})", start.elapsed().as_secs_f64() * 1e3 / f64::from(RUNS));
}
