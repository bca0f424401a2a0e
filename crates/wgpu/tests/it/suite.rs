//! The device suite: every stage and whole models against the CPU.

use ds4_model::{Limits, Shape};
use ds4_testkit::{Part, Scope, device_suite};
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

/// Bindings so small that experts and vocabulary come in parts, and no subgroups.
#[test]
#[ignore = "needs a Vulkan or Metal adapter; .ci/run installs a software one"]
fn the_poorest_adapter_will_do() {
    let options = Options { no_subgroups: true, binding: Some(1 << 20), ..Options::new(API) };
    passes(Scope { quick: true, part: Part::Stages, ..Scope::default() }, &options);
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
