//! One model process per device: who holds it, who is refused, who need not ask.

use std::fs::{File, OpenOptions};
use std::io::Write;

use crate::program::{Program, fixture};

/// Takes the device as another program would, in the folder where the program under test looks for it.
fn hold(program: &Program, folder: &str, line: &str) -> File {
    std::fs::create_dir_all(program.path(folder)).expect("a folder");
    let path = program.path(folder).join("ds4-cpu.lock");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(path).expect("a lock file");
    file.write_all(line.as_bytes()).expect("written");
    file.try_lock().expect("free");
    file
}

fn ask<'a>(model: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["-m", model, "-p", "a", "-n", "2", "-c", "64", "--quiet"], more].concat()
}

#[test]
fn a_second_program_is_refused_and_told_who_holds_the_device() {
    let program = Program::new();
    let model = fixture("tiny/tiny-b.gguf");
    let held = hold(&program, "home", "4711 ds4-server\n");
    let ran = program.run(&ask(&model, &[]));
    let message = "ds4: device cpu is in use by ds4-server (pid 4711): stop it or pass --no-lock\n";
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (1, "", message));
    program.works(&ask(&model, &["--no-lock"]));
    drop(held);
    program.works(&ask(&model, &[]));
    let line = String::from_utf8(program.read("home/ds4-cpu.lock")).expect("text");
    let pid = line.strip_suffix(" ds4\n").expect("a program's name");
    assert!(pid.parse::<u32>().is_ok(), "{line:?}");
}

#[test]
fn a_holder_that_left_no_name_or_a_strange_one_is_another_program() {
    let program = Program::new();
    let model = fixture("tiny/tiny-b.gguf");
    for line in ["", "x", "1 \x1b[31mred", "-1 ds4", "99999999999 ds4"] {
        let _held = hold(&program, "home", line);
        let ran = program.run(&ask(&model, &[]));
        let message = "ds4: device cpu is in use by another program: stop it or pass --no-lock\n";
        assert_eq!((ran.code, ran.err.as_str()), (1, message), "{line:?}");
    }
}

#[test]
fn the_runtime_folder_comes_before_the_state_folder() {
    let program = Program::new();
    let model = fixture("tiny/tiny-b.gguf");
    let _held = hold(&program, "run", "1 ds4\n");
    program.works(&ask(&model, &[]));
    let mut command = program.command(&ask(&model, &[]));
    let output = command.env("XDG_RUNTIME_DIR", program.path("run")).output().expect("the program runs");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

#[test]
fn the_miniature_and_the_diagnostics_take_no_lock() {
    let program = Program::new();
    let model = fixture("tiny/tiny-b.gguf");
    let _held = hold(&program, "home", "1 ds4\n");
    program.write("ids.json", "[5, 6]");
    program.works(&["-p", "a", "-n", "2", "-c", "64", "--quiet"]);
    program.works(&["--inspect", "-m", &model]);
    program.works(&["--dump-tokens", "-p", "a", "-m", &model]);
    program.works(&["--dump-logits", "l.json", "-p", "a", "-m", &model, "-c", "64"]);
    program.works(&["logits", "-m", &model, "--ids", "ids.json", "--out", "l.f32"]);
}

#[test]
fn a_folder_that_cannot_be_written_to_is_no_error() {
    let program = Program::new();
    let model = fixture("tiny/tiny-b.gguf");
    // A file where the folder should be.
    program.write("home", "");
    let ran = program.works(&ask(&model, &[]));
    assert_eq!(ran.err, "");
}
