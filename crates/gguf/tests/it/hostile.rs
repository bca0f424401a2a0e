//! Files that lie, each with the message it earns.

use ds4_gguf::Gguf;

use crate::{open, refusal, sample};

/// Builds headers by hand, right or wrong.
#[derive(Clone, Default)]
struct Raw(Vec<u8>);

impl Raw {
    fn new(n_tensor: u64, n_record: u64) -> Self {
        Self::default().bytes(b"GGUF").u32(3).u64(n_tensor).u64(n_record)
    }

    fn bytes(mut self, b: &[u8]) -> Self {
        self.0.extend(b);
        self
    }

    fn u32(self, v: u32) -> Self {
        self.bytes(&v.to_le_bytes())
    }

    fn u64(self, v: u64) -> Self {
        self.bytes(&v.to_le_bytes())
    }

    fn str(self, s: &str) -> Self {
        self.u64(s.len() as u64).bytes(s.as_bytes())
    }

    fn tensor(self, name: &str, dims: &[u64], id: u32, offset: u64) -> Self {
        let with_dims = dims.iter().fold(self.str(name).u32(dims.len() as u32), |raw, &d| raw.u64(d));
        with_dims.u32(id).u64(offset)
    }

    fn pad(mut self, n: usize) -> Self {
        self.0.resize(self.0.len() + n, 0);
        self
    }
}

const STR: u32 = 8;
const ARRAY: u32 = 9;

fn assert_refused(cases: &[(Raw, &str)]) {
    for (raw, want) in cases {
        assert_eq!(refusal(&raw.0), format!("t.gguf: {want}"));
    }
}

#[test]
fn headers_that_are_none_are_refused() {
    let raw = Raw::default;
    assert_refused(&[
        (raw(), "header: found 4 bytes wanted at offset 0, expected at most 0 left in the file"),
        (raw().bytes(b"GGU"), "header: found 4 bytes wanted at offset 0, expected at most 3 left in the file"),
        (raw().bytes(b"PK\x03\x04").pad(20), "header: found magic PK\\x03\\x04, expected GGUF"),
        (raw().bytes(b"GGUF").u32(2).pad(16), "header: found version 2, expected version 3"),
        (raw().bytes(b"GGUF").u32(3 << 24).pad(16), "header: found version 50331648, expected version 3"),
        (
            raw().bytes(b"GGUF").u32(3).u64(0),
            "header: found 8 bytes wanted at offset 16, expected at most 0 left in the file",
        ),
    ]);
}

#[test]
fn counts_beyond_the_file_are_refused_before_anything_is_made() {
    assert_refused(&[
        (
            Raw::new(0, u64::MAX).pad(26),
            "header: found a count of 18446744073709551615, expected at most 2 in the 26 bytes left",
        ),
        (
            Raw::new(1 << 60, 0).pad(64),
            "header: found a count of 1152921504606846976, expected at most 2 in the 64 bytes left",
        ),
        (
            Raw::new(0, 1).str("k").u32(ARRAY).u32(STR).u64(1 << 61).pad(16),
            "key k: found a count of 2305843009213693952, expected at most 2 in the 16 bytes left",
        ),
        (
            Raw::new(0, 1).str("k").u32(ARRAY).u32(4).u64(5).pad(16),
            "key k: found a count of 5, expected at most 4 in the 16 bytes left",
        ),
        (
            Raw::new(0, 1).u64(1 << 63).pad(13),
            "metadata record 0: found 9223372036854775808 bytes wanted at offset 32, expected at most 13 left in the file",
        ),
        (
            Raw::new(0, 1).str("k").u32(STR).u64(u64::MAX),
            "key k: found 18446744073709551615 bytes wanted at offset 45, expected at most 0 left in the file",
        ),
        (
            Raw::new(1, 0).u64(1 << 63).pad(32),
            "tensor record 0: found 9223372036854775808 bytes wanted at offset 32, expected at most 32 left in the file",
        ),
    ]);
}

#[test]
fn records_that_make_no_sense_are_refused() {
    let alignment = |v| Raw::new(0, 1).str("general.alignment").u32(4).u32(v);
    assert_refused(&[
        (Raw::new(0, 1).str("k").u32(13).pad(8), "key k: found value type 13, expected a value type from 0 to 12"),
        (Raw::new(0, 1).str("k").u32(7).bytes(&[2]), "key k: found a bool of 2, expected 0 or 1"),
        (Raw::new(0, 1).str("k").u32(ARRAY).u32(7).u64(2).bytes(&[1, 9]), "key k: found a bool of 9, expected 0 or 1"),
        (
            Raw::new(0, 1).str("k").u32(STR).u64(3).bytes(b"a\xff\xfe"),
            "key k: found a string at offset 45 that breaks off at its byte 1, expected UTF-8",
        ),
        (
            Raw::new(0, 1).u64(1).bytes(b"\xff").pad(8),
            "metadata record 0: found a string at offset 32 that breaks off at its byte 0, expected UTF-8",
        ),
        (Raw::new(0, 2).str("k").u32(4).u32(1).str("k").u32(4).u32(1), "key k: found a second record, expected one"),
        (
            Raw::new(0, 1).str("a\nb").u32(99).pad(8),
            "key a\\u{a}b: found value type 99, expected a value type from 0 to 12",
        ),
        (alignment(0), "key general.alignment: found 0, expected a power of two from 8 to 65536"),
        (alignment(48), "key general.alignment: found 48, expected a power of two from 8 to 65536"),
        (alignment(1 << 31), "key general.alignment: found 2147483648, expected a power of two from 8 to 65536"),
        (Raw::new(0, 1).str("general.alignment").u32(10).u64(32), "key general.alignment: found u64, expected u32"),
    ]);
}

#[test]
fn arrays_may_nest_a_little() {
    let nested = |depth: u32| {
        let raw = (1..depth).fold(Raw::new(0, 1).str("k").u32(ARRAY), |raw, _| raw.u32(ARRAY).u64(1));
        raw.u32(4).u64(1).u32(77)
    };
    for depth in 2..=8 {
        let file = open(&nested(depth).0).expect("within the limit");
        let text = file.metadata().u32s("k").unwrap_err().to_string();
        assert_eq!(text, "t.gguf: key k: found array of 1 array, expected array of u32 or of i32");
    }
    assert_refused(&[(nested(9), "key k: found an array nested deeper, expected at most 8 levels")]);
    assert!(refusal(&nested(100_000).0).ends_with("expected at most 8 levels"));
}

#[test]
fn tensors_that_cannot_be_are_refused() {
    let one = |dims: &[u64], id, offset| Raw::new(1, 0).tensor("t", dims, id, offset).pad(512);
    assert_refused(&[
        (one(&[], 0, 0), "tensor t: found 0 dimensions, expected 1 to 4"),
        (one(&[1; 5], 0, 0), "tensor t: found 5 dimensions, expected 1 to 4"),
        (
            one(&[32], 40, 0),
            "tensor t: found tensor type 40, expected one of 0 (F32), 1 (F16), 8 (Q8_0), 10 (Q2_K), 12 (Q4_K), 16 (IQ2_XXS), \
             26 (I32), 30 (BF16), 39 (MXFP4)",
        ),
        (one(&[4, 0], 0, 0), "tensor t: found dims [4, 0], expected from 1 to 2^64 elements"),
        (
            one(&[1 << 33, 1 << 33], 0, 0),
            "tensor t: found dims [8589934592, 8589934592], expected from 1 to 2^64 elements",
        ),
        (one(&[1 << 62], 0, 0), "tensor t: found dims [4611686018427387904] of F32, expected fewer than 2^64 bytes"),
        (one(&[128, 2], 12, 0), "tensor t: found dims [128, 2], expected rows of whole Q4_K blocks of 256"),
        (one(&[4], 0, 8), "tensor t: found offset 8, expected a multiple of 32"),
        (
            one(&[4], 0, u64::MAX - 31),
            "tensor t: found 16 bytes at 64 + 18446744073709551584, expected a range inside the file of 569 bytes",
        ),
        (one(&[1000], 0, 0), "tensor t: found 4000 bytes at 64 + 0, expected a range inside the file of 569 bytes"),
        (
            Raw::new(2, 0).tensor("t", &[4], 0, 0).tensor("t", &[4], 0, 32).pad(512),
            "tensor t: found a second entry, expected one",
        ),
        (
            Raw::new(1, 0).u64(2).bytes(b"t\xc0").pad(512),
            "tensor record 0: found a string at offset 32 that breaks off at its byte 1, expected UTF-8",
        ),
    ]);
}

#[test]
fn tensors_may_overlap() {
    let file = open(&Raw::new(2, 0).tensor("a", &[4], 0, 0).tensor("b", &[8], 0, 0).pad(128).0).unwrap();
    assert_eq!(file.tensor("a").unwrap().data, file.tensor("b").unwrap().data[..16]);
}

#[test]
fn paths_that_are_no_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |name: &str| {
        let path = folder.path().join(name);
        let text = Gguf::open(&path).unwrap_err().to_string();
        text.strip_prefix(&format!("{}: ", path.display())).expect("the message begins with the path").to_owned()
    };
    assert_eq!(refused(""), "file: found a directory, expected a GGUF file");
    assert_eq!(refused("absent.gguf"), std::io::Error::from_raw_os_error(2).to_string());
    std::fs::write(folder.path().join("empty.gguf"), b"").unwrap();
    assert_eq!(refused("empty.gguf"), "file: found 0 bytes, expected a GGUF file");
    std::fs::write(folder.path().join("text.gguf"), b"hello").unwrap();
    assert_eq!(refused("text.gguf"), "header: found magic hell, expected GGUF");
}

#[cfg(unix)]
#[test]
fn a_special_file_is_refused_without_waiting_for_it() {
    let text = Gguf::open(std::path::Path::new("/dev/zero")).unwrap_err().to_string();
    assert_eq!(text, "/dev/zero: file: found a special file, expected a GGUF file");
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let whole = sample();
    let last = open(&whole).unwrap().tensors().iter().map(|t| t.offset + t.bytes).max().unwrap() as usize;
    assert!(open(&whole[..last]).is_ok(), "the last padding may be missing");
    for n in 0..last {
        refusal(&whole[..n]);
    }
}
