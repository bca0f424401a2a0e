//! Importance matrices: lookup, strictness, records, damage.

use std::fs;

use ds4_gguf::{DType, Gguf};
use ds4_quant::{Options, Target, blocks};

use crate::checkpoint::{Checkpoint, EXPERTS, Format, options};

/// Name, calls and values.
type Entry = (String, i32, Vec<f32>);

/// A `.dat` file; `trailer` is its chunk count and data set.
fn imatrix(entries: &[Entry], trailer: Option<(i32, &str)>) -> Vec<u8> {
    let mut out = (entries.len() as i32).to_le_bytes().to_vec();
    for (name, calls, values) in entries {
        out.extend((name.len() as i32).to_le_bytes());
        out.extend(name.as_bytes());
        out.extend(calls.to_le_bytes());
        out.extend((values.len() as i32).to_le_bytes());
        out.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    }
    if let Some((chunks, dataset)) = trailer {
        out.extend(chunks.to_le_bytes());
        out.extend((dataset.len() as i32).to_le_bytes());
        out.extend(dataset.as_bytes());
    }
    out
}

fn packed(e: usize, i: usize) -> f32 {
    1.0 + ((e * 7 + i * 13) % 29) as f32
}

fn entries() -> Vec<Entry> {
    let values: Vec<f32> = (0..EXPERTS as usize).flat_map(|e| (0..256).map(move |i| 2.0 * packed(e, i))).collect();
    let name = |layer: u32, part: &str| format!("blk.{layer}.ffn_{part}_exps.weight");
    (0..3).flat_map(|layer| ["gate", "up", "down"].map(|part| (name(layer, part), 2, values.clone()))).collect()
}

fn with(c: &Checkpoint, bytes: &[u8], strict: bool) -> Options {
    let path = c.out("imatrix.dat");
    fs::write(&path, bytes).expect("written");
    Options { imatrix: Some(path), strict, ..options(Target::Q2) }
}

#[test]
fn each_expert_is_weighed_by_its_own_columns() {
    let c = Checkpoint::new(Format::F16);
    c.save();
    let o = with(&c, &imatrix(&entries(), Some((9, "talk"))), true);
    let file = Gguf::from_bytes("out", c.convert(&o).expect("converted").into()).expect("a file");
    for (part, matrix, dtype) in [("gate", "w1", DType::Iq2Xxs), ("down", "w2", DType::Q2K)] {
        let tensor = file.tensor(&format!("blk.1.ffn_{part}_exps.weight")).expect("there");
        for e in 0..EXPERTS as usize {
            let v: Vec<f32> = (0..256).map(|i| packed(e, i)).collect();
            let values = &c.values[&format!("layers.1.ffn.experts.{e}.{matrix}.weight")];
            let mut expected = vec![0; tensor.row_bytes()];
            blocks::encode_row(dtype, &values[256..512], Some(&v), &mut expected);
            assert_eq!(tensor.row(e * 256 + 1), expected, "{part} {e}");
        }
    }
    let meta = file.metadata();
    assert_eq!(meta.str("quantize.imatrix.file").expect("text"), "imatrix.dat");
    assert_eq!(meta.u64("quantize.imatrix.entries_count").expect("a number"), 9);
    assert_eq!(meta.str("quantize.imatrix.dataset").expect("text"), "talk");
    assert_eq!(meta.u64("quantize.imatrix.chunks_count").expect("a number"), 9);
}

#[test]
fn an_entry_of_one_expert_goes_before_the_packed_one() {
    let c = Checkpoint::new(Format::F16);
    c.save();
    let v: Vec<f32> = (0..256).map(|i| 1.0 / (1 + i) as f32).collect();
    let mut all = entries();
    all.push(("blk.0.ffn_down_exps.weight.expert.1".to_owned(), 0, v.clone()));
    let o = with(&c, &imatrix(&all, None), true);
    let file = Gguf::from_bytes("out", c.convert(&o).expect("converted").into()).expect("a file");
    let mut expected = vec![0; 84];
    let values = &c.values["layers.0.ffn.experts.1.w2.weight"];
    blocks::encode_row(DType::Q2K, &values[..256], Some(&v), &mut expected);
    assert_eq!(file.tensor("blk.0.ffn_down_exps.weight").expect("there").row(256), expected);
}

#[test]
fn a_missing_entry_is_an_error_only_in_strict_mode() {
    let c = Checkpoint::new(Format::F16);
    c.save();
    let mut all = entries();
    all.remove(5);
    let bytes = imatrix(&all, None);
    assert!(c.plan(&with(&c, &bytes, false)).is_ok());
    let message = c.plan(&with(&c, &bytes, true)).err().expect("refused").to_string();
    assert_eq!(
        message,
        "tensor blk.1.ffn_down_exps.weight: no imatrix entry for layers.1.ffn.experts.0.w2.weight, expected one in strict mode"
    );
}

#[test]
fn damaged_files_are_refused_in_one_line() {
    let c = Checkpoint::new(Format::F16);
    c.save();
    let good = imatrix(&entries(), Some((9, "talk")));
    let changed = |change: fn(&mut Vec<Entry>)| {
        let mut all = entries();
        change(&mut all);
        imatrix(&all, None)
    };
    let twice = changed(|all| all.push(all[0].clone()));
    let short = changed(|all| all[0].2.truncate(100));
    let nan = changed(|all| all[0].2[3] = f32::NAN);
    let negative = changed(|all| all[0].2[3] = -1.0);
    for (bytes, says) in [
        (Vec::new(), "entry count: found the end of the file"),
        (good[..good.len() - 2].to_vec(), "data set name: found the end of the file"),
        (good[..3000].to_vec(), "found the end of the file, expected more of it (is it truncated?)"),
        (vec![255; 64], "entry count: found -1, expected a count"),
        ([&i32::MAX.to_le_bytes()[..], &i32::MAX.to_le_bytes()].concat(), "name of entry 0: found 2147483647 bytes"),
        (twice, "found a second entry, expected one"),
        (short, "found 100 values, expected 256 or 768"),
        (nan, "found NaN at 3, expected a finite number"),
        (negative, "found -0.5 at 3, expected a finite number that is not negative"),
    ] {
        let message = c.plan(&with(&c, &bytes, true)).err().expect(says).to_string();
        assert!(message.contains(says) && !message.contains('\n'), "{message}, expected {says}");
    }
    for end in (0..good.len() - 20).step_by(97) {
        assert!(c.plan(&with(&c, &good[..end], true)).is_err(), "cut at {end}");
    }
}
