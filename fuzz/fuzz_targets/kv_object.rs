//! Any bytes as an object of the store, also with lengths and checksums that fit, so that the fields and blocks behind them
//! are reached.
#![no_main]

use ds4_engine::KvObject;
use libfuzzer_sys::fuzz_target;
use xxhash_rust::xxh3::xxh3_64_with_seed as hash;

const HEADER: usize = 256;
const BLOCK: usize = 16;

fuzz_target!(|data: &[u8]| {
    let sealed = sealed(data.to_vec());
    for bytes in [data, &sealed] {
        if let Ok(object) = KvObject::parse(bytes) {
            assert_eq!(object.bytes, bytes.len() as u64);
            assert!(object.payload <= 256 * object.bytes && object.start < object.end.max(1));
        }
    }
});

/// The same with a length and hashes as a writer would have put them.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.len() < HEADER {
        return bytes;
    }
    let stored = (bytes.len() - HEADER) as u64;
    bytes[..8].copy_from_slice(b"DS4KV\r\n\0");
    bytes[8..10].copy_from_slice(&[1, 0]);
    bytes[14..16].fill(0);
    bytes[168..176].copy_from_slice(&stored.to_le_bytes());
    bytes[188..248].fill(0);
    let sum = hash(&bytes[..248], 0);
    bytes[248..HEADER].copy_from_slice(&sum.to_le_bytes());
    let mut seed = hash(&bytes[..HEADER], 0);
    let mut at = HEADER;
    while at + BLOCK <= bytes.len() {
        let packed = u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize;
        let Some(end) = (at + BLOCK).checked_add(packed).filter(|&end| end <= bytes.len()) else { break };
        let sum = hash(&bytes[at + BLOCK..end], hash(&bytes[at..at + 8], seed));
        bytes[at + 8..at + BLOCK].copy_from_slice(&sum.to_le_bytes());
        (at, seed) = (end, seed.wrapping_add(1));
    }
    bytes
}
