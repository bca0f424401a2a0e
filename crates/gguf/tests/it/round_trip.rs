//! What a layout writes, the reader reads.

use std::io::Write;

use ds4_gguf::{DType, Dims, Gguf, Layout, OwnedValue, Value};

use crate::{fill, open, sample};

#[test]
fn every_kind_of_record_comes_back() {
    let file = open(&sample()).unwrap();
    let m = file.metadata();
    assert_eq!(m.iter().len(), 11);
    assert_eq!(m.str("general.architecture").unwrap(), "deepseek4");
    assert_eq!((m.u32("a.u32").unwrap(), m.u64("a.u32").unwrap(), m.f32("a.u32").unwrap()), (7, 7, 7.0));
    assert!(matches!(m.get("a.i32"), Some(Value::I32(-7))));
    assert_eq!((m.f32("a.i32").unwrap(), m.f32("a.f32").unwrap(), m.f32("a.f64").unwrap()), (-7.0, 1.5, 2.5));
    assert_eq!(m.u64("a.u64").unwrap(), 1 << 40);
    assert!(m.bool("a.bool").unwrap());
    assert_eq!(m.u32s("a.u32s").unwrap(), [1, 2, 3]);
    assert_eq!(m.i32s("a.u32s").unwrap(), [1, 2, 3]);
    assert_eq!(m.i32s("a.i32s").unwrap(), [0, -1]);
    assert_eq!(m.f32s("a.f32s").unwrap(), [0.5, 10.0]);
    let strings = m.strings("a.strings").unwrap();
    assert_eq!(strings.len(), 3);
    assert_eq!(strings.collect::<Vec<_>>(), ["Ġ t", "", "｜DSML｜"]);
    assert_eq!(m.iter().next().unwrap().0, "general.architecture");
}

#[test]
fn tensors_are_slices_of_the_file() {
    let bytes = sample();
    let file = open(&bytes).unwrap();
    assert_eq!(file.tensors().len(), 3);
    let exps = file.tensor("exps.weight").unwrap();
    assert_eq!((exps.dtype, exps.dims, exps.n_in(), exps.n_rows()), (DType::Iq2Xxs, Dims::from([256, 2, 3]), 256, 6));
    assert_eq!(exps.row_bytes(), 66);
    assert_eq!(exps.row(5)[0], (5 * 66 % 251) as u8);
    let info = &file.tensors()[2];
    assert_eq!(info.bytes as usize, exps.data.len());
    assert_eq!(exps.data, bytes[info.offset as usize..][..info.bytes as usize]);
    assert_eq!(info.offset % 32, 0);
    assert!(file.tensor("blk.0.nothing").is_none());
    assert_eq!(file.file_bytes(), bytes.len() as u64);
    assert_eq!(file.data_start() + 32, file.tensors()[1].offset, "12 bytes of floats, padded to 32");
}

#[test]
fn data_is_aligned_in_memory_wherever_the_bytes_came_from() {
    let mut shifted = vec![0; 3];
    shifted.extend(sample());
    let file = Gguf::from_bytes("t", bytes::Bytes::from(shifted).slice(3..)).unwrap();
    assert!(file.tensor("norm.weight").unwrap().data.as_ptr().addr().is_multiple_of(8));
}

#[test]
fn a_mapped_file_reads_like_one_in_memory() {
    let mut on_disk = tempfile::NamedTempFile::new().unwrap();
    on_disk.write_all(&sample()).unwrap();
    let file = Gguf::open(on_disk.path()).unwrap();
    let kept = file.tensor("table.weight").unwrap();
    drop((file, on_disk));
    assert_eq!(kept.row(1)[0], 24, "a tensor keeps the mapping alive");
}

#[test]
fn other_alignments_are_written_down_and_kept() {
    for alignment in [8, 64, 4096] {
        let tensors =
            vec![("a".to_owned(), DType::F16, Dims::from([1])), ("b".to_owned(), DType::Mxfp4, Dims::from([64, 3]))];
        let layout = Layout::new(Vec::new(), tensors, alignment).unwrap();
        let file = open(&fill(&layout)).unwrap();
        assert_eq!(file.metadata().u32("general.alignment").unwrap(), alignment);
        for (i, info) in file.tensors().iter().enumerate() {
            assert_eq!((info.offset, info.bytes), (layout.offset(i), layout.tensor_bytes(i)));
            assert_eq!(info.offset % u64::from(alignment), 0);
        }
        assert_eq!(file.file_bytes(), layout.file_len());
        assert_eq!(layout.file_len() % u64::from(alignment), 0);
    }
}

#[test]
fn an_empty_file_is_a_header() {
    let layout = Layout::new(Vec::new(), Vec::new(), 32).unwrap();
    assert_eq!((layout.file_len(), layout.is_empty()), (32, true));
    assert!(open(layout.header()).unwrap().tensors().is_empty());
    assert!(open(&layout.header()[..24]).is_ok(), "padding before no data may be missing");
}

#[test]
fn layouts_that_no_file_can_have_are_refused() {
    let tensor = |dims: &[u64], dtype| vec![("t".to_owned(), dtype, Dims::new(dims).unwrap())];
    let refused = |metadata, tensors, alignment| Layout::new(metadata, tensors, alignment).unwrap_err().to_string();
    let key = |v: OwnedValue| ("general.alignment".to_owned(), v);
    for (found, want) in [
        (
            refused(vec![], tensor(&[33], DType::Q8_0), 32),
            "layout: tensor t: found dims [33], expected rows of whole Q8_0 blocks of 32",
        ),
        (
            refused(vec![], tensor(&[0], DType::F32), 32),
            "layout: tensor t: found dims [0], expected from 1 to 2^64 elements",
        ),
        (
            refused(vec![], tensor(&[1 << 63], DType::F32), 32),
            "layout: tensor t: found dims [9223372036854775808] of F32, expected fewer than 2^64 bytes",
        ),
        (
            refused(vec![], [tensor(&[1], DType::F32), tensor(&[1], DType::F32)].concat(), 32),
            "layout: tensor t: found a second entry, expected one",
        ),
        (refused(vec![], vec![], 24), "layout: alignment: found 24, expected a power of two from 8 to 65536"),
        (
            refused(vec![key(64_u32.into())], vec![], 32),
            "layout: key general.alignment: found U32(64), expected u32 32",
        ),
        (
            refused(vec![key(32_u32.into()), key(32_u32.into())], vec![], 32),
            "layout: key general.alignment: found a second record, expected one",
        ),
    ] {
        assert_eq!(found, want);
    }
}

#[test]
fn getters_name_file_key_found_and_expected() {
    let file = open(&sample()).unwrap();
    let m = file.metadata();
    for (found, want) in [
        (m.u32("nope").unwrap_err(), "t.gguf: key nope: missing, expected u32"),
        (m.u32("a.i32").unwrap_err(), "t.gguf: key a.i32: found i32, expected u32"),
        (m.u64("a.bool").unwrap_err(), "t.gguf: key a.bool: found bool, expected u64 or u32"),
        (m.f32("a.u64").unwrap_err(), "t.gguf: key a.u64: found u64, expected f32, f64, u32 or i32"),
        (m.bool("a.u32").unwrap_err(), "t.gguf: key a.u32: found u32, expected bool"),
        (m.str("a.strings").unwrap_err(), "t.gguf: key a.strings: found array of 3 string, expected string"),
        (m.u32s("a.i32s").unwrap_err(), "t.gguf: key a.i32s: found -1 in an array, expected no negative number"),
        (m.u32s("a.f32s").unwrap_err(), "t.gguf: key a.f32s: found array of 2 f32, expected array of u32 or of i32"),
        (m.f32s("a.u32s").unwrap_err(), "t.gguf: key a.u32s: found array of 3 u32, expected array of f32 or of f64"),
        (m.strings("a.u32s").unwrap_err(), "t.gguf: key a.u32s: found array of 3 u32, expected array of string"),
    ] {
        assert_eq!(found.to_string(), want);
    }
    let large: Vec<(String, OwnedValue)> = vec![("x".into(), vec![1_u32 << 31].into())];
    let file = open(&fill(&Layout::new(large, Vec::new(), 32).unwrap())).unwrap();
    let text = file.metadata().i32s("x").unwrap_err().to_string();
    assert_eq!(text, "t.gguf: key x: found 2147483648 in an array, expected numbers below 2147483648");
}
