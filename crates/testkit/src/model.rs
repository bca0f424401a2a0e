//! The scripted model itself: token ids for a state, a reply for logits. Owns the rules of the outer seam, which it enforces
//! more strictly than a device can: a wrong rewind, save or load is an error here, not a wrong number.

use std::io::{Read, Write};
use std::ops::Range;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use ds4_model::{Batch, Error, Limits, LogitRows, Model, Result, Shape, SlotId, Span};
use ds4_text::Tokenizer;

use crate::reply::Reply;
use crate::script::{Rule, Scene, Script};

/// A model that answers from a script.
pub struct ScriptedModel {
    shape: Shape,
    limits: Limits,
    tokenizer: Arc<Tokenizer>,
    script: Script,
    slots: Vec<Slot>,
    /// Logits of a token that nobody asked for, by id: what a grammar or a mask falls back on.
    floor: Vec<f32>,
}

/// One sequence.
#[derive(Clone, Default)]
struct Slot {
    /// Ids by position. Those from `len` on are left over from before a rewind.
    ids: Vec<u32>,
    len: usize,
    /// One more than the highest position written since the slot was started or loaded, and where that was.
    high: u32,
    base: u32,
    /// Where the prompt ended last, as far as the calls tell: only asked if no assistant's marker does.
    prompt: usize,
    answer: Option<Answer>,
}

/// What is said from position `start` on.
#[derive(Clone)]
struct Answer {
    start: usize,
    marked: bool,
    /// `None`: no rule fits, and the answer is empty.
    part: Option<Arc<Part>>,
}

struct Part {
    rule: Rule,
    reply: Reply,
}

impl ScriptedModel {
    /// A model of this shape, of which only the vocabulary matters.
    pub fn new(shape: Shape, limits: Limits, tokenizer: Arc<Tokenizer>, script: Script) -> Self {
        let slots = vec![Slot::default(); limits.slots as usize];
        let floor = floor(&tokenizer, shape.n_vocab);
        Self { shape, limits, tokenizer, script, slots, floor }
    }

    fn check(&self, batch: &Batch<'_>, logits: &[f32]) -> Result<()> {
        let wrong = |what: String| Err(Error::Batch(what));
        let rows: u64 = batch.spans.iter().map(|span| u64::from(span.len)).sum();
        if rows != batch.tokens.len() as u64 || rows > u64::from(self.limits.max_rows) {
            return wrong(format!(
                "{} tokens in spans of {rows}, at most {}",
                batch.tokens.len(),
                self.limits.max_rows
            ));
        }
        if logits.len() != batch.logit_rows() * self.shape.n_vocab {
            return wrong(format!("room for {} logits, expected {} rows", logits.len(), batch.logit_rows()));
        }
        if let Some(id) = batch.tokens.iter().find(|&&id| id as usize >= self.shape.n_vocab) {
            return wrong(format!("token {id}, expected less than {}", self.shape.n_vocab));
        }
        for (i, span) in batch.spans.iter().enumerate() {
            let end = u64::from(span.pos) + u64::from(span.len);
            let Some(slot) = self.slots.get(span.slot as usize) else {
                return wrong(format!("slot {}, expected less than {}", span.slot, self.limits.slots));
            };
            if span.len == 0 || end > u64::from(self.limits.context) {
                return wrong(format!("span {}..{end}, expected 1 to {} tokens", span.pos, self.limits.context));
            }
            if batch.spans[..i].iter().any(|other| other.slot == span.slot) {
                return wrong(format!("slot {} twice", span.slot));
            }
            if !slot.continues(span.pos, self.limits.rewind) {
                return wrong(format!(
                    "position {} in a slot of {} tokens, written to {} since {}, with a rewind of {}",
                    span.pos, slot.len, slot.high, slot.base, self.limits.rewind
                ));
            }
        }
        Ok(())
    }

    /// Appends a span. Returns how long its tokens take as a prompt.
    fn append(&mut self, span: Span, tokens: &[u32]) -> Duration {
        let slot = &mut self.slots[span.slot as usize];
        slot.append(span.pos as usize, tokens, self.tokenizer.special().assistant);
        if slot.answer.is_some() || !self.script.slows_prompts() {
            return Duration::ZERO;
        }
        let len = slot.len;
        let part = self.answer(span.slot, len).part;
        part.map_or(Duration::ZERO, |part| part.rule.prefill_time(tokens.len()))
    }

    /// The answer to the first `len` tokens of a slot.
    fn answer(&self, slot: SlotId, len: usize) -> Answer {
        let slot = &self.slots[slot as usize];
        if let Some(answer) = slot.answer.as_ref().filter(|answer| answer.start <= len) {
            return answer.clone();
        }
        let special = self.tokenizer.special();
        let ids = &slot.ids[..len];
        let last = |id: u32, ids: &[u32]| ids.iter().rposition(|&other| other == id);
        // A marker before the last user turn belongs to an earlier answer: the prompt is not complete yet.
        let user = last(special.user, ids);
        let marker = last(special.assistant, ids).filter(|&at| user.is_none_or(|user| user < at));
        let end = marker.unwrap_or_else(|| slot.prompt.min(len));
        let turn = last(special.user, &ids[..end]).map_or(0, |at| at + 1);
        let text = |ids: &[u32]| String::from_utf8_lossy(&self.tokenizer.decode(ids)).into_owned();
        let (prompt, turn) = (text(&ids[..end]), text(&ids[turn..end]));
        let answers = ids[..end].iter().filter(|&&id| id == special.assistant).count();
        let scene = Scene { prompt: &prompt, turn: &turn, answers };
        let part = self
            .script
            .rule(scene)
            .map(|rule| Arc::new(Part { rule: rule.clone(), reply: Reply::new(&rule.reply(scene), &self.tokenizer) }));
        Answer { start: marker.map_or(end, |at| at + 1), marked: marker.is_some(), part }
    }

    /// Writes the logits after the first `len` tokens of a slot. Returns how long the next token takes.
    fn row(&mut self, slot: SlotId, len: usize, wanted: LogitRows, row: &mut [f32]) -> Duration {
        let answer = self.answer(slot, len);
        row.copy_from_slice(&self.floor);
        let said = &self.slots[slot as usize].ids[answer.start..len];
        // The think mark is the prompt's.
        let n = said.len().saturating_sub(usize::from(answer.marked));
        let next = answer.part.as_ref().and_then(|part| part.reply.next(said, answer.marked, &self.tokenizer));
        row[next.unwrap_or(self.tokenizer.special().eos) as usize] = CERTAIN;
        let mut time = Duration::ZERO;
        if let Some(part) = &answer.part {
            time = part.rule.decode_time(n);
            if part.rule.is_nan(n) {
                row.fill(f32::NAN);
            }
        }
        // Kept once the prompt is complete, which is when somebody asks for what follows it and for nothing before.
        let slot = &mut self.slots[slot as usize];
        if len == slot.len && wanted == LogitRows::Last {
            slot.answer = Some(answer);
        }
        time
    }
}

impl Model for ScriptedModel {
    fn shape(&self) -> &Shape {
        &self.shape
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    /// Sequences that generate wait for the slowest of them; prompts wait one after another.
    fn forward(&mut self, batch: &Batch<'_>, logits: &mut [f32]) -> Result<()> {
        self.check(batch, logits)?;
        let (mut tokens, mut rows) = (batch.tokens, logits.chunks_exact_mut(self.shape.n_vocab));
        let (mut prefill, mut decode) = (Duration::ZERO, Duration::ZERO);
        for &span in batch.spans {
            let (own, rest) = tokens.split_at(span.len as usize);
            tokens = rest;
            prefill += self.append(span, own);
            let wanted = match span.logits {
                LogitRows::None => 0..0,
                LogitRows::Last => span.len - 1..span.len,
                LogitRows::All => 0..span.len,
            };
            for i in wanted {
                let row = rows.next().expect("the rows were counted");
                decode = decode.max(self.row(span.slot, (span.pos + i) as usize + 1, span.logits, row));
            }
        }
        thread::sleep(prefill + decode);
        Ok(())
    }

    fn save(&mut self, slot: SlotId, rows: Range<u32>, out: &mut dyn Write) -> Result<()> {
        let slot = self.slot(slot)?;
        if rows.start > rows.end || rows.end as usize > slot.len {
            return Err(Error::State(format!("tokens {rows:?} of a slot of {}", slot.len)));
        }
        for id in &slot.ids[rows.start as usize..rows.end as usize] {
            out.write_all(&id.to_le_bytes())?;
        }
        Ok(out.write_all(&digest(&slot.ids[..rows.end as usize]).to_le_bytes())?)
    }

    fn load(&mut self, slot: SlotId, rows: Range<u32>, src: &mut dyn Read) -> Result<()> {
        let context = self.limits.context;
        let held = std::mem::take(self.slot(slot)?);
        if rows.start > rows.end || rows.end > context || rows.start as usize > held.ids.len() {
            return Err(Error::State(format!("tokens {rows:?} into a slot of {}", held.ids.len())));
        }
        let mut ids = held.ids;
        ids.truncate(rows.start as usize);
        let mut word = [0; 4];
        for _ in rows.clone() {
            src.read_exact(&mut word)?;
            ids.push(u32::from_le_bytes(word));
        }
        let mut sum = [0; DIGEST];
        src.read_exact(&mut sum)?;
        if u64::from_le_bytes(sum) != digest(&ids) {
            return Err(Error::State(format!("the tokens before {} are not those that were saved", rows.end)));
        }
        let len = ids.len();
        *self.slot(slot)? = Slot { ids, len, high: rows.end, base: rows.end, prompt: len, answer: None };
        Ok(())
    }

    fn state_bytes(&self, rows: Range<u32>) -> u64 {
        4 * u64::from(rows.end.saturating_sub(rows.start)) + DIGEST as u64
    }

    fn parts(&self, _n: u32) -> Vec<ds4_model::Part> {
        use ds4_model::Part::{Rows, Tail};
        vec![Rows { ratio: 1, row_bytes: 4 }, Tail(DIGEST)]
    }

    fn fingerprint(&self) -> [u8; 32] {
        let mut fingerprint = *b"ds4 scripted model of 0000 words";
        fingerprint[22..26].copy_from_slice(&(self.shape.n_vocab as u32).to_le_bytes());
        fingerprint
    }
}

impl ScriptedModel {
    fn slot(&mut self, slot: SlotId) -> Result<&mut Slot> {
        let slots = self.limits.slots;
        self.slots
            .get_mut(slot as usize)
            .ok_or_else(|| Error::State(format!("slot {slot}, expected less than {slots}")))
    }
}

impl Slot {
    /// Whether the state allows the next token to be at `pos`.
    fn continues(&self, pos: u32, rewind: u32) -> bool {
        pos == 0 || (pos as usize <= self.len && pos >= self.base && self.high - pos <= rewind)
    }

    fn append(&mut self, pos: usize, tokens: &[u32], marker: u32) {
        if pos == 0 {
            (self.high, self.base) = (0, 0);
        }
        let goes_on = pos == self.len;
        let end = pos + tokens.len();
        self.ids.resize(self.ids.len().max(end), 0);
        self.ids[pos..end].copy_from_slice(tokens);
        self.len = end;
        self.high = self.high.max(end as u32);
        let kept = |answer: &Answer| {
            let said = pos >= answer.start + usize::from(answer.marked);
            said && goes_on && !tokens.contains(&marker) && (answer.marked || tokens.len() == 1)
        };
        if !self.answer.as_ref().is_some_and(kept) {
            (self.answer, self.prompt) = (None, end);
        }
    }
}

/// Nobody asked for it: the end first, then what closes JSON, then ids in order.
fn floor(tokenizer: &Tokenizer, n_vocab: usize) -> Vec<f32> {
    let mut floor: Vec<f32> = (0..n_vocab).map(|id| -(id as f32) / n_vocab as f32).collect();
    for (closer, logit) in [("}", 4.0), ("]", 3.0), ("\"", 2.0)] {
        for id in tokenizer.encode_plain(closer) {
            floor[id as usize] = logit;
        }
    }
    floor[tokenizer.special().eos as usize] = 5.0;
    floor
}

/// FNV-1a over the ids.
fn digest(ids: &[u32]) -> u64 {
    let step = |sum: u64, byte: u8| (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    ids.iter().flat_map(|id| id.to_le_bytes()).fold(0xcbf2_9ce4_8422_2325, step)
}

const DIGEST: usize = 8;

/// Logit of the script's own token: certain at every temperature that a request may ask for.
const CERTAIN: f32 = 1000.0;

#[cfg(test)]
mod tests;
