//! Values of small files: finite, of sensible size, ids valid, shapes read back.

use std::collections::HashSet;

use ds4_gguf::{DType, dequant};
use ds4_model::{Shape, validate};
use ds4_synth::{Error, PRESETS, Quant, Recipe, Tokens, build, preset};

use crate::{built, recipe};

#[test]
fn every_recipe_of_tiny_decodes_to_finite_values_of_sensible_size() {
    for recipe in Quant::ALL.map(|q| recipe("tiny").quant(q)).into_iter().chain([recipe("tiny").mtp()]) {
        let file = built(&recipe);
        for info in file.tensors().iter().filter(|t| t.dtype != DType::I32) {
            let t = file.tensor(&info.name).unwrap();
            let mut values = vec![0.0; t.n_in() * t.n_rows()];
            dequant::row(t.dtype, &t.data, &mut values);
            assert!(values.iter().all(|v| v.is_finite()), "{}", t.name);
            if t.n_rows() < 16 {
                continue;
            }
            // One output of a row with unit inputs; position biases, hyper-connections and embeddings are not such products.
            let power = values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / values.len() as f64;
            let output = (power * t.n_in() as f64).sqrt();
            let is_product = !t.name.contains("_ape") && !t.name.contains("token_embd");
            assert!(!is_product || (0.9..2.1).contains(&output), "{}: {output}", t.name);
        }
    }
}

#[test]
fn the_shape_comes_back_and_the_directory_fits_it() {
    for name in ["tiny", "mini"] {
        for quant in Quant::ALL {
            let recipe = recipe(name).quant(quant);
            let file = built(&recipe);
            assert_eq!(Shape::from_gguf(&file).unwrap(), recipe.shape);
            validate(&file, &recipe.shape).unwrap();
            assert_eq!(file.metadata().strings("tokenizer.ggml.tokens").unwrap().len(), recipe.shape.n_vocab);
        }
    }
}

#[test]
fn experts_have_the_types_of_the_recipe() {
    for (quant, gate, down) in [
        (Quant::Q2, DType::Iq2Xxs, DType::Q2K),
        (Quant::Q4, DType::Q4K, DType::Q4K),
        (Quant::Mxfp4, DType::Mxfp4, DType::Mxfp4),
        (Quant::F16, DType::F16, DType::F16),
    ] {
        let file = built(&recipe("tiny").quant(quant));
        let dtype = |name: &str| file.tensor(name).unwrap().dtype;
        assert_eq!((dtype("blk.0.ffn_gate_exps.weight"), dtype("blk.0.ffn_down_exps.weight")), (gate, down));
        assert_eq!(dtype("blk.0.attn_q_a.weight"), if quant == Quant::F16 { DType::F16 } else { DType::Q8_0 });
        assert_eq!(Quant::from_name(quant.name()), Some(quant));
    }
    assert_eq!(Quant::from_name("q3"), None);
}

#[test]
fn hash_tables_hold_distinct_experts_in_every_row() {
    let file = built(&recipe("mini"));
    let table = file.tensor("blk.0.ffn_gate_tid2eid.weight").unwrap();
    let mut row = [0; 2];
    let mut seen = HashSet::new();
    for i in 0..table.n_rows() {
        dequant::i32_row(table.row(i), &mut row);
        assert!(row[0] != row[1] && row.iter().all(|id| (0..8).contains(id)), "{row:?}");
        seen.extend(row);
    }
    assert_eq!(seen.len(), 8, "every expert is somebody's");
}

#[test]
fn small_presets_keep_every_tile_size_and_have_every_kind_of_layer() {
    let flash = Shape::flash();
    for name in ["mini", "tiny"] {
        let s = recipe(name).shape;
        assert_eq!(
            (s.head_dim, s.n_rot, s.index_dim, s.window),
            (flash.head_dim, flash.n_rot, flash.index_dim, flash.window)
        );
        assert_eq!((s.n_embd % 256, s.ff_dim % 256), (0, 0));
        assert_eq!(s.ratios, [0, 4, 128]);
        assert!((1..s.n_layer).contains(&s.n_hash_layer), "both routers");
    }
}

#[test]
fn presets_are_known_by_name() {
    assert!(PRESETS.iter().all(|name| preset(name).is_some()));
    assert!(preset("huge").is_none());
}

#[test]
fn counts_can_be_changed() {
    let flash = Shape::flash();
    let grown = recipe("flash").layers(46).shape;
    assert_eq!((&grown.ratios[..43], &grown.ratios[43..]), (&flash.ratios[..], &[128, 4, 128][..]));
    assert_eq!(grown.swiglu_clamp, [10.0; 46]);
    let cut = recipe("flash").layers(2).shape;
    assert_eq!((cut.ratios, cut.n_hash_layer), (vec![0, 0], 2));
    let few = recipe("flash").experts(4).shape;
    assert_eq!((few.n_expert, few.n_expert_used), (4, 4));
    let file = built(&recipe("tiny").layers(5).experts(3));
    assert_eq!(Shape::from_gguf(&file).unwrap().ratios, [0, 4, 128, 4, 128]);
}

#[test]
fn recipes_that_describe_no_model_are_refused() {
    let refused = |change: fn(&mut Recipe)| {
        let mut recipe = recipe("tiny");
        change(&mut recipe);
        build(&recipe).unwrap_err().to_string()
    };
    for (found, want) in [
        (
            refused(|r| r.tokens = Tokens::Pruned { merges: 17 }),
            "recipe: vocabulary: found 320, expected the tokenizer's 321",
        ),
        (refused(|r| r.shape.n_layer = 4), "recipe: ratios: found 3, expected one per layer, 4"),
        (refused(|r| r.shape.swiglu_clamp = vec![]), "recipe: clamps: found 0, expected one per layer, 3"),
        (
            refused(|r| r.shape.ratios[1] = 8),
            "recipe: deepseek4.attention.compress_ratios: found 8, expected 0, 4 or 128",
        ),
        (
            refused(|r| r.shape.n_expert_used = 9),
            "recipe: deepseek4.expert_used_count: found 9, expected at most expert_count 4",
        ),
        (
            refused(|r| r.shape.n_embd = 64),
            "layout: tensor blk.0.ffn_gate_exps.weight: found dims [64, 256, 4], expected rows of whole IQ2_XXS blocks of 256",
        ),
    ] {
        assert_eq!(found, want);
    }
}

#[test]
fn a_file_beyond_memory_is_refused() {
    let huge = recipe("flash").experts(1 << 20);
    assert!(matches!(build(&huge), Err(Error::Memory { .. })));
}
