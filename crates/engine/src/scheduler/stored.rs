//! The scheduler's dealings with the store: looking a waiting prompt up, putting what was found into a slot, handing states
//! over. Nothing here waits for a disk, except at the end.

use std::ops::Range;
use std::time::{Duration, Instant};

use super::placement::{Place, awaited};
use super::queue::{Entry, Stored, Waiting};
use super::seat::Seat;
use super::{Scheduler, fatal};
use crate::handle::Message;
use crate::kvstore::{Answer, Fetch, Image, KvRole, Save};
use crate::saves::anchor;
use crate::{Request, Result, ShutdownReport, Source};

impl Scheduler {
    /// Asks for stored beginnings of the prompts that are next, as many as there are slots: what was read waits in memory.
    pub(super) fn look_up(&mut self) {
        let Some(kv) = &self.kv else { return };
        for entry in self.waiting.iter_mut().take(self.seats.len()) {
            let Waiting::Generate(queued) = &entry.waiting else { continue };
            let (Stored::Unasked, Some(wake)) = (&entry.stored, queued.wake.clone()) else { continue };
            let Request { prompt, tenant, .. } = &queued.request;
            let live = |seat: &Seat| seat.reusable(prompt, *tenant, self.limits.rewind);
            let held = self.seats.iter().map(live).max().unwrap_or(0);
            let wanted = entry.waiting.history();
            let coming = awaited(&self.seats, &wanted, 0, self.limits.rewind);
            // Its last token may have to be evaluated again.
            entry.live = coming.map_or(held, |(_, shared)| held.max(shared - 1));
            let len = prompt.len() as u32;
            let counters = kv.counters();
            let hopeless = match () {
                () if len < kv.config().min_tokens => Some(&counters.short),
                () if entry.live + 1 >= len => Some(&counters.live),
                () => None,
            };
            if let Some(counter) = hopeless {
                counter.add(1);
                entry.stored = Stored::Known(None);
                continue;
            }
            entry.stored = Stored::Asked;
            let ticket = entry.ticket;
            let answer = Answer::new(move |image| {
                // An engine that is gone needs no answer.
                let _ = wake.send(Message::Fetched(ticket, image.map(Box::new)));
            });
            kv.fetch(Fetch { tenant: *tenant, tokens: prompt.clone(), over: entry.live, answer });
        }
    }

    /// Takes the answer to a lookup. Its request may have gone.
    pub(super) fn fetched(&mut self, ticket: u64, image: Option<Box<Image>>) {
        if let Some(entry) = self.waiting.iter_mut().find(|entry| entry.ticket == ticket) {
            entry.stored = Stored::Known(image);
        }
    }

    /// What was counted on may have been overwritten while the request waited: then the store is asked, once more.
    pub(super) fn ask_again(&mut self, place: Place, entry: &mut Entry) -> bool {
        let again = self.kv.is_some()
            && !entry.again
            && matches!((&entry.waiting, &entry.stored), (Waiting::Generate(_), Stored::Known(None)))
            && place.kept < entry.live;
        if again {
            (entry.again, entry.stored) = (true, Stored::Unasked);
        }
        again
    }

    /// Puts the longest known beginning of a prompt into a seat: what is there, here or in another seat, or what was read.
    /// Returns its length.
    pub(super) fn take_seat(
        &mut self,
        place: Place,
        request: &Request,
        image: Option<Box<Image>>,
    ) -> Result<(u32, Source)> {
        let (Place { at, from, kept }, Request { prompt, tenant, .. }) = (place, request);
        let found = image.is_some();
        let image = image.filter(|image| image.tokens > kept);
        if let (true, None, Some(kv)) = (found, &image, &self.kv) {
            kv.counters().live.add(1);
        }
        let seat = &self.seats[at];
        let stays = match &image {
            _ if seat.tenant != *tenant => 0,
            Some(image) => seat.session.common_prefix(&prompt[..image.tokens as usize]),
            None if from.is_some() => seat.session.common_prefix(&prompt[..kept as usize]),
            None => kept,
        };
        self.keep_what_goes(at, stays);
        self.seats[at].give_to(*tenant);
        let restored = match image {
            Some(image) if self.adopt(at, prompt, &image)? => Some(image.tokens),
            _ => None,
        };
        let cached = match (restored, from) {
            (Some(cached), _) => cached,
            (None, Some(from)) => self.fork(at, from, self.seats[from].session.target(prompt))?,
            (None, None) => self.seats[at].session.reuse(self.model.as_mut(), prompt)?,
        };
        let source = match restored {
            Some(_) if self.kv.as_ref().is_some_and(|kv| kv.config().dir.is_none()) => Source::Ram,
            Some(_) => Source::Disk,
            None if cached > 0 => Source::Live,
            None => Source::None,
        };
        let seat = &mut self.seats[at];
        seat.affinity = request.affinity;
        let goes_on = restored.is_none() && from.is_none() && seat.opening > 0 && cached >= seat.opening;
        seat.opening = if goes_on { seat.opening } else { prompt.len() as u32 - 1 };
        seat.turn = seat.session.turn_to_mark(prompt, self.tokenizer.special().user);
        if let Some(kv) = &self.kv {
            let special = self.tokenizer.special();
            let anchor = anchor(kv.config(), prompt, special.user, special.assistant);
            seat.trail.begin(kv.config(), cached, prompt.len() as u32, anchor);
        }
        Ok((cached, source))
    }

    /// Loads a state that was read. If the model does not take it, the seat is empty and the prompt starts from nothing.
    fn adopt(&mut self, at: usize, prompt: &[u32], image: &Image) -> Result<bool> {
        let Some(kv) = &self.kv else { return Ok(false) };
        let (seat, tokens) = (&mut self.seats[at], &prompt[..image.tokens as usize]);
        let known = image.logits.is_empty() || image.logits.len() == self.model.shape().n_vocab;
        let stream = image.stream(&self.model.parts(image.tokens)).filter(|_| known);
        let loaded =
            stream.map(|mut stream| seat.session.adopt(self.model.as_mut(), tokens, &image.logits, &mut stream));
        if let Some(Ok(())) = loaded {
            seat.trail.restored(kv.config(), image.tokens);
            seat.restored = Some(image.key);
            kv.counters().hits.add(1);
            kv.counters().hit_tokens.add(u64::from(image.tokens));
            return Ok(true);
        }
        seat.session.clear();
        kv.forget(image.key);
        match loaded {
            Some(Err(error)) => fatal(error).map(|()| false),
            _ => Ok(false),
        }
    }

    /// Saves the end of an idle sequence of which only `kept` tokens stay.
    pub(super) fn keep_what_goes(&mut self, at: usize, kept: u32) {
        let Some(kv) = &self.kv else { return };
        if self.seats[at].session.position().saturating_sub(kept) >= kv.config().min_tokens {
            self.save_turn(at, KvRole::Evict, Duration::ZERO);
        }
    }

    /// Saves a sequence at its end and at its last question.
    fn save_turn(&mut self, at: usize, role: KvRole, patience: Duration) -> bool {
        let lost = self.save(at, role, patience);
        self.save_question(at, role, patience);
        lost
    }

    /// After a step: saves a seat that reached a length to be saved, or whose turn ended and was long. Then what the store
    /// gave and the model did not take is removed.
    pub(super) fn save_on_the_way(&mut self, at: usize) {
        let Some(kv) = &self.kv else { return };
        let seat = &mut self.seats[at];
        if let Some(key) = seat.refused.take() {
            kv.forget(key);
        }
        let len = seat.session.position();
        let ended = seat.job.is_none() && seat.trail.was_long_turn(kv.config(), len);
        if let Some(role) = seat.trail.on_the_way(kv.config(), len) {
            self.save(at, role, Duration::ZERO);
        }
        if ended {
            self.save_turn(at, KvRole::Turn, Duration::ZERO);
        }
    }

    /// Copies a seat's state out of the model and hands it over. Whatever fails, the sequence goes on. Says whether there
    /// is a state that should be on disk and will not be.
    fn save(&mut self, at: usize, role: KvRole, patience: Duration) -> bool {
        let Some(kv) = &self.kv else { return false };
        let seat = &mut self.seats[at];
        let n = seat.session.position();
        if !seat.trail.wants(kv.config(), n) {
            return false;
        }
        let from = seat.trail.on_disk();
        // First, so that the writer's word is the last one.
        let before = seat.trail.handed_over(kv.config(), n);
        let taken = self.hand_over(at, role, from..n, None, patience);
        if !taken {
            self.seats[at].trail.take_back(before);
        }
        !taken
    }

    /// Saves the rewind point of a finished turn's prompt, if there is one: its rows are still in the slot.
    fn save_question(&mut self, at: usize, role: KvRole, patience: Duration) {
        let Some(kv) = &self.kv else { return };
        let seat = &self.seats[at];
        let range = seat.trail.question(kv.config());
        // What cannot be read out of the model is not saved; the sequence goes on.
        let Ok(Some((pos, tail))) = seat.session.rewind_point_in(self.model.as_mut(), &range) else { return };
        if !seat.trail.wants(kv.config(), pos) || pos == seat.session.position() {
            return;
        }
        let step = kv.config().step();
        let from = seat.trail.on_disk().min(pos / step * step);
        self.hand_over(at, role, from..pos, Some(tail), patience);
    }

    /// Copies the state of the first `rows.end` tokens out of the model and gives it to the writer. Says whether it was taken.
    fn hand_over(
        &mut self,
        at: usize,
        role: KvRole,
        rows: Range<u32>,
        tail: Option<Vec<u8>>,
        patience: Duration,
    ) -> bool {
        let Some(kv) = &self.kv else { return false };
        let session = &self.seats[at].session;
        let bytes = self.model.state_bytes(rows.clone());
        if patience.is_zero() && !kv.takes(bytes) {
            return false;
        }
        let mut state = Vec::new();
        if state.try_reserve_exact(bytes as usize).is_err()
            || self.model.save(session.slot(), rows.clone(), &mut state).is_err()
        {
            kv.counters().failed_writes.add(1);
            return false;
        }
        let logits = if tail.is_none() { session.logits().unwrap_or_default() } else { &[] };
        let save = Save {
            role,
            tenant: self.seats[at].tenant,
            tokens: session.tokens()[..rows.end as usize].into(),
            logits: logits.to_vec(),
            from: rows.start,
            state,
            tail,
            parts: self.model.parts(rows.end),
            on_disk: self.seats[at].trail.share(),
        };
        kv.save(save, patience)
    }

    /// Saves every sequence and waits for the disk until `until`.
    pub(super) fn save_all(&mut self, until: Instant) -> ShutdownReport {
        let mut report = ShutdownReport::default();
        if self.kv.as_ref().is_none_or(|kv| kv.config().dir.is_none()) {
            // What is in memory goes with it.
            return ShutdownReport { complete: true, ..report };
        }
        for at in 0..self.seats.len() {
            let Some(kv) = &self.kv else { return report };
            let seat = &mut self.seats[at];
            let n = seat.session.position();
            if !seat.trail.wants(kv.config(), n) {
                continue;
            }
            let from = seat.trail.on_disk();
            if !kv.has_rows(seat.tenant, seat.session.tokens(), from) {
                seat.trail.cut(kv.config(), 0);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.save_turn(at, KvRole::Shutdown, left) {
                report.unsaved += 1;
            } else {
                report.saved += 1;
            }
        }
        report.complete = self.kv.as_ref().is_none_or(|kv| kv.flush(until));
        report
    }
}
