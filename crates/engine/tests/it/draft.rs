//! Agreement of a draft block with its model, and sessions that draft.

use std::ops::ControlFlow;
use std::sync::Arc;

use ds4_cpu::{Options, load_with_draft};
use ds4_engine::{
    Agreement, AgreementRequest, Cancel, CheckpointPolicy, EngineConfig, EngineHandle, Error, Sampler, SamplingParams,
    Session,
};
use ds4_model::{DraftRow, Limits, Model};

use crate::support::{LIMITS as FAKE_LIMITS, TOKENIZER, start, tiny};

const LIMITS: Limits = Limits { context: 300, slots: 1, max_rows: 48, rewind: 8 };
const POLICY: CheckpointPolicy = CheckpointPolicy { interval: 64, count: 8, bytes: 1 << 26 };

fn model() -> Box<dyn Model> {
    let draft = tiny("tiny-a-mtp.gguf");
    load_with_draft(&tiny("tiny-a.gguf"), Some(&draft), LIMITS, Options::default()).unwrap()
}

fn ids(n: u32) -> Vec<u32> {
    (0..n).map(|i| (i * i * 31 + i * 17 + 5) % 300).collect()
}

fn request(prompt: Vec<u32>, max_tokens: u32) -> AgreementRequest {
    AgreementRequest { prompt, max_tokens, end: None, cancel: Cancel::default() }
}

fn go_on(_: u32, _: u32) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn best(logits: &[f32]) -> u32 {
    Sampler::new(SamplingParams::greedy()).sample(logits, true).unwrap()
}

fn draft(model: &mut dyn Model, session: &Session, token: u32) -> Vec<f32> {
    let mut guesses = vec![0.0; model.shape().n_vocab];
    model.draft(&[DraftRow { slot: session.slot(), pos: session.position() - 1, token }], &mut guesses).unwrap();
    guesses
}

#[test]
fn agreement_counts_guesses_that_the_model_then_says() {
    let (prompt, n) = (ids(70), 40);
    let (mut model, mut session) = (model(), Session::new(0, POLICY));
    session.sync(model.as_mut(), &prompt, &mut go_on).unwrap();
    let (mut said, mut guessed) = (vec![best(session.logits().unwrap())], Vec::new());
    for _ in 0..n {
        let token = *said.last().unwrap();
        guessed.push(best(&draft(model.as_mut(), &session, token)));
        session.decode(model.as_mut(), token).unwrap();
        said.push(best(session.logits().unwrap()));
    }
    let accepted = guessed.iter().zip(&said[1..]).filter(|(guess, said)| guess == said).count() as u32;
    let expected = Agreement { drafted: n, accepted };
    let mut other = Session::new(0, POLICY);
    assert_eq!(other.draft_agreement(model.as_mut(), &request(prompt.clone(), n)).unwrap(), expected);
    assert_eq!(other.tokens()[prompt.len()..], said[..n as usize]);

    let engine = EngineHandle::start(model, Arc::clone(&TOKENIZER), EngineConfig::default()).unwrap();
    for _ in 0..2 {
        assert_eq!(engine.draft_agreement(request(prompt.clone(), n)).unwrap(), expected);
    }
    // The end of a turn is the last thing guessed; the context ends everything.
    let at = said.iter().position(|id| *id == said[5]).unwrap() as u32;
    let upto = AgreementRequest { end: Some(said[5]), ..request(prompt.clone(), n) };
    assert_eq!(engine.draft_agreement(upto).unwrap().drafted, at);
    assert_eq!(engine.draft_agreement(request(ids(295), 100)).unwrap().drafted, 5);
    let cancelled = request(prompt, n);
    cancelled.cancel.cancel();
    assert_eq!(engine.draft_agreement(cancelled).unwrap_err(), Error::Cancelled);
}

#[test]
fn a_model_without_a_draft_block_says_so() {
    let (engine, _) = start(FAKE_LIMITS);
    let error = engine.draft_agreement(request(vec![1, 2], 3)).unwrap_err().to_string();
    assert_eq!(error, "batch: a draft, but no draft block is loaded");
}

#[test]
fn a_session_gone_back_or_restored_drafts_as_if_it_had_gone_straight() {
    let tokens = ids(200);
    let bits = |logits: Vec<f32>| logits.iter().map(|z| z.to_bits()).collect::<Vec<_>>();
    let mut straight = Session::new(0, POLICY);
    let mut reference = model();
    let expected: Vec<_> = (0..tokens.len() - 1)
        .map(|i| {
            straight.decode(reference.as_mut(), tokens[i]).unwrap();
            bits(draft(reference.as_mut(), &straight, tokens[i + 1]))
        })
        .collect();
    let (mut model, mut session) = (model(), Session::new(0, POLICY));
    session.extend(model.as_mut(), &tokens, &mut go_on).unwrap();
    for to in [198, 190, 150, 129, 128, 100, 66, 65, 64, 20, 1] {
        // Another continuation first, so that what is overwritten matters.
        session.rewind(model.as_mut(), to).unwrap();
        session.extend(model.as_mut(), &[7, 8, 9], &mut go_on).unwrap();
        draft(model.as_mut(), &session, 5);
        session.rewind(model.as_mut(), to).unwrap();
        let to = to as usize;
        assert!(bits(draft(model.as_mut(), &session, tokens[to])) == expected[to - 1], "back to {to}");
        let snapshot = session.snapshot(model.as_mut()).unwrap();
        session.extend(model.as_mut(), &ids(90)[4..], &mut go_on).unwrap();
        session.restore(model.as_mut(), &snapshot).unwrap();
        assert!(bits(draft(model.as_mut(), &session, tokens[to])) == expected[to - 1], "restored at {to}");
    }
}
