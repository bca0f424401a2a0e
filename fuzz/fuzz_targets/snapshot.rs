//! Any bytes as a saved session, with a right checksum put behind them so that the fields are reached.
#![no_main]

use std::cell::RefCell;

use ds4_cpu::Options;
use ds4_engine::{CheckpointPolicy, Session};
use ds4_gguf::Gguf;
use ds4_model::{Limits, Model};
use libfuzzer_sys::fuzz_target;
use sha2::{Digest, Sha256};

thread_local! {
    static MODEL: RefCell<Box<dyn Model>> = RefCell::new({
        let model = include_bytes!("../../fixtures/tiny/tiny-a.gguf");
        let file = Gguf::from_bytes("tiny-a", (&model[..]).into()).expect("a fixture");
        let limits = Limits { context: 64, slots: 1, max_rows: 16, rewind: 4 };
        ds4_cpu::load(&file, limits, Options { threads: 1, ..Options::default() }).expect("a fixture")
    });
}

fuzz_target!(|data: &[u8]| {
    MODEL.with_borrow_mut(|model| {
        let model = &mut **model;
        let mut bytes = data.to_vec();
        // Identity and checksum are right, so that the mutations reach what they protect.
        if bytes.len() >= 64 {
            bytes[32..64].copy_from_slice(&model.fingerprint());
        }
        bytes.extend_from_slice(&Sha256::digest(&bytes));
        for bytes in [data, &bytes] {
            let mut session = Session::new(0, CheckpointPolicy::default());
            if session.restore(model, bytes).is_ok() {
                assert!(session.position() <= 64);
                if session.position() < 64 {
                    session.decode(model, 1).expect("a restored session goes on");
                }
            }
        }
    });
});
