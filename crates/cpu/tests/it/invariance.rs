//! The same tokens give the same bits, however they arrive.

use ds4_cpu::{Cpu, Isa, Options};
use ds4_gguf::Gguf;
use ds4_model::{Batch, Limits, LogitRows, Model, Numerics, Shape, Span, Transformer};

use crate::golden::{Golden, load, logits, numbers};

const MODELS: [&str; 3] = ["tiny-a", "tiny-b", "tiny-c"];

fn long_case(golden: &Golden) -> Vec<u32> {
    numbers(&golden.cases.last().unwrap()["tokens"])
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn chunks_of_any_size_give_the_same_bits() {
    for name in MODELS {
        let golden = Golden::open(name);
        let tokens = long_case(&golden);
        let mut model = load(&golden.file, Numerics::Stored, 1024);
        let whole = bits(&logits(&mut *model, &tokens, tokens.len()));
        for chunk in [1, 3, 64, 127, 128, 129] {
            assert!(whole == bits(&logits(&mut *model, &tokens, chunk)), "{name} chunks of {chunk}");
        }
    }
}

#[test]
fn every_instruction_set_and_thread_count_gives_the_same_bits() {
    for name in MODELS {
        let golden = Golden::open(name);
        let tokens = &long_case(&golden)[..150];
        let shape = Shape::from_gguf(&golden.file).unwrap();
        let limits = Limits { context: 512, slots: 2, max_rows: 512, rewind: 0 };
        let mut seen: Option<Vec<u32>> = None;
        for (isa, threads) in Isa::available().into_iter().flat_map(|isa| [(isa, 1), (isa, 3)]) {
            let options = Options { threads, numerics: Numerics::Stored };
            let cpu = Cpu::with_isa(&shape, options, isa).unwrap();
            let mut model = Transformer::new(cpu, &golden.file, None, limits, Numerics::Stored).unwrap();
            let found = bits(&logits(&mut model, tokens, 60));
            assert!(*seen.get_or_insert_with(|| found.clone()) == found, "{name} {} {threads} threads", isa.name());
        }
    }
}

/// Logits of `tokens[from..]` in `slot`, one at a time.
fn decode(model: &mut dyn Model, slot: u32, tokens: &[u32], from: usize) -> Vec<f32> {
    let n_vocab = model.shape().n_vocab;
    let mut all = Vec::new();
    for pos in from..tokens.len() {
        let spans = [Span { slot, pos: pos as u32, len: 1, logits: LogitRows::Last }];
        let mut out = vec![0.0; n_vocab];
        model.forward(&Batch { tokens: &tokens[pos..=pos], spans: &spans }, &mut out).unwrap();
        all.extend(out);
    }
    all
}

#[test]
fn a_restored_state_continues_with_the_same_bits_in_another_slot() {
    for name in MODELS {
        let golden = Golden::open(name);
        let tokens = long_case(&golden);
        let mut model = load(&golden.file, Numerics::Stored, 1024);
        for cut in [1, 2, 3, 4, 5, 63, 64, 127, 128, 129, 255, 256, 300, 511, 650] {
            let end = (cut + 20).min(tokens.len());
            logits(&mut *model, &tokens[..cut], cut);
            let mut state = Vec::new();
            model.save(1, 0..cut as u32, &mut state).unwrap();
            assert_eq!(state.len() as u64, model.state_bytes(0..cut as u32));
            let straight = bits(&decode(&mut *model, 1, &tokens[..end], cut));
            // Whatever the other slot held before must not matter.
            decode(&mut *model, 0, &tokens[..40], 0);
            model.load(0, 0..cut as u32, &mut &state[..]).unwrap();
            assert!(straight == bits(&decode(&mut *model, 0, &tokens[..end], cut)), "{name} cut {cut}");
        }
    }
}

#[test]
fn positions_within_the_rewind_limit_are_taken_back_for_free() {
    let golden = Golden::open("tiny-a");
    let tokens = long_case(&golden);
    let mut model = load(&golden.file, Numerics::Stored, 1024);
    let rewind = model.limits().rewind as usize;
    for end in [40, 128, 140, 260, 700] {
        logits(&mut *model, &tokens[..end], end);
        let straight = bits(&decode(&mut *model, 1, &tokens[..end], end - rewind));
        // Rows of a wrong continuation are overwritten before anything reads them.
        let wrong: Vec<u32> = tokens[..end].iter().map(|t| t ^ 1).collect();
        decode(&mut *model, 1, &wrong, end - rewind);
        assert!(straight == bits(&decode(&mut *model, 1, &tokens[..end], end - rewind)), "end {end}");
    }
}

#[test]
fn sequences_in_one_batch_keep_their_bits() {
    let golden = Golden::open("tiny-b");
    let tokens = long_case(&golden);
    let (a, b) = (&tokens[..200], &tokens[300..433]);
    let mut model = load(&golden.file, Numerics::Stored, 1024);
    let n_vocab = model.shape().n_vocab;
    let alone = |model: &mut dyn Model, tokens: &[u32]| {
        let all = logits(model, tokens, tokens.len());
        bits(&all[all.len() - n_vocab..])
    };
    let (expected_a, expected_b) = (alone(&mut *model, a), alone(&mut *model, b));
    let spans = [
        Span { slot: 0, pos: 0, len: a.len() as u32, logits: LogitRows::Last },
        Span { slot: 1, pos: 0, len: b.len() as u32, logits: LogitRows::Last },
    ];
    let mut out = vec![0.0; 2 * n_vocab];
    model.forward(&Batch { tokens: &[a, b].concat(), spans: &spans }, &mut out).unwrap();
    assert!(expected_a == bits(&out[..n_vocab]) && expected_b == bits(&out[n_vocab..]));
}

#[test]
fn batches_that_do_not_fit_are_refused() {
    let golden = Golden::open("tiny-a");
    let mut model = load(&golden.file, Numerics::Stored, 8);
    let n_vocab = model.shape().n_vocab;
    let span = |slot, pos, len| Span { slot, pos, len, logits: LogitRows::Last };
    let cases: [(&[u32], &[Span], &str); 6] = [
        (&[320], &[span(0, 0, 1)], "token 320, vocabulary of 320"),
        (&[1, 1], &[span(0, 0, 1)], "spans of 1 rows for 2 tokens"),
        (&[1], &[span(2, 0, 1)], "slot 2, cache of 2"),
        (&[1, 1], &[span(0, 0, 1), span(0, 1, 1)], "slot 0 twice"),
        (&[1], &[span(0, 1024, 1)], "position 1025, context of 1024"),
        (&[1; 9], &[span(0, 0, 9)], "9 rows, at most 8"),
    ];
    for (tokens, spans, message) in cases {
        let mut out = vec![0.0; spans.len() * n_vocab];
        let error = model.forward(&Batch { tokens, spans }, &mut out).unwrap_err().to_string();
        assert_eq!(error, format!("batch: {message}"));
    }
    let error = model.load(0, 0..5, &mut &[0u8; 10][..]).unwrap_err().to_string();
    assert!(error.starts_with("state: "), "{error}");
}

#[test]
fn a_model_file_of_another_shape_is_refused() {
    let golden = Golden::open("tiny-a");
    let path = std::path::Path::new(golden.file.name());
    let mut bytes = std::fs::read(path).unwrap();
    let key = b"deepseek4.expert_count";
    let at = bytes.windows(key.len()).position(|w| w == key).unwrap() + key.len() + 4;
    bytes[at..at + 4].copy_from_slice(&16u32.to_le_bytes());
    let file = Gguf::from_bytes("changed.gguf", bytes.into()).unwrap();
    let error = ds4_cpu::load(&file, Limits::default(), Options::default()).err().unwrap().to_string();
    assert_eq!(error, "changed.gguf: blk.0.ffn_gate_inp.weight: dims [96, 8], expected [96, 16]");
}
