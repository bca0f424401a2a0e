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
        about.update(vocabulary(tokenizer));
        let n_vocab = tokenizer.n_vocab() as u32;
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

/// What ids mean.
pub(crate) fn vocabulary(tokenizer: &Tokenizer) -> [u8; 32] {
    let mut hash = Sha256::new();
    for id in 0..tokenizer.n_vocab() as u32 {
        let bytes = tokenizer.token_bytes(id);
        hash.update((bytes.len() as u32).to_le_bytes());
        hash.update(bytes);
    }
    hash.finalize().into()
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

#[cfg(test)]
mod tests {
    use ds4_gguf::Gguf;

    use super::*;

    fn tokenizer() -> Tokenizer {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/ds4-mini.gguf");
        Tokenizer::from_metadata(Gguf::open(&path).unwrap().metadata()).unwrap()
    }

    #[test]
    fn a_blob_comes_back_to_whoever_has_its_key_model_and_vocabulary() {
        let tokenizer = tokenizer();
        let seal = Seal::new(&[1; 32], "m", &tokenizer);
        let ids: Vec<u32> = (0..3000).map(|i| i * 7 % 3000).collect();
        for ids in [&ids[..], &[]] {
            let blob = seal.close(ids);
            assert_eq!(seal.open(&blob).as_deref(), Some(ids));
            assert_ne!(seal.close(ids), blob, "no two are alike");
            assert_eq!(Seal::new(&[2; 32], "m", &tokenizer).open(&blob), None);
            assert_eq!(Seal::new(&[1; 32], "n", &tokenizer).open(&blob), None);
            let mut changed = blob.clone().into_bytes();
            let last = changed.len() - 3;
            changed[last] = if changed[last] == b'A' { b'B' } else { b'A' };
            assert_eq!(seal.open(std::str::from_utf8(&changed).unwrap()), None);
            for foreign in ["", "ds4r1.", "ds4r1.AAAA", "gAAAA", &blob[6..], &blob[..blob.len() / 2]] {
                assert_eq!(seal.open(foreign), None, "{foreign}");
            }
        }
        assert_eq!(seal.open(&seal.close(&[u32::MAX])), None, "ids that the model does not have");
    }

    #[test]
    fn the_key_is_made_once_and_is_its_owners() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("state");
        let key = load_or_create_key(&inner).unwrap();
        assert_eq!(load_or_create_key(&inner).unwrap(), key);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(inner.join("state.key")).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        fs::write(inner.join("state.key"), "short").unwrap();
        assert!(load_or_create_key(&inner).is_err());
    }
}
