//! One timeline: which tokens a slot holds, how to go on, how to go back. It owns the ids, the last logits and the
//! rewind points; the model owns the state itself and knows no positions. It draws no tokens.
//!
//! **Going back.** The model takes back `limits.rewind` positions for free. For anything further the session keeps
//! *checkpoints*: the window and the frontiers at some position, without the append-only rows, which are still in the
//! slot. A checkpoint is due where the new part of a prompt starts, where its last user turn does if that is far from
//! all others, before its last token, and at every multiple of `interval`. It is only written when the next step would
//! put its position out of free reach, so short answers cost nothing. To rewind to `m`, the nearest checkpoint at
//! `c <= m` is loaded and `c..m` is evaluated again; without one the start of the sequence serves. Too many or too large
//! checkpoints are thinned: the newest stays, and of the others those go first whose neighbours are close compared with
//! their age, which leaves them ever sparser towards the past.

use std::ops::{ControlFlow, RangeInclusive};
use std::sync::Arc;

use ds4_model::{Batch, LogitRows, Model, SlotId, Span};

use crate::request::check_ids;
use crate::{Error, Result};

/// How many rewind points a session keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointPolicy {
    /// Tokens between regular rewind points; 0 for none of that kind.
    pub interval: u32,
    /// Most rewind points.
    pub count: usize,
    /// Most bytes of all of them together.
    pub bytes: u64,
}

impl Default for CheckpointPolicy {
    fn default() -> Self {
        CheckpointPolicy { interval: 2048, count: 8, bytes: 256 << 20 }
    }
}

/// One timeline. Its position is the number of its tokens; there is no second counter.
#[derive(Clone, Debug)]
pub struct Session {
    slot: SlotId,
    pub(crate) tokens: Vec<u32>,
    /// Logits after the last token; empty when they are not known.
    logits: Vec<f32>,
    /// One more than the highest position written since the slot was started or loaded.
    high: u32,
    /// Position of that start or load: the model cannot go back before it for free.
    base: u32,
    /// Positions, ascending, that become checkpoints before they get out of free reach.
    due: Vec<u32>,
    checkpoints: Vec<Checkpoint>,
    policy: CheckpointPolicy,
}

/// Window and frontiers after the first `pos` tokens.
#[derive(Clone, Debug)]
struct Checkpoint {
    pos: u32,
    /// Shared with the sessions that were forked from this one.
    tail: Arc<Vec<u8>>,
}

/// What [`Session::sync`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reuse {
    /// Tokens of the prompt whose state was there.
    pub cached: u32,
    /// Tokens evaluated.
    pub evaluated: u32,
}

/// Called between two chunks with the tokens done and the tokens in all; `Break` stops there.
pub type Observer<'a> = &'a mut dyn FnMut(u32, u32) -> ControlFlow<()>;

impl Session {
    /// An empty timeline in `slot`.
    pub fn new(slot: SlotId, policy: CheckpointPolicy) -> Self {
        Session {
            slot,
            tokens: Vec::new(),
            logits: Vec::new(),
            high: 0,
            base: 0,
            due: Vec::new(),
            checkpoints: Vec::new(),
            policy,
        }
    }

    /// The slot of the model's cache.
    pub fn slot(&self) -> SlotId {
        self.slot
    }

    /// Ids whose state the slot holds, oldest first.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Tokens so far, which is also the position of the next one.
    pub fn position(&self) -> u32 {
        self.tokens.len() as u32
    }

    /// Logits after the last token, `[n_vocab]`. Unknown when empty, after a rewind, and after a cancelled extension.
    pub fn logits(&self) -> Option<&[f32]> {
        if self.logits.is_empty() { None } else { Some(&self.logits) }
    }

    /// Positions of the rewind points, ascending.
    pub fn checkpoints(&self) -> impl Iterator<Item = u32> + '_ {
        self.checkpoints.iter().map(|c| c.pos)
    }

    /// The last rewind point in a range of positions, with its window and frontiers. One that is still in free reach, and
    /// therefore not kept yet, is taken from the model.
    pub(crate) fn rewind_point_in(
        &self,
        model: &mut dyn Model,
        range: &RangeInclusive<u32>,
    ) -> Result<Option<(u32, Vec<u8>)>> {
        let rewind = model.limits().rewind;
        let due = self.due.iter().rev().find(|&pos| range.contains(pos) && self.is_free(*pos, rewind));
        let kept = self.checkpoints.iter().rev().find(|c| range.contains(&c.pos));
        match (due, kept) {
            (Some(&pos), kept) if kept.is_none_or(|c| c.pos < pos) => {
                let mut tail = Vec::new();
                model.save(self.slot, pos..pos, &mut tail)?;
                Ok(Some((pos, tail)))
            }
            (_, kept) => Ok(kept.map(|c| (c.pos, c.tail.to_vec()))),
        }
    }

    /// Bytes of the rewind points.
    pub fn checkpoint_bytes(&self) -> u64 {
        self.checkpoints.iter().map(|c| c.tail.len() as u64).sum()
    }

    /// Appends `tokens` in chunks of the model's `max_rows`; afterwards the logits are those of the last one.
    ///
    /// # Errors
    /// Before anything happens: an unknown id, or more tokens than the context holds. `Cancelled` when `observer` broke
    /// off: the session then ends exactly at the last finished chunk, whose work a later call reuses. After an error of
    /// the model the slot's state is unknown and the session is empty.
    pub fn extend(&mut self, model: &mut dyn Model, tokens: &[u32], observer: Observer<'_>) -> Result<()> {
        let limits = model.limits();
        let n_vocab = model.shape().n_vocab;
        check_ids(tokens, n_vocab)?;
        let found = self.tokens.len().saturating_add(tokens.len());
        if found > limits.context as usize {
            return Err(Error::ContextFull { found, context: limits.context });
        }
        let total = tokens.len() as u32;
        let mut done = 0;
        let mut row = vec![0.0; n_vocab];
        for chunk in tokens.chunks(limits.max_rows as usize) {
            if observer(done, total).is_break() {
                return Err(Error::Cancelled);
            }
            done += chunk.len() as u32;
            let logits = if done == total { LogitRows::Last } else { LogitRows::None };
            let span = Span { slot: self.slot, pos: self.position(), len: chunk.len() as u32, logits };
            self.before(model, span.len)?;
            let wanted = &mut row[..span.logit_rows() * n_vocab];
            if let Err(error) = model.forward(&Batch { tokens: chunk, spans: &[span] }, wanted) {
                self.clear();
                return Err(error.into());
            }
            self.advance(chunk, if done == total { Some(&row) } else { None }, limits.rewind);
        }
        // Progress only: there is nothing left to stop.
        let _ = observer(done, total);
        Ok(())
    }

    /// Appends one token.
    ///
    /// # Errors
    /// As [`Session::extend`].
    pub fn decode(&mut self, model: &mut dyn Model, token: u32) -> Result<()> {
        self.extend(model, &[token], &mut |_, _| ControlFlow::Continue(()))
    }

    /// Goes back to the first `len` tokens, exactly: the state is that of a session that never went further. Tokens
    /// between the nearest rewind point and `len` are evaluated again. The logits are unknown afterwards, unless `len`
    /// is where the session was; to have them, rewind to one less and [`Session::decode`] the last token.
    ///
    /// # Errors
    /// If `len` lies ahead, or the model fails.
    pub fn rewind(&mut self, model: &mut dyn Model, len: u32) -> Result<()> {
        if len > self.position() {
            let found = len.to_string();
            return Err(Error::Parameter { name: "rewind", found, expected: "at most the session's position" });
        }
        let replay = self.tokens[..len as usize].to_vec();
        let at = self.rewind_near(model, len)?;
        if at < len {
            self.extend(model, &replay[at as usize..], &mut |_, _| ControlFlow::Continue(()))?;
        }
        Ok(())
    }

    /// Makes `prompt` the history: keeps the common prefix, evaluates the rest, and always leaves the logits of its last
    /// token. `observer` counts tokens of the prompt, kept ones included.
    ///
    /// # Errors
    /// As [`Session::extend`]; an empty prompt is refused.
    pub fn sync(&mut self, model: &mut dyn Model, prompt: &[u32], observer: Observer<'_>) -> Result<Reuse> {
        if prompt.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        check_ids(prompt, model.shape().n_vocab)?;
        let limits = model.limits();
        if prompt.len() > limits.context as usize {
            return Err(Error::ContextFull { found: prompt.len(), context: limits.context });
        }
        let cached = self.reuse(model, prompt)?;
        let total = prompt.len() as u32;
        let rest = &prompt[cached as usize..];
        if !rest.is_empty() {
            self.extend(model, rest, &mut |done, _| observer(cached + done, total))?;
        }
        self.mark_prompt_end(limits.rewind);
        Ok(Reuse { cached, evaluated: rest.len() as u32 })
    }

    /// Forgets everything. The next token starts the slot anew.
    pub fn clear(&mut self) {
        *self = self.emptied();
    }

    /// A session that knows nothing, in the same slot.
    pub(crate) fn emptied(&self) -> Session {
        Session::new(self.slot, self.policy)
    }

    /// Tokens of `prompt` that would not have to be evaluated again. Nothing changes.
    pub fn reusable(&self, prompt: &[u32], rewind: u32) -> u32 {
        self.landing(self.target(prompt), rewind)
    }

    /// Length of the longest common prefix with `prompt`.
    pub fn common_prefix(&self, prompt: &[u32]) -> u32 {
        common_prefix(&self.tokens, prompt)
    }

    /// Goes back as far as `prompt` asks, so that its tokens from the returned position on can follow. If that is all of
    /// them, the logits are known.
    pub(crate) fn reuse(&mut self, model: &mut dyn Model, prompt: &[u32]) -> Result<u32> {
        let at = self.rewind_near(model, self.target(prompt))?;
        // Where the new part starts is where the next request is likely to part from it.
        self.mark(at);
        Ok(at)
    }

    /// Takes over the first `len` tokens of a session in another slot, or as many as there is a way back to, and returns how
    /// many that is. What this one held is gone; the other one, which may be in the middle of a request, stays as it is.
    pub(crate) fn fork(&mut self, model: &mut dyn Model, source: &Session, len: u32) -> Result<u32> {
        let rewind = model.limits().rewind;
        let at = source.landing(len, rewind);
        self.clear();
        if at == 0 {
            return Ok(0);
        }
        model.copy(source.slot, self.slot, at)?;
        if !source.is_free(at, rewind) {
            let checkpoint = source.checkpoints.iter().find(|c| c.pos == at).expect("landing is free or a checkpoint");
            model.load(self.slot, at..at, &mut checkpoint.tail.as_slice())?;
        }
        (self.base, self.high) = (at, at);
        self.tokens.extend_from_slice(&source.tokens[..at as usize]);
        if at == source.position() {
            self.logits.clone_from(&source.logits);
        }
        self.checkpoints.extend(source.checkpoints.iter().filter(|c| c.pos <= at).cloned());
        // The next request is likely to part from this one where this one parted from the other.
        self.mark(at);
        Ok(at)
    }

    /// The furthest useful position: the common prefix, less a token where the last logits would be missing.
    pub(crate) fn target(&self, prompt: &[u32]) -> u32 {
        let common = self.common_prefix(prompt);
        let here = common == self.position() && !self.logits.is_empty();
        if common as usize == prompt.len() && !here { common.saturating_sub(1) } else { common }
    }

    /// Where a rewind to `len` lands before anything is evaluated again.
    fn landing(&self, len: u32, rewind: u32) -> u32 {
        if len == self.position() || self.is_free(len, rewind) {
            return len;
        }
        self.checkpoints.iter().rev().map(|c| c.pos).find(|&pos| pos <= len).unwrap_or(0)
    }

    /// The model can go on at `pos` as it is. Position 0 starts the slot anew and is always free.
    fn is_free(&self, pos: u32, rewind: u32) -> bool {
        pos == 0 || (pos >= self.base && pos <= self.high && self.high - pos <= rewind)
    }

    /// Goes back to `len` or to the nearest position before it from which it can be reached, and returns that.
    pub(crate) fn rewind_near(&mut self, model: &mut dyn Model, len: u32) -> Result<u32> {
        let rewind = model.limits().rewind;
        if len == self.position() {
            return Ok(len);
        }
        let at = self.landing(len, rewind);
        if !self.is_free(at, rewind) {
            let checkpoint = self.checkpoints.iter().find(|c| c.pos == at).expect("landing is free or a checkpoint");
            if let Err(error) = model.load(self.slot, at..at, &mut checkpoint.tail.as_slice()) {
                self.clear();
                return Err(error.into());
            }
            self.base = at;
            self.high = at;
        }
        self.tokens.truncate(at as usize);
        self.logits.clear();
        // What follows may differ, and with it the append-only rows that later checkpoints rely on.
        self.checkpoints.retain(|c| c.pos <= at);
        self.due.retain(|&pos| pos <= at);
        Ok(at)
    }

    /// To be called before `rows` tokens are evaluated at the position: writes the checkpoints that would be lost.
    pub(crate) fn before(&mut self, model: &mut dyn Model, rows: u32) -> Result<()> {
        let rewind = model.limits().rewind;
        let next = self.high.max(self.position() + rows);
        while let Some(&pos) = self.due.first() {
            if next - pos <= rewind {
                break;
            }
            self.due.remove(0);
            if self.is_free(pos, rewind) && !self.checkpoints.iter().any(|c| c.pos == pos) {
                let mut tail = Vec::with_capacity(model.state_bytes(pos..pos) as usize);
                model.save(self.slot, pos..pos, &mut tail)?;
                self.checkpoints.push(Checkpoint { pos, tail: Arc::new(tail) });
                self.checkpoints.sort_unstable_by_key(|c| c.pos);
                self.thin();
            }
        }
        Ok(())
    }

    /// To be called after `tokens` were evaluated; `logits` are those of the last one, if they were asked for.
    pub(crate) fn advance(&mut self, tokens: &[u32], logits: Option<&[f32]>, rewind: u32) {
        let from = self.position();
        if from == 0 {
            self.base = 0;
            self.high = 0;
        }
        self.tokens.extend_from_slice(tokens);
        self.logits.clear();
        self.logits.extend_from_slice(logits.unwrap_or_default());
        let to = self.position();
        self.high = self.high.max(to);
        if let Some(intervals) = to.checked_div(self.policy.interval) {
            let regular = intervals * self.policy.interval;
            if regular > from {
                self.mark(if self.is_free(regular, rewind) { regular } else { to });
            }
        }
    }

    /// The same prompt again, or one with another last token, is what is asked for most often.
    pub(crate) fn mark_prompt_end(&mut self, rewind: u32) {
        let to = self.position();
        let before_last = to.saturating_sub(1);
        self.mark(if self.is_free(before_last, rewind) { before_last } else { to });
    }

    /// Where the last user turn of a prompt begins, if a way back to there is worth a step of its own: what comes before it, the
    /// system prompt or all of a conversation, is what a prompt with another question shares with this one.
    pub(crate) fn turn_to_mark(&self, prompt: &[u32], user: u32) -> Option<u32> {
        let turn = prompt.iter().rposition(|&id| id == user)? as u32;
        let regular = turn - turn.checked_rem(self.policy.interval).unwrap_or(turn);
        let near = regular.max(self.position());
        (turn >= near.saturating_add(TURN_WORTH)).then_some(turn)
    }

    /// Makes a position a rewind point, before it gets out of free reach.
    pub(crate) fn mark(&mut self, pos: u32) {
        if let (1.., Err(at)) = (pos, self.due.binary_search(&pos)) {
            self.due.insert(at, pos);
        }
    }

    /// Drops checkpoints until the policy is met.
    fn thin(&mut self) {
        while self.checkpoints.len() > self.policy.count || self.checkpoint_bytes() > self.policy.bytes {
            let here = f64::from(self.position());
            let gap = |i: usize| {
                let before = if i == 0 { 0 } else { self.checkpoints[i - 1].pos };
                let after = self.checkpoints.get(i + 1).map_or(self.position(), |c| c.pos);
                f64::from(after.saturating_sub(before)) / (here - f64::from(self.checkpoints[i].pos) + 1.0)
            };
            // The newest may go only when it is alone and still too large.
            let older = self.checkpoints.len().saturating_sub(1).max(1);
            match (0..older.min(self.checkpoints.len())).min_by(|&a, &b| gap(a).total_cmp(&gap(b))) {
                Some(i) => drop(self.checkpoints.remove(i)),
                None => return,
            }
        }
    }
}

/// Tokens that a rewind point has to save.
const TURN_WORTH: u32 = 256;

/// Length of the longest common prefix. Whole pieces are compared first: histories are long and asked about often.
pub(crate) fn common_prefix(a: &[u32], b: &[u32]) -> u32 {
    const PIECE: usize = 256;
    let same = a.chunks(PIECE).zip(b.chunks(PIECE)).take_while(|(a, b)| a.len() == PIECE && a == b).count() * PIECE;
    let rest = a[same..].iter().zip(&b[same..]).take_while(|(a, b)| a == b).count();
    (same + rest) as u32
}

mod snapshot;
