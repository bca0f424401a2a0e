//! A whole session as bytes, and back. It owns the format; the state inside is the model's own.
//!
//! ```text
//! offset  bytes   field (integers little endian)
//! 0       8       "DS4SNAP\n"
//! 8       4       version, 1
//! 12      4       n: tokens
//! 16      4       vocabulary
//! 20      4       floats of logits that follow: the vocabulary, or 0 when they are not known
//! 24      8       bytes of state that follow
//! 32      32      fingerprint of the model
//! 64      4 n     ids
//! ..      4 v     logits after the last token, f32
//! ..      s       state, as `Model::save` of tokens 0..n wrote it
//! ..      32      SHA-256 of all before
//! ```

use std::io::Read;

use ds4_model::Model;
use sha2::{Digest, Sha256};

use super::Session;
use crate::{Error, Result};

const MAGIC: &[u8; 8] = b"DS4SNAP\n";
const VERSION: u32 = 1;
const HEADER: usize = 64;
const HASH: usize = 32;

impl Session {
    /// The session as bytes, for [`Session::restore`] in any slot of a model with the same fingerprint. Rewind points are
    /// not part of it.
    ///
    /// # Errors
    /// If the model cannot save, or there is no memory for the bytes.
    pub fn snapshot(&self, model: &mut dyn Model) -> Result<Vec<u8>> {
        let n = self.position();
        let state = model.state_bytes(0..n);
        let fixed = HEADER + 4 * (self.tokens.len() + self.logits.len()) + HASH;
        let mut out = Vec::new();
        let no_memory = |_| Error::Snapshot(format!("no memory for {state} bytes of state"));
        out.try_reserve_exact(fixed.saturating_add(usize::try_from(state).unwrap_or(usize::MAX))).map_err(no_memory)?;
        out.extend_from_slice(MAGIC);
        for field in [VERSION, n, model.shape().n_vocab as u32, self.logits.len() as u32] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.extend_from_slice(&state.to_le_bytes());
        out.extend_from_slice(&model.fingerprint());
        out.extend(self.tokens.iter().flat_map(|id| id.to_le_bytes()));
        out.extend(self.logits.iter().flat_map(|z| z.to_le_bytes()));
        let before = out.len();
        model.save(self.slot, 0..n, &mut out)?;
        let written = (out.len() - before) as u64;
        if written != state {
            return Err(Error::Snapshot(format!("the model wrote {written} bytes of state, expected {state}")));
        }
        let hash = Sha256::digest(&out);
        out.extend_from_slice(&hash);
        Ok(out)
    }

    /// Makes `bytes` the session. Everything is checked before anything changes: sizes against the bytes that are there,
    /// identity, ids, logits, checksum.
    ///
    /// # Errors
    /// `Snapshot`, and the session is as before; or an error of the model while it loads, and the session is empty.
    pub fn restore(&mut self, model: &mut dyn Model, bytes: &[u8]) -> Result<()> {
        let Parsed { tokens, logits, mut state } = parse(model, bytes)?;
        self.adopt(model, &tokens, &logits, &mut state)
    }

    /// Loads a checked state after `tokens`; the session is empty if the model refuses it.
    pub(crate) fn adopt(
        &mut self,
        model: &mut dyn Model,
        tokens: &[u32],
        logits: &[f32],
        state: &mut dyn Read,
    ) -> Result<()> {
        let n = tokens.len() as u32;
        self.clear();
        if n > 0 {
            model.load(self.slot, 0..n, state)?;
        }
        self.base = n;
        self.high = n;
        self.tokens.extend_from_slice(tokens);
        self.logits.extend_from_slice(logits);
        Ok(())
    }
}

struct Parsed<'a> {
    tokens: Vec<u32>,
    logits: Vec<f32>,
    state: &'a [u8],
}

fn parse<'a>(model: &dyn Model, bytes: &'a [u8]) -> Result<Parsed<'a>> {
    let refuse = |found: String, expected: String| Error::Snapshot(format!("{found}, expected {expected}"));
    let (body, hash) = match bytes.len().checked_sub(HASH) {
        Some(at) if at >= HEADER => bytes.split_at(at),
        _ => return Err(refuse(format!("{} bytes", bytes.len()), format!("at least {}", HEADER + HASH))),
    };
    if !body.starts_with(MAGIC) {
        return Err(refuse(
            format!("starts with {:?}", body[..8].escape_ascii().to_string()),
            "\"DS4SNAP\\n\"".to_owned(),
        ));
    }
    let field = |at: usize| u32::from_le_bytes(body[at..at + 4].try_into().expect("four bytes of the header"));
    let (version, n, vocabulary, n_logits) = (field(8), field(12), field(16), field(20));
    let state = u64::from(field(24)) | u64::from(field(28)) << 32;
    let (context, n_vocab) = (model.limits().context, model.shape().n_vocab);
    if version != VERSION {
        return Err(refuse(format!("version {version}"), VERSION.to_string()));
    }
    if body[32..HEADER] != model.fingerprint() {
        return Err(refuse("fingerprint of another model".to_owned(), "that of this one".to_owned()));
    }
    if vocabulary as usize != n_vocab || (n_logits != 0 && n_logits != vocabulary) {
        return Err(refuse(format!("vocabulary {vocabulary}, {n_logits} logits"), n_vocab.to_string()));
    }
    if n > context || (n == 0 && n_logits != 0) {
        return Err(refuse(format!("{n} tokens, {n_logits} logits"), format!("at most {context} tokens")));
    }
    let needed = if n == 0 { 0 } else { model.state_bytes(0..n) };
    let (ids, logits) = (4 * n as usize, 4 * n_logits as usize);
    let whole = (HEADER as u64 + ids as u64 + logits as u64).checked_add(state);
    if state != needed || whole != Some(body.len() as u64) {
        let found = format!("{state} bytes of state in a body of {}", body.len());
        return Err(refuse(found, format!("{needed} bytes of state for {n} tokens, and nothing left over")));
    }
    if Sha256::digest(body).as_slice() != hash {
        return Err(refuse("checksum differs".to_owned(), "the checksum of the bytes".to_owned()));
    }
    let (ids, rest) = body[HEADER..].split_at(ids);
    let (logits, state) = rest.split_at(logits);
    let words = |bytes: &'a [u8]| bytes.as_chunks::<4>().0.iter().copied();
    let tokens: Vec<u32> = words(ids).map(u32::from_le_bytes).collect();
    let logits: Vec<f32> = words(logits).map(f32::from_le_bytes).collect();
    if let Some(id) = tokens.iter().find(|&&id| id as usize >= n_vocab) {
        return Err(refuse(format!("token id {id}"), format!("less than {n_vocab}")));
    }
    if let Some(z) = logits.iter().find(|z| !z.is_finite()) {
        return Err(refuse(format!("logit {z}"), "a finite number".to_owned()));
    }
    Ok(Parsed { tokens, logits, state })
}
