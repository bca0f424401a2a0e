//! `ds4 doctor`: what this machine has to evaluate on, and which of it a model file would run on.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write;

use crate::args::{Args, Item};
use crate::config::{Backend, ModelSource, Runtime};
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
    let name = device::NATIVE.name();
    let gpus = ds4_wgpu::adapters(device::NATIVE);
    if gpus.is_empty() {
        let _ = writeln!(text, "{name:8}no adapter");
    }
    for (at, gpu) in gpus.iter().enumerate() {
        let kind = if gpu.software { ", imitated by the processor" } else { "" };
        let usable = ds4_wgpu::available(device::NATIVE, at).map_or_else(|e| format!(": {e}"), |_| String::new());
        let _ = writeln!(text, "{name:8}--device {at}: {} ({}){kind}{usable}", gpu.name, gpu.driver);
    }
    let (backend, why) = device::chosen(&ModelSource::File("model".into()), &Runtime::default());
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
    match ds4_cuda::available(0) {
        Ok(card) => {
            format!("--device 0: {} (compute capability {}.{})", card.name, card.capability.0, card.capability.1)
        }
        Err(error) => error.to_string(),
    }
}
