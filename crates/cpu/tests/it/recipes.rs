//! Synthetic models with the tile sizes of the released ones, in every storage recipe.

use ds4_cpu::Options;
use ds4_gguf::Gguf;
use ds4_model::{Limits, Numerics};
use ds4_synth::{Quant, build, preset};

use crate::golden::logits;

#[test]
fn every_recipe_gives_the_same_bits_in_chunks_and_at_once() {
    for quant in Quant::ALL {
        let bytes = build(&preset("tiny").unwrap().quant(quant).seed(3)).unwrap();
        let file = Gguf::from_bytes(quant.name(), bytes.into()).unwrap();
        let limits = Limits { context: 512, slots: 2, max_rows: 512, rewind: 8 };
        let options = Options { threads: 2, numerics: Numerics::Stored };
        let mut model = ds4_cpu::load(&file, limits, options).unwrap();
        let n_vocab = model.shape().n_vocab as u32;
        let tokens: Vec<u32> = (0..270u32).map(|i| i.wrapping_mul(2_654_435_761) % n_vocab).collect();
        let whole = logits(&mut *model, &tokens, tokens.len());
        assert!(whole.iter().all(|z| z.is_finite()), "{}", quant.name());
        for chunk in [7, 128] {
            let found = logits(&mut *model, &tokens, chunk);
            let same = whole.iter().zip(&found).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same, "{} chunks of {chunk}", quant.name());
        }
    }
}

#[test]
fn a_cache_that_no_machine_can_hold_is_refused() {
    let file = Gguf::from_bytes("tiny", build(&preset("tiny").unwrap()).unwrap().into()).unwrap();
    for limits in [
        Limits { context: u32::MAX, slots: u32::MAX, max_rows: u32::MAX, rewind: u32::MAX },
        Limits { context: 0, slots: 1, max_rows: 1, rewind: 0 },
    ] {
        assert!(ds4_cpu::load(&file, limits, Options::default()).is_err());
    }
}
