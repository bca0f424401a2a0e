//! A model whose logits are a function of the tokens it was really given. Its state has the parts of the real one: rows that
//! are only appended, a ring of recent positions, and nothing else; what was overwritten or never loaded reads as garbage,
//! so that a wrong rewind, save or load changes every later logit.

use std::io::{Read, Write};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex};

use ds4_model::{Batch, Best, Error, Limits, LogitRows, Model, Part, Result, Shape, SlotId, Span};

/// Positions that a step looks back on.
const WINDOW: u32 = 5;
const RING_ENTRY: usize = 12;
/// Forwarding one of these ids makes the model misbehave.
pub(crate) const DEVICE_FAILS: u32 = 310;
pub(crate) const PANICS: u32 = 311;
pub(crate) const BATCH_FAILS: u32 = 312;
pub(crate) const NOT_A_NUMBER: u32 = 313;

/// The id to favour after a position, and by how much it is to stand above all others.
pub(crate) type Favour = Arc<dyn Fn(u32) -> Option<(u32, f32)> + Send + Sync>;

pub(crate) struct Fake {
    shape: Shape,
    limits: Limits,
    slots: Vec<Slot>,
    favour: Option<Favour>,
    pub(crate) watch: Watch,
}

#[derive(Clone, Default)]
struct Slot {
    /// One a position, never overwritten by rewinding alone.
    rows: Vec<u64>,
    /// Position and digest, by position modulo the ring.
    ring: Vec<Option<(u32, u64)>>,
}

/// What the model was asked for, and a gate that lets it run only so many steps.
#[derive(Clone, Default)]
pub(crate) struct Watch(Arc<(Mutex<Seen>, Condvar)>);

#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) steps: Vec<Vec<Span>>,
    /// Rows of which only the best token was asked.
    chosen: usize,
    permits: Option<usize>,
}

impl Watch {
    /// Tokens evaluated since the last call.
    pub(crate) fn evaluated(&self) -> u32 {
        self.steps().iter().flatten().map(|span| span.len).sum()
    }

    /// Steps since the last call.
    pub(crate) fn steps(&self) -> Vec<Vec<Span>> {
        std::mem::take(&mut self.0.0.lock().unwrap().steps)
    }

    /// Rows of which only the best token was asked, since the last call.
    pub(crate) fn chosen(&self) -> usize {
        std::mem::take(&mut self.0.0.lock().unwrap().chosen)
    }

    /// From now on a step waits until it is permitted.
    pub(crate) fn close(&self) {
        self.0.0.lock().unwrap().permits = Some(0);
    }

    pub(crate) fn permit(&self, steps: usize) {
        *self.0.0.lock().unwrap().permits.as_mut().unwrap() += steps;
        self.0.1.notify_all();
    }

    pub(crate) fn open(&self) {
        self.0.0.lock().unwrap().permits = None;
        self.0.1.notify_all();
    }

    fn pass(&self, spans: &[Span]) {
        let mut seen = self.0.1.wait_while(self.0.0.lock().unwrap(), |seen| seen.permits == Some(0)).unwrap();
        seen.permits = seen.permits.map(|n| n - 1);
        seen.steps.push(spans.to_vec());
    }
}

impl Fake {
    pub(crate) fn new(limits: Limits) -> Self {
        let shape = Shape { n_vocab: 320, ..Shape::flash() };
        let slots = vec![Slot::default(); limits.slots as usize];
        Fake { shape, limits, slots, favour: None, watch: Watch::default() }
    }

    pub(crate) fn favouring(limits: Limits, favour: Favour) -> Self {
        Fake { favour: Some(favour), ..Fake::new(limits) }
    }

    fn ring_len(&self) -> u32 {
        WINDOW + self.limits.rewind
    }

    fn check(&self, batch: &Batch<'_>, logits: &[f32]) -> Result<()> {
        let rows: u32 = batch.spans.iter().map(|s| s.len).sum();
        let fits = rows as usize == batch.tokens.len()
            && rows <= self.limits.max_rows
            && batch.tokens.iter().all(|&t| (t as usize) < self.shape.n_vocab)
            && batch
                .spans
                .iter()
                .all(|s| s.len > 0 && s.pos + s.len <= self.limits.context && s.slot < self.limits.slots)
            && batch.spans.iter().enumerate().all(|(i, s)| batch.spans[..i].iter().all(|t| t.slot != s.slot))
            && logits.len() == batch.logit_rows() * self.shape.n_vocab;
        if fits { Ok(()) } else { Err(Error::Batch(format!("{:?}", batch.spans))) }
    }

    /// Appends one token and returns the digest of the history as the state knows it.
    fn step(&mut self, slot: SlotId, pos: u32, token: u32) -> u64 {
        let ring_len = self.ring_len();
        let slot = &mut self.slots[slot as usize];
        slot.ring.resize(ring_len as usize, None);
        let seen = |pos: u32| match slot.ring[(pos % ring_len) as usize] {
            Some((at, digest)) if at == pos => digest,
            _ => 0xBAD,
        };
        let mut digest = mix(0, u64::from(token));
        if pos > 0 {
            digest = mix(digest, seen(pos - 1));
            digest = mix(digest, seen(pos.saturating_sub(WINDOW)));
            digest = mix(digest, slot.rows.get((seen(pos - 1) % u64::from(pos)) as usize).copied().unwrap_or(0xBAD));
        }
        slot.rows.resize(slot.rows.len().max(pos as usize + 1), 0);
        slot.rows[pos as usize] = mix(u64::from(token), u64::from(pos));
        slot.ring[(pos % ring_len) as usize] = Some((pos, digest));
        digest
    }

    fn logits(&self, pos: u32, digest: u64, out: &mut [f32]) {
        for (id, z) in out.iter_mut().enumerate() {
            *z = (mix(digest, id as u64) >> 40) as f32 / 2_f32.powi(24) * 6.0 - 3.0;
            // The ids that misbehave are only ever given, never drawn.
            *z -= if id >= DEVICE_FAILS as usize { 30.0 } else { 0.0 };
        }
        if let Some((id, by)) = self.favour.as_ref().and_then(|favour| favour(pos)) {
            out[id as usize] = 3.0 + by;
        }
    }
}

fn mix(a: u64, b: u64) -> u64 {
    let mut z = (a ^ b.rotate_left(32)).wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl Model for Fake {
    fn shape(&self) -> &Shape {
        &self.shape
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn forward(&mut self, batch: &Batch<'_>, logits: &mut [f32]) -> Result<()> {
        self.check(batch, logits)?;
        self.watch.pass(batch.spans);
        let (mut tokens, mut rows) = (batch.tokens, logits.chunks_exact_mut(self.shape.n_vocab));
        for span in batch.spans {
            for i in 0..span.len {
                let (token, pos) = (tokens[0], span.pos + i);
                tokens = &tokens[1..];
                match token {
                    DEVICE_FAILS => {
                        return Err(Error::Device { device: "fake".to_owned(), what: "fell off the bus".to_owned() });
                    }
                    PANICS => panic!("the model lost its head"),
                    BATCH_FAILS => return Err(Error::Batch("asked to fail".to_owned())),
                    _ => {}
                }
                let digest = self.step(span.slot, pos, token);
                let last = i + 1 == span.len;
                if span.logits == LogitRows::All || (last && span.logits == LogitRows::Last) {
                    let row = rows.next().unwrap();
                    self.logits(pos, digest, row);
                    row[0] = if token == NOT_A_NUMBER { f32::NAN } else { row[0] };
                }
            }
        }
        Ok(())
    }

    fn forward_best(&mut self, batch: &Batch<'_>, best: &mut [Best]) -> Result<()> {
        let mut logits = vec![0.0; best.len() * self.shape.n_vocab];
        self.forward(batch, &mut logits)?;
        self.watch.0.0.lock().unwrap().chosen += best.len();
        best.iter_mut().zip(logits.chunks(self.shape.n_vocab)).for_each(|(best, row)| *best = Best::of(row));
        Ok(())
    }

    fn save(&mut self, slot: SlotId, rows: Range<u32>, out: &mut dyn Write) -> Result<()> {
        let ring_len = self.ring_len();
        let slot = &self.slots[slot as usize];
        for pos in rows.clone() {
            out.write_all(&slot.rows[pos as usize].to_le_bytes())?;
        }
        for pos in rows.end.saturating_sub(WINDOW)..rows.end {
            let (at, digest) = slot.ring[(pos % ring_len) as usize].unwrap_or((u32::MAX, 0xBAD));
            out.write_all(&at.to_le_bytes())?;
            out.write_all(&digest.to_le_bytes())?;
        }
        Ok(())
    }

    fn load(&mut self, slot: SlotId, rows: Range<u32>, src: &mut dyn Read) -> Result<()> {
        let ring_len = self.ring_len();
        let slot = &mut self.slots[slot as usize];
        slot.rows.resize(slot.rows.len().max(rows.end as usize), 0);
        slot.ring = vec![None; ring_len as usize];
        for pos in rows.clone() {
            let mut row = [0; 8];
            src.read_exact(&mut row)?;
            slot.rows[pos as usize] = u64::from_le_bytes(row);
        }
        for pos in rows.end.saturating_sub(WINDOW)..rows.end {
            let (mut at, mut digest) = ([0; 4], [0; 8]);
            src.read_exact(&mut at)?;
            src.read_exact(&mut digest)?;
            slot.ring[(pos % ring_len) as usize] = Some((u32::from_le_bytes(at), u64::from_le_bytes(digest)));
        }
        Ok(())
    }

    fn state_bytes(&self, rows: Range<u32>) -> u64 {
        8 * u64::from(rows.end - rows.start) + (RING_ENTRY as u64) * u64::from(rows.end.min(WINDOW))
    }

    fn parts(&self, n: u32) -> Vec<Part> {
        vec![Part::Rows { ratio: 1, row_bytes: 8 }, Part::Tail(RING_ENTRY * n.min(WINDOW) as usize)]
    }

    fn fingerprint(&self) -> [u8; 32] {
        [7; 32]
    }
}

/// The logits after `tokens` of a model that was given nothing else.
pub(crate) fn straight(tokens: &[u32]) -> Vec<f32> {
    let mut fake = Fake::new(Limits { context: 4096, slots: 1, max_rows: 4096, rewind: 0 });
    let span = Span { slot: 0, pos: 0, len: tokens.len() as u32, logits: LogitRows::Last };
    let mut logits = vec![0.0; fake.shape.n_vocab];
    fake.forward(&Batch { tokens, spans: &[span] }, &mut logits).unwrap();
    logits
}
