//! Names of objects: hashes of everything that decides whether a state fits.

use std::fmt;

use sha2::{Digest, Sha256};

/// Name of an object.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key(pub(crate) [u8; 32]);

impl Key {
    /// Stands where a chain begins.
    pub(crate) const NONE: Key = Key([0; 32]);

    /// The key that [`fmt::Display`] wrote.
    pub(crate) fn parse(text: &str) -> Option<Key> {
        let digits = text.as_bytes();
        let value = |digit: u8| match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        };
        let mut out = [0; 32];
        if digits.len() != 2 * out.len() {
            return None;
        }
        for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = value(pair[0])? << 4 | value(pair[1])?;
        }
        Some(Key(out))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whose state it is: a model with its numerics, and one tenant of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Owner {
    pub(crate) fingerprint: [u8; 32],
    pub(crate) tenant: u64,
}

impl Owner {
    fn hash(&self, what: &str) -> Sha256 {
        let mut hash = Sha256::new();
        hash.update(FORMAT);
        hash.update(what);
        hash.update(self.fingerprint);
        hash.update(self.tenant.to_le_bytes());
        hash
    }

    /// Key of the segment of `ids` from position `start` on, behind `parent`.
    pub(crate) fn segment(&self, parent: Key, start: u32, ids: &[u32]) -> Key {
        let mut hash = self.hash("segment");
        hash.update(parent.0);
        hash.update(start.to_le_bytes());
        update(&mut hash, ids);
        Key(hash.finalize().into())
    }
}

/// Keys of the checkpoints along a sequence, each for the price of the tokens since the last one.
pub(crate) struct Chain(Sha256);

impl Chain {
    pub(crate) fn new(owner: &Owner) -> Self {
        Chain(owner.hash("tail"))
    }

    pub(crate) fn push(&mut self, ids: &[u32]) {
        update(&mut self.0, ids);
    }

    /// Key of a checkpoint behind everything pushed so far.
    pub(crate) fn key(&self) -> Key {
        Key(self.0.clone().finalize().into())
    }

    /// Key of the checkpoint behind `ids`.
    pub(crate) fn of(owner: &Owner, ids: &[u32]) -> Key {
        let mut chain = Chain::new(owner);
        chain.push(ids);
        chain.key()
    }
}

fn update(hash: &mut Sha256, ids: &[u32]) {
    let mut bytes = [0; 4096];
    for ids in ids.chunks(bytes.len() / 4) {
        for (to, id) in bytes.chunks_exact_mut(4).zip(ids) {
            to.copy_from_slice(&id.to_le_bytes());
        }
        hash.update(&bytes[..4 * ids.len()]);
    }
}

/// Part of every key: a store of another format finds nothing.
const FORMAT: &str = "ds4 kv 1 ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_what_it_prints() {
        let key = Owner { fingerprint: [3; 32], tenant: 9 }.segment(Key::NONE, 4, &[1, 2, 3]);
        assert_eq!(Key::parse(&key.to_string()), Some(key));
        for bad in ["", "00", &format!("{key}0"), &key.to_string().to_uppercase()] {
            assert_eq!(Key::parse(bad), None);
        }
    }

    #[test]
    fn everything_that_decides_is_in_a_key() {
        let owner = Owner { fingerprint: [3; 32], tenant: 9 };
        let ids: Vec<u32> = (0..3000).collect();
        let mut keys = vec![Chain::of(&owner, &ids), Chain::of(&owner, &ids[..2999]), Chain::of(&owner, &ids[1..])];
        for owner in [owner, Owner { tenant: 8, ..owner }, Owner { fingerprint: [4; 32], ..owner }] {
            for parent in [Key::NONE, keys[0]] {
                for start in [0, 1] {
                    keys.push(owner.segment(parent, start, &ids));
                }
            }
        }
        let mut chain = Chain::new(&owner);
        ids.chunks(7).for_each(|ids| chain.push(ids));
        assert_eq!(chain.key(), keys[0]);
        let all = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), all);
    }
}
