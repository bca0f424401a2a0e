//! Random damage: whatever the bytes, opening and reading returns.

use bytes::Bytes;
use ds4_gguf::{DType, Gguf, dequant};
use proptest::prelude::*;

use crate::sample;

/// Opens the bytes and, if that works, reads everything there is to read.
fn exercise(bytes: Vec<u8>) {
    let file = match Gguf::from_bytes("x", Bytes::from(bytes)) {
        Ok(file) => file,
        Err(e) => return assert!(!e.to_string().contains('\n')),
    };
    let m = file.metadata();
    for (key, _) in m.iter() {
        let _ = (m.u32(key), m.u64(key), m.f32(key), m.bool(key), m.str(key).map(str::len));
        let _ = (m.u32s(key), m.i32s(key), m.f32s(key), m.strings(key).map(Iterator::count));
    }
    for info in file.tensors() {
        let tensor = file.tensor(&info.name).expect("every entry of the directory can be had");
        if tensor.dtype != DType::I32 {
            let mut out = vec![0.0; tensor.n_in()];
            (0..tensor.n_rows()).for_each(|i| dequant::row(tensor.dtype, tensor.row(i), &mut out));
        }
    }
}

/// Values that upset counters: powers of two and their neighbours, and small numbers.
fn nasty() -> impl Strategy<Value = u64> {
    prop_oneof![
        (0_u32..64, -1_i64..=1).prop_map(|(bit, step)| (1_u64 << bit).wrapping_add_signed(step)),
        0_u64..64,
        Just(u64::MAX),
        any::<u64>(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn changed_bytes(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12)) {
        let mut bytes = sample();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        exercise(bytes);
    }

    #[test]
    fn changed_numbers(changes in prop::collection::vec((any::<prop::sample::Index>(), nasty(), any::<bool>()), 1..4)) {
        let mut bytes = sample();
        for (at, value, wide) in changes {
            let at = at.index(bytes.len() - 8);
            let n = if wide { 8 } else { 4 };
            bytes[at..at + n].copy_from_slice(&value.to_le_bytes()[..n]);
        }
        exercise(bytes);
    }

    #[test]
    fn cut_and_spliced(
        (from, to, at) in any::<(prop::sample::Index, prop::sample::Index, prop::sample::Index)>(),
        remove in any::<bool>(),
    ) {
        let whole = sample();
        let (a, b) = (from.index(whole.len()), to.index(whole.len()));
        let piece = whole[a.min(b)..a.max(b)].to_vec();
        let mut bytes = whole.clone();
        if remove {
            bytes.drain(a.min(b)..a.max(b));
        } else {
            let at = at.index(whole.len());
            bytes.splice(at..at, piece);
        }
        exercise(bytes);
    }

    #[test]
    fn random_bytes_behind_a_sound_start(n_tensor in 0_u64..4, n_record in 0_u64..4, rest in prop::collection::vec(any::<u8>(), 0..300)) {
        let counts = [n_tensor.to_le_bytes(), n_record.to_le_bytes()].concat();
        exercise([&b"GGUF\x03\0\0\0"[..], &counts, &rest].concat());
    }

    #[test]
    fn random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        exercise(bytes);
    }
}
