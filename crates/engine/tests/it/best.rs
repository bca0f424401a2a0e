//! Greedy answers that are made of best tokens, without their logits: the same answers.

use ds4_engine::{ClosedBy, EngineConfig, Error, ReplyBudget, Request, SamplingParams, StopReason};
use ds4_model::Limits;

use crate::fake::{Fake, NOT_A_NUMBER, Watch};
use crate::kvstore::ids;
use crate::support::{LIMITS, Outcome, TOKENIZER, byte_ids, collect, encode, generate, run, scripted, start, submit};

/// All that a request brought but its log-probabilities.
fn told(out: &Outcome) -> String {
    let Outcome { ids, thinking, text, calls, closed, taken_back, .. } = out;
    let end = out.end.as_ref().map(|(reason, usage, _)| (reason, usage));
    format!("{ids:?} {thinking:?} {text:?} {calls:?} {closed:?} {taken_back:?} {end:?}")
}

fn greedy(r: &mut Request) {
    (r.sampling, r.ignore_eos) = (SamplingParams::greedy(), true);
}

/// What is asked for on top of a greedy answer, and whether the best tokens are enough for it.
type Case = (&'static str, fn(&mut Request), bool);

#[test]
fn an_answer_of_best_tokens_is_the_one_of_their_logits() {
    let cases: [Case; 7] = [
        ("nothing", |_| {}, true),
        ("reasoning", |r| r.thinking = true, true),
        ("tools", |r| r.tools_offered = true, true),
        ("a bias", |r| r.logit_bias = vec![(7, 1.0)], false),
        ("a penalty", |r| r.sampling.frequency_penalty = 0.5, false),
        ("repetition", |r| r.sampling.repetition_penalty = 1.5, false),
        ("a temperature", |r| r.sampling.temperature = 1.0, false),
    ];
    for (name, change, enough) in cases {
        let ask = |logprobs| {
            let (engine, watch) = start(LIMITS);
            let outcome = generate(&engine, &ids(10, 1), |r| {
                greedy(r);
                r.logprobs = logprobs;
                change(r);
            });
            (outcome, watch.chosen())
        };
        let ((short, chosen), (long, none)) = (ask(None), ask(Some(2)));
        assert_eq!(told(&short), told(&long), "{name}");
        assert_eq!((short.logprobs.len(), long.logprobs.len(), none), (0, long.ids.len(), 0), "{name}");
        // The first token comes after the prompt, whose logits are kept; the second is the first that could be penalised.
        assert_eq!(chosen > 1, enough, "{name}: {chosen} of {}", short.ids.len());
        assert!(!enough || chosen == short.ids.len() - 1, "{name}: {chosen} of {}", short.ids.len());
    }
}

#[test]
fn a_neighbour_that_draws_changes_nothing() {
    let limits = Limits { slots: 4, ..LIMITS };
    let draws = |i: u32| i == 2;
    let ask = |i: u32| {
        move |r: &mut Request| {
            greedy(r);
            (r.sampling.temperature, r.sampling.seed) = (if draws(i) { 1.0 } else { 0.0 }, i.into());
            // The one that draws is done before the others.
            r.max_tokens = if draws(i) { 8 } else { 24 };
        }
    };
    let alone: Vec<String> =
        (0..4).map(|i| told(&generate(&start(limits).0, &ids(9 + 11 * i, 3 + i), ask(i)))).collect();
    let (engine, watch) = start(limits);
    watch.close();
    let running: Vec<_> = (0..4).map(|i| submit(&engine, &ids(9 + 11 * i, 3 + i), ask(i))).collect();
    watch.open();
    let together: Vec<String> = running.iter().map(|events| told(&collect(events))).collect();
    assert_eq!(together, alone);
    assert!((3..3 * 23).contains(&watch.chosen()), "only without the one that draws");
}

#[test]
fn reasoning_ends_alike_by_itself_and_under_pressure() {
    let think_end = TOKENIZER.special().think_end;
    let prompt = encode("hi");
    let said = [byte_ids("so it is"), vec![think_end], byte_ids("yes"), vec![TOKENIZER.special().eos]].concat();
    let budget = |soft, rank, hard| ReplyBudget { soft, rank, hard };
    for (budget, by) in
        [(budget(0, 0, 0), ClosedBy::Itself), (budget(14, 400, 1), ClosedBy::Soft), (budget(0, 0, 15), ClosedBy::Hard)]
    {
        let ask = |logprobs| {
            let engine = scripted(prompt.len(), said.clone(), |_| 50.0);
            generate(&engine, &prompt, |r| {
                r.sampling = SamplingParams::greedy();
                (r.thinking, r.reply_budget, r.logprobs) = (true, budget, logprobs);
            })
        };
        let short = ask(None);
        assert_eq!(told(&short), told(&ask(Some(0))));
        assert_eq!(short.closed[0].0, by);
        assert_eq!(short.closed[0].1 == 0, by == ClosedBy::Itself, "{:?}", short.closed);
    }
}

#[test]
fn a_logit_that_is_not_a_number_is_the_same_error() {
    let prompt = encode("hi");
    let ask = |logprobs| {
        let engine = scripted(prompt.len(), vec![5, NOT_A_NUMBER, 7], |_| 90.0);
        generate(&engine, &prompt, |r| {
            greedy(r);
            r.logprobs = logprobs;
        })
    };
    let (short, long) = (ask(None), ask(Some(0)));
    assert_eq!((&short.ids, short.error()), (&long.ids, long.error()));
    assert_eq!((short.ids.len(), short.error()), (2, Error::Logits { id: 0, found: "NaN".to_owned() }));
}

/// Slots that hold an answer of best tokens and no logits behind it.
fn answered() -> (ds4_engine::EngineHandle, Watch, Vec<u32>) {
    let (engine, watch) = run(Fake::new(LIMITS), EngineConfig::default());
    let outcome = generate(&engine, &ids(10, 1), greedy);
    assert!(watch.chosen() > 0 && outcome.reason() == StopReason::Length);
    let held = [ids(10, 1), outcome.ids].concat();
    (engine, watch, held)
}

#[test]
fn who_goes_on_exactly_where_it_ended_has_one_token_evaluated_again() {
    let (engine, watch, held) = answered();
    // The last one was drawn and never evaluated.
    for n in [held.len(), held.len() - 1] {
        watch.steps();
        let again = generate(&engine, &held[..n], |r| r.max_tokens = 1);
        let fresh = generate(&start(LIMITS).0, &held[..n], |r| r.max_tokens = 1);
        assert_eq!((again.ids, watch.evaluated()), (fresh.ids, 1));
    }
}
