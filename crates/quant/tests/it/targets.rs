//! Every target from every source format.

use std::collections::BTreeMap;

use ds4_gguf::{DType, Gguf, dequant};
use ds4_model::{Shape, draft_specs, validate};
use ds4_quant::{Family, Options, Target, compare};

use crate::checkpoint::{Checkpoint, EXPERTS, Format, options, write};

/// Relative error that a type may have on values spread like those of the checkpoint.
fn bound(dtype: DType) -> f64 {
    match dtype {
        DType::F32 | DType::I32 => 0.0,
        DType::F16 => 0.0005,
        DType::Bf16 => 0.004,
        DType::Q8_0 => 0.015,
        DType::Q4K => 0.12,
        DType::Mxfp4 => 0.2,
        DType::Q2K => 0.5,
        DType::Iq2Xxs => 0.6,
    }
}

fn values(file: &Gguf, name: &str) -> (DType, Vec<f32>) {
    let tensor = file.tensor(name).unwrap_or_else(|| panic!("{name}"));
    let mut out = vec![0.0; tensor.n_in() * tensor.n_rows()];
    if tensor.dtype == DType::I32 {
        let mut ids = vec![0; out.len()];
        dequant::i32_row(&tensor.data, &mut ids);
        return (DType::I32, ids.into_iter().map(|id| id as f32).collect());
    }
    dequant::row(tensor.dtype, &tensor.data, &mut out);
    (tensor.dtype, out)
}

/// Relative root mean square error.
fn error(expected: &[f32], found: &[f32]) -> f64 {
    assert_eq!(expected.len(), found.len());
    let square = |x: f64| x * x;
    let sum: f64 = expected.iter().zip(found).map(|(&a, &b)| square(f64::from(a) - f64::from(b))).sum();
    (sum / expected.iter().map(|&a| square(f64::from(a))).sum::<f64>()).sqrt()
}

fn experts(c: &Checkpoint, prefix: &str, matrix: &str) -> Vec<f32> {
    (0..EXPERTS).flat_map(|e| c.values[&format!("{prefix}ffn.experts.{e}.{matrix}.weight")].clone()).collect()
}

/// Names of the file and what they should hold: one of each family and source format.
fn expected(c: &Checkpoint) -> BTreeMap<&'static str, Vec<f32>> {
    let one = |name: &str| c.values[name].clone();
    BTreeMap::from([
        ("token_embd.weight", one("embed.weight")),
        ("output.weight", one("head.weight")),
        ("output_norm.weight", one("norm.weight")),
        ("output_hc_fn.weight", one("hc_head_fn")),
        ("blk.0.attn_q_b.weight", one("layers.0.attn.wq_b.weight")),
        ("blk.0.ffn_gate_tid2eid.weight", one("layers.0.ffn.gate.tid2eid")),
        ("blk.1.attn_compressor_ape.weight", one("layers.1.attn.compressor.ape")),
        ("blk.1.indexer.proj.weight", one("layers.1.attn.indexer.weights_proj.weight")),
        ("blk.1.exp_probs_b.bias", one("layers.1.ffn.gate.bias")),
        ("blk.2.ffn_down_shexp.weight", one("layers.2.ffn.shared_experts.w2.weight")),
        ("blk.2.ffn_gate_exps.weight", experts(c, "layers.2.", "w1")),
        ("blk.2.ffn_up_exps.weight", experts(c, "layers.2.", "w3")),
        ("blk.2.ffn_down_exps.weight", experts(c, "layers.2.", "w2")),
    ])
}

#[test]
fn every_source_becomes_every_target_within_its_error() {
    let formats =
        [Format::F32, Format::F16, Format::Bf16, Format::F8, Format::Fp4("I8"), Format::Fp4("U8"), Format::Fp4("F4")];
    for experts in formats {
        let c = Checkpoint::new(experts);
        c.save();
        for target in Target::ALL {
            let bytes = c.convert(&options(target)).expect("converted");
            let file = Gguf::from_bytes("out", bytes.into()).expect("a file");
            let shape = Shape::from_gguf(&file).expect("a shape");
            validate(&file, &shape).expect("a model");
            for (name, expected) in expected(&c) {
                let (dtype, found) = values(&file, name);
                let error = error(&expected, &found);
                assert!(error <= bound(dtype), "{experts:?} {} {name} {dtype}: {error}", target.name());
            }
        }
    }
}

#[test]
fn fp4_experts_become_mxfp4_without_loss() {
    let c = Checkpoint::new(Format::Fp4("I8"));
    c.save();
    let file = Gguf::from_bytes("out", c.convert(&options(Target::Mxfp4)).expect("converted").into()).expect("a file");
    let (dtype, found) = values(&file, "blk.1.ffn_up_exps.weight");
    assert_eq!((dtype, found), (DType::Mxfp4, experts(&c, "layers.1.", "w3")));
}

#[test]
fn ids_of_32_bits_are_the_same_table() {
    let mut c = Checkpoint::new(Format::F16);
    c.table("layers.0.ffn.gate.tid2eid", 4);
    c.save();
    let file = Gguf::from_bytes("out", c.convert(&options(Target::Q8)).expect("converted").into()).expect("a file");
    assert_eq!(values(&file, "blk.0.ffn_gate_tid2eid.weight").1, c.values["layers.0.ffn.gate.tid2eid"]);
}

#[test]
fn the_support_file_holds_the_draft_block_in_its_types() {
    let c = Checkpoint::new(Format::Fp4("I8"));
    c.save();
    let bytes = c.convert(&Options { mtp: true, ..options(Target::Q4) }).expect("converted");
    let file = Gguf::from_bytes("out", bytes.into()).expect("a file");
    assert_eq!(file.tensors().len(), 32);
    assert_eq!(file.metadata().str("general.architecture").expect("text"), "deepseek4_mtp_support");
    assert_eq!(file.metadata().u32("deepseek4.mtp_layer_count").expect("a number"), 1);
    for (name, source, dtype) in [
        ("mtp.0.e_proj.weight", "mtp.0.e_proj.weight", DType::Q8_0),
        ("mtp.0.hc_head_fn.weight", "mtp.0.hc_head_fn", DType::F32),
        ("mtp.0.ffn_gate_inp.weight", "mtp.0.ffn.gate.weight", DType::F32),
        ("mtp.0.exp_probs_b.bias", "mtp.0.ffn.gate.bias", DType::F32),
        ("mtp.0.ffn_down_shexp.weight", "mtp.0.ffn.shared_experts.w2.weight", DType::Q8_0),
    ] {
        let (found, y) = values(&file, name);
        assert_eq!(found, dtype, "{name}");
        assert!(error(&c.values[source], &y) <= bound(dtype), "{name}");
    }
    assert_eq!(values(&file, "mtp.0.ffn_down_exps.weight").0, DType::Q4K);
    let shape = Shape { n_embd: 256, n_expert: 3, ..Shape::flash() };
    assert_eq!(draft_specs(&shape).len(), file.tensors().len());
}

#[test]
fn metadata_is_read_from_configuration_and_tokenizer() {
    let c = Checkpoint::new(Format::F16);
    c.save();
    let bytes = c.convert(&Options { name: Some("a name".to_owned()), ..options(Target::Q2) }).expect("converted");
    let file = Gguf::from_bytes("out", bytes.into()).expect("a file");
    let meta = file.metadata();
    let shape = Shape::from_gguf(&file).expect("a shape");
    assert_eq!((shape.name.as_str(), shape.ratios.as_slice(), shape.context), ("a name", &[0, 4, 128][..], 4096));
    assert_eq!(meta.u32("general.file_type").expect("a number"), 19);
    assert_eq!(meta.u32("deepseek4.expert_gating_func").expect("a number"), 4);
    let merges: Vec<&str> = meta.strings("tokenizer.ggml.merges").expect("texts").collect();
    assert_eq!(merges, ["t3 t4", "t5 t6"]);
    assert_eq!(meta.i32s("tokenizer.ggml.token_type").expect("numbers")[..4], [3, 3, 4, 1]);
    assert_eq!(meta.strings("tokenizer.ggml.tokens").expect("texts").nth(299), Some("t299"));
    assert_eq!(meta.u32("tokenizer.ggml.padding_token_id").expect("a number"), 1);
}

#[test]
fn a_prefix_goes_before_a_family_and_a_family_before_the_target() {
    let c = Checkpoint::new(Format::F16);
    c.save();
    let mut o = options(Target::Q2);
    o.recipe.families =
        vec![(Family::GateUp, DType::Q8_0), (Family::GateUp, DType::Q4K), (Family::Embedding, DType::Q8_0)];
    o.recipe.prefixes = vec![("blk.1.ffn_".to_owned(), DType::F16)];
    let file = Gguf::from_bytes("out", c.convert(&o).expect("converted").into()).expect("a file");
    let dtype = |name: &str| file.tensor(name).expect(name).dtype;
    assert_eq!(dtype("blk.0.ffn_gate_exps.weight"), DType::Q4K);
    assert_eq!(dtype("blk.0.ffn_down_exps.weight"), DType::Q2K);
    assert_eq!(dtype("blk.1.ffn_up_exps.weight"), DType::F16);
    assert_eq!(dtype("blk.1.ffn_norm.weight"), DType::F32);
    assert_eq!(dtype("token_embd.weight"), DType::Q8_0);
    o.recipe.prefixes = vec![("blk.1.ffn_up_exps".to_owned(), DType::Q8_0)];
    let message = c.plan(&o).err().expect("refused").to_string();
    assert_eq!(message, "tensor blk.1.ffn_up_exps.weight: Q8_0, expected Q4_K as blk.1.ffn_gate_exps.weight");
}

#[test]
fn a_tensor_is_compared_with_its_like_in_a_file() {
    let c = Checkpoint::new(Format::Fp4("I8"));
    c.save();
    let out = c.out("m.gguf");
    write(&c.plan(&options(Target::Q2)).expect("a plan"), &out).expect("written");
    let file = Gguf::open(&out).expect("a file");
    let hf = c.path("");
    let name = "blk.2.ffn_down_exps.weight";
    let same = compare(&hf, name, &file, None).expect("compared");
    assert_eq!((same.blocks, same.equal, same.first, same.dtype), (768, 768, None, DType::Q2K));
    assert_eq!(same.error_here, same.error_there);
    let mut bytes = std::fs::read(&out).expect("a file");
    let info = file.tensors().iter().find(|t| &*t.name == name).expect("there").clone();
    bytes[info.offset as usize + 100] ^= 1;
    let changed = Gguf::from_bytes("changed", bytes.into()).expect("a file");
    let other = compare(&hf, name, &changed, None).expect("compared");
    assert_eq!((other.equal, other.first.map(|(at, ..)| at)), (767, Some(100)));
    assert!(compare(&hf, "blk.9.nothing", &file, None).is_err());
}
