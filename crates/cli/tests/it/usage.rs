//! Help, versions and every kind of usage error: message, code, and nothing on standard output.

use crate::program::Program;

#[test]
fn help_goes_to_standard_output_and_topics_are_known() {
    let program = Program::new();
    for args in [
        &["--help"][..],
        &["-h"],
        &["synth", "--help"],
        &["check", "-h"],
        &["logits", "-h"],
        &["compare", "-h"],
        &["eval", "-h"],
        &["check", "eval", "-h"],
        &["kv", "-h"],
        &["server", "--help"],
    ] {
        let ran = program.works(args);
        assert!(ran.out.starts_with("usage: ds4") && ran.err.is_empty(), "{args:?}: {}", ran.out);
    }
    for topic in ["steering", "kv-cache", "api", "sessions", "tools"] {
        let ran = program.works(&["--help", topic]);
        assert_eq!((ran.out, ran.err), (format!("{topic}: not in this build\n"), String::new()));
    }
    assert!(program.works(&["--help", "benchmark"]).out.starts_with("usage: ds4 bench"));
    assert!(program.works(&["--help", "evaluation"]).out.starts_with("usage: ds4 eval"));
    for topic in ["runtime", "sampling", "thinking", "commands", "diagnostics"] {
        assert!(program.works(&["--help", topic]).out.starts_with(topic), "{topic}");
    }
    assert!(program.works(&["--help=all"]).out.contains("--perplexity-file"));
    let ran = program.run(&["--help", "nonsense"]);
    assert_eq!((ran.code, ran.out.as_str()), (2, ""));
    assert!(ran.err.starts_with("ds4: unknown help topic: nonsense\nusage: ds4"), "{}", ran.err);
}

#[test]
fn the_version_names_the_commit_and_the_backends() {
    let ran = Program::new().works(&["--version"]);
    assert!(
        ran.out.starts_with("ds4 ")
            && ran.out.contains("commit ")
            && ran.out.contains("backends: cpu, cuda, vulkan, metal"),
        "{}",
        ran.out
    );
}

#[test]
fn every_usage_error_has_its_message_and_exits_with_two() {
    let program = Program::new();
    let cases: &[(&[&str], &str)] = &[
        (&["--frob"], "ds4: unknown option: --frob\ntry 'ds4 --help'\n"),
        (&["frob"], "ds4: unknown command: frob\ntry 'ds4 --help'\n"),
        (&["--raw", "word"], "ds4: unexpected argument: word\ntry 'ds4 --help'\n"),
        (&["--ctx"], "ds4: missing value for --ctx\n"),
        (&["--ctx", "abc"], "ds4: invalid value for --ctx: abc\n"),
        (&["--ctx=0"], "ds4: invalid value for --ctx: 0: expected 1..4294967295\n"),
        (&["--ctx=-5"], "ds4: invalid value for --ctx: -5\n"),
        (&["--temp", "nan"], "ds4: invalid value for --temp: nan\n"),
        (&["--temp", "100.5"], "ds4: invalid value for --temp: 100.5: expected 0..100\n"),
        (&["--top-p", "-0.1"], "ds4: invalid value for --top-p: -0.1: expected 0..1\n"),
        (
            &["--seed", "18446744073709551616"],
            "ds4: invalid value for --seed: 18446744073709551616: expected at least 0\n",
        ),
        (&["--logprobs-top-k", "129"], "ds4: invalid value for --logprobs-top-k: 129: expected 1..128\n"),
        (&["--raw=1", "-p", "a"], "ds4: --raw takes no value: 1\n"),
        (&["--backend", "tpu"], "ds4: invalid value for --backend: tpu: this build has cpu, cuda, vulkan, metal\n"),
        (
            &["--cuda", "--quality", "-p", "a"],
            "ds4: --quality and --cuda cannot be combined: a card holds cache rows as stored codes\n",
        ),
        (&["--device", "1", "-p", "a"], "ds4: --device needs --cuda, --vulkan or --metal\n"),
        (&["--cuda", "--device", "x"], "ds4: invalid value for --device: x\n"),
        (&["--mtp-draft", "2"], "ds4: --mtp-draft is not supported by this build\n"),
        (&["--ssd-streaming"], "ds4: --ssd-streaming is not supported by this build\n"),
        (&["agent"], "ds4: agent is not supported by this build\n"),
        (&["-p", "a", "-p", "b"], "ds4: specify only one prompt source\n"),
        (&["-p", "a", "--prompt-file", "b"], "ds4: specify only one prompt source\n"),
        (&["--prompt-file", "no.txt"], "ds4: cannot open prompt file: no.txt: No such file or directory\n"),
        (&["--dump-tokens"], "ds4: --dump-tokens needs a prompt: use -p or --prompt-file\n"),
        (
            &["--inspect", "--dump-tokens"],
            "ds4: --inspect and --dump-tokens cannot be combined: run ds4 once for each\n",
        ),
        (
            &["--perplexity-file", "f", "-p", "a"],
            "ds4: --perplexity-file takes no prompt: leave out -p and --prompt-file\n",
        ),
        (&["--json", "--stream-json", "-p", "a"], "ds4: --json and --stream-json cannot be combined\n"),
        (
            &["check", "nonsense", "f"],
            "ds4: unknown kind of check: nonsense: expected tokenizer, render, parse, logits, device or eval\n",
        ),
        (
            &["check", "device", "--backend", "tpu"],
            "ds4: invalid value for --backend: tpu: this build has cpu, cuda, vulkan, metal\n",
        ),
        (&["check", "device", "--device", "1"], "ds4: --device needs --cuda, --vulkan or --metal\n"),
        (&["check", "device", "--part", "x"], "ds4: invalid value for --part: x: expected all, stages or models\n"),
        (&["check", "parse"], "ds4: check needs at least one file\n"),
        (&["synth"], "ds4: synth needs a file to write: ds4 synth OUT\n"),
        (
            &["synth", "f", "--preset", "x"],
            "ds4: invalid value for --preset: x: expected one of flash, pro, mini, tiny\n",
        ),
        (
            &["synth", "f", "--mtp", "--quant", "q4"],
            "ds4: --mtp and --quant cannot be combined: a support file has storage types of its own\n",
        ),
        (&["logits"], "ds4: logits needs --ids FILE\n"),
        (&["compare", "a"], "ds4: compare needs two files, got 1\n"),
        (&["bench", "--frob"], "ds4-bench: unknown option: --frob\ntry 'ds4 bench --help'\n"),
    ];
    for (args, message) in cases {
        let ran = program.run(args);
        assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (2, "", *message), "{args:?}");
    }
}

#[test]
fn a_context_beyond_the_model_is_a_usage_error() {
    let ran = Program::new().run(&["-p", "a", "--ctx", "999999", "--quiet"]);
    assert_eq!(ran.code, 2);
    assert_eq!(ran.err, "ds4: invalid value for --ctx: 999999: the model was made for at most 32768\n");
}

#[test]
fn the_doctor_names_what_is_there_and_what_would_be_taken() {
    let ran = Program::new().run(&["doctor"]);
    let starts: Vec<&str> = ran.out.lines().map(|line| line.split(' ').next().unwrap_or_default()).collect();
    assert_eq!(
        (ran.code, &starts[..2], starts.last()),
        (0, &["cpu", "cuda"][..], Some(&"a")),
        "{}{}",
        ran.out,
        ran.err
    );
    assert!(ran.out.contains("\na model file runs on: "), "{}", ran.out);
}

#[test]
fn a_gpu_that_is_asked_for_and_not_there_is_one_line() {
    let name = if cfg!(target_vendor = "apple") { "vulkan" } else { "metal" };
    let ran = Program::new().run(&["-p", "hi", "--backend", name]);
    let end = ran.err.trim_end().ends_with(": use --cpu");
    assert_eq!((ran.code, ran.out.as_str(), ran.err.lines().count(), end), (3, "", 1, true), "{}", ran.err);
}

#[test]
fn a_card_that_is_asked_for_and_not_there_is_one_line() {
    let program = Program::new();
    for args in [&["--cuda", "-p", "hi"][..], &["check", "device", "--cuda"], &["server", "--cuda", "--port", "0"]] {
        let ran = program.run(args);
        let why = ran.err.rsplit("device cuda:0: ").next().unwrap_or_default();
        assert_eq!((ran.code, ran.out.as_str(), ran.err.lines().count()), (3, "", 1), "{args:?}: {}", ran.err);
        assert!(why.starts_with("no NVIDIA driver found: ") || why.starts_with("the driver "), "{}", ran.err);
    }
}

#[test]
fn without_a_card_nobody_hears_of_cards() {
    let program = Program::new();
    let model = crate::program::fixture("tiny/tiny-b.gguf");
    let ran = program.works(&["-m", &model, "-p", "a", "-n", "2", "-c", "64", "--no-lock"]);
    assert!(ran.err.contains("(context 64, backend cpu)\n") && !ran.err.contains("cuda"), "{}", ran.err);
}
