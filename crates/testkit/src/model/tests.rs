use ds4_gguf::Gguf;
use ds4_text::{ChatRequest, Message, Role, Thinking, render};

use super::*;

const LIMITS: Limits = Limits { context: 4096, slots: 2, max_rows: 4096, rewind: 8 };

fn model(script: &str) -> ScriptedModel {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/ds4-mini.gguf");
    let file = Gguf::open(path.as_ref()).unwrap();
    let (shape, tokenizer) = (Shape::from_gguf(&file).unwrap(), Tokenizer::from_metadata(file.metadata()).unwrap());
    let script = if script.is_empty() { Script::default() } else { Script::parse(script).unwrap() };
    ScriptedModel::new(shape, LIMITS, Arc::new(tokenizer), script)
}

fn prompt(model: &ScriptedModel, thinking: Thinking, turns: &[(Role, &str)]) -> Vec<u32> {
    let messages = turns.iter().map(|(role, text)| Message::new(role.clone(), *text)).collect();
    let request = ChatRequest { thinking, ..ChatRequest::new(messages) };
    model.tokenizer.encode_prompt(&render(&request).unwrap())
}

/// Feeds tokens and returns the best id of what follows.
fn feed(model: &mut ScriptedModel, slot: SlotId, pos: usize, tokens: &[u32]) -> Result<u32> {
    let mut row = vec![0.0; model.shape.n_vocab];
    let span = Span { slot, pos: pos as u32, len: tokens.len() as u32, logits: LogitRows::Last };
    model.forward(&Batch { tokens, spans: &[span] }, &mut row)?;
    Ok(best(&row))
}

fn best(row: &[f32]) -> u32 {
    (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap() as u32
}

/// The text after `history`, to its end; the slot holds `held` of it.
fn run(model: &mut ScriptedModel, history: &[u32], held: usize) -> String {
    let mut next = feed(model, 0, held, &history[held..]).unwrap();
    let (mut said, mut pos) = (Vec::new(), history.len());
    while next != model.tokenizer.special().eos {
        assert!(said.len() < 300, "no end");
        said.push(next);
        next = feed(model, 0, pos, &[next]).unwrap();
        pos += 1;
    }
    String::from_utf8(model.tokenizer.decode(&said)).unwrap()
}

fn answer(script: &str, thinking: Thinking, turns: &[(Role, &str)]) -> String {
    let mut model = model(script);
    let prompt = prompt(&model, thinking, turns);
    run(&mut model, &prompt, 0)
}

const HI: &[(Role, &str)] = &[(Role::User, "hi")];
const TOOL: &str = concat!(
    "<think>A tool helps.</think>On it.\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"shell\">\n",
    "<｜DSML｜parameter name=\"command\" string=\"true\">echo ü</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>"
);

fn tool_script() -> String {
    serde_json::json!({ "reply": TOOL }).to_string()
}

#[test]
fn the_reply_is_said_after_the_prompts_own_think_mark() {
    assert_eq!(answer(&tool_script(), Thinking::High, HI), TOOL["<think>".len()..]);
    assert_eq!(answer(&tool_script(), Thinking::None, HI), TOOL["<think>A tool helps.</think>".len()..]);
    let plain = r#"{"reply": "Hello."}"#;
    assert_eq!(answer(plain, Thinking::High, HI), "</think>Hello.");
    assert_eq!(answer(plain, Thinking::None, HI), "Hello.");
    assert_eq!(answer(r#"{"reply": "<think>on and on"}"#, Thinking::High, HI), "on and on");
    assert_eq!(answer("", Thinking::None, HI), "You said: hi");
    assert_eq!(answer(r#"{"when": "ho", "reply": "x"}"#, Thinking::None, HI), "", "no rule, no words");
}

#[test]
fn markup_is_made_of_control_tokens_unless_it_is_repeated() {
    let said = |script: &str, asked: &str| {
        let mut model = model(script);
        let prompt = prompt(&model, Thinking::High, &[(Role::User, asked)]);
        let mut next = feed(&mut model, 0, 0, &prompt).unwrap();
        let (mut ids, mut pos) = (Vec::new(), prompt.len());
        while next != model.tokenizer.special().eos {
            ids.push(next);
            next = feed(&mut model, 0, pos, &[next]).unwrap();
            pos += 1;
        }
        ids.iter().filter(|&&id| id == model.tokenizer.special().dsml).count()
    };
    assert_eq!(said(&tool_script(), "hi"), 6);
    assert_eq!(said(r#"{"reply": "{turn}"}"#, TOOL), 0);
}

#[test]
fn rules_see_the_last_turn_and_the_answers_before() {
    let script = r#"{"when": "two", "reply": "second"} {"anywhere": "two", "replies": ["a", "b"]} {"reply": "any"}"#;
    let turns = [(Role::User, "two"), (Role::Assistant, "yes"), (Role::User, "one")];
    assert_eq!(answer(script, Thinking::None, &turns), "b");
    assert_eq!(answer(script, Thinking::None, &turns[..1]), "second");
    assert_eq!(answer(script, Thinking::None, &turns[2..]), "any");
}

#[test]
fn a_prompt_without_a_template_is_answered_too_whatever_its_chunks() {
    for chunk in [1, 2, 100] {
        let mut model = model(r#"{"when": "once upon", "reply": "<think>hm</think>a time"}"#);
        let ids = [vec![model.tokenizer.special().bos], model.tokenizer.encode("once upon")].concat();
        let mut held = 0;
        while held + chunk < ids.len() {
            let span = Span { slot: 0, pos: held as u32, len: chunk as u32, logits: LogitRows::None };
            model.forward(&Batch { tokens: &ids[held..held + chunk], spans: &[span] }, &mut []).unwrap();
            held += chunk;
        }
        assert_eq!(run(&mut model, &ids, held), "a time", "chunks of {chunk}");
    }
}

#[test]
fn an_answer_that_parts_from_the_reply_comes_back_to_it_or_ends() {
    let after = |forced: &str| {
        let mut model = model(&tool_script());
        let mut history = prompt(&model, Thinking::High, HI);
        history.extend(model.tokenizer.encode(forced));
        run(&mut model, &history, 0)
    };
    let answer = TOOL.split_once("</think>").unwrap().1;
    assert_eq!(after("A to</think>"), answer, "reasoning that was closed");
    assert_eq!(after("A to</think>On it."), answer["On it.".len()..], "and gone on from there");
    assert_eq!(after("x</think>\n\n<｜DSML｜tool_calls>\n"), answer.split_once("calls>\n").unwrap().1, "a forced call");
    assert_eq!(after("A tool h"), TOOL["<think>A tool h".len()..], "other tokens for the same text");
    assert_eq!(after("something else"), "");
}

#[test]
fn without_a_reply_the_best_tokens_end_json() {
    let mut model = model(r#"{"reply": ""}"#);
    let prompt = prompt(&model, Thinking::None, HI);
    let mut row = vec![0.0; model.shape.n_vocab];
    let span = Span { slot: 0, pos: 0, len: prompt.len() as u32, logits: LogitRows::Last };
    model.forward(&Batch { tokens: &prompt, spans: &[span] }, &mut row).unwrap();
    let mut order = Vec::new();
    for _ in 0..4 {
        let id = best(&row);
        order.push(id);
        row[id as usize] = f32::MIN;
    }
    let of = |text: &str| model.tokenizer.encode_plain(text)[0];
    assert_eq!(order, [model.tokenizer.special().eos, of("}"), of("]"), of("\"")]);
}

#[test]
fn every_row_that_is_asked_for_is_that_of_its_own_prefix() {
    let mut model = model(r#"{"reply": "Hello there."}"#);
    let mut history = prompt(&model, Thinking::None, HI);
    let start = history.len();
    history.extend(model.tokenizer.encode("Hello there."));
    let n_vocab = model.shape.n_vocab;
    let mut rows = vec![0.0; (history.len() - 1) * n_vocab];
    let spans = [
        Span { slot: 1, pos: 0, len: 1, logits: LogitRows::None },
        Span { slot: 0, pos: 0, len: history.len() as u32 - 1, logits: LogitRows::All },
    ];
    let tokens = [&history[..1], &history[..history.len() - 1]].concat();
    model.forward(&Batch { tokens: &tokens, spans: &spans }, &mut rows).unwrap();
    for at in start..history.len() {
        assert_eq!(best(&rows[(at - 1) * n_vocab..at * n_vocab]), history[at], "after {at} tokens");
    }
}

#[test]
fn a_saved_state_goes_on_elsewhere_and_another_one_is_refused() {
    let mut model = model(&tool_script());
    let prompt = prompt(&model, Thinking::High, HI);
    let n = prompt.len() as u32;
    let first = feed(&mut model, 0, 0, &prompt).unwrap();
    let save = |model: &mut ScriptedModel, rows: Range<u32>| {
        let mut bytes = Vec::new();
        model.save(0, rows.clone(), &mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, model.state_bytes(rows));
        bytes
    };
    let (whole, tail) = (save(&mut model, 0..n), save(&mut model, n - 2..n - 2));
    model.load(1, 0..n, &mut whole.as_slice()).unwrap();
    let second = feed(&mut model, 1, n as usize, &[first]).unwrap();
    assert_eq!(feed(&mut model, 0, n as usize, &[first]).unwrap(), second);
    // The rows are still in the slot, the tail takes it back.
    model.load(0, n - 2..n - 2, &mut tail.as_slice()).unwrap();
    assert_eq!(feed(&mut model, 0, n as usize - 2, &prompt[n as usize - 2..]).unwrap(), first);
    feed(&mut model, 0, 0, &[7, 7, 7]).unwrap();
    assert!(matches!(model.load(0, n - 2..n - 2, &mut tail.as_slice()), Err(Error::State(_))));
    assert!(matches!(feed(&mut model, 0, 3, &[7]), Err(Error::Batch(_))), "after an error the slot is empty");
    assert!(matches!(model.load(0, 0..n, &mut &whole[..9]), Err(Error::Io(_))));
    assert!(matches!(model.save(0, 0..1, &mut Vec::new()), Err(Error::State(_))));
}

#[test]
fn positions_go_back_only_as_far_as_the_limits_allow() {
    let mut model = model("");
    feed(&mut model, 0, 0, &[1; 20]).unwrap();
    feed(&mut model, 0, 14, &[2; 2]).unwrap();
    assert!(feed(&mut model, 0, 11, &[3]).is_err(), "nine back from the highest");
    assert!(feed(&mut model, 0, 17, &[3]).is_err(), "ahead");
    feed(&mut model, 0, 12, &[3]).unwrap();
    feed(&mut model, 0, 0, &[4]).unwrap();
    feed(&mut model, 0, 1, &[4]).unwrap();
}

#[test]
fn batches_that_no_model_takes_are_refused() {
    let mut model = model("");
    let span = |slot, pos, len| Span { slot, pos, len, logits: LogitRows::None };
    let words = model.shape.n_vocab as u32;
    let cases: [(&[u32], &[Span]); 7] = [
        (&[1, 1], &[span(0, 0, 1)]),
        (&[words], &[span(0, 0, 1)]),
        (&[1], &[span(2, 0, 1)]),
        (&[1, 1], &[span(0, 0, 1), span(0, 1, 1)]),
        (&[1], &[span(0, 4096, 1)]),
        (&[], &[span(0, 0, 0)]),
        (&[1; 4097], &[span(0, 0, 4096), span(1, 0, 1)]),
    ];
    for (tokens, spans) in cases {
        assert!(matches!(model.forward(&Batch { tokens, spans }, &mut []), Err(Error::Batch(_))), "{spans:?}");
    }
    let wanted = Span { logits: LogitRows::Last, ..span(0, 0, 1) };
    assert!(model.forward(&Batch { tokens: &[1], spans: &[wanted] }, &mut [0.0; 3]).is_err(), "too little room");
}

#[test]
fn numbers_fail_and_time_passes_where_the_script_says() {
    let mut model =
        model(r#"{"reply": "a b c", "nan_at": 1, "stall_ms": 60, "stall_at": 1, "prefill_per_second": 300}"#);
    let prompt = prompt(&model, Thinking::None, HI);
    let started = std::time::Instant::now();
    let first = feed(&mut model, 0, 0, &prompt).unwrap();
    assert!(started.elapsed() >= Duration::from_secs_f64(prompt.len() as f64 / 300.0));
    let mut row = vec![0.0; model.shape.n_vocab];
    let span = Span { slot: 0, pos: prompt.len() as u32, len: 1, logits: LogitRows::Last };
    let started = std::time::Instant::now();
    model.forward(&Batch { tokens: &[first], spans: &[span] }, &mut row).unwrap();
    assert!(row.iter().all(|z| z.is_nan()) && started.elapsed() >= Duration::from_millis(60));
    let b = model.tokenizer.encode_plain(" b")[0];
    assert!(feed(&mut model, 0, prompt.len() + 1, &[b]).is_ok());
}

#[test]
fn a_prompt_without_marks_whose_beginning_was_scored_is_answered_after_its_last_token() {
    let mut model = model(r#"{"reply": "Fine."}"#);
    let prompt = model.tokenizer.encode_plain("say it, once more");
    let (before, last) = prompt.split_at(prompt.len() - 1);
    let mut rows = vec![0.0; model.shape.n_vocab * before.len()];
    let span = Span { slot: 0, pos: 0, len: before.len() as u32, logits: LogitRows::All };
    model.forward(&Batch { tokens: before, spans: &[span] }, &mut rows).unwrap();
    assert_eq!(last.len(), 1);
    assert_eq!(run(&mut model, &prompt, before.len()), "Fine.");
}
