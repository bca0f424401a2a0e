//! `ds4 doctor`: what this machine has to evaluate on, and which of it a model file would run on.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write;

use ds4_cuda::Card;
use ds4_wgpu::{Gpu, Memory};

use crate::args::{Args, Item};
use crate::config::{Backend, ModelSource, Runtime};
use crate::memory::size;
use crate::{device, help, terminal};

pub(crate) fn main(words: impl Iterator<Item = OsString>, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut args = Args::new(words, "try 'ds4 doctor --help'");
    match args.next()? {
        None => {}
        Some(Item::Flag(flag)) if flag == "-h" || flag == "--help" => return terminal::show(out, help::DOCTOR),
        Some(Item::Flag(flag)) => return Err(args.unknown(&flag)),
        Some(Item::Free(word)) => return Err(args.unexpected(&word)),
    }
    terminal::show(out, &report()?)
}

fn report() -> anyhow::Result<String> {
    let mut text = String::new();
    let cpu = Runtime { backend: Backend::Cpu, ..Runtime::default() };
    let _ = writeln!(text, "cpu     {}", device::hardware(&cpu)?.name);
    let _ = writeln!(text, "cuda    {}", if ds4_cuda::has_cards() { card() } else { "no NVIDIA card".to_owned() });
    let (backend, why) = device::chosen(&ModelSource::File("model".into()), &Runtime::default());
    let name = device::NATIVE.name();
    let gpus = ds4_wgpu::adapters(device::NATIVE);
    if gpus.is_empty() {
        let _ = writeln!(text, "{name:8}no adapter");
    }
    for (at, gpu) in gpus.iter().enumerate() {
        let _ = writeln!(text, "{name:8}--device {at}: {} ({})", gpu.name, gpu.driver);
        let _ = writeln!(text, "{:8}{}", "", abilities(gpu));
        let taken = matches!(backend, Backend::Gpu(_)) && at == Runtime::default().device;
        let verdict = match ds4_wgpu::available(device::NATIVE, at) {
            Err(error) => format!("cannot be used: {error}"),
            Ok(_) if taken => "taken for a model file".to_owned(),
            Ok(_) if gpu.software => format!("taken for --{name} alone: the processor imitates it, --cpu is faster"),
            Ok(_) => format!("taken for --{name} --device {at} alone"),
        };
        let _ = writeln!(text, "{:8}{verdict}", "");
    }
    let why = match (&backend, why) {
        (_, Some(why)) => why,
        (Backend::Cuda, None) => "the best there is".to_owned(),
        (Backend::Gpu(_), None) => "a real GPU, and no usable NVIDIA card".to_owned(),
        _ => "no usable NVIDIA card and no real GPU".to_owned(),
    };
    let _ = writeln!(text, "a model file runs on: {} ({why})", backend.name());
    Ok(text)
}

/// The first card, or why it cannot be used.
fn card() -> String {
    match ds4_cuda::available(0).and_then(|card| Ok((card, ds4_cuda::memory(0)?))) {
        Ok((Card { name, capability: (major, minor), .. }, (free, total))) => {
            format!("--device 0: {name} (compute capability {major}.{minor}), {}, {} free", size(total), size(free))
        }
        Err(error) => error.to_string(),
    }
}

/// What models and their shaders have to make do with.
fn abilities(gpu: &Gpu) -> String {
    let Memory { total, free, piece } = gpu.memory;
    let (total, free, piece) = (size(total), size(free), size(piece));
    let lanes = match gpu.subgroups {
        (least, most) if least == most => format!("{most}"),
        (least, most) => format!("{least} to {most}"),
    };
    let f16 = if gpu.f16 { "float16" } else { "no float16" };
    let products = if gpu.matrices.is_empty() { "none".to_owned() } else { gpu.matrices.join(" ") };
    format!("{total}, {free} free, {piece} in one buffer; subgroups of {lanes}, {f16}, matrix products: {products}")
}
