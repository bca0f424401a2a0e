//! The reader against well-formed, hostile, truncated and random files.

mod fixtures;
mod hostile;
mod mutations;
mod round_trip;

use bytes::Bytes;
use ds4_gguf::{DType, Dims, Gguf, Layout, OwnedValue};

/// A valid file with every kind of record: its bytes as one piece.
fn sample() -> Vec<u8> {
    let metadata: Vec<(String, OwnedValue)> = vec![
        ("general.architecture".into(), "deepseek4".into()),
        ("a.u32".into(), 7_u32.into()),
        ("a.i32".into(), (-7_i32).into()),
        ("a.u64".into(), (1_u64 << 40).into()),
        ("a.f32".into(), 1.5_f32.into()),
        ("a.f64".into(), OwnedValue::F64(2.5)),
        ("a.bool".into(), true.into()),
        ("a.u32s".into(), vec![1_u32, 2, 3].into()),
        ("a.i32s".into(), vec![0_i32, -1].into()),
        ("a.f32s".into(), vec![0.5_f32, 10.0].into()),
        ("a.strings".into(), vec!["Ġ t".to_owned(), String::new(), "｜DSML｜".to_owned()].into()),
    ];
    let tensors = vec![
        ("norm.weight".to_owned(), DType::F32, Dims::from([3])),
        ("table.weight".to_owned(), DType::I32, Dims::from([6, 5])),
        ("exps.weight".to_owned(), DType::Iq2Xxs, Dims::from([256, 2, 3])),
    ];
    fill(&Layout::new(metadata, tensors, 32).expect("a sound layout"))
}

/// The file of a layout, byte `i` of each tensor being `i mod 251`.
fn fill(layout: &Layout) -> Vec<u8> {
    let mut file = layout.header().to_vec();
    file.resize(layout.file_len() as usize, 0);
    for i in 0..layout.len() {
        let data = &mut file[layout.offset(i) as usize..][..layout.tensor_bytes(i) as usize];
        data.iter_mut().enumerate().for_each(|(i, b)| *b = (i % 251) as u8);
    }
    file
}

fn open(bytes: &[u8]) -> ds4_gguf::Result<Gguf> {
    Gguf::from_bytes("t.gguf", Bytes::copy_from_slice(bytes))
}

/// The message with which these bytes are refused; one line that begins with the file's name.
fn refusal(bytes: &[u8]) -> String {
    let text = open(bytes).expect_err("a broken file").to_string();
    assert!(text.starts_with("t.gguf: ") && !text.contains('\n'), "{text}");
    text
}
