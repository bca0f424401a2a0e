//! The device suite: every stage and whole models against the CPU.

use std::path::Path;

use ds4_gguf::Gguf;
use ds4_model::{Backend, Limits, Numerics, Shape, Transformer};
use ds4_testkit::{Part, Scope, device_suite, trained_states};
use ds4_wgpu::{Api, Options, Wgpu};

const API: Api = if cfg!(target_vendor = "apple") { Api::Metal } else { Api::Vulkan };

fn passes(scope: Scope<'_>, options: &Options) {
    let mut open = |shape: &Shape, limits: Limits| Wgpu::new(shape, limits, true, options.clone());
    let report = device_suite(scope, &mut open, &mut |what| eprintln!("{what}"));
    eprintln!("{report}");
    assert!(report.failures().is_empty(), "{:?}", report.failures());
}

/// One small model, with all that the adapter can do.
#[test]
#[ignore = "needs a Vulkan or Metal adapter; .ci/run installs a software one"]
fn a_small_model_agrees_with_the_cpu_and_with_itself() {
    passes(Scope { quick: true, ..Scope::default() }, &Options::new(API));
}

/// Bindings so small that experts and vocabulary come in parts, no subgroups, and no coherent memory.
#[test]
#[ignore = "needs a Vulkan or Metal adapter; .ci/run installs a software one"]
fn the_poorest_adapter_will_do() {
    let options = Options { no_subgroups: true, no_coherent: true, binding: Some(1 << 20), ..Options::new(API) };
    passes(Scope { quick: true, part: Part::Stages, ..Scope::default() }, &options);
}

#[test]
#[ignore = "needs a Vulkan or Metal adapter; .ci/run installs a software one"]
fn what_does_not_fit_is_refused_with_the_way_out() {
    let shape = ds4_synth::preset("tiny").expect("a preset").shape;
    let refusal =
        |limits| Wgpu::new(&shape, limits, false, Options::new(API)).err().map_or_else(String::new, |e| e.to_string());
    let rows = refusal(Limits { max_rows: 65_536, ..Limits::default() });
    assert!(
        rows.ends_with("pairs of row and expert in a step 131072, expected at most 65535 (--prefill-chunk): use --cpu"),
        "{rows}"
    );
    let mut gpu = Wgpu::new(&shape, Limits::default(), false, Options::new(API)).expect("an adapter");
    let much = gpu.alloc(1 << 40).err().map_or_else(String::new, |e| e.to_string());
    assert!(
        much.contains("1099511627776 bytes in one piece") && much.ends_with("use a shorter context (-c)"),
        "{much}"
    );
    let recipe = ds4_synth::preset("tiny").expect("a preset");
    let file = Gguf::from_bytes("tiny", ds4_synth::build(&recipe).expect("a model").into()).expect("a file");
    let options = Options { binding: Some(16 << 10), ..Options::new(API) };
    let poor = Wgpu::new(&shape, Limits::default(), false, options).expect("an adapter");
    let bound = Transformer::new(poor, &file, None, Limits::default(), Numerics::Stored).err();
    let bound = bound.map_or_else(String::new, |e| e.to_string());
    assert!(bound.ends_with(".weight: the adapter binds at most 16384 bytes: use --cpu"), "{bound}");
}

/// Every model of the suite: an hour on a processor that imitates a GPU.
#[test]
#[ignore = "needs a real GPU: ds4 check device does the same"]
fn every_stage_of_every_model_on_a_real_gpu() {
    passes(Scope { part: Part::Stages, ..Scope::default() }, &Options::new(API));
}

#[test]
#[ignore = "needs a real GPU: ds4 check device does the same"]
fn every_whole_model_on_a_real_gpu() {
    passes(Scope { part: Part::Models, ..Scope::default() }, &Options::new(API));
}

/// The trained miniature: greedy tokens of a language are seldom near ties.
#[test]
#[ignore = "needs a Vulkan or Metal adapter; .ci/run installs a software one"]
fn saved_states_go_from_the_cpu_to_the_gpu_and_back_for_200_tokens() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/ds4-mini.gguf");
    let file = Gguf::open(&path).expect("the miniature");
    let open = &mut |shape: &Shape, limits: Limits| Wgpu::new(shape, limits, false, Options::new(API));
    let report = trained_states(&file, open);
    eprintln!("{report}");
    assert!(report.failures().is_empty() && report.rules.len() == 2, "{:?}", report.failures());
}
