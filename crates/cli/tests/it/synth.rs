//! `ds4 synth`: files that the other commands take.

use crate::program::Program;

#[test]
fn a_small_model_is_written_opened_and_repeated() {
    let program = Program::new();
    for file in ["a.gguf", "b.gguf"] {
        program.works(&["synth", file, "--preset", "tiny", "--quant", "q4", "--seed", "5", "--quiet"]);
    }
    assert_eq!(program.read("a.gguf"), program.read("b.gguf"));
    program.works(&["synth", "c.gguf", "--preset", "tiny", "--quant", "q4", "--seed", "6", "--quiet"]);
    assert_ne!(program.read("a.gguf"), program.read("c.gguf"));
    let ran = program.works(&["-m", "a.gguf", "-p", "a", "-n", "3", "-c", "128", "--quiet"]);
    assert!(ran.out.ends_with('\n'));
}

#[test]
fn layers_and_experts_can_be_chosen() {
    let program = Program::new();
    program.works(&["synth", "m.gguf", "--preset", "tiny", "--layers", "5", "--experts", "6", "--quiet"]);
    let out = program.works(&["--inspect", "--json", "-m", "m.gguf"]).out;
    let value: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((value["layers"].as_u64(), value["experts"].as_u64()), (Some(5), Some(6)));
}

#[test]
fn the_whole_model_as_a_sparse_file_is_inspected_without_reading_it() {
    let program = Program::new();
    program.works(&["synth", "flash.gguf", "--preset", "flash", "--sparse"]);
    assert!(program.path("flash.gguf").metadata().expect("a file").len() > 80_000_000_000);
    let started = std::time::Instant::now();
    let out = program.works(&["--inspect", "-m", "flash.gguf"]).out;
    assert!(started.elapsed().as_secs() < 5);
    assert!(out.contains("1328 tensors") && out.contains("layers        43 "), "{out}");
    let ran = program.works(&["--dump-tokens", "-p", "Hello", "-m", "flash.gguf"]);
    assert_eq!(ran.out, "0 19923 \"Hello\"\ntokens=1\n");
}

#[test]
fn a_support_file_holds_the_draft_block_and_is_no_model() {
    let program = Program::new();
    program.works(&["synth", "mtp.gguf", "--preset", "tiny", "--mtp", "--quiet"]);
    let bytes = program.read("mtp.gguf");
    let has = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
    assert!(has(b"deepseek4_mtp_support") && has(b"mtp.0.e_proj.weight") && !has(b"blk.0."));
    let ran = program.run(&["-m", "mtp.gguf", "-p", "a"]);
    let message = "ds4: mtp.gguf: general.architecture: found deepseek4_mtp_support, expected deepseek4\n";
    assert_eq!((ran.code, ran.err.as_str()), (1, message));
    assert!(program.works(&["synth", "--help"]).out.contains("instead of the main model"));
}

#[test]
fn a_support_file_goes_beside_its_model_and_changes_no_answer() {
    let program = Program::new();
    program.works(&["synth", "main.gguf", "--preset", "tiny", "--quiet"]);
    program.works(&["synth", "mtp.gguf", "--preset", "tiny", "--mtp", "--quiet"]);
    let ask = ["-m", "main.gguf", "-p", "Hello", "-n", "8", "-c", "256", "--temp", "0", "--no-lock", "--quiet"];
    let alone = program.works(&ask).out;
    assert_eq!(program.works(&[&ask[..], &["--mtp", "mtp.gguf"]].concat()).out, alone);
    for (file, message) in [
        ("main.gguf", "ds4: main.gguf: general.architecture: found deepseek4, expected deepseek4_mtp_support\n"),
        ("no.gguf", "ds4: cannot open support file: no.gguf: No such file or directory\n"),
    ] {
        let ran = program.run(&[&ask[..], &["--mtp", file]].concat());
        assert_eq!((ran.code, ran.err.as_str()), (1, message));
    }
}
