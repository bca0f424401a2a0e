//! Named shapes. Small ones keep every tile size of the released model (head 512, rotated 64, index 128, blocks of 256,
//! four streams); only counts shrink.

use ds4_model::Shape;

use crate::{recipe::Recipe, vocabulary::Tokens};

/// Names that [`preset`] knows.
pub const PRESETS: [&str; 4] = ["flash", "pro", "mini", "tiny"];

/// The recipe of a name: two-bit experts, seed 0.
pub fn preset(name: &str) -> Option<Recipe> {
    match name {
        "flash" => Some(Recipe::new(Shape::flash())),
        "pro" => Some(Recipe::new(Shape::pro())),
        "mini" => Some(mini()),
        "tiny" => Some(tiny()),
        _ => None,
    }
}

/// A model of three layers that is made and run in a moment.
fn mini() -> Recipe {
    let shape = Shape {
        name: "DeepSeek V4 Mini, random weights".to_owned(),
        n_layer: 3,
        n_embd: 256,
        n_head: 4,
        q_lora_dim: 64,
        n_out_group: 2,
        out_lora_dim: 32,
        n_index_head: 4,
        index_top_k: 32,
        ratios: vec![0, 4, 128],
        n_expert: 8,
        n_expert_used: 2,
        ff_dim: 256,
        n_hash_layer: 1,
        swiglu_clamp: vec![10.0; 3],
        context: 16_384,
        ..Shape::flash()
    };
    Recipe::new(shape).tokens(Tokens::Pruned { merges: 2736 })
}

/// The smallest model with all layer kinds and both routers, for tests.
fn tiny() -> Recipe {
    let mut recipe = mini();
    recipe.shape = Shape {
        name: "DeepSeek V4 Tiny, random weights".to_owned(),
        n_head: 2,
        n_index_head: 2,
        index_top_k: 16,
        n_expert: 4,
        ..recipe.shape
    };
    recipe.tokens(Tokens::Pruned { merges: 16 })
}
