//! Snapshots: what goes out comes back, and nothing else is let in.

use std::ops::ControlFlow;

use ds4_engine::{CheckpointPolicy, Error, Session};
use ds4_model::{Limits, Model};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

use crate::fake::{Fake, straight};

const LIMITS: Limits = Limits { context: 64, slots: 2, max_rows: 16, rewind: 4 };

fn session_of(model: &mut Fake, slot: u32, n: u32) -> Session {
    let mut session = Session::new(slot, CheckpointPolicy::default());
    let tokens: Vec<u32> = (0..n).map(|i| i * 5 % 300).collect();
    session.extend(model, &tokens, &mut |_, _| ControlFlow::Continue(())).unwrap();
    session
}

/// `bytes` with a checksum that fits, as an attacker would write it.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.len().saturating_sub(32));
    let hash = Sha256::digest(&bytes);
    bytes.extend_from_slice(&hash);
    bytes
}

fn refusal(bytes: &[u8]) -> String {
    let mut model = Fake::new(LIMITS);
    let mut session = session_of(&mut model, 0, 9);
    let before = session.tokens().to_vec();
    let error = session.restore(&mut model, bytes).unwrap_err();
    assert!(matches!(error, Error::Snapshot(_)), "{error}");
    assert_eq!(session.tokens(), before);
    session.decode(&mut model, 3).unwrap();
    assert_eq!(session.logits().unwrap(), straight(session.tokens()), "the live state is as it was");
    error.to_string()
}

#[test]
fn a_restored_session_goes_on_as_the_saved_one_in_any_slot() {
    for n in [0, 1, 5, 63] {
        let mut model = Fake::new(LIMITS);
        let mut saved = session_of(&mut model, 0, n);
        let bytes = saved.snapshot(&mut model).unwrap();
        let mut other = Fake::new(Limits { rewind: 1, max_rows: 3, ..LIMITS });
        let mut session = session_of(&mut other, 1, 20);
        session.restore(&mut other, &bytes).unwrap();
        assert_eq!((session.tokens(), session.logits()), (saved.tokens(), saved.logits()));
        for id in [7, 8].into_iter().take(64 - n as usize) {
            saved.decode(&mut model, id).unwrap();
            session.decode(&mut other, id).unwrap();
            assert_eq!(session.logits(), saved.logits());
        }
    }
}

#[test]
fn each_check_names_what_it_found() {
    let mut model = Fake::new(LIMITS);
    let good = session_of(&mut model, 0, 12).snapshot(&mut model).unwrap();
    let with = |at: usize, bytes: &[u8]| {
        let mut bad = good.clone();
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        sealed(bad)
    };
    let cases = [
        (b"".to_vec(), "0 bytes"),
        (good[..95].to_vec(), "95 bytes"),
        (with(0, b"X"), "starts with"),
        (with(8, &[2]), "version 2"),
        (with(12, &[13]), "13 tokens"),
        (with(12, &[65]), "65 tokens"),
        (with(12, &u32::MAX.to_le_bytes()), "4294967295 tokens"),
        (with(16, &[0]), "vocabulary 256"),
        (with(20, &[1]), "257 logits"),
        (with(24, &u64::MAX.to_le_bytes()), "18446744073709551615 bytes of state"),
        (with(40, &[0]), "fingerprint"),
        (with(64, &320_u32.to_le_bytes()), "token id 320"),
        (with(64 + 48, &f32::NAN.to_le_bytes()), "logit NaN"),
        (with(64 + 48, &f32::INFINITY.to_le_bytes()), "logit inf"),
        ([&good[..], &[0]].concat(), "bytes of state"),
        (good[..good.len() - 1].to_vec(), "bytes of state"),
    ];
    for (bytes, expected) in cases {
        let said = refusal(&bytes);
        assert!(said.contains(expected) && said.contains("expected"), "{said}: should name {expected}");
    }
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    assert!(refusal(&flipped).contains("checksum"));
}

#[test]
fn a_snapshot_longer_than_the_context_is_refused() {
    let mut model = Fake::new(LIMITS);
    let bytes = session_of(&mut model, 0, 40).snapshot(&mut model).unwrap();
    let mut small = Fake::new(Limits { context: 39, ..LIMITS });
    let mut session = Session::new(0, CheckpointPolicy::default());
    assert!(matches!(session.restore(&mut small, &bytes), Err(Error::Snapshot(_))));
    assert_eq!(small.limits().context, 39);
}

proptest! {
    #[test]
    fn damaged_snapshots_are_errors_and_leave_the_session(
        n in 0..20_u32, at in any::<prop::sample::Index>(), value: u8, cut in 0..200_usize, reseal: bool, kind in 0..3_u8,
    ) {
        let mut model = Fake::new(LIMITS);
        let good = session_of(&mut model, 0, n).snapshot(&mut model).unwrap();
        let mut bad = good.clone();
        match kind {
            0 => {
                let at = at.index(bad.len());
                bad[at] = value;
            }
            1 => bad.truncate(bad.len().saturating_sub(cut)),
            _ => bad.extend(vec![value; cut]),
        }
        if reseal {
            bad = sealed(bad);
        }
        let mut session = session_of(&mut model, 1, 5);
        // Sealed again, changed ids, logits and state are as good as any; the rest must be refused.
        if let Err(error) = session.restore(&mut model, &bad) {
            prop_assert!(matches!(error, Error::Snapshot(_)));
            prop_assert_eq!(session.tokens().len(), 5);
        } else {
            prop_assert!(reseal || bad == good);
            prop_assert_eq!(session.tokens().len(), n as usize);
        }
    }

    #[test]
    fn random_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), magic: bool) {
        let bytes = if magic { [&b"DS4SNAP\n\x01\0\0\0"[..], &bytes].concat() } else { bytes };
        let mut model = Fake::new(LIMITS);
        let mut session = session_of(&mut model, 0, 3);
        prop_assert!(matches!(session.restore(&mut model, &bytes), Err(Error::Snapshot(_))));
    }
}
