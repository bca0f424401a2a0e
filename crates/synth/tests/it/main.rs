//! Synthetic files, read back through the engine's own reader.

mod bytes_on_disk;
mod contents;
mod published;

use ds4_gguf::Gguf;
use ds4_synth::{Recipe, build, preset};

fn recipe(name: &str) -> Recipe {
    preset(name).expect("a preset")
}

fn built(recipe: &Recipe) -> Gguf {
    Gguf::from_bytes("built", build(recipe).unwrap().into()).unwrap()
}
