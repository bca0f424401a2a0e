//! What one small model has not: every type of experts, and as many heads, choices and columns as make more than one workgroup.

use ds4_cpu::Cpu;
use ds4_gguf::Gguf;
use ds4_model::{Batch, Limits, LogitRows, Model, Numerics, Shape, Span};
use ds4_synth::{Quant, Recipe, Tokens, preset};
use ds4_testkit::{Lockstep, Report};
use ds4_wgpu::{Api, Options, Wgpu};

const API: Api = if cfg!(target_vendor = "apple") { Api::Metal } else { Api::Vulkan };

/// Runs prompts on both sides of the change to tiles, each followed by decoding, stage by stage beside the CPU.
fn agrees(recipe: &Recipe, prompts: &[u32]) {
    let shape = &recipe.shape;
    let bytes = ds4_synth::build(recipe).expect("a model");
    let file = Gguf::from_bytes("model", bytes.into()).expect("a file");
    let limits = Limits { context: 512, slots: 2, max_rows: 256, rewind: 8 };
    let cpu = Cpu::new(shape, ds4_cpu::Options::default()).expect("a processor");
    let gpu = Wgpu::new(shape, limits, false, Options::new(API)).expect("an adapter");
    let mut both = Lockstep::new(cpu, gpu, (&file, None), limits, Numerics::Stored).expect("a model on both");
    let mut pos = 0;
    for &prompt in prompts {
        for len in [prompt, 1] {
            let span = Span { slot: 1, pos, len, logits: LogitRows::Last };
            let tokens: Vec<u32> = (pos..pos + len).map(|at| at * 7919 % shape.n_vocab as u32).collect();
            let mut logits = vec![0.0; shape.n_vocab];
            both.forward(&Batch { tokens: &tokens, spans: &[span] }, &mut logits).expect("a step");
            pos += len;
        }
    }
    both.save(1, 0..pos, &mut Vec::new()).expect("caches that are alike");
    let report = Report { lines: both.lines().to_vec(), rules: Vec::new() };
    eprintln!("{report}");
    assert!(report.failures().is_empty(), "{:?}", report.failures());
}

fn tiny(quant: Quant) -> Recipe {
    preset("tiny").expect("a preset").seed(11).quant(quant)
}

#[test]
#[ignore = "needs a Vulkan or Metal adapter; .ci/run installs a software one"]
fn every_type_of_experts_agrees_with_the_cpu() {
    for quant in [Quant::Mxfp4, Quant::Q4, Quant::F16] {
        agrees(&tiny(quant), &[66, 3]);
    }
}

#[test]
#[ignore = "needs a Vulkan or Metal adapter; .ci/run installs a software one"]
fn many_heads_and_choices_agree_with_the_cpu() {
    let shape = Shape {
        n_embd: 1536,
        n_head: 20,
        q_lora_dim: 192,
        n_out_group: 4,
        out_lora_dim: 64,
        n_index_head: 12,
        index_top_k: 24,
        n_expert: 12,
        n_expert_used: 5,
        ff_dim: 512,
        ..preset("tiny").expect("a preset").shape
    };
    let recipe = Recipe::new(shape).tokens(Tokens::Pruned { merges: 16 }).seed(12);
    agrees(&recipe, &[70, 40, 1]);
}
