//! Responses that later requests may refer to, and those that are running. Owns their limits: how many, how large, how old. With
//! a place on disk they outlive the process: there every item is a record of its own, which the responses of a conversation
//! share, as they do in memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ds4_engine::Cancel;
use lru::LruCache;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::app::{App, unix_time};
use crate::journal::{Journal, Keeper, Place, RESPONSES};

/// Bytes of JSON of all responses, roughly.
const MAX_BYTES: usize = 256 << 20;
/// Seconds.
const MAX_AGE: u64 = 30 * 24 * 3600;

/// A finished response.
pub(crate) struct Entry {
    pub(crate) tenant: String,
    pub(crate) response: Value,
    /// The whole input, that of earlier responses included.
    pub(crate) input: Vec<Arc<Value>>,
    /// The output with everything that replaying it needs.
    pub(crate) output: Vec<Arc<Value>>,
    /// Seconds since 1970.
    made: u64,
}

impl Entry {
    pub(super) fn new(tenant: &str, response: Value, input: Vec<Arc<Value>>, output: Vec<Value>) -> Entry {
        let output = output.into_iter().map(Arc::new).collect();
        Entry { tenant: tenant.to_owned(), response, input, output, made: unix_time() }
    }

    fn items(&self) -> impl Iterator<Item = &Arc<Value>> {
        self.input.iter().chain(&self.output)
    }

    /// Without the items, which it may share.
    fn bytes(&self) -> usize {
        size(&self.response) + 16 * self.items().count() + self.tenant.len()
    }

    fn is_old(&self) -> bool {
        unix_time().saturating_sub(self.made) > MAX_AGE
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
    /// Items of entries by their address.
    items: HashMap<usize, Item>,
    /// Of the next item.
    number: u64,
    bytes: usize,
    running: HashMap<String, Running>,
    journal: Journal,
}

/// What is known of an item that entries have.
struct Item {
    /// Its name in the journal.
    number: u64,
    /// Entries that have it.
    uses: usize,
}

struct Running {
    tenant: String,
    cancel: Cancel,
    response: Value,
}

impl Store {
    /// With a place, those that an earlier process left there are known.
    pub(crate) fn new(limit: usize, place: Option<&Place>) -> Store {
        let mut inner = Inner {
            entries: LruCache::unbounded(),
            items: HashMap::new(),
            number: 0,
            bytes: 0,
            running: HashMap::new(),
            journal: Journal::default(),
        };
        if let Some(place) = place {
            let mut earlier = Earlier { inner: &mut inner, items: HashMap::new() };
            let journal = Journal::open(place, RESPONSES, &mut earlier);
            inner.items.retain(|_, item| item.uses > 0);
            inner.journal = journal;
            inner.shrink(limit);
        }
        Store { limit, inner: Mutex::new(inner) }
    }

    /// Where they are left for a later process.
    pub(crate) fn journal(&self) -> Journal {
        self.lock().journal.clone()
    }

    pub(crate) fn get(&self, tenant: &str, id: &str) -> Option<Arc<Entry>> {
        let mut inner = self.lock();
        let entry = Arc::clone(inner.entries.get(id).filter(|entry| entry.tenant == tenant)?);
        if entry.is_old() {
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
        if self.limit > 0 {
            let mut inner = self.lock();
            inner.insert(id, entry);
            inner.shrink(self.limit);
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
    fn insert(&mut self, id: &str, entry: Entry) {
        self.remove(id);
        for item in entry.items() {
            let known = self.items.entry(address(item)).or_insert_with(|| {
                let number = self.number;
                self.number += 1;
                self.journal.put(&item_key(number), || json(item.as_ref()));
                Item { number, uses: 0 }
            });
            if known.uses == 0 {
                self.bytes += size(item);
            }
            known.uses += 1;
        }
        let numbers = |items: &[Arc<Value>]| items.iter().map(|item| self.items[&address(item)].number).collect();
        self.journal.put(&key(id), || {
            let Entry { tenant, response, made, .. } = &entry;
            let (input, output) = (numbers(&entry.input), numbers(&entry.output));
            json(&Record { tenant: tenant.clone(), response: response.clone(), input, output, made: *made })
        });
        self.bytes += entry.bytes();
        self.entries.put(id.to_owned(), Arc::new(entry));
    }

    fn shrink(&mut self, limit: usize) {
        while self.entries.len() > limit || self.bytes > MAX_BYTES {
            let Some(oldest) = self.entries.peek_lru().map(|(id, _)| id.clone()) else { break };
            self.remove(&oldest);
        }
    }

    fn remove(&mut self, id: &str) {
        let Some(entry) = self.entries.pop(id) else { return };
        self.bytes -= entry.bytes();
        self.journal.remove(&key(id));
        for item in entry.items() {
            let Some(known) = self.items.get_mut(&address(item)) else { continue };
            known.uses -= 1;
            if known.uses == 0 {
                self.bytes -= size(item);
                self.journal.remove(&item_key(known.number));
                self.items.remove(&address(item));
            }
        }
    }
}

/// A response in the journal.
#[derive(Serialize, Deserialize)]
struct Record {
    tenant: String,
    response: Value,
    /// Numbers of items.
    input: Vec<u64>,
    output: Vec<u64>,
    made: u64,
}

/// Puts together what an earlier process left.
struct Earlier<'a> {
    inner: &'a mut Inner,
    /// All items by their numbers. Their addresses are known as long as this has them.
    items: HashMap<u64, Arc<Value>>,
}

impl Keeper for Earlier<'_> {
    fn restore(&mut self, key: &[u8], value: &[u8]) -> bool {
        match key.split_first() {
            Some((&ITEM, number)) => {
                let (Ok(number), Ok(item)) = (number.try_into().map(u64::from_be_bytes), serde_json::from_slice(value))
                else {
                    return false;
                };
                let item = Arc::new(item);
                self.inner.number = self.inner.number.max(number.saturating_add(1));
                self.inner.items.insert(address(&item), Item { number, uses: 0 });
                self.items.insert(number, item);
                true
            }
            Some((&RESPONSE, id)) => str::from_utf8(id).is_ok_and(|id| self.response(id, value)),
            _ => false,
        }
    }

    fn keeps(&self, key: &[u8]) -> bool {
        match key.split_first() {
            Some((&ITEM, number)) => {
                let number = number.try_into().map(u64::from_be_bytes);
                let item = number.ok().and_then(|number| self.items.get(&number));
                item.is_some_and(|item| self.inner.items[&address(item)].uses > 0)
            }
            Some((_, id)) => str::from_utf8(id).is_ok_and(|id| self.inner.entries.contains(id)),
            None => false,
        }
    }
}

impl Earlier<'_> {
    /// A response comes after its items.
    fn response(&mut self, id: &str, value: &[u8]) -> bool {
        let Ok(Record { tenant, response, input, output, made }) = serde_json::from_slice(value) else { return false };
        let items = |numbers: &[u64]| -> Option<Vec<Arc<Value>>> {
            numbers.iter().map(|number| self.items.get(number).map(Arc::clone)).collect()
        };
        let (Some(input), Some(output)) = (items(&input), items(&output)) else { return false };
        let entry = Entry { tenant, response, input, output, made };
        if !entry.is_old() {
            self.inner.insert(id, entry);
        }
        true
    }
}

fn address(item: &Arc<Value>) -> usize {
    Arc::as_ptr(item).addr()
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("it has no keys but texts")
}

fn key(id: &str) -> Vec<u8> {
    [&[RESPONSE], id.as_bytes()].concat()
}

fn item_key(number: u64) -> Vec<u8> {
    [&[ITEM], &number.to_be_bytes()[..]].concat()
}

/// First bytes of the keys in the journal.
const ITEM: u8 = b'i';
const RESPONSE: u8 = b'r';

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
    use crate::journal::PATIENCE;

    fn entry(tenant: &str, output: Vec<Value>) -> Entry {
        Entry::new(tenant, json!({}), vec![Arc::new(json!({"id": "in"}))], output)
    }

    #[test]
    fn the_store_keeps_so_many_and_shows_each_tenant_its_own() {
        let store = Store::new(2, None);
        for id in ["a", "b", "c"] {
            store.insert(id, entry("t", vec![json!({"id": format!("item_{id}")})]));
        }
        assert!(store.get("t", "a").is_none() && store.get("t", "b").is_some() && store.get("u", "b").is_none());
        assert!(store.item("t", "item_c").is_some() && store.item("t", "in").is_some());
        assert!(store.item("u", "item_c").is_none() && store.item("t", "item_a").is_none());
        assert!(!store.remove("u", "b") && store.remove("t", "b") && store.remove("t", "c"));
        assert!(store.lock().bytes == 0 && store.lock().items.is_empty());
    }

    fn place(dir: &tempfile::TempDir) -> Place {
        Place { dir: dir.path().to_owned(), readonly: false, vocabulary: [0; 32] }
    }

    /// A conversation of so many responses, each of which goes on from the one before.
    fn converse(store: &Store, responses: usize) {
        let mut said: Vec<Arc<Value>> = Vec::new();
        for n in 0..responses {
            said.push(Arc::new(json!({"id": format!("q{n}"), "text": "?".repeat(1000)})));
            let entry = Entry::new("t", json!({"id": n}), said.clone(), vec![json!({"id": format!("a{n}")})]);
            said.extend(entry.output.iter().map(Arc::clone));
            store.insert(&format!("r{n}"), entry);
        }
    }

    #[test]
    fn a_later_process_has_the_same_responses_and_shares_their_items() {
        let dir = tempfile::tempdir().expect("a folder");
        let store = Store::new(20, Some(&place(&dir)));
        converse(&store, 30);
        assert!(store.remove("t", "r12") && store.journal().flush(PATIENCE));
        let bytes = std::fs::metadata(dir.path().join(RESPONSES)).expect("a file").len();
        assert!(bytes < 100_000, "{bytes}: items are written once, however many responses have them");
        let later = Store::new(20, Some(&Place { readonly: true, ..place(&dir) }));
        for n in 0..30 {
            let (was, is) = (store.get("t", &format!("r{n}")), later.get("t", &format!("r{n}")));
            assert_eq!(is.is_some(), n >= 10 && n != 12, "{n}");
            let told = |entry: &Entry| (entry.response.clone(), entry.input.clone(), entry.output.clone(), entry.made);
            assert_eq!(is.map(|entry| told(&entry)), was.map(|entry| told(&entry)));
        }
        let (store, later) = (store.lock(), later.lock());
        assert_eq!((later.bytes, later.items.len()), (store.bytes, store.items.len()));
    }

    #[test]
    fn what_is_too_old_too_much_or_incomplete_does_not_come_back() {
        let dir = tempfile::tempdir().expect("a folder");
        let store = Store::new(20, Some(&place(&dir)));
        let made = unix_time() - MAX_AGE - 1;
        store.insert("old", Entry { made, ..entry("t", Vec::new()) });
        store.insert("holey", entry("t", vec![json!({"id": "gone"})]));
        let number = store.lock().number - 1;
        store.journal().remove(&item_key(number));
        converse(&store, 3);
        assert!(store.journal().flush(PATIENCE));
        drop(store);
        let later = Store::new(2, Some(&place(&dir)));
        let known = |store: &Store, id: &str| store.get("t", id).is_some();
        assert!(!known(&later, "old") && !known(&later, "holey") && !known(&later, "r0"));
        assert!(known(&later, "r1") && known(&later, "r2"));
        assert!(later.remove("t", "r1") && later.remove("t", "r2") && later.journal().flush(PATIENCE));
        assert!(later.lock().bytes == 0 && later.lock().items.is_empty());
        let last = Store::new(2, Some(&place(&dir)));
        assert!(last.lock().entries.is_empty(), "what was removed stays removed");
    }

    #[test]
    fn a_store_of_nothing_keeps_nothing() {
        let store = Store::new(0, None);
        store.insert("a", entry("", Vec::new()));
        assert!(store.get("", "a").is_none());
    }
}
