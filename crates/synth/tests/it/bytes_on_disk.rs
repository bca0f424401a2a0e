//! The same recipe is the same bytes: in memory, on disk, for any number of threads; and nothing half-written stays.

use std::{fs, ops::ControlFlow, path::Path};

use ds4_synth::{Error, Recipe, build, write};

use crate::recipe;

fn on_disk(recipe: &Recipe, threads: usize) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.gguf");
    write(recipe, &path, threads, false, &mut |_, _| ControlFlow::Continue(())).unwrap();
    assert_eq!(names(folder.path()), ["a.gguf"]);
    fs::read(path).unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn bytes_do_not_depend_on_threads_or_on_where_they_go() {
    for recipe in [recipe("tiny"), recipe("tiny").mtp(), recipe("mini")] {
        let whole = build(&recipe).unwrap();
        for threads in [0, 1, 2, 7] {
            assert!(on_disk(&recipe, threads) == whole, "{threads} threads");
        }
    }
}

#[test]
fn another_seed_is_another_file_of_the_same_layout() {
    let (a, b) = (recipe("tiny"), recipe("tiny").seed(1));
    let (first, second) = (build(&a).unwrap(), build(&b).unwrap());
    let start = a.layout().unwrap().data_start() as usize;
    assert!(first[..start] == second[..start] && first[start..] != second[start..]);
}

#[test]
fn a_tensor_keeps_its_bytes_when_layers_are_added() {
    let (short, long) = (crate::built(&recipe("tiny")), crate::built(&recipe("tiny").layers(4)));
    for name in ["output.weight", "blk.2.ffn_down_exps.weight", "blk.1.attn_norm.weight"] {
        assert_eq!(short.tensor(name).unwrap().data, long.tensor(name).unwrap().data, "{name}");
    }
}

#[test]
fn a_pieces_boundary_leaves_no_mark() {
    // Wide enough for several pieces per tensor, the last of them short.
    let mut wide = recipe("tiny").layers(1);
    wide.shape.n_embd = 1024 + 256;
    wide.shape.ff_dim = 1024;
    let file = crate::built(&wide);
    let t = file.tensor("blk.0.ffn_down_exps.weight").unwrap();
    assert!(t.data.len() > 1 << 20 && !t.data.len().is_multiple_of(1 << 20));
    let mut row = vec![0.0; t.n_in()];
    for i in 0..t.n_rows() {
        ds4_gguf::dequant::row(t.dtype, t.row(i), &mut row);
        let power = row.iter().map(|v| v * v).sum::<f32>();
        // Four blocks whose scales, squared, lie between 0.34 and 1.86.
        assert!((0.3..2.1).contains(&power), "row {i}: {power}");
    }
}

#[test]
fn progress_ends_with_the_whole_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut seen = Vec::new();
    let recipe = recipe("mini");
    write(&recipe, &folder.path().join("a"), 2, false, &mut |done, total| {
        seen.push((done, total));
        ControlFlow::Continue(())
    })
    .unwrap();
    let total = recipe.layout().unwrap().file_len();
    assert_eq!((seen[0], *seen.last().unwrap()), ((0, total), (total, total)));
    assert!(seen.is_sorted() && seen.len() > 50);
}

#[test]
fn a_writer_that_is_stopped_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let stop_at = |done, _| if done > 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    let outcome = write(&recipe("mini"), &folder.path().join("a"), 2, false, &mut { stop_at });
    assert!(matches!(outcome, Err(Error::Stopped { .. })));
    assert!(names(folder.path()).is_empty());
}

#[test]
fn a_place_that_cannot_be_written_is_named_and_left_clean() {
    let folder = tempfile::tempdir().unwrap();
    let go = |path: &Path| write(&recipe("tiny"), path, 1, false, &mut |_, _| ControlFlow::Continue(())).unwrap_err();
    let absent = folder.path().join("absent/a.gguf");
    assert!(go(&absent).to_string().starts_with(&format!("{}: ", absent.display())));
    // A folder stands where the file should go: found out only when the complete file is renamed.
    let taken = folder.path().join("taken");
    fs::create_dir(&taken).unwrap();
    assert!(matches!(go(&taken), Error::Io { .. }));
    assert_eq!(names(folder.path()), ["taken"]);
}
