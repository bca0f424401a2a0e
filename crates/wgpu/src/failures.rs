//! What becomes of a model, and of those who wait for its answers, when the GPU fails.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use ds4_engine::{EngineConfig, EngineHandle, Error, Event, Reopen, Request};
use ds4_gguf::Gguf;
use ds4_model::{Batch, Limits, LogitRows, Model, Numerics, Probe, Probed, Result, Span, Stage, Step, Transformer};
use ds4_text::Tokenizer;

use crate::backend::kernels;
use crate::device::{Api, Buffer};
use crate::program::{Kernel, Program};
use crate::weight::Format;
use crate::{Options, Wgpu, dense};

const API: Api = if cfg!(target_vendor = "apple") { Api::Metal } else { Api::Vulkan };
const LIMITS: Limits = Limits { context: 256, slots: 1, max_rows: 64, rewind: 8 };

/// Loses the GPU in the middle of a step, so many stages of attention from the start.
struct Loses {
    after: u32,
}

impl Probe<Wgpu> for Loses {
    fn after(&mut self, gpu: &mut Wgpu, stage: Stage, _: &Step<Buffer>, _: &mut Buffer) -> Result<()> {
        if stage == Stage::Attend {
            self.after = self.after.saturating_sub(1);
            if self.after == 0 {
                lose(gpu);
            }
        }
        Ok(())
    }
}

/// wgpu tells of a loss as soon as the driver does; of one that it was asked for, when it has waited.
fn lose(gpu: &Wgpu) {
    gpu.device.raw.destroy();
    gpu.device.wait().expect_err("the GPU is lost");
}

fn tiny() -> Gguf {
    let recipe = ds4_synth::preset("tiny").expect("a preset");
    Gguf::from_bytes("tiny", ds4_synth::build(&recipe).expect("a model").into()).expect("a file")
}

fn open() -> Wgpu {
    Wgpu::new(&ds4_synth::preset("tiny").expect("a preset").shape, LIMITS, false, Options::new(API))
        .expect("an adapter")
}

fn model(after: u32) -> Transformer<Probed<Wgpu, Loses>> {
    Transformer::new(Probed::new(open(), Loses { after }), &tiny(), None, LIMITS, Numerics::Stored).expect("a model")
}

fn step(model: &mut dyn Model, pos: u32) -> Result<()> {
    let span = Span { slot: 0, pos, len: 1, logits: LogitRows::Last };
    model.forward(&Batch { tokens: &[7], spans: &[span] }, &mut vec![0.0; model.shape().n_vocab])
}

fn is_lost(text: &str) -> bool {
    text.starts_with("device ") && text.contains(": the GPU is lost: ") && text.ends_with(": start again, or use --cpu")
}

#[test]
#[ignore = "needs a Vulkan or Metal adapter; .ci/run installs a software one"]
fn a_gpu_lost_in_the_middle_of_a_step_is_an_error_of_that_step_and_of_all_later_ones() {
    let n_layer = ds4_synth::preset("tiny").expect("a preset").shape.n_layer as u32;
    let mut model = model(n_layer + 2);
    step(&mut model, 0).expect("the GPU is still there");
    for pos in 1..4 {
        let begun = Instant::now();
        let error = step(&mut model, pos).expect_err("the GPU is lost").to_string();
        assert!(is_lost(&error) && begun.elapsed() < SOON, "{error} after {:?}", begun.elapsed());
    }
    let error = model.save(0, 0..1, &mut Vec::new()).expect_err("the GPU is lost").to_string();
    assert!(is_lost(&error), "{error}");
}

#[test]
#[ignore = "needs a Vulkan or Metal adapter; .ci/run installs a software one"]
fn a_gpu_lost_between_steps_or_while_weights_come_is_an_error() {
    let file = tiny();
    let mut between = Transformer::new(open(), &file, None, LIMITS, Numerics::Stored).expect("a model");
    step(&mut between, 0).expect("the GPU is still there");
    lose(between.backend_mut());
    let error = step(&mut between, 1).expect_err("the GPU is lost").to_string();
    assert!(is_lost(&error), "{error}");

    let loading = open();
    lose(&loading);
    let error = Transformer::new(loading, &file, None, LIMITS, Numerics::Stored).err().expect("the GPU is lost");
    assert!(is_lost(&error.to_string()), "{error}");
}

/// How long a step on a processor that imitates a GPU may take, shaders included.
const SOON: Duration = Duration::from_secs(20);

#[test]
#[ignore = "needs a Vulkan or Metal adapter; .ci/run installs a software one"]
fn a_lost_gpu_ends_an_answer_and_those_that_wait_and_the_engine_says_so() {
    let n_layer = ds4_synth::preset("tiny").expect("a preset").shape.n_layer as u32;
    let tokenizer = Arc::new(Tokenizer::from_metadata(tiny().metadata()).expect("a tokenizer"));
    let config = EngineConfig::default();
    let engine = EngineHandle::start(Box::new(model(5 * n_layer + 2)), tokenizer, config).expect("an engine");
    let ask = |heard: Arc<AtomicU32>| {
        let (sender, events) = mpsc::channel();
        let request = Request { max_tokens: 100, ignore_eos: true, ..Request::new(vec![3, 5, 7], sender) };
        engine.submit(request).expect("there is room");
        move || loop {
            match events.recv_timeout(SOON).expect("an event follows soon") {
                Event::Token { .. } => drop(heard.fetch_add(1, Ordering::Relaxed)),
                Event::Failed(error) => return error,
                Event::Done { .. } => panic!("the GPU is lost before the end"),
                _ => {}
            }
        }
    };
    let tokens = [(); 2].map(|()| Arc::new(AtomicU32::new(0)));
    let [answer, waiting] = [ask(Arc::clone(&tokens[0])), ask(Arc::clone(&tokens[1]))];
    let (answer, waiting) = (answer(), waiting());
    assert!(matches!(&answer, Error::Device(text) if is_lost(text)), "{answer}");
    assert_eq!((&waiting, engine.failure().as_ref()), (&answer, Some(&answer)));
    assert_eq!(tokens.map(|heard| heard.load(Ordering::Relaxed)), [5, 0], "one of the prompt, four of its own");
    let (sender, _events) = mpsc::channel();
    assert_eq!(engine.submit(Request::new(vec![3], sender)), Err(answer));
}

#[test]
#[ignore = "needs a Vulkan or Metal adapter; .ci/run installs a software one"]
fn after_a_loss_those_that_wait_are_answered_by_a_gpu_opened_again() {
    let n_layer = ds4_synth::preset("tiny").expect("a preset").shape.n_layer as u32;
    let tokenizer = Arc::new(Tokenizer::from_metadata(tiny().metadata()).expect("a tokenizer"));
    let reopen: Reopen = Box::new(|| Ok(Box::new(model(u32::MAX))));
    let lossy = Box::new(model(5 * n_layer + 2));
    let engine = EngineHandle::start_renewable(lossy, Some(reopen), tokenizer, EngineConfig::default());
    let engine = engine.expect("an engine");
    let ask = || {
        let (sender, events) = mpsc::channel();
        let request = Request { max_tokens: 20, ignore_eos: true, ..Request::new(vec![3, 5, 7], sender) };
        engine.submit(request).expect("there is room");
        move || loop {
            match events.recv_timeout(SOON).expect("an event follows soon") {
                Event::Failed(error) => return Err(error),
                Event::Done { usage, .. } => return Ok(usage.completion),
                _ => {}
            }
        }
    };
    let (answer, waiting) = (ask(), ask());
    let lost = answer().expect_err("the GPU is lost");
    assert!(matches!(&lost, Error::Device(text) if is_lost(text)), "{lost}");
    assert_eq!((waiting(), engine.failure()), (Ok(20), None));
}

#[test]
#[ignore = "needs a Vulkan or Metal adapter; .ci/run installs a software one"]
fn a_shader_that_does_not_compile_names_the_adapter() {
    let gpu = open();
    let source = wgpu::ShaderSource::Wgsl("fn broken() -> { }".into());
    drop(gpu.device.raw.create_shader_module(wgpu::ShaderModuleDescriptor { label: None, source }));
    let error = gpu.device.check().expect_err("a shader that is none").to_string();
    let begin = format!("device {}: refuses a command: ", gpu.device.name);
    assert!(error.starts_with(&begin) && error.ends_with(": use --cpu"), "{error}");
}

#[test]
#[ignore = "needs a Vulkan or Metal adapter; .ci/run installs a software one"]
fn a_kernel_that_can_be_done_without_is_refused_without_a_fault() {
    let (gpu, mut program) = (open(), Program::default());
    let mut takes = |kernel| program.compiles(&gpu.device, &gpu.shape, &[kernel]).expect("no fault");
    assert!(takes(dense::DENSE) && !takes(Kernel::new("no such entry", &[])));
    gpu.device.check().expect("no fault");
}

#[test]
#[ignore = "needs a Vulkan or Metal adapter; .ci/run installs a software one"]
fn a_probe_changes_nothing() {
    let file = tiny();
    let logits = |model: &mut dyn Model| {
        let mut logits = vec![0.0; model.shape().n_vocab];
        let span = Span { slot: 0, pos: 0, len: 5, logits: LogitRows::Last };
        model.forward(&Batch { tokens: &[1, 2, 3, 4, 5], spans: &[span] }, &mut logits).expect("a step");
        logits
    };
    let mut plain = Transformer::new(open(), &file, None, LIMITS, Numerics::Stored).expect("a model");
    assert_eq!(logits(&mut model(u32::MAX)), logits(&mut plain));
}

#[test]
#[ignore = "needs a Vulkan or Metal adapter; .ci/run installs a software one"]
fn no_step_needs_a_kernel_that_loading_does_not_prepare() {
    let known: Vec<Kernel> =
        kernels().into_iter().chain(Format::ALL.into_iter().flat_map(crate::experts::kernels)).collect();
    let limits = Limits { max_rows: 80, ..LIMITS };
    for no_coherent in [false, true] {
        let options = Options { no_coherent, ..Options::new(API) };
        let shape = ds4_synth::preset("tiny").expect("a preset").shape;
        let gpu = Wgpu::new(&shape, limits, false, options).expect("an adapter");
        let mut model = Transformer::new(gpu, &tiny(), None, limits, Numerics::Stored).expect("a model");
        let mut logits = vec![0.0; shape.n_vocab];
        for (pos, len) in [(0, 70), (70, 1), (71, 3)] {
            let span = Span { slot: 0, pos, len, logits: LogitRows::Last };
            model.forward(&Batch { tokens: &vec![7; len as usize], spans: &[span] }, &mut logits).expect("a step");
        }
        let missing: Vec<&Kernel> = model.backend_mut().program.made().filter(|made| !known.contains(made)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}

/// A step's rows are few or many by their own number: a draft block makes four products of each.
#[test]
#[ignore = "needs a Vulkan or Metal adapter; .ci/run installs a software one"]
fn a_step_of_the_most_rows_that_are_few_has_no_kernel_of_long_ones() {
    let recipe = ds4_synth::preset("tiny").expect("a preset");
    let block = ds4_synth::build(&recipe.clone().mtp()).expect("a draft block");
    let block = Gguf::from_bytes("draft block", block.into()).expect("a file");
    let gpu = Wgpu::new(&recipe.shape, LIMITS, true, Options::new(API)).expect("an adapter");
    let mut model = Transformer::new(gpu, &tiny(), Some(&block), LIMITS, Numerics::Stored).expect("a model");
    let span = Span { slot: 0, pos: 0, len: 64, logits: LogitRows::Last };
    let mut logits = vec![0.0; recipe.shape.n_vocab];
    model.forward(&Batch { tokens: &[7; 64], spans: &[span] }, &mut logits).expect("a step");
    let made: Vec<&str> = model.backend_mut().program.made().map(|kernel| kernel.entry).collect();
    assert!(made.contains(&"draft_norm") && !made.iter().any(|entry| entry.ends_with("_rows")), "{made:?}");
}
