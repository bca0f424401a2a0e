//! Finished turns by the ids of their calls, or by the conversation they ended. Owns the limits: what was not asked for the
//! longest goes first.

use std::collections::HashMap;
use std::sync::Arc;

use lru::LruCache;

use super::{Chain, Turn};

pub(super) struct Memory {
    turns: LruCache<Chain, Arc<Turn>>,
    calls: HashMap<String, Chain>,
    bytes: usize,
    max_ids: usize,
    max_bytes: usize,
}

impl Memory {
    pub(super) fn new(max_ids: usize, max_bytes: usize) -> Self {
        Memory { turns: LruCache::unbounded(), calls: HashMap::new(), bytes: 0, max_ids, max_bytes }
    }

    /// Keeps a turn: one with calls by their ids alone, else by `key`.
    pub(super) fn insert(&mut self, key: Chain, turn: Turn) {
        let key = match turn.calls.first().and_then(|call| call.id.as_ref()) {
            // Ids are random, so they make a key that no other turn has.
            Some(id) => super::key(&key, id),
            None => key,
        };
        self.remove(&key);
        for id in turn.calls.iter().filter_map(|call| call.id.clone()) {
            self.calls.insert(id, key);
        }
        self.bytes += turn.bytes();
        self.turns.put(key, Arc::new(turn));
        while self.turns.len().max(self.calls.len()) > self.max_ids || self.bytes > self.max_bytes {
            let Some((oldest, _)) = self.turns.peek_lru() else { break };
            let oldest = *oldest;
            self.remove(&oldest);
        }
    }

    pub(super) fn call(&mut self, id: &str) -> Option<Arc<Turn>> {
        let key = *self.calls.get(id)?;
        self.turns.get(&key).cloned()
    }

    pub(super) fn text(&mut self, key: &Chain) -> Option<Arc<Turn>> {
        self.turns.get(key).cloned()
    }

    fn remove(&mut self, key: &Chain) {
        if let Some(turn) = self.turns.pop(key) {
            self.bytes -= turn.bytes();
            for id in turn.calls.iter().filter_map(|call| call.id.as_ref()) {
                self.calls.remove(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ds4_text::ToolCall;
    use serde_json::Value;

    use super::*;

    fn turn(text: &str, calls: &[&str]) -> Turn {
        let call = |id: &&str| ToolCall {
            id: Some((*id).to_owned()),
            name: "f".to_owned(),
            arguments: Value::String("{}".to_owned()),
        };
        let calls = calls.iter().map(call).collect();
        Turn { reasoning: None, answer: Some(vec![1; 100]), thinking: String::new(), text: text.to_owned(), calls }
    }

    #[test]
    fn the_turn_that_was_not_asked_for_the_longest_goes_first() {
        let mut memory = Memory::new(2, usize::MAX);
        memory.insert([1; 32], turn("one", &[]));
        memory.insert([2; 32], turn("two", &[]));
        assert!(memory.text(&[1; 32]).is_some());
        memory.insert([3; 32], turn("three", &[]));
        assert!(memory.text(&[2; 32]).is_none());
        assert!(memory.text(&[1; 32]).is_some() && memory.text(&[3; 32]).is_some());
    }

    #[test]
    fn ids_and_bytes_are_bounded_and_freed() {
        let mut memory = Memory::new(3, usize::MAX);
        memory.insert([0; 32], turn("", &["a", "b"]));
        memory.insert([0; 32], turn("", &["c", "d"]));
        assert!(memory.call("a").is_none() && memory.call("b").is_none() && memory.calls.len() == 2);
        assert_eq!(memory.call("d").expect("kept").calls.len(), 2);
        let size = turn("x", &[]).bytes();
        let mut memory = Memory::new(100, 2 * size);
        for i in 0..10 {
            memory.insert([i; 32], turn("x", &[]));
        }
        assert_eq!((memory.turns.len(), memory.bytes), (2, 2 * size));
        memory.insert([9; 32], turn("x", &[]));
        assert_eq!((memory.turns.len(), memory.bytes), (2, 2 * size));
    }
}
