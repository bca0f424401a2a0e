//! Rules for the answer, biases and the ends that requests ask for.

use ds4_engine::{ClosedBy, Constraint, Error, Request, Result, SamplingParams, StopReason};
use ds4_text::ToolCallKind;

use crate::support::{LIMITS, byte_ids, collect, encode, generate, scripted, start, submit};

/// Demands exactly these ids; after the last of them the answer is complete.
#[derive(Clone, Debug)]
struct Says {
    ids: Vec<u32>,
    at: usize,
}

impl Constraint for Says {
    fn allow(&mut self, logits: &mut [f32]) -> Result<()> {
        let only = self.ids.get(self.at).copied();
        let masked = (0..).zip(logits).filter(|(id, _)| Some(*id) != only);
        masked.for_each(|(_, logit)| *logit = f32::NEG_INFINITY);
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

#[expect(clippy::unnecessary_wraps, reason = "as a request holds it")]
fn says(text: &str) -> Option<Box<dyn Constraint>> {
    Some(Box::new(Says { ids: byte_ids(text), at: 0 }))
}

#[test]
fn the_answer_is_what_the_constraint_allows_whatever_the_sampling() {
    let (engine, _) = start(LIMITS);
    let cuts = [(0.0, 0, 1.0), (1.0, 0, 1.0), (2.0, 5, 0.9), (1.0, 0, 0.5), (0.7, 1024, 1.0)];
    for (temperature, top_k, top_p) in cuts {
        for min_p in [0.0, 0.05] {
            let outcome = generate(&engine, &encode("hi"), |r| {
                r.sampling = SamplingParams { temperature, top_k, top_p, min_p, ..SamplingParams::default() };
                (r.constraint, r.ignore_eos) = (says("[1]"), true);
            });
            assert_eq!((outcome.text.as_str(), outcome.reason()), ("[1]", StopReason::EndOfTurn));
            assert_eq!(outcome.usage().completion, 3, "the end needs no step of its own");
        }
    }
}

#[test]
fn reasoning_is_free_and_the_constraint_starts_behind_it() {
    let prompt = encode("<think>");
    let script = [byte_ids("let me see"), encode("</think>"), byte_ids("no")].concat();
    let engine = scripted(prompt.len(), script, |_| 50.0);
    let outcome = generate(&engine, &prompt, |r| (r.thinking, r.constraint) = (true, says("yes")));
    assert_eq!((outcome.thinking.as_str(), outcome.text.as_str()), ("let me see", "yes"));
    assert_eq!(outcome.reason(), StopReason::EndOfTurn);
}

#[test]
fn a_turn_that_would_end_in_its_reasoning_gives_the_answer_first() {
    let prompt = encode("<think>");
    let eos = encode("<｜end▁of▁sentence｜>");
    let engine = scripted(prompt.len(), [byte_ids("hm"), eos].concat(), |_| 50.0);
    let outcome = generate(&engine, &prompt, |r| (r.thinking, r.constraint) = (true, says("yes")));
    assert_eq!((outcome.thinking.as_str(), outcome.text.as_str()), ("hm", "yes"));
    assert_eq!(outcome.closed[0].0, ClosedBy::Hard);
}

#[test]
fn log_probabilities_are_those_of_the_model() {
    let (engine, _) = start(LIMITS);
    let ask = |constraint, bias: Vec<(u32, f32)>| {
        generate(&engine, &encode("hi"), |r| {
            (r.sampling, r.logprobs, r.max_tokens) = (SamplingParams::greedy(), Some(3), 1);
            (r.constraint, r.logit_bias) = (constraint, bias);
        })
    };
    let free = ask(None, Vec::new());
    let masked = ask(says("x"), Vec::new());
    assert_eq!(masked.ids, byte_ids("x"));
    assert_eq!(masked.logprobs[0].top, free.logprobs[0].top);
    assert!(masked.logprobs[0].chosen.logprob < free.logprobs[0].chosen.logprob);
    let biased = ask(None, vec![(byte_ids("x")[0], 100.0)]);
    assert_eq!((biased.ids, &biased.logprobs[0].top), (byte_ids("x"), &free.logprobs[0].top));
}

#[test]
fn a_dead_end_fails_its_request_and_leaves_the_slot_as_it_is() {
    let (engine, _) = start(LIMITS);
    let prompt = encode("a prompt of some length");
    let dead = Says { ids: Vec::new(), at: 0 };
    let free = submit(&engine, &encode("other"), |r| (r.max_tokens, r.ignore_eos) = (30, true));
    let outcome = generate(&engine, &prompt, |r| r.constraint = Some(Box::new(dead)));
    assert_eq!(outcome.error(), Error::Constraint("no token may come next".to_owned()));
    assert_eq!(collect(&free).reason(), StopReason::Length);
    assert!(engine.slots().unwrap().iter().any(|slot| slot.tokens == prompt), "the prompt can be used again");
}

#[test]
fn a_copied_request_has_a_constraint_of_its_own() {
    let (events, _) = std::sync::mpsc::channel();
    let mut first = Request { constraint: says("ab"), ..Request::new(vec![1], events) };
    let second = first.clone();
    assert_eq!(first.constraint.as_mut().unwrap().push(byte_ids("a")[0]), Ok(false));
    assert_eq!(second.constraint.unwrap().push(byte_ids("a")[0]), Ok(false));
    assert_eq!(first.constraint.unwrap().push(byte_ids("b")[0]), Ok(true));
}

#[test]
fn a_bias_out_of_range_or_of_an_unknown_id_is_refused() {
    let (engine, _) = start(LIMITS);
    let (events, _) = std::sync::mpsc::channel();
    for bias in [(3, 100.5), (3, f32::NAN), (1 << 20, 1.0)] {
        let request = Request { logit_bias: vec![bias], ..Request::new(vec![1], events.clone()) };
        assert!(engine.submit(request).is_err(), "{bias:?}");
    }
}

#[test]
fn the_stop_string_is_shown_when_asked_for() {
    let prompt = encode("hi");
    let engine = scripted(prompt.len(), byte_ids("one END two"), |_| 50.0);
    for (include, text) in [(false, "one "), (true, "one END")] {
        let outcome = generate(&engine, &prompt, |r| (r.stop, r.include_stop) = (vec!["END".to_owned()], include));
        assert_eq!((outcome.text.as_str(), outcome.reason()), (text, StopReason::StopString("END".to_owned())));
    }
}

#[test]
fn a_single_call_ends_the_turn_and_its_block_is_whole() {
    const INVOKE: &str = "<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter name=\"x\" string=\"false\">1\
        </｜DSML｜parameter>\n</｜DSML｜invoke>";
    let block = format!("\n\n<｜DSML｜tool_calls>\n{INVOKE}\n{INVOKE}\n</｜DSML｜tool_calls>");
    let prompt = encode("hi");
    let engine = scripted(prompt.len(), encode(&block), |_| 50.0);
    for (single, calls) in [(false, 2), (true, 1)] {
        let outcome = generate(&engine, &prompt, |r| {
            (r.tools_offered, r.single_call, r.max_tokens) = (true, single, 300);
        });
        let ended = outcome.calls.iter().filter(|c| c.kind == ToolCallKind::End).count();
        assert_eq!((ended, outcome.text.as_str(), outcome.reason()), (calls, "", StopReason::ToolCalls));
    }
}
