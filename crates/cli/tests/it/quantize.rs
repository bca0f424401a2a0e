//! `ds4 quantize`: its command line and its errors. What it writes is tested where it is made, in the quant crate.

use crate::program::Program;

#[test]
fn a_command_line_that_cannot_be_is_told_before_any_work() {
    let program = Program::new();
    for (args, says) in [
        (&[][..], "quantize needs a checkpoint: ds4 quantize FOLDER OUT"),
        (&["hf"], "quantize needs a file to write: ds4 quantize FOLDER OUT"),
        (&["hf", "o", "x"], "unexpected argument: x"),
        (&["hf", "o", "--quant", "q3"], "invalid value for --quant: q3: expected one of f16, q8, q4, mxfp4, q2"),
        (
            &["hf", "o", "--type", "attn=f16"],
            "invalid value for --type: attn=f16: expected a family: embedding, output,",
        ),
        (&["hf", "o", "--type", "hc"], "invalid value for --type: hc: expected FAMILY=TYPE"),
        (&["hf", "o", "--type", "hc=i32"], "invalid value for --type: hc=i32: expected a type: f32, f16, q8_0,"),
        (&["hf", "o", "--tensor", "=f16"], "invalid value for --tensor: =f16: expected PREFIX=TYPE"),
        (&["hf", "o", "--imatrix-strict"], "--imatrix-strict needs --imatrix FILE"),
        (&["hf", "--compare-tensor", "x"], "--compare-tensor needs a file: --with FILE"),
        (&["hf", "--with", "x"], "--with needs a tensor: --compare-tensor NAME"),
    ] {
        let ran = program.run(&[&["quantize"], args].concat());
        assert!(ran.code == 2 && ran.err.starts_with(&format!("ds4: {says}")), "{args:?}: {} {}", ran.code, ran.err);
    }
    assert!(program.works(&["quantize", "--help"]).out.contains("--compare-tensor NAME"));
}

#[test]
fn a_folder_that_is_no_checkpoint_is_one_line_and_leaves_nothing() {
    let program = Program::new();
    let ran = program.run(&["quantize", "nowhere", "o.gguf"]);
    let message =
        "ds4: cannot quantize: nowhere: folder: found nothing, expected a folder with safetensors and config.json\n";
    assert_eq!((ran.code, ran.err.as_str()), (1, message));
    std::fs::create_dir(program.path("hf")).expect("a folder");
    let ran = program.run(&["quantize", "hf", "o.gguf", "--dry-run"]);
    let message =
        "ds4: cannot quantize: hf: folder: found no model.safetensors.index.json, expected it, or model.safetensors\n";
    assert_eq!((ran.code, ran.err.as_str()), (1, message));
    program.write("hf/model.safetensors", [255; 64]);
    let ran = program.run(&["quantize", "hf", "o.gguf"]);
    assert!(ran.code == 1 && ran.err.contains("hf/model.safetensors: header: found a length of"), "{}", ran.err);
    assert!(!program.path("o.gguf").exists() && !program.path("o.gguf.part").exists());
}
