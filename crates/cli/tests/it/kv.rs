//! `ds4 kv` on directories that no server has seen.

use crate::program::Program;

#[test]
fn an_empty_store_lists_nothing_and_is_sound() {
    let program = Program::new();
    let dir = program.path("store");
    std::fs::create_dir(&dir).expect("a directory");
    let dir = dir.to_str().expect("a name");
    assert_eq!(program.works(&["kv", "ls", dir]).out, "0 checkpoints, 0 segments, 0 bytes\n");
    assert_eq!(program.works(&["kv", "ls", dir, "--json"]).out, "[]\n");
    assert_eq!(program.works(&["kv", "verify", dir]).out, "0 problems\n");
    assert_eq!(program.works(&["kv", "rm", dir, "--all"]).out, "0 files, 0 bytes removed\n");
    let ran = program.run(&["kv", "show", dir, "ab"]);
    assert_eq!((ran.code, ran.err.as_str()), (1, "ds4: no object whose name begins with ab\n"));
}

#[test]
fn what_is_no_object_is_named_and_removed() {
    let program = Program::new();
    let name = format!("{}.tail", "0123456789abcdef".repeat(4));
    std::fs::create_dir(program.path("store")).expect("a directory");
    program.write(&format!("store/{name}"), "nothing");
    program.write("store/letter.txt", "somebody else's");
    let ran = program.run(&["kv", "verify", "store"]);
    assert_eq!((ran.code, ran.out), (1, format!("{name}: a header cut short\n1 problems\n")));
    assert_eq!(program.works(&["kv", "rm", "store", "0123"]).out, "1 files, 7 bytes removed\n");
    assert_eq!(program.works(&["kv", "verify", "store"]).out, "0 problems\n");
    assert_eq!(program.read("store/letter.txt"), b"somebody else's");
}

#[test]
fn words_that_do_not_fit_are_usage_errors() {
    let program = Program::new();
    for (args, message) in [
        (&["kv"][..], "ds4: kv needs one of ls, show, rm, verify\n"),
        (&["kv", "ls"], "ds4: kv needs a directory\n"),
        (&["kv", "ls", "d", "x"], "ds4: kv ls and kv verify take no names\n"),
        (&["kv", "rm", "d"], "ds4: kv rm needs names, or --all\n"),
        (&["kv", "show", "d", "--all"], "ds4: --all is for rm, --json for ls\n"),
        (&["kv", "ls", "d", "--frob"], "ds4: unknown option: --frob\ntry 'ds4 kv --help'\n"),
    ] {
        let ran = program.run(args);
        assert_eq!((ran.code, ran.err.as_str()), (2, message), "{args:?}");
    }
    let ran = program.run(&["kv", "ls", "missing"]);
    assert!(ran.code == 1 && ran.err.starts_with("ds4: kv store: missing: No such file"), "{}", ran.err);
}
