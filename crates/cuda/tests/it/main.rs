//! The device suite on the first NVIDIA card: every stage and whole models against the CPU; and, without a card, every kernel
//! through NVRTC for every architecture.

use ds4_cuda::{Cuda, Options};
use ds4_model::{Limits, Shape};
use ds4_testkit::{Part, Scope, device_suite};

fn open(shape: &Shape, limits: Limits) -> ds4_model::Result<Cuda> {
    let cache = std::env::temp_dir().join("ds4-cuda-tests");
    Cuda::new(shape, limits, true, Options { cache: Some(cache), ..Options::default() })
}

fn passes(part: Part) {
    let scope = Scope { part, ..Scope::default() };
    let report = device_suite(scope, &mut open, &mut |what| eprintln!("{what}"));
    eprintln!("{report}");
    assert!(report.failures().is_empty(), "{:?}", report.failures());
}

#[test]
#[ignore = "needs an NVIDIA GPU"]
fn every_stage_agrees_with_the_cpu() {
    passes(Part::Stages);
}

#[test]
#[ignore = "needs an NVIDIA GPU"]
fn whole_models_agree_with_the_cpu_and_with_themselves() {
    passes(Part::Models);
}

/// What a published file needs, and the model inside the program.
fn shapes() -> [Shape; 2] {
    let wide = Shape::flash();
    let small = Shape {
        n_embd: 256,
        n_vocab: 3898,
        n_head: 4,
        q_lora_dim: 128,
        n_out_group: 2,
        out_lora_dim: 128,
        n_index_head: 4,
        index_top_k: 64,
        n_expert: 8,
        n_expert_used: 2,
        ff_dim: 256,
        ..Shape::flash()
    };
    [wide, small]
}

#[test]
#[ignore = "needs NVRTC, which .ci/run installs, and minutes"]
fn every_kernel_compiles_for_every_architecture() {
    let [wide, small] = shapes();
    for architecture in ["sm_80", "sm_89", "sm_90a", "sm_100", "sm_120"] {
        let shape = if architecture == "sm_90a" { &wide } else { &small };
        let bytes = ds4_cuda::check(architecture, shape).unwrap_or_else(|e| panic!("{architecture}: {e}"));
        eprintln!("{architecture}: {bytes} bytes");
    }
}
