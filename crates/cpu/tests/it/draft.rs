//! The draft block: against logits that transformers' own parts give, against itself, and beside a main model that must
//! not notice it.

use std::path::{Path, PathBuf};

use ds4_cpu::{Options, load_with_draft};
use ds4_gguf::Gguf;
use ds4_model::{Batch, DraftRow, Limits, LogitRows, MAX_DRAFT, Model, Numerics, Span};
use ds4_synth::{build, preset};
use serde_json::Value;

use crate::golden::{Golden, logits, numbers};

const LIMITS: Limits = Limits { context: 1024, slots: 2, max_rows: 1024, rewind: 16 };

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tiny").join(name)
}

fn open(name: &str) -> Gguf {
    Gguf::open(&path(name)).unwrap()
}

fn model(numerics: Numerics, limits: Limits) -> Box<dyn Model> {
    let draft = open("tiny-a-mtp.gguf");
    load_with_draft(&open("tiny-a.gguf"), Some(&draft), limits, Options { threads: 2, numerics }).unwrap()
}

/// A prompt of 700 tokens.
fn long_prompt() -> Vec<u32> {
    numbers(&Golden::open("tiny-a").cases.last().unwrap()["tokens"])
}

/// Evaluates `tokens[from..to]` in `slot`, `chunk` at a time; returns the logits of the last one.
fn feed(model: &mut dyn Model, slot: u32, tokens: &[u32], (from, to): (usize, usize), chunk: usize) -> Vec<f32> {
    let mut last = vec![0.0; model.shape().n_vocab];
    for pos in (from..to).step_by(chunk) {
        let tokens = &tokens[pos..to.min(pos + chunk)];
        let spans = [Span { slot, pos: pos as u32, len: tokens.len() as u32, logits: LogitRows::Last }];
        model.forward(&Batch { tokens, spans: &spans }, &mut last).unwrap();
    }
    last
}

fn draft(model: &mut dyn Model, slot: u32, pos: usize, token: u32) -> Vec<f32> {
    let mut out = vec![0.0; model.shape().n_vocab];
    model.draft(&[DraftRow { slot, pos: pos as u32, token }], &mut out).unwrap();
    out
}

/// The best id, the first of equals.
fn best(row: &[f32]) -> u32 {
    (0..row.len()).fold(0, |best, id| if row[id] > row[best] { id } else { best }) as u32
}

/// Bits of the logits of `n` drafts, each from the one before.
fn chain(model: &mut dyn Model, slot: u32, pos: usize, token: u32, n: usize) -> Vec<u32> {
    let (mut token, mut bits) = (token, Vec::new());
    for pos in pos..pos + n {
        let row = draft(model, slot, pos, token);
        token = best(&row);
        bits.extend(row.iter().map(|z| z.to_bits()));
    }
    bits
}

#[test]
fn drafts_match_the_goldens_at_every_position() {
    let json: Value = serde_json::from_slice(&std::fs::read(path("tiny-a-mtp.drafts.json")).unwrap()).unwrap();
    let floats = std::fs::read(path("tiny-a-mtp.drafts.f32")).unwrap();
    let floats: Vec<f32> = floats.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    let (step, width) = (json["step"].as_u64().unwrap() as usize, json["width"].as_u64().unwrap() as usize);
    let (tokens, argmax) = (numbers(&json["tokens"]), numbers(&json["argmax"]));
    let error = |row: &[f32], at: usize| {
        let pairs = row.iter().step_by(step).zip(&floats[at * width..][..width]);
        pairs.map(|(found, expected)| (found - expected).abs()).fold(0f32, f32::max)
    };
    for chunk in [1, 5, 128] {
        let mut running = model(Numerics::Plain, LIMITS);
        let mut worst = 0f32;
        for p in 0..argmax.len() {
            let limit = 1e-3 + 10.0 * json["noise"][p].as_f64().unwrap() as f32;
            // One by one in one go; in chunks from nothing each time, so that no row comes from an earlier draft.
            running = if chunk == 1 { running } else { model(Numerics::Plain, LIMITS) };
            let (model, from) = (&mut *running, if chunk == 1 { p } else { 0 });
            feed(model, 0, &tokens, (from, p + 1), chunk);
            let row = draft(model, 0, p, tokens[p + 1]);
            let error = error(&row, p);
            assert!(error <= limit, "position {p} in chunks of {chunk}: error {error}, limit {limit}");
            assert_eq!(best(&row), argmax[p]);
            worst = worst.max(error);
        }
        eprintln!("drafts after chunks of {chunk}: largest error {worst:.2e}");
    }
    // Chains: each draft from the state that the one before has left.
    let mut model = model(Numerics::Plain, LIMITS);
    let mut at = argmax.len();
    for case in json["chains"].as_array().unwrap() {
        let (p, drafts) = (case["pos"].as_u64().unwrap() as usize, numbers(&case["drafts"]));
        feed(&mut *model, 0, &tokens, (0, p + 1), 64);
        assert_eq!(best(&draft(&mut *model, 0, p, tokens[p + 1])), drafts[0]);
        for (i, pair) in drafts.windows(2).enumerate() {
            let row = draft(&mut *model, 0, p + 1 + i, pair[0]);
            let error = error(&row, at);
            assert!(error <= 1e-3, "chain from {p}, draft {}: error {error}", i + 2);
            assert_eq!(best(&row), pair[1]);
            at += 1;
        }
    }
    assert_eq!(at * width, floats.len());
}

#[test]
fn a_draft_pairs_a_state_with_the_token_after_it() {
    let tokens = long_prompt();
    let mut model = model(Numerics::Stored, LIMITS);
    let mut drafted = |upto: usize, pos: usize, token: u32| {
        feed(&mut *model, 0, &tokens, (0, upto), 64);
        chain(&mut *model, 0, pos, token, 1)
    };
    let right = drafted(100, 99, tokens[100]);
    // The state is that of 99, so another token at 99 changes the draft, and so does another token at 100.
    assert!(right != drafted(100, 99, tokens[99]), "the token is that of the next position");
    assert!(right != drafted(99, 98, tokens[99]), "the state is that of the position");
    // A position that was evaluated later has no part in it.
    assert!(right == drafted(101, 99, tokens[100]), "only earlier positions are seen");
}

#[test]
fn a_window_primed_in_chunks_of_any_size_gives_the_same_bits() {
    let tokens = long_prompt();
    for end in [1, 2, 3, 63, 64, 65, 66, 128, 129, 130, 300, 650] {
        let mut whole = model(Numerics::Stored, LIMITS);
        feed(&mut *whole, 1, &tokens, (0, end), end);
        let expected = chain(&mut *whole, 1, end - 1, tokens[end], 3);
        for chunk in [1, 3, 64, 127, 128, 129] {
            let mut model = model(Numerics::Stored, Limits { max_rows: 129, ..LIMITS });
            feed(&mut *model, 0, &tokens, (0, end), chunk);
            let found = chain(&mut *model, 0, end - 1, tokens[end], 3);
            assert!(found == expected, "{end} tokens in chunks of {chunk}");
        }
    }
}

#[test]
fn drafts_leave_no_trace_once_their_positions_are_evaluated() {
    let tokens = long_prompt();
    let mut plain = model(Numerics::Stored, LIMITS);
    let mut drafting = model(Numerics::Stored, LIMITS);
    feed(&mut *plain, 0, &tokens, (0, 120), 50);
    feed(&mut *drafting, 0, &tokens, (0, 120), 50);
    for pos in 120..160 {
        // A long chain from a token that does not come.
        chain(&mut *drafting, 0, pos - 1, tokens[pos] ^ 1, MAX_DRAFT as usize);
        feed(&mut *plain, 0, &tokens, (pos, pos + 1), 1);
        feed(&mut *drafting, 0, &tokens, (pos, pos + 1), 1);
    }
    let [a, b] = [plain, drafting].map(|mut model| chain(&mut *model, 0, 159, tokens[160], 2));
    assert!(a == b);
}

#[test]
fn the_main_model_does_not_notice_its_draft_block() {
    let tokens = &long_prompt()[..200];
    let options = Options { threads: 2, numerics: Numerics::Stored };
    let mut alone = load_with_draft(&open("tiny-a.gguf"), None, LIMITS, options).unwrap();
    let mut with = model(Numerics::Stored, LIMITS);
    assert!(with.has_draft() && !alone.has_draft());
    assert_ne!(with.fingerprint(), alone.fingerprint());
    let mut drafts = Vec::new();
    for chunk in [1, 70, 200] {
        let (a, b) = (logits(&mut *alone, tokens, chunk), logits(&mut *with, tokens, chunk));
        assert!(a.iter().map(|z| z.to_bits()).eq(b.iter().map(|z| z.to_bits())), "chunks of {chunk}");
        drafts.push(chain(&mut *with, 1, 199, 5, 2));
    }
    assert!(drafts.iter().all(|bits| *bits == drafts[0]), "steps that produce logits of all rows");
    for pos in 100..140 {
        let a = feed(&mut *alone, 1, tokens, (if pos == 100 { 0 } else { pos }, pos + 1), 64);
        let b = feed(&mut *with, 1, tokens, (if pos == 100 { 0 } else { pos }, pos + 1), 64);
        assert!(a == b, "position {pos}");
        chain(&mut *with, 1, pos, 7, 3);
    }
    let error = alone.draft(&[], &mut []).unwrap_err().to_string();
    assert_eq!(error, "batch: a draft, but no draft block is loaded");
}

#[test]
fn positions_within_the_rewind_limit_are_taken_back_for_free() {
    let tokens = long_prompt();
    let wrong: Vec<u32> = tokens.iter().map(|t| t ^ 1).collect();
    let back = LIMITS.rewind as usize;
    for end in [20, 64, 65, 81, 140, 300] {
        let at = end - back;
        let mut straight = model(Numerics::Stored, LIMITS);
        feed(&mut *straight, 0, &tokens, (0, at), 1);
        let here = chain(&mut *straight, 0, at - 1, tokens[at], 3);
        feed(&mut *straight, 0, &tokens, (at, end), 1);
        let there = chain(&mut *straight, 0, end - 1, tokens[end], 3);
        let mut model = model(Numerics::Stored, LIMITS);
        // A chunk that ends beyond, from a history that is wrong there, and a chain beyond its end.
        feed(&mut *model, 0, &[&tokens[..at], &wrong[at..]].concat(), (0, end), end);
        chain(&mut *model, 0, end - 1, 5, MAX_DRAFT as usize);
        assert!(here == chain(&mut *model, 0, at - 1, tokens[at], 3), "back from {end} to {at}");
        feed(&mut *model, 0, &tokens, (at, end), 5);
        assert!(there == chain(&mut *model, 0, end - 1, tokens[end], 3), "from {at} to {end} again");
    }
}

#[test]
fn a_restored_state_drafts_the_same_bits_in_another_slot() {
    let tokens = long_prompt();
    for cut in [1, 2, 3, 63, 64, 65, 128, 129, 300] {
        let mut first = model(Numerics::Stored, LIMITS);
        feed(&mut *first, 1, &tokens, (0, cut), cut);
        let mut state = Vec::new();
        first.save(1, 0..cut as u32, &mut state).unwrap();
        assert_eq!(state.len() as u64, first.state_bytes(0..cut as u32));
        let here = chain(&mut *first, 1, cut - 1, tokens[cut], 3);
        feed(&mut *first, 1, &tokens, (cut, cut + 9), 4);
        let later = chain(&mut *first, 1, cut + 8, tokens[cut + 9], 3);
        let mut second = model(Numerics::Stored, LIMITS);
        // Whatever the slot held before must not matter.
        feed(&mut *second, 0, &tokens[7..], (0, 90), 90);
        second.load(0, 0..cut as u32, &mut &state[..]).unwrap();
        assert!(here == chain(&mut *second, 0, cut - 1, tokens[cut], 3), "cut {cut}");
        feed(&mut *second, 0, &tokens, (cut, cut + 9), 1);
        assert!(later == chain(&mut *second, 0, cut + 8, tokens[cut + 9], 3), "after cut {cut}");
    }
}

#[test]
fn drafts_of_several_sequences_keep_their_bits() {
    let tokens = long_prompt();
    let mut model = model(Numerics::Stored, LIMITS);
    feed(&mut *model, 0, &tokens, (0, 90), 90);
    feed(&mut *model, 1, &tokens[200..], (0, 33), 33);
    let rows = [DraftRow { slot: 1, pos: 32, token: tokens[233] }, DraftRow { slot: 0, pos: 89, token: tokens[90] }];
    let n_vocab = model.shape().n_vocab;
    let mut together = vec![0.0; 2 * n_vocab];
    model.draft(&rows, &mut together).unwrap();
    for (row, found) in rows.iter().zip(together.chunks(n_vocab)) {
        assert!(draft(&mut *model, row.slot, row.pos as usize, row.token) == found, "slot {}", row.slot);
    }
}

#[test]
fn drafts_that_do_not_fit_are_refused() {
    let mut model = model(Numerics::Stored, LIMITS);
    let n_vocab = model.shape().n_vocab;
    let row = |slot, pos, token| DraftRow { slot, pos, token };
    let cases: [(&[DraftRow], &str); 4] = [
        (&[row(0, 0, 320)], "token 320, vocabulary of 320"),
        (&[row(2, 0, 1)], "slot 2, cache of 2"),
        (&[row(0, 0, 1), row(0, 1, 1)], "slot 0 twice"),
        (&[row(0, 1024, 1)], "draft at position 1024, context of 1024"),
    ];
    for (rows, message) in cases {
        let error = model.draft(rows, &mut vec![0.0; rows.len() * n_vocab]).unwrap_err().to_string();
        assert_eq!(error, format!("batch: {message}"));
    }
    let error = model.draft(&[row(0, 0, 1)], &mut [0.0]).unwrap_err().to_string();
    assert_eq!(error, "batch: room for 1 logits, 320 wanted");
}

#[test]
fn a_wrong_support_file_is_refused_with_its_mismatch() {
    let refusal = |main: &Gguf, draft: &Gguf| {
        load_with_draft(main, Some(draft), LIMITS, Options::default()).err().unwrap().to_string()
    };
    let (main, draft) = (open("tiny-a.gguf"), std::fs::read(path("tiny-a-mtp.gguf")).unwrap());
    let error =
        refusal(&main, &Gguf::from_bytes("main.gguf", std::fs::read(path("tiny-a.gguf")).unwrap().into()).unwrap());
    assert_eq!(error, "main.gguf: general.architecture: found deepseek4, expected deepseek4_mtp_support");
    let changed = |from: &[u8], to: &[u8]| {
        let mut bytes = draft.clone();
        let at = bytes.windows(from.len()).position(|w| w == from).unwrap();
        bytes[at..at + to.len()].copy_from_slice(to);
        Gguf::from_bytes("mtp.gguf", bytes.into()).unwrap()
    };
    let error = refusal(&main, &changed(b"mtp.0.exp_probs_b.bias", b"mtp.0.exp_probs_b.bia_"));
    assert_eq!(error, "mtp.gguf: mtp.0.exp_probs_b.bias: missing, expected a tensor of dims [8]");
    let count = |n: u32| [b"deepseek4.expert_count".as_slice(), &4u32.to_le_bytes(), &n.to_le_bytes()].concat();
    let error = refusal(&main, &changed(&count(8), &count(9)));
    assert_eq!(error, "mtp.gguf: deepseek4.expert_count: found 9, expected 8 as in the main model");
    let layers = |n: u32| [b"deepseek4.mtp_layer_count".as_slice(), &4u32.to_le_bytes(), &n.to_le_bytes()].concat();
    let error = refusal(&main, &changed(&layers(1), &layers(2)));
    assert_eq!(error, "mtp.gguf: deepseek4.mtp_layer_count: found 2, expected 1");
    let other = Gguf::from_bytes("mtp.gguf", draft.clone().into()).unwrap();
    let error = refusal(&open("tiny-c.gguf"), &other);
    assert_eq!(error, "mtp.gguf: deepseek4.expert_count: found 8, expected 3 as in the main model");
    let error =
        refusal(&main, &Gguf::from_bytes("big.gguf", build(&preset("tiny").unwrap().mtp()).unwrap().into()).unwrap());
    assert!(error.starts_with("big.gguf: "), "{error}");
}

#[test]
fn a_synthetic_support_file_goes_with_its_main_model() {
    let file = |name, recipe| Gguf::from_bytes(name, build(&recipe).unwrap().into()).unwrap();
    let (main, block) = (file("main", preset("tiny").unwrap()), file("block", preset("tiny").unwrap().mtp()));
    let load = || load_with_draft(&main, Some(&block), LIMITS, Options::default()).unwrap();
    let tokens: Vec<u32> = (0..200).map(|i| i * 31 % 300).collect();
    let (mut whole, mut single) = (load(), load());
    feed(&mut *whole, 0, &tokens, (0, 190), 190);
    feed(&mut *single, 0, &tokens, (0, 190), 1);
    let [a, b] = [whole, single].map(|mut model| chain(&mut *model, 0, 189, tokens[190], 3));
    assert!(a == b && a.iter().all(|&bits| f32::from_bits(bits).is_finite()));
}
