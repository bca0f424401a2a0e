//! The small published-format models: written by another implementation, read by this one.

use std::path::PathBuf;

use ds4_gguf::{DType, Gguf, dequant};

fn fixture(name: &str) -> Gguf {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tiny").join(name);
    Gguf::open(&path).unwrap()
}

#[test]
fn tiny_models_open_with_their_metadata() {
    for (name, layers, embd, ratios) in [
        ("tiny-a.gguf", 6, 96, vec![0, 0, 4, 128, 4, 128]),
        ("tiny-b.gguf", 3, 256, vec![0, 4, 128]),
        ("tiny-c.gguf", 2, 256, vec![4, 128]),
    ] {
        let file = fixture(name);
        let m = file.metadata();
        assert_eq!(m.str("general.architecture").unwrap(), "deepseek4");
        assert_eq!(m.u32("deepseek4.block_count").unwrap(), layers);
        assert_eq!(m.u32("deepseek4.embedding_length").unwrap(), embd);
        assert_eq!(m.u32s("deepseek4.attention.compress_ratios").unwrap()[..layers as usize], ratios);
        let tokens: Vec<_> = m.strings("tokenizer.ggml.tokens").unwrap().collect();
        assert_eq!((tokens.len(), tokens[0], tokens[319]), (320, "<｜begin▁of▁sentence｜>", "｜DSML｜"));
    }
}

#[test]
fn tiny_b_holds_the_usual_two_bit_recipe() {
    let file = fixture("tiny-b.gguf");
    for (name, dtype, dims) in [
        ("token_embd.weight", DType::F16, &[256, 320][..]),
        ("output.weight", DType::Q8_0, &[256, 320]),
        ("blk.0.ffn_gate_exps.weight", DType::Iq2Xxs, &[256, 256, 4]),
        ("blk.2.ffn_down_exps.weight", DType::Q2K, &[256, 256, 4]),
        ("blk.0.ffn_gate_tid2eid.weight", DType::I32, &[2, 320]),
        ("blk.1.exp_probs_b.bias", DType::F32, &[4]),
    ] {
        let tensor = file.tensor(name).unwrap();
        assert_eq!((tensor.dtype, &*tensor.dims), (dtype, dims), "{name}");
    }
}

/// The weights were drawn with a standard deviation of about `n_in^-0.5` times a small factor (1.3 for gate and up).
#[test]
fn decoded_matrices_have_the_spread_they_were_drawn_with() {
    for (name, tensor, factor) in [
        ("tiny-a.gguf", "blk.0.ffn_gate_exps.weight", 1.3),
        ("tiny-b.gguf", "blk.0.ffn_gate_exps.weight", 1.3),
        ("tiny-b.gguf", "blk.0.ffn_down_exps.weight", 1.0),
        ("tiny-b.gguf", "blk.0.attn_q_a.weight", 1.0),
        ("tiny-c.gguf", "blk.0.ffn_up_exps.weight", 1.3),
        ("tiny-c.gguf", "blk.1.ffn_down_exps.weight", 1.0),
    ] {
        let tensor = fixture(name).tensor(tensor).unwrap();
        let mut out = vec![0.0; tensor.n_in() * tensor.n_rows()];
        dequant::row(tensor.dtype, &tensor.data, &mut out);
        let power = out.iter().map(|&y| f64::from(y).powi(2)).sum::<f64>() / out.len() as f64;
        let spread = (power * tensor.n_in() as f64).sqrt() / factor;
        assert!((0.8..1.25).contains(&spread), "{name} {}: {spread}", tensor.name);
    }
}
