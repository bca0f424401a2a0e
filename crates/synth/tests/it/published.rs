//! The released model's directory and sizes (GGUF spec sections 4 and 5), without writing 80 gigabytes.

use std::{collections::HashMap, ops::ControlFlow};

use ds4_gguf::{DType, Gguf, Layout};
use ds4_model::Shape;
use ds4_synth::{Quant, Recipe, write};

use crate::recipe;

/// Bytes of all tensors, each padded to 32.
fn padded(layout: &Layout) -> u64 {
    (0..layout.len()).map(|i| layout.tensor_bytes(i).next_multiple_of(32)).sum()
}

/// Writes the header with holes behind it and opens that.
fn sparse(recipe: &Recipe) -> Gguf {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sparse.gguf");
    write(recipe, &path, 1, true, &mut |_, _| ControlFlow::Continue(())).unwrap();
    #[cfg(unix)]
    assert!(std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(&path).unwrap()) * 512 < 8 << 20, "holes");
    Gguf::open(&path).unwrap()
}

#[test]
fn flash_has_the_sizes_of_the_published_files() {
    for (quant, bytes) in [(Quant::Q2, 86_714_777_664), (Quant::Q4, 164_628_168_768)] {
        let layout = recipe("flash").quant(quant).layout().unwrap();
        assert_eq!((layout.len(), padded(&layout)), (1328, bytes));
        assert_eq!(layout.file_len(), layout.data_start() + bytes);
    }
}

#[test]
fn a_sparse_flash_opens_as_the_two_bit_file_that_was_published() {
    let file = sparse(&recipe("flash"));
    let mut sums: HashMap<DType, u64> = HashMap::new();
    for t in file.tensors() {
        *sums.entry(t.dtype).or_default() += t.bytes;
    }
    let expected = HashMap::from([
        (DType::Iq2Xxs, 47_613_739_008),
        (DType::Q2K, 30_299_652_096),
        (DType::Q8_0, 6_598_885_376),
        (DType::F16, 2_191_345_664),
        (DType::I32, 9_308_160),
        (DType::F32, 1_845_596),
    ]);
    assert_eq!(sums, expected);
    assert_eq!(file.tensors().len(), 1328);
    assert_eq!(file.file_bytes() - file.data_start(), 86_714_777_664);
    assert_eq!(Shape::from_gguf(&file).unwrap(), Shape::flash());
    ds4_model::validate(&file, &Shape::flash()).unwrap();
    assert!((5_000_000..5_600_000).contains(&file.data_start()), "about 5.3 MB of header, {}", file.data_start());
}

#[test]
fn flash_carries_every_record_of_the_published_files() {
    let file = sparse(&recipe("flash").layers(43));
    let m = file.metadata();
    for (key, text) in [
        ("general.architecture", "deepseek4"),
        ("general.name", "DeepSeek V4 Flash"),
        ("general.size_label", "256x8.4B"),
        ("general.license", "mit"),
        ("deepseek4.rope.scaling.type", "yarn"),
        ("tokenizer.ggml.model", "gpt2"),
        ("tokenizer.ggml.pre", "joyai-llm"),
    ] {
        assert_eq!(m.str(key).unwrap(), text);
    }
    for (key, n) in [
        ("general.file_type", 19),
        ("general.quantization_version", 2),
        ("deepseek4.context_length", 1_048_576),
        ("deepseek4.expert_gating_func", 4),
        ("deepseek4.nextn_predict_layers", 1),
        ("tokenizer.ggml.bos_token_id", 0),
        ("tokenizer.ggml.eos_token_id", 1),
        ("tokenizer.ggml.padding_token_id", 1),
    ] {
        assert_eq!(m.u32(key).unwrap(), n, "{key}");
    }
    assert_eq!(m.i32s("deepseek4.attention.compress_ratios").unwrap().len(), 44);
    assert_eq!(m.f32s("deepseek4.swiglu_clamp_exp").unwrap(), [10.0; 43]);
    assert!(!m.bool("tokenizer.ggml.add_bos_token").unwrap() && !m.bool("tokenizer.ggml.add_eos_token").unwrap());
    let tokens: Vec<&str> = m.strings("tokenizer.ggml.tokens").unwrap().collect();
    let types = m.i32s("tokenizer.ggml.token_type").unwrap();
    assert_eq!((tokens.len(), types.len()), (129_280, 129_280));
    for (id, text, kind) in [
        (0, "<｜begin▁of▁sentence｜>", 3),
        (2, "<｜▁pad▁｜>", 3),
        (1718, "</", 1),
        (128_821, "<think>", 4),
        (128_846, "<｜end_of_query｜>", 3),
        (129_279, "<｜image｜>", 3),
    ] {
        assert_eq!((tokens[id], types[id]), (text, kind));
    }
    let merges = m.strings("tokenizer.ggml.merges").unwrap();
    assert_eq!((merges.len(), merges.clone().next()), (127_741, Some("Ġ t")));
}

#[test]
fn the_support_file_is_the_published_one_to_the_byte_count() {
    let recipe = recipe("flash").mtp();
    let layout = recipe.layout().unwrap();
    assert_eq!((layout.len(), padded(&layout), layout.file_len()), (32, 3_807_600_192, 3_807_602_400));
    let file = sparse(&recipe);
    assert_eq!(file.metadata().str("general.name").unwrap(), "DeepSeek V4 Flash MTP support");
    for (name, dtype, dims) in [
        ("mtp.0.e_proj.weight", DType::Q8_0, &[4096, 4096][..]),
        ("mtp.0.hc_head_fn.weight", DType::F32, &[16_384, 4]),
        ("mtp.0.hc_attn_fn.weight", DType::F32, &[16_384, 24]),
        ("mtp.0.ffn_gate_inp.weight", DType::F32, &[4096, 256]),
        ("mtp.0.exp_probs_b.bias", DType::F32, &[256]),
        ("mtp.0.ffn_down_exps.weight", DType::Q4K, &[2048, 4096, 256]),
        ("mtp.0.norm.weight", DType::F32, &[4096]),
    ] {
        let t = file.tensor(name).unwrap();
        assert_eq!((t.dtype, &*t.dims), (dtype, dims), "{name}");
    }
}

#[test]
fn pro_is_a_shape_the_reader_accepts() {
    let file = sparse(&recipe("pro"));
    assert_eq!(Shape::from_gguf(&file).unwrap(), Shape::pro());
    ds4_model::validate(&file, &Shape::pro()).unwrap();
}
