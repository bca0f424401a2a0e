//! Writes the model that comes with the program: `cargo run --release -p ds4-synth --example mini -- models/ds4-mini.gguf`.

use std::{ops::ControlFlow, path::Path, process::ExitCode};

fn main() -> ExitCode {
    let Some(path) = std::env::args_os().nth(1) else {
        eprintln!("mini: found no path, expected one");
        return ExitCode::FAILURE;
    };
    let recipe = ds4_synth::preset("mini").expect("mini is a preset");
    match ds4_synth::write(&recipe, Path::new(&path), 1, false, &mut |_, _| ControlFlow::Continue(())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("mini: {e}");
            ExitCode::FAILURE
        }
    }
}
