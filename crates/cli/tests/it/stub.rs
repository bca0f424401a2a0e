//! Answers from a script, through the same path as the model's.

use crate::program::Program;

#[test]
fn without_a_script_the_stub_repeats_what_it_is_told() {
    let ran = Program::new().works(&["-p", "hi", "--backend", "stub", "--quiet"]);
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("I was told: hi\nYou said: hi\n", ""));
}

#[test]
fn a_script_answers_at_any_temperature_and_beyond_the_models_context() {
    let program = Program::new();
    program.write("script.json", r#"{"when": "time", "reply": "<think>No clock.</think>Late."} {"reply": "Eh?"}"#);
    let stub = ["--backend", "stub", "--stub-script", "script.json", "--quiet", "--hide-thinking"];
    let ask = |more: &[&str]| program.works(&[&stub, more].concat()).out;
    assert_eq!(ask(&["-p", "What time is it?", "--temp", "2", "-c", "500000"]), "Late.\n");
    assert_eq!(ask(&["-p", "What else?", "--nothink"]), "Eh?\n");
    assert_eq!(ask(&["-p", "time", "-n", "1", "--nothink"]), "L\n", "cut after one token");
}

#[test]
fn a_script_that_cannot_be_played_ends_the_program_before_it_answers() {
    let program = Program::new();
    program.write("bad.json", r#"{"wen": "a", "reply": "b"}"#);
    let ran = program.run(&["-p", "hi", "--backend", "stub", "--stub-script", "bad.json"]);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    let said = "ds4: cannot use script: bad.json: rule 1: unknown field `wen`, expected one of ";
    assert!(ran.err.lines().last().is_some_and(|line| line.starts_with(said)), "{}", ran.err);
    let ran = program.run(&["-p", "hi", "--backend", "stub", "--stub-script", "none.json"]);
    assert!(ran.err.contains("cannot open script: none.json: ") && ran.code == 1, "{}", ran.err);
}

#[test]
fn logits_that_are_no_numbers_end_the_answer_with_an_error() {
    let program = Program::new();
    program.write("script.json", r#"{"reply": "one two three four", "nan_at": 2}"#);
    let ran = program.run(&["-p", "hi", "--nothink", "--backend", "stub", "--stub-script", "script.json", "--quiet"]);
    assert_eq!((ran.code, ran.out.trim_end()), (1, "one two"));
    assert_eq!(ran.err, "ds4: generation failed: logit of token 0 is NaN, expected a finite number\n");
}
