//! One object as bytes, and back. Owns the format of both kinds; knows no directory.
//!
//! ```text
//! offset  bytes   field (integers little endian)
//! 0       8       "DS4KV\r\n\0"
//! 8       2       version, 1
//! 10      1       kind: 1 segment, 2 tail
//! 11      1       compression: 0 none, 1 LZ4
//! 12      1       storage type of the routed experts
//! 13      1       role of a tail: 1 cold, 2 continued, 3 evict, 4 shutdown, 5 turn; 0 of a segment
//! 14      2       0
//! 16      4       first token of a segment; 0 of a tail
//! 20      4       tokens before its end
//! 24      8       tenant
//! 32      32      fingerprint of the model
//! 64      32      family of the model
//! 96      32      its key
//! 128     32      key of the segment before it; of a tail: of its last segment
//! 160     8       bytes of payload, unpacked
//! 168     8       bytes of payload, as they follow
//! 176     8       time of writing, seconds since 1970
//! 184     4       floats of logits at the start of a tail's payload
//! 188     60      0
//! 248     8       XXH3 of all before
//! 256     ..      blocks: u32 bytes here, u32 bytes unpacked, u64 XXH3 of both and of the bytes (seed: the header's hash
//!                 plus the block's number), bytes. A block as long as it is unpacked is not packed
//! ```
//!
//! Payload of a segment: its ids, then the rows of each table. Payload of a tail: logits, then window and frontiers of every
//! layer in the order of `Model::save`.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::config::KvCompression;
use super::key::{Key, Owner};

/// Bytes of a header.
pub(crate) const HEADER: usize = 256;
/// Unpacked bytes of a block, but for the last one.
const BLOCK: usize = 1 << 20;
const BLOCK_HEADER: usize = 16;
/// No object is larger unpacked.
pub(crate) const MOST: u64 = 1 << 30;
const MAGIC: &[u8; 8] = b"DS4KV\r\n\0";
const VERSION: u16 = 1;

/// Two kinds of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Segment,
    Tail,
}

impl Kind {
    /// How its file names end.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Kind::Segment => ".segment",
            Kind::Tail => ".tail",
        }
    }

    /// Name of an object's file.
    pub(crate) fn name_of(self, key: Key) -> String {
        format!("{key}{}", self.suffix())
    }
}

/// Why a checkpoint was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KvRole {
    /// The stable beginning of a new prompt.
    Cold,
    /// A regular point of a growing sequence.
    Continued,
    /// Another request took the slot.
    Evict,
    /// The engine was shut down.
    Shutdown,
    /// A long turn ended.
    Turn,
}

impl KvRole {
    /// All of them.
    pub const ALL: [KvRole; 5] = [KvRole::Cold, KvRole::Continued, KvRole::Evict, KvRole::Shutdown, KvRole::Turn];

    /// Its name in listings.
    pub fn name(self) -> &'static str {
        match self {
            KvRole::Cold => "cold",
            KvRole::Continued => "continued",
            KvRole::Evict => "evict",
            KvRole::Shutdown => "shutdown",
            KvRole::Turn => "turn",
        }
    }
}

/// Everything a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) compression: KvCompression,
    pub(crate) quant: u8,
    /// `None` of a segment.
    pub(crate) role: Option<KvRole>,
    pub(crate) start: u32,
    pub(crate) end: u32,
    pub(crate) owner: Owner,
    pub(crate) family: [u8; 32],
    pub(crate) key: Key,
    pub(crate) parent: Key,
    /// Payload unpacked; set by [`encode`].
    pub(crate) raw: u64,
    /// Payload in the file; set by [`encode`].
    pub(crate) stored: u64,
    pub(crate) created: u64,
    pub(crate) logits: u32,
}

impl Header {
    /// Name of its file.
    pub(crate) fn name(&self) -> String {
        self.kind.name_of(self.key)
    }

    pub(crate) fn id(&self) -> (Kind, Key) {
        (self.kind, self.key)
    }

    /// Bytes of its file.
    pub(crate) fn file_bytes(&self) -> u64 {
        HEADER as u64 + self.stored
    }

    /// Checks the header of a file of `file_bytes` bytes: everything that can be known without the payload.
    pub(crate) fn parse(bytes: &[u8], file_bytes: u64) -> Result<Header, Bad> {
        let Some((head, _)) = bytes.split_first_chunk::<HEADER>() else { return Err(Bad("a header cut short")) };
        if !head.starts_with(MAGIC) {
            return Err(Bad("no object of this store"));
        }
        if u16::from_le_bytes([head[8], head[9]]) != VERSION {
            return Err(Bad("an object of another version"));
        }
        if word::<8>(head, 248).map(u64::from_le_bytes) != Some(hash(&head[..248], 0)) {
            return Err(Bad("a header whose checksum differs"));
        }
        let header = Header::fields(head).ok_or(Bad("a header with an unknown kind, role or compression"))?;
        header.check(file_bytes)?;
        Ok(header)
    }

    fn fields(head: &[u8; HEADER]) -> Option<Header> {
        let u32_at = |at| word(head, at).map(u32::from_le_bytes);
        let u64_at = |at| word(head, at).map(u64::from_le_bytes);
        let zero = |bytes: &[u8]| bytes.iter().all(|&byte| byte == 0);
        if !zero(&head[14..16]) || !zero(&head[188..248]) {
            return None;
        }
        let (kind, role) = match (head[10], head[13]) {
            (1, 0) => (Kind::Segment, None),
            (2, role @ 1..) => (Kind::Tail, Some(*KvRole::ALL.get(role as usize - 1)?)),
            _ => return None,
        };
        let compression = match head[11] {
            0 => KvCompression::None,
            1 => KvCompression::Lz4,
            _ => return None,
        };
        Some(Header {
            kind,
            compression,
            quant: head[12],
            role,
            start: u32_at(16)?,
            end: u32_at(20)?,
            owner: Owner { tenant: u64_at(24)?, fingerprint: word(head, 32)? },
            family: word(head, 64)?,
            key: Key(word(head, 96)?),
            parent: Key(word(head, 128)?),
            raw: u64_at(160)?,
            stored: u64_at(168)?,
            created: u64_at(176)?,
            logits: u32_at(184)?,
        })
    }

    fn check(&self, file_bytes: u64) -> Result<(), Bad> {
        let blocks = self.raw.div_ceil(BLOCK as u64);
        let least = blocks * BLOCK_HEADER as u64;
        if self.file_bytes() != file_bytes || self.stored < least {
            return Err(Bad("a file of another length than its header says"));
        }
        // LZ4 packs at most 255 to one.
        let packed = self.stored - least;
        if self.raw > MOST || self.raw > packed.saturating_mul(256) || packed > self.raw {
            return Err(Bad("a payload of an impossible size"));
        }
        let ranges = match self.kind {
            Kind::Segment => self.start < self.end && self.logits == 0,
            Kind::Tail => self.start == 0 && self.end > 0 && 4 * u64::from(self.logits) <= self.raw,
        };
        if ranges && (self.start == 0 || self.parent != Key::NONE) {
            return Ok(());
        }
        Err(Bad("a header with an impossible range"))
    }

    fn to_bytes(self) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, MAGIC);
        put(8, &VERSION.to_le_bytes());
        let role = self.role.and_then(|role| KvRole::ALL.iter().position(|&r| r == role));
        let kind = if self.kind == Kind::Segment { 1 } else { 2 };
        let compression = u8::from(self.compression != KvCompression::None);
        put(10, &[kind, compression, self.quant, role.map_or(0, |at| at as u8 + 1)]);
        put(16, &self.start.to_le_bytes());
        put(20, &self.end.to_le_bytes());
        put(24, &self.owner.tenant.to_le_bytes());
        put(32, &self.owner.fingerprint);
        put(64, &self.family);
        put(96, &self.key.0);
        put(128, &self.parent.0);
        put(160, &self.raw.to_le_bytes());
        put(168, &self.stored.to_le_bytes());
        put(176, &self.created.to_le_bytes());
        put(184, &self.logits.to_le_bytes());
        let sum = hash(&out[..248], 0);
        out[248..].copy_from_slice(&sum.to_le_bytes());
        out
    }
}

/// What is wrong with an object, in words that follow "found".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bad(pub(crate) &'static str);

/// The file of an object. Sizes in `header` are filled in.
pub(crate) fn encode(mut header: Header, payload: &[u8]) -> (Header, Vec<u8>) {
    let mut out = vec![0; HEADER];
    for raw in payload.chunks(BLOCK) {
        let at = out.len();
        out.extend_from_slice(&[0; BLOCK_HEADER]);
        let packed = match header.compression {
            KvCompression::Lz4 => lz4_flex::block::compress(raw),
            KvCompression::None => Vec::new(),
        };
        let packed = if packed.is_empty() || packed.len() >= raw.len() { raw } else { &packed };
        out.extend_from_slice(packed);
        out[at..at + 4].copy_from_slice(&(packed.len() as u32).to_le_bytes());
        out[at + 4..at + 8].copy_from_slice(&(raw.len() as u32).to_le_bytes());
    }
    header.raw = payload.len() as u64;
    header.stored = (out.len() - HEADER) as u64;
    let head = header.to_bytes();
    out[..HEADER].copy_from_slice(&head);
    let seed = hash(&head, 0);
    let (mut at, mut block) = (HEADER, 0_u64);
    while at < out.len() {
        let bytes = u32::from_le_bytes(word(&out, at).expect("a block header was written here")) as usize;
        let end = at + BLOCK_HEADER + bytes;
        let sum = block_hash(&out[at..end], seed.wrapping_add(block));
        out[at + 8..at + 16].copy_from_slice(&sum.to_le_bytes());
        (at, block) = (end, block + 1);
    }
    (header, out)
}

/// Header and unpacked payload of a whole file, every byte of it checked.
pub(crate) fn decode(file: &[u8]) -> Result<(Header, Vec<u8>), Bad> {
    let header = Header::parse(file, file.len() as u64)?;
    let seed = hash(&file[..HEADER], 0);
    let mut raw = Vec::new();
    raw.try_reserve_exact(header.raw as usize).map_err(|_| Bad("more than fits into memory"))?;
    let (mut rest, mut block) = (&file[HEADER..], 0);
    while !rest.is_empty() {
        let cut = Bad("a block cut short");
        let packed = word(rest, 0).map(u32::from_le_bytes).ok_or(cut)? as usize;
        let unpacked = word(rest, 4).map(u32::from_le_bytes).ok_or(cut)? as usize;
        let sum = word(rest, 8).map(u64::from_le_bytes).ok_or(cut)?;
        if packed > unpacked || unpacked > BLOCK || (raw.len() + unpacked) as u64 > header.raw {
            return Err(Bad("a block of an impossible size"));
        }
        let (here, later) = rest.split_at_checked(BLOCK_HEADER + packed).ok_or(cut)?;
        if block_hash(here, seed.wrapping_add(block)) != sum {
            return Err(Bad("a block whose checksum differs"));
        }
        unpack(header.compression, &here[BLOCK_HEADER..], unpacked, &mut raw)?;
        (rest, block) = (later, block + 1);
    }
    if raw.len() as u64 != header.raw {
        return Err(Bad("a payload of another length than its header says"));
    }
    Ok((header, raw))
}

fn unpack(compression: KvCompression, packed: &[u8], unpacked: usize, out: &mut Vec<u8>) -> Result<(), Bad> {
    if packed.len() == unpacked {
        out.extend_from_slice(packed);
        return Ok(());
    }
    let at = out.len();
    out.resize(at + unpacked, 0);
    let done = match compression {
        KvCompression::None => None,
        KvCompression::Lz4 => lz4_flex::block::decompress_into(packed, &mut out[at..]).ok(),
    };
    if done == Some(unpacked) { Ok(()) } else { Err(Bad("a block that cannot be unpacked")) }
}

/// Hash of a block with its header, its own hash left out.
fn block_hash(block: &[u8], seed: u64) -> u64 {
    hash(&block[BLOCK_HEADER..], hash(&block[..8], seed))
}

fn hash(bytes: &[u8], seed: u64) -> u64 {
    xxh3_64_with_seed(bytes, seed)
}

fn word<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(kind: Kind, compression: KvCompression, logits: u32) -> Header {
        Header {
            kind,
            compression,
            quant: 16,
            role: (kind == Kind::Tail).then_some(KvRole::Turn),
            start: if kind == Kind::Tail { 0 } else { 2048 },
            end: 4096,
            owner: Owner { fingerprint: [5; 32], tenant: 77 },
            family: [6; 32],
            key: Key([7; 32]),
            parent: Key([8; 32]),
            raw: 0,
            stored: 0,
            created: 1_700_000_000,
            logits,
        }
    }

    fn payload(bytes: usize, period: usize) -> Vec<u8> {
        (0..bytes).map(|i| (i % period * (i / period % 3)) as u8).collect()
    }

    #[test]
    fn objects_of_many_blocks_come_back() {
        for compression in [KvCompression::None, KvCompression::Lz4] {
            for bytes in [0, 1, BLOCK - 1, BLOCK, 2 * BLOCK + 17] {
                let payload = payload(bytes, 50);
                let (header, file) = encode(header(Kind::Segment, compression, 0), &payload);
                assert_eq!(header.file_bytes(), file.len() as u64);
                assert_eq!(decode(&file), Ok((header, payload)));
            }
        }
        let zeros = vec![0; 3 * BLOCK];
        let (_, file) = encode(header(Kind::Tail, KvCompression::Lz4, 9), &zeros);
        assert!(file.len() < BLOCK / 32 && decode(&file).is_ok(), "as small as LZ4 makes anything");
    }

    #[test]
    fn blocks_cannot_change_places() {
        let (_, file) = encode(header(Kind::Segment, KvCompression::None, 0), &payload(2 * BLOCK, 101));
        let (first, second) = file[HEADER..].split_at(BLOCK_HEADER + BLOCK);
        assert_eq!(decode(&[&file[..HEADER], second, first].concat()), Err(Bad("a block whose checksum differs")));
    }

    proptest! {
        #[test]
        fn no_changed_byte_is_accepted(
            bytes in 0..3000_usize, period in 1..300_usize, at in any::<prop::sample::Index>(), flip in 1..=255_u8, lz4: bool,
        ) {
            let compression = if lz4 { KvCompression::Lz4 } else { KvCompression::None };
            let (_, mut file) = encode(header(Kind::Segment, compression, 0), &payload(bytes, period));
            let at = at.index(file.len());
            file[at] ^= flip;
            prop_assert!(decode(&file).is_err());
        }

        #[test]
        fn headers_and_blocks_that_somebody_sealed_are_read_or_refused(
            bytes in prop::collection::vec(any::<u8>(), 0..400), edits in prop::collection::vec((0..300_usize, any::<u8>()), 0..6),
        ) {
            let (_, mut file) = encode(header(Kind::Tail, KvCompression::Lz4, 2), &bytes);
            for (at, value) in edits.into_iter().filter(|&(at, _)| at < 248) {
                file[at] = value;
            }
            let sum = hash(&file[..248], 0);
            file[248..HEADER].copy_from_slice(&sum.to_le_bytes());
            let seed = hash(&file[..HEADER], 0);
            if file.len() > HEADER {
                let sum = block_hash(&file[HEADER..], seed);
                file[HEADER + 8..HEADER + BLOCK_HEADER].copy_from_slice(&sum.to_le_bytes());
            }
            if let Ok((header, payload)) = decode(&file) {
                prop_assert_eq!(header.raw, payload.len() as u64);
                prop_assert!(header.start < header.end && 4 * header.logits as usize <= payload.len());
            }
        }
    }
}
