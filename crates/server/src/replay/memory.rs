//! Finished turns by the ids of their calls, or by the conversation they ended. Owns the limits: what was not asked for the
//! longest goes first; after a restart, what was said first.

use std::collections::HashMap;
use std::sync::Arc;

use lru::LruCache;

use super::{Chain, Key, Turn, key};
use crate::journal::{Journal, Keeper, Place, TURNS};

pub(super) struct Memory {
    turns: LruCache<Key, Kept>,
    calls: HashMap<String, Key>,
    bytes: usize,
    max_ids: usize,
    max_bytes: usize,
    journal: Journal,
}

/// A turn and whose it is.
struct Kept {
    tenant: Key,
    turn: Arc<Turn>,
}

impl Memory {
    pub(super) fn new(max_ids: usize, max_bytes: usize) -> Self {
        let (turns, calls, journal) = (LruCache::unbounded(), HashMap::new(), Journal::default());
        Memory { turns, calls, bytes: 0, max_ids, max_bytes, journal }
    }

    /// With what an earlier process left in a place. What is kept from now on is left there for a later one.
    pub(super) fn at(mut self, place: &Place) -> Self {
        self.journal = Journal::open(place, TURNS, &mut self);
        self
    }

    pub(super) fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Keeps the turn that followed a conversation: one with calls by their ids, else by what it said.
    pub(super) fn insert(&mut self, chain: &Chain, turn: Turn) {
        let key = match turn.calls.first().and_then(|call| call.id.as_ref()) {
            // Ids are random, so they make a key that no other turn has.
            Some(id) => key(chain, id),
            None => key(chain, &turn.text),
        };
        self.journal.put(&key, || serde_json::to_vec(&(chain.tenant, &turn)).expect("it has no keys but texts"));
        self.keep(key, Kept { tenant: chain.tenant, turn: Arc::new(turn) });
    }

    fn keep(&mut self, key: Key, kept: Kept) {
        self.forget(&key);
        for id in kept.turn.calls.iter().filter_map(|call| call.id.clone()) {
            self.calls.insert(id, key);
        }
        self.bytes += kept.turn.bytes();
        self.turns.put(key, kept);
        while self.turns.len().max(self.calls.len()) > self.max_ids || self.bytes > self.max_bytes {
            let Some((oldest, _)) = self.turns.peek_lru() else { break };
            let oldest = *oldest;
            self.journal.remove(&oldest);
            self.forget(&oldest);
        }
    }

    pub(super) fn call(&mut self, id: &str, tenant: &Key) -> Option<Arc<Turn>> {
        let key = *self.calls.get(id)?;
        self.turns.get(&key).filter(|kept| kept.tenant == *tenant).map(|kept| Arc::clone(&kept.turn))
    }

    pub(super) fn text(&mut self, key: &Key) -> Option<Arc<Turn>> {
        self.turns.get(key).map(|kept| Arc::clone(&kept.turn))
    }

    fn forget(&mut self, key: &Key) {
        if let Some(Kept { turn, .. }) = self.turns.pop(key) {
            self.bytes -= turn.bytes();
            for id in turn.calls.iter().filter_map(|call| call.id.as_ref()) {
                self.calls.remove(id);
            }
        }
    }
}

impl Keeper for Memory {
    fn restore(&mut self, key: &[u8], value: &[u8]) -> bool {
        let (Ok(key), Ok((tenant, turn))) = (Key::try_from(key), serde_json::from_slice(value)) else { return false };
        self.keep(key, Kept { tenant, turn: Arc::new(turn) });
        true
    }

    fn keeps(&self, key: &[u8]) -> bool {
        Key::try_from(key).is_ok_and(|key| self.turns.contains(&key))
    }
}

#[cfg(test)]
mod tests {
    use ds4_text::ToolCall;
    use serde_json::Value;

    use super::*;
    use crate::replay::start;

    fn turn(text: &str, calls: &[&str]) -> Turn {
        let call = |id: &&str| ToolCall {
            id: Some((*id).to_owned()),
            name: "f".to_owned(),
            arguments: Value::String("{}".to_owned()),
        };
        let calls = calls.iter().map(call).collect();
        Turn { reasoning: None, answer: Some(vec![1; 100]), thinking: String::new(), text: text.to_owned(), calls }
    }

    impl Memory {
        fn said(&mut self, text: &str) -> bool {
            self.text(&key(&start(""), text)).is_some()
        }

        fn called(&mut self, id: &str, tenant: &str) -> Option<Arc<Turn>> {
            self.call(id, &start(tenant).tenant)
        }
    }

    #[test]
    fn the_turn_that_was_not_asked_for_the_longest_goes_first() {
        let mut memory = Memory::new(2, usize::MAX);
        memory.insert(&start(""), turn("one", &[]));
        memory.insert(&start(""), turn("two", &[]));
        assert!(memory.said("one"));
        memory.insert(&start(""), turn("three", &[]));
        assert!(!memory.said("two") && memory.said("one") && memory.said("three"));
    }

    #[test]
    fn ids_and_bytes_are_bounded_and_freed() {
        let mut memory = Memory::new(3, usize::MAX);
        memory.insert(&start(""), turn("", &["a", "b"]));
        memory.insert(&start(""), turn("", &["c", "d"]));
        assert!(memory.called("a", "").is_none() && memory.called("b", "").is_none() && memory.calls.len() == 2);
        assert_eq!(memory.called("d", "").expect("kept").calls.len(), 2);
        assert!(memory.called("d", "someone else").is_none());
        let size = turn("x", &[]).bytes();
        let mut memory = Memory::new(100, 2 * size);
        for i in 0..10 {
            memory.insert(&start(&i.to_string()), turn("x", &[]));
        }
        assert_eq!((memory.turns.len(), memory.bytes), (2, 2 * size));
        memory.insert(&start("9"), turn("x", &[]));
        assert_eq!((memory.turns.len(), memory.bytes), (2, 2 * size));
    }

    #[test]
    fn a_later_process_remembers_what_is_left_within_its_own_limits() {
        let dir = tempfile::tempdir().expect("a folder");
        let place = Place { dir: dir.path().to_owned(), readonly: false, vocabulary: [1; 32] };
        let mut memory = Memory::new(3, usize::MAX).at(&place);
        for (text, calls) in [("one", &[][..]), ("two", &["a"]), ("three", &["b"]), ("four", &[])] {
            memory.insert(&start("t"), turn(text, calls));
        }
        assert!(memory.journal().flush(crate::journal::PATIENCE));
        drop(memory);
        let mut memory = Memory::new(2, usize::MAX).at(&Place { readonly: true, ..place.clone() });
        assert_eq!(memory.turns.len(), 2, "one did not fit before, another one does not now");
        assert_eq!(memory.called("b", "t").as_deref(), Some(&turn("three", &["b"])));
        assert!(memory.called("a", "t").is_none() && memory.called("b", "u").is_none());
        assert_eq!(memory.text(&key(&start("t"), "four")).as_deref(), Some(&turn("four", &[])));
        let other = Memory::new(2, usize::MAX).at(&Place { vocabulary: [2; 32], ..place });
        assert_eq!(other.turns.len(), 0, "these ids mean something else");
    }
}
