//! Reasoning in the hands of clients: an opaque text that only this server, or one with its key and vocabulary, can read
//! back into the ids that were sampled (server.md 8.5). Owns the format and the key file.

use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use ds4_text::Tokenizer;
use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use sha2::{Digest, Sha256};

const PREFIX: &str = "ds4r1.";
const NONCE: usize = 24;
/// Ids of one blob: more than any context holds.
const MAX_IDS: usize = 2 << 20;

/// Makes and opens blobs.
pub(crate) struct Seal {
    cipher: XChaCha20Poly1305,
    /// Model and vocabulary: what was sealed for another is not opened.
    about: [u8; 32],
    n_vocab: u32,
}

impl Seal {
    pub(crate) fn new(key: &[u8; 32], model: &str, tokenizer: &Tokenizer) -> Seal {
        let mut about = Sha256::new();
        about.update(PREFIX);
        about.update((model.len() as u64).to_le_bytes());
        about.update(model);
        let n_vocab = tokenizer.n_vocab() as u32;
        for id in 0..n_vocab {
            let bytes = tokenizer.token_bytes(id);
            about.update((bytes.len() as u32).to_le_bytes());
            about.update(bytes);
        }
        Seal { cipher: XChaCha20Poly1305::new(&(*key).into()), about: about.finalize().into(), n_vocab }
    }

    /// The ids as a text that can be opened again.
    pub(crate) fn close(&self, ids: &[u32]) -> String {
        let mut packed = ZlibEncoder::new(Vec::new(), Compression::fast());
        for id in ids {
            packed.write_all(&id.to_le_bytes()).expect("memory takes everything");
        }
        let packed = packed.finish().expect("memory takes everything");
        let mut out = vec![0; NONCE];
        getrandom::fill(&mut out).expect("the system has a random source");
        let nonce = XNonce::try_from(&out[..]).expect("the length is that of a nonce");
        let sealed = self.cipher.encrypt(&nonce, Payload { msg: &packed, aad: &self.about });
        out.extend(sealed.expect("texts of this size can be sealed"));
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(out))
    }

    /// The ids of a blob; none if it is not ours.
    pub(crate) fn open(&self, blob: &str) -> Option<Vec<u32>> {
        let bytes = URL_SAFE_NO_PAD.decode(blob.strip_prefix(PREFIX)?).ok()?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE)?;
        let nonce = XNonce::try_from(nonce).ok()?;
        let packed = self.cipher.decrypt(&nonce, Payload { msg: sealed, aad: &self.about }).ok()?;
        let mut plain = Vec::new();
        ZlibDecoder::new(packed.as_slice()).take(4 * MAX_IDS as u64).read_to_end(&mut plain).ok()?;
        let ids = plain.chunks_exact(4).map(|id| u32::from_le_bytes([id[0], id[1], id[2], id[3]]));
        let ids: Vec<u32> = ids.collect();
        ids.iter().all(|&id| id < self.n_vocab).then_some(ids)
    }
}

/// The key in `dir/state.key`, which is made if there is none. Only its owner can read it.
///
/// # Errors
/// If the file cannot be read, made, or has another length than a key.
pub fn load_or_create_key(dir: &Path) -> io::Result<[u8; 32]> {
    let path = dir.join("state.key");
    match fs::read(&path) {
        Ok(bytes) => {
            let found = bytes.len();
            let wrong = || io::Error::new(io::ErrorKind::InvalidData, format!("{found} bytes, expected a key of 32"));
            bytes.try_into().map_err(|_| wrong())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(dir)?;
            let mut key = [0; 32];
            getrandom::fill(&mut key).map_err(io::Error::other)?;
            match create_private(&path).and_then(|mut file| file.write_all(&key)) {
                // Another process was faster.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => load_or_create_key(dir),
                made => made.map(|()| key),
            }
        }
        Err(error) => Err(error),
    }
}

fn create_private(path: &Path) -> io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}
