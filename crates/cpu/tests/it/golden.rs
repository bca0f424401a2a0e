//! fixtures/tiny: logits and layer traces of an independent implementation.

use std::path::{Path, PathBuf};

use ds4_cpu::{Cpu, Options};
use ds4_gguf::Gguf;
use ds4_model::{Batch, HC, Limits, LogitRows, Model, Numerics, Probed, Shape, Span, StreamTrace, Transformer};
use serde_json::Value;

pub(crate) struct Golden {
    pub(crate) file: Gguf,
    pub(crate) cases: Vec<Value>,
    floats: Vec<f32>,
    vocab: usize,
}

impl Golden {
    pub(crate) fn open(name: &str) -> Golden {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tiny");
        let read = |path: &Path| std::fs::read(path).unwrap();
        let json: Value = serde_json::from_slice(&read(&folder.join(format!("{name}.golden.json")))).unwrap();
        let floats = read(&folder.join(format!("{name}.golden.f32")));
        let floats = floats.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        let cases = json["cases"].as_array().unwrap().clone();
        let file = Gguf::open(&folder.join(format!("{name}.gguf"))).unwrap();
        Golden { file, cases, floats, vocab: json["vocab"].as_u64().unwrap() as usize }
    }

    fn rows(&self, case: &Value, mode: &str) -> Vec<&[f32]> {
        let at = case[mode]["offset"].as_u64().unwrap() as usize;
        let rows = case[mode]["rows"].as_u64().unwrap() as usize;
        self.floats[at..at + rows * self.vocab].chunks(self.vocab).collect()
    }
}

pub(crate) fn numbers(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect()
}

pub(crate) fn load(file: &Gguf, numerics: Numerics, max_rows: u32) -> Box<dyn Model> {
    let limits = Limits { context: 1024, slots: 2, max_rows, rewind: 16 };
    ds4_cpu::load(file, limits, Options { threads: 2, numerics }).unwrap()
}

/// Logits of every position, `chunk` tokens at a time.
pub(crate) fn logits(model: &mut dyn Model, tokens: &[u32], chunk: usize) -> Vec<f32> {
    let mut all = Vec::new();
    for (i, tokens) in tokens.chunks(chunk).enumerate() {
        let (pos, len) = ((i * chunk) as u32, tokens.len() as u32);
        let spans = [Span { slot: 1, pos, len, logits: LogitRows::All }];
        let mut out = vec![0.0; tokens.len() * model.shape().n_vocab];
        model.forward(&Batch { tokens, spans: &spans }, &mut out).unwrap();
        all.extend(out);
    }
    all
}

fn compare(golden: &Golden, case: &Value, mode: &str, found: &[f32], label: &str) {
    let noise = case[mode]["noise"].as_array().unwrap();
    let positions = numbers(&case["positions"]);
    let mut worst = 0f32;
    for ((expected, &pos), noise) in golden.rows(case, mode).into_iter().zip(&positions).zip(noise) {
        let found = &found[pos as usize * golden.vocab..][..golden.vocab];
        let error = found.iter().zip(expected).map(|(f, e)| (f - e).abs()).fold(0.0, f32::max);
        let limit = 1e-3 + 10.0 * noise.as_f64().unwrap() as f32;
        assert!(error <= limit, "{label} {mode} n={} position {pos}: error {error}, limit {limit}", case["n"]);
        worst = worst.max(error);
    }
    eprintln!("{label} {mode} n={}: largest error {worst:.2e}", case["n"]);
}

#[test]
fn logits_match_the_goldens_in_both_modes() {
    for name in ["tiny-a", "tiny-b", "tiny-c"] {
        let golden = Golden::open(name);
        for (mode, numerics) in [("plain", Numerics::Plain), ("qat", Numerics::Qat)] {
            let mut model = load(&golden.file, numerics, 1024);
            for case in &golden.cases {
                let tokens = numbers(&case["tokens"]);
                for chunk in [tokens.len(), 1] {
                    let found = logits(&mut *model, &tokens, chunk);
                    compare(&golden, case, mode, &found, &format!("{name} chunk {chunk}"));
                }
            }
        }
    }
}

#[test]
fn streams_match_the_layer_traces() {
    for name in ["tiny-a", "tiny-b", "tiny-c"] {
        let golden = Golden::open(name);
        let shape = Shape::from_gguf(&golden.file).unwrap();
        for (mode, numerics) in [("plain", Numerics::Plain), ("qat", Numerics::Qat)] {
            for case in golden.cases.iter().filter(|case| case[mode]["trace"].is_object()) {
                let tokens = numbers(&case["tokens"]);
                let cpu = Cpu::new(&shape, Options { threads: 1, numerics }).unwrap();
                let width = HC * shape.n_embd;
                let probed = Probed::new(cpu, StreamTrace::new(shape.n_layer, width));
                let limits = Limits { context: 64, slots: 2, max_rows: 64, rewind: 0 };
                let mut model = Transformer::new(probed, &golden.file, None, limits, numerics).unwrap();
                logits(&mut model, &tokens, tokens.len());
                let at = case[mode]["trace"]["offset"].as_u64().unwrap() as usize;
                let expected = &golden.floats[at..];
                for (il, found) in model.backend_mut().probe.layers.iter().enumerate() {
                    assert_eq!(found.len(), tokens.len() * width);
                    for (i, (f, e)) in found.iter().zip(&expected[il * found.len()..]).enumerate() {
                        let limit = 1e-4 * e.abs().max(1.0);
                        assert!((f - e).abs() <= limit, "{name} {mode} layer {il} value {i}: {f}, expected {e}");
                    }
                }
            }
        }
    }
}

/// Median over rows of the divergence of `found` from `expected`.
fn median_divergence(expected: &[&[f32]], found: &[&[f32]]) -> f64 {
    let log_softmax = |row: &[f32]| -> Vec<f64> {
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let total: f64 = row.iter().map(|&v| f64::from(v - max).exp()).sum();
        row.iter().map(|&v| f64::from(v - max) - total.ln()).collect()
    };
    let mut divergences: Vec<f64> = expected
        .iter()
        .zip(found)
        .map(|(e, f)| {
            let (e, f) = (log_softmax(e), log_softmax(f));
            e.iter().zip(&f).map(|(e, f)| e.exp() * (e - f)).sum()
        })
        .collect();
    divergences.sort_by(f64::total_cmp);
    divergences[divergences.len() / 2]
}

/// A float16 rotary tail moves a value by up to 2^-11 of it; where that flips an E4M3 step in a later layer, the value
/// moves by 2^-4. The bound is that of a float16 cache in a model that rounds (docs/model.md).
#[test]
fn stored_rows_stay_within_the_bound_of_a_float16_cache() {
    const BOUND: f64 = 5e-4;
    for name in ["tiny-a", "tiny-b", "tiny-c"] {
        let golden = Golden::open(name);
        let mut model = load(&golden.file, Numerics::Stored, 1024);
        for case in &golden.cases {
            let tokens = numbers(&case["tokens"]);
            let found = logits(&mut *model, &tokens, tokens.len());
            let rows: Vec<&[f32]> = found.chunks(golden.vocab).collect();
            let found: Vec<&[f32]> = numbers(&case["positions"]).iter().map(|&pos| rows[pos as usize]).collect();
            let divergence = median_divergence(&golden.rows(case, "qat"), &found);
            eprintln!("{name} n={}: median divergence {divergence:.2e}", case["n"]);
            assert!(divergence <= BOUND, "{name} n={}: median divergence {divergence}", case["n"]);
        }
    }
}
