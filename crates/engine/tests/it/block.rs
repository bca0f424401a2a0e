//! Call blocks that go wrong: written again from where they were right, and cut where they go round in circles.

use ds4_engine::{Constraint, Error, Request, Result, SamplingParams, StopReason};
use ds4_model::Limits;
use ds4_text::ToolCallKind;

use crate::fake::{Fake, Favour};
use crate::support::{LIMITS, Outcome, TOKENIZER, byte_ids, encode, generate, run, scripted, start};

const OPENER: &str = "ok\n\n<｜DSML｜tool_calls>";
const CALL: &str = "\n<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter name=\"x\" string=\"true\">hello</｜DSML｜parameter>\n</｜DSML｜invoke>";
const CLOSER: &str = "\n</｜DSML｜tool_calls>";

/// Demands these ids.
#[derive(Clone, Debug)]
struct Says {
    ids: Vec<u32>,
    at: usize,
}

impl Constraint for Says {
    fn allow(&mut self, logits: &mut [f32]) -> Result<()> {
        let only = self.ids.get(self.at).copied();
        (0..).zip(logits).filter(|(id, _)| Some(*id) != only).for_each(|(_, logit)| *logit = f32::NEG_INFINITY);
        Ok(())
    }

    fn push(&mut self, id: u32) -> Result<bool> {
        if self.ids.get(self.at) != Some(&id) {
            return Err(Error::Constraint(format!("{id} was not allowed")));
        }
        self.at += 1;
        Ok(self.at == self.ids.len())
    }

    fn fork(&self) -> Box<dyn Constraint> {
        Box::new(self.clone())
    }
}

/// The marker is one id, as in vocabularies it is; all else one a byte, so that every cut is possible.
fn ids(text: &str) -> Vec<u32> {
    let marker = TOKENIZER.special().dsml;
    text.split("｜DSML｜").map(byte_ids).collect::<Vec<_>>().join(&marker)
}

/// The form in which a block is written again: this text behind `OPENER`.
#[expect(clippy::unnecessary_wraps, reason = "as a request holds it")]
fn form(text: &str) -> Option<Box<dyn Constraint>> {
    Some(Box::new(Says { ids: ids(&format!("tool_calls>{text}")), at: 0 }))
}

/// A model that says `said`, then ends its turn, under a form of the block.
fn answer(said: &str, rule: Option<Box<dyn Constraint>>, change: impl FnOnce(&mut Request)) -> Outcome {
    let prompt = encode("hi");
    let script = [ids(said), vec![TOKENIZER.special().eos]].concat();
    let engine = scripted(prompt.len(), script, |_| 50.0);
    generate(&engine, &prompt, |r| {
        (r.tools_offered, r.max_tokens, r.block) = (true, 350, rule);
        change(r);
    })
}

fn arguments(outcome: &Outcome) -> String {
    let piece = |kind: &ToolCallKind| if let ToolCallKind::Arguments(text) = kind { Some(text.clone()) } else { None };
    outcome.calls.iter().filter_map(|call| piece(&call.kind)).collect()
}

fn whole() -> String {
    [OPENER, CALL, CLOSER].concat()
}

#[test]
fn a_block_that_cannot_be_read_is_written_again_from_where_it_was_right() {
    let wrong = format!("\n<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter of some kind{}{CLOSER}", "-".repeat(100));
    let said = [OPENER, &wrong].concat();
    let outcome = answer(&said, form(&[CALL, CLOSER].concat()), |_| {});
    assert_eq!((outcome.text.as_str(), outcome.reason()), ("ok", StopReason::ToolCalls));
    assert_eq!(arguments(&outcome), r#"{"x":"hello"}"#);
    assert_eq!(outcome.calls.iter().filter(|call| matches!(call.kind, ToolCallKind::Start { .. })).count(), 1);
    assert_eq!(outcome.ids, ids(&whole()), "what was taken back is no part of the answer");
    let good = ids(&[OPENER, "\n<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter"].concat()).len();
    assert_eq!(outcome.taken_back, [(ids(&said).len() - good) as u32]);
    let drawn = (ids(&said).len() + ids(&whole()).len() - good) as u32;
    assert_eq!(outcome.usage().completion, drawn, "it was drawn all the same");
}

#[test]
fn a_turn_that_ends_in_the_middle_of_a_call_goes_on_with_it() {
    let said = [OPENER, &CALL[..CALL.find("llo").unwrap()]].concat();
    for sampling in [SamplingParams::default(), SamplingParams::greedy()] {
        let outcome = answer(&said, form(&[CALL, CLOSER].concat()), |r| r.sampling = sampling);
        assert_eq!((arguments(&outcome).as_str(), outcome.reason()), (r#"{"x":"hello"}"#, StopReason::ToolCalls));
        assert_eq!((outcome.taken_back.as_slice(), &outcome.ids), (&[1][..], &ids(&whole())));
    }
}

#[test]
fn what_a_form_does_not_admit_is_written_again_as_a_whole_unless_it_was_shown() {
    let other = CALL.replace("\"x\"", "\"y\"").replace("</｜DSML｜invoke>", "");
    let tail = &form(&[CALL, CLOSER].concat());
    let began = |head: &str| answer(&format!("{OPENER}{head} and so on{CLOSER}"), tail.clone(), |_| {});
    let unseen = began("\n<｜DSML｜invoke id=\"7\"");
    assert_eq!((arguments(&unseen).as_str(), &unseen.ids), (r#"{"x":"hello"}"#, &ids(&whole())));
    let seen = began(&other);
    assert!(seen.taken_back.is_empty(), "{:?}", seen.taken_back);
    assert!(arguments(&seen).starts_with(r#"{"y":"hello""#), "{}", arguments(&seen));
}

#[test]
fn after_two_attempts_or_without_a_form_the_text_is_the_answer() {
    let wrong = format!("\nnothing{CLOSER}");
    let said = [OPENER, &wrong].concat();
    let outcome = answer(&said, form(&wrong), |_| {});
    assert_eq!((outcome.taken_back.len(), outcome.text.as_str()), (2, said.as_str()));
    assert!(outcome.calls.is_empty());
    for change in [|r: &mut Request| r.block = None, |r: &mut Request| r.constraint = r.block.take()] {
        let outcome = answer(&said, form(&wrong), |r| {
            change(r);
            r.constraint =
                r.constraint.take().map(|_| Box::new(Says { ids: ids(&said), at: 0 }) as Box<dyn Constraint>);
        });
        assert_eq!((outcome.taken_back.len(), outcome.text.as_str()), (0, said.as_str()));
    }
    let short = answer(&said, form(&wrong), |r| r.max_tokens = ids(&said).len() as u32);
    assert_eq!((short.taken_back.len(), short.text.as_str()), (0, said.as_str()), "nothing is left to write it with");
}

#[test]
fn a_marker_in_the_text_is_no_block() {
    let said = "a <｜DSML｜ b\n\n<tool_calls>\nnothing\n</tool_calls>";
    let outcome = answer(said, form(&[CALL, CLOSER].concat()), |_| {});
    assert_eq!((outcome.taken_back.len(), outcome.text.as_str()), (0, said));
}

#[test]
fn a_slot_that_went_back_is_as_if_it_had_never_been_further() {
    let wrong = format!("{OPENER}\n{}{CLOSER}", "wrong ".repeat(12));
    let prompt = encode("hi");
    let script = [ids(&wrong), vec![TOKENIZER.special().eos]].concat();
    let at = prompt.len();
    let most = at + ids(&wrong).len();
    let favour: Favour = std::sync::Arc::new(move |pos| {
        let pos = pos as usize + 1;
        if pos < most + 20 { Some((*script.get(pos.checked_sub(at)?)?, 50.0)) } else { None }
    });
    let (engine, _) = run(Fake::favouring(LIMITS, favour), ds4_engine::EngineConfig::default());
    let first = generate(&engine, &prompt, |r| {
        (r.tools_offered, r.max_tokens, r.block) = (true, 350, form(&[CALL, CLOSER].concat()));
    });
    assert_eq!((first.taken_back.len(), first.reason()), (1, StopReason::ToolCalls));
    let next =
        [&prompt[..], &first.ids, &byte_ids("and then some more of everything, until the script is over")].concat();
    assert!(next.len() > most + 20, "from here on only the state decides");
    let seeded = |r: &mut Request| (r.sampling.seed, r.sampling.temperature, r.ignore_eos) = (5, 1.0, true);
    let warm = generate(&engine, &next, seeded);
    assert_eq!(warm.usage().cached as usize, at + first.ids.len() - 1, "all but the token that was never evaluated");
    assert_eq!(warm.ids, generate(&start(LIMITS).0, &next, seeded).ids);
}

#[test]
fn a_block_that_only_repeats_itself_is_cut() {
    let limits = Limits { context: 4000, ..LIMITS };
    let looping = |head: &str, rule: Option<Box<dyn Constraint>>, most: u32| {
        let prompt = encode("hi");
        let script: Vec<u32> = ids(&[OPENER, head].concat()).into_iter().chain(ids(&"round ".repeat(600))).collect();
        let at = prompt.len();
        let favour: Favour =
            std::sync::Arc::new(move |pos| Some((*script.get((pos as usize + 1).checked_sub(at)?)?, 50.0)));
        let (engine, _) = run(Fake::favouring(limits, favour), ds4_engine::EngineConfig::default());
        let outcome = generate(&engine, &prompt, |r| {
            (r.tools_offered, r.max_tokens, r.block, r.block_tokens) = (true, 3000, rule, most);
        });
        (outcome, engine)
    };
    let shown = &CALL[..CALL.find("hello").unwrap()];
    let (outcome, engine) = looping(shown, form(&[CALL, CLOSER].concat()), 1500);
    assert!(matches!(outcome.error(), Error::CallLoops(1501..1600)), "{:?}", outcome.end);
    assert!(engine.slots().unwrap()[0].tokens.len() > 1500, "the slot keeps what it has");
    let (outcome, _) = looping("\n", form(&[CALL, CLOSER].concat()), 1500);
    assert_eq!((arguments(&outcome).as_str(), outcome.reason()), (r#"{"x":"hello"}"#, StopReason::ToolCalls));
    let (outcome, _) = looping("\n", None, 1500);
    assert_eq!(outcome.reason(), StopReason::EndOfTurn);
    assert!((1500..1700).contains(&outcome.text.len()), "{} bytes", outcome.text.len());
    let (outcome, _) = looping("\n", None, 5000);
    assert_eq!(outcome.usage().completion, 3000, "a limit that was not reached");
}
