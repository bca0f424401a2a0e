//! Files that were not finished at once.

use std::fs;
use std::io::Write;
use std::ops::ControlFlow;

use ds4_quant::{Error, Plan, Start, Target, Writer};

use crate::checkpoint::{Checkpoint, Format, options, write};

/// Stops after `n` pieces; whether it was through by then.
fn run_for(plan: &Plan, path: &std::path::Path, mut n: usize) -> (Start, bool) {
    let writer = Writer::open(plan, path).expect("opened");
    let start = writer.start();
    let outcome = writer.run(2, &mut |_, _| {
        n = n.saturating_sub(1);
        if n == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    match outcome {
        Ok(()) => (start, true),
        Err(Error::Stopped { .. }) => (start, false),
        Err(e) => panic!("{e}"),
    }
}

#[test]
fn a_file_stopped_anywhere_ends_with_the_same_bytes() {
    let c = Checkpoint::new(Format::Fp4("I8"));
    c.save();
    let plan = c.plan(&options(Target::Q2)).expect("a plan");
    let (whole, out) = (c.out("whole.gguf"), c.out("parts.gguf"));
    write(&plan, &whole).expect("written");
    for first in [1, 2, 7, 40, 63] {
        let (mut start, mut done) = run_for(&plan, &out, first);
        assert_eq!(start, Start::Fresh);
        for step in [3, 11, 1, 29, 400] {
            if done {
                break;
            }
            assert!(!out.exists(), "only a whole file has the name");
            // The process may have died while it took a note, and while it wrote bytes that no note names.
            let mut notes = fs::OpenOptions::new().append(true).open(c.out("parts.gguf.part.journal")).expect("notes");
            notes.write_all(b"7").expect("written");
            drop(notes);
            (start, done) = run_for(&plan, &out, step);
            assert_eq!(start, Start::Resumed);
        }
        assert!(done);
        assert!(fs::read(&whole).expect("a file") == fs::read(&out).expect("a file"), "first {first}");
        fs::remove_file(&out).expect("removed");
        let left = fs::read_dir(c.folder.path()).expect("a folder").count();
        assert_eq!(left, 2, "the checkpoint and the whole file");
    }
}

#[test]
fn another_recipe_or_a_changed_checkpoint_starts_again() {
    let mut c = Checkpoint::new(Format::F16);
    c.save();
    let out = c.out("m.gguf");
    run_for(&c.plan(&options(Target::Q4)).expect("a plan"), &out, 20);
    let (start, _) = run_for(&c.plan(&options(Target::Q8)).expect("a plan"), &out, 20);
    assert_eq!(start, Start::Restarted, "another recipe");
    c.tensor("embed.weight").bytes[0] ^= 1;
    c.save();
    let plan = c.plan(&options(Target::Q8)).expect("a plan");
    let (start, done) = run_for(&plan, &out, 1000);
    assert_eq!((start, done), (Start::Restarted, true), "another checkpoint");
    assert!(fs::read(&out).expect("a file") == c.convert(&options(Target::Q8)).expect("converted"));
}

#[test]
fn a_lost_or_shortened_part_starts_again() {
    let c = Checkpoint::new(Format::F16);
    c.save();
    let plan = c.plan(&options(Target::Q4)).expect("a plan");
    let (out, part) = (c.out("m.gguf"), c.out("m.gguf.part"));
    run_for(&plan, &out, 20);
    fs::OpenOptions::new().write(true).open(&part).expect("a part").set_len(100).expect("shortened");
    assert_eq!(run_for(&plan, &out, 20).0, Start::Restarted);
    fs::remove_file(&part).expect("removed");
    assert_eq!(run_for(&plan, &out, 1000), (Start::Fresh, true));
}

#[test]
fn two_writers_of_one_file_do_not_meet() {
    let c = Checkpoint::new(Format::F16);
    c.save();
    let plan = c.plan(&options(Target::Q4)).expect("a plan");
    let out = c.out("m.gguf");
    let first = Writer::open(&plan, &out).expect("opened");
    assert!(matches!(Writer::open(&plan, &out).err(), Some(Error::Busy { .. })));
    drop(first);
    assert!(Writer::open(&plan, &out).is_ok());
}

#[test]
fn any_number_of_threads_writes_the_same_bytes() {
    let c = Checkpoint::new(Format::F16);
    c.save();
    let plan = c.plan(&options(Target::Q2)).expect("a plan");
    let files: Vec<Vec<u8>> = [1, 2, 7]
        .map(|threads| {
            let out = c.out("m.gguf");
            Writer::open(&plan, &out)
                .expect("opened")
                .run(threads, &mut |_, _| ControlFlow::Continue(()))
                .expect("written");
            fs::read(&out).expect("a file")
        })
        .to_vec();
    assert!(files[0] == files[1] && files[1] == files[2]);
}
