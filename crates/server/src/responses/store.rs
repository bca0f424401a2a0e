//! Responses that later requests may refer to, and those that are running. Owns their limits: how many, how large, how old.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ds4_engine::Cancel;
use lru::LruCache;
use serde_json::Value;

use crate::app::App;

/// Bytes of JSON of all responses, roughly.
const MAX_BYTES: usize = 256 << 20;
const MAX_AGE: Duration = Duration::from_hours(30 * 24);

/// A finished response.
pub(crate) struct Entry {
    pub(crate) tenant: String,
    pub(crate) response: Value,
    /// The whole input, that of earlier responses included.
    pub(crate) input: Vec<Arc<Value>>,
    /// The output with everything that replaying it needs.
    pub(crate) output: Vec<Arc<Value>>,
    made: Instant,
    bytes: usize,
}

impl Entry {
    pub(super) fn new(tenant: &str, response: Value, input: Vec<Arc<Value>>, output: Vec<Value>) -> Entry {
        // Items of earlier responses are shared with them; the pointers count.
        let own = |items: &[Arc<Value>]| {
            items.iter().filter(|item| Arc::strong_count(item) == 1).map(|i| size(i)).sum::<usize>()
        };
        let bytes = size(&response) + own(&input) + output.iter().map(size).sum::<usize>() + 16 * input.len();
        let output = output.into_iter().map(Arc::new).collect();
        Entry { tenant: tenant.to_owned(), response, input, output, made: Instant::now(), bytes }
    }
}

/// Bytes of a value, roughly those of its text.
fn size(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len() + 32,
        Value::Array(items) => items.iter().map(size).sum::<usize>() + 32,
        Value::Object(members) => members.iter().map(|(name, value)| name.len() + 32 + size(value)).sum(),
        _ => 32,
    }
}

/// All of them.
pub(crate) struct Store {
    limit: usize,
    inner: Mutex<Inner>,
}

struct Inner {
    entries: LruCache<String, Arc<Entry>>,
    bytes: usize,
    running: HashMap<String, Running>,
}

struct Running {
    tenant: String,
    cancel: Cancel,
    response: Value,
}

impl Store {
    pub(crate) fn new(limit: usize) -> Store {
        let inner = Inner { entries: LruCache::unbounded(), bytes: 0, running: HashMap::new() };
        Store { limit, inner: Mutex::new(inner) }
    }

    pub(crate) fn get(&self, tenant: &str, id: &str) -> Option<Arc<Entry>> {
        let mut inner = self.lock();
        let entry = Arc::clone(inner.entries.get(id).filter(|entry| entry.tenant == tenant)?);
        if entry.made.elapsed() > MAX_AGE {
            inner.remove(id);
            return None;
        }
        Some(entry)
    }

    /// An item that some response said or was told.
    pub(crate) fn item(&self, tenant: &str, id: &str) -> Option<Arc<Value>> {
        let inner = self.lock();
        let entries = inner.entries.iter().filter(|(_, entry)| entry.tenant == tenant);
        let mut items = entries.flat_map(|(_, entry)| entry.output.iter().chain(entry.input.iter().rev()));
        items.find(|item| item["id"] == id).map(Arc::clone)
    }

    pub(super) fn insert(&self, id: &str, entry: Entry) {
        if self.limit == 0 {
            return;
        }
        let mut inner = self.lock();
        inner.bytes += entry.bytes;
        inner.entries.put(id.to_owned(), Arc::new(entry));
        while inner.entries.len() > self.limit || inner.bytes > MAX_BYTES {
            let Some(oldest) = inner.entries.peek_lru().map(|(id, _)| id.clone()) else { break };
            inner.remove(&oldest);
        }
    }

    pub(crate) fn remove(&self, tenant: &str, id: &str) -> bool {
        let mut inner = self.lock();
        let owned = inner.entries.peek(id).is_some_and(|entry| entry.tenant == tenant);
        if owned {
            inner.remove(id);
        }
        owned
    }

    /// Asks a running response to end, and returns what it was when it began.
    pub(crate) fn cancel(&self, tenant: &str, id: &str) -> Option<Value> {
        let inner = self.lock();
        let running = inner.running.get(id).filter(|running| running.tenant == tenant)?;
        running.cancel.cancel();
        Some(running.response.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn remove(&mut self, id: &str) {
        if let Some(entry) = self.entries.pop(id) {
            self.bytes -= entry.bytes;
        }
    }
}

/// A response is running as long as this exists.
pub(super) struct Ticket {
    app: Arc<App>,
    id: String,
}

impl Ticket {
    pub(super) fn new(app: &Arc<App>, tenant: &str, cancel: Cancel, response: &Value) -> Ticket {
        let id = response["id"].as_str().unwrap_or_default().to_owned();
        let running = Running { tenant: tenant.to_owned(), cancel, response: response.clone() };
        app.responses.lock().running.insert(id.clone(), running);
        Ticket { app: Arc::clone(app), id }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.app.responses.lock().running.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(tenant: &str, output: Vec<Value>) -> Entry {
        Entry::new(tenant, json!({}), vec![Arc::new(json!({"id": "in"}))], output)
    }

    #[test]
    fn the_store_keeps_so_many_and_shows_each_tenant_its_own() {
        let store = Store::new(2);
        for id in ["a", "b", "c"] {
            store.insert(id, entry("t", vec![json!({"id": format!("item_{id}")})]));
        }
        assert!(store.get("t", "a").is_none() && store.get("t", "b").is_some() && store.get("u", "b").is_none());
        assert!(store.item("t", "item_c").is_some() && store.item("t", "in").is_some());
        assert!(store.item("u", "item_c").is_none() && store.item("t", "item_a").is_none());
        assert!(!store.remove("u", "b") && store.remove("t", "b") && store.remove("t", "c"));
        assert_eq!(store.lock().bytes, 0);
    }

    #[test]
    fn a_store_of_nothing_keeps_nothing() {
        let store = Store::new(0);
        store.insert("a", entry("", Vec::new()));
        assert!(store.get("", "a").is_none());
    }
}
