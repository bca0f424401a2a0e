//! One HTTP request on its way: its id, whose it is, and what the response's head will say of it. Reachable from everything
//! that runs for the request, so that nothing has to be handed through.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use axum::http::{HeaderMap, HeaderName, HeaderValue};

use crate::config::ServerConfig;
use crate::error::Family;
use crate::keys::Owner;

/// A request that was let in.
pub(crate) struct Call {
    pub(crate) id: String,
    pub(crate) family: Family,
    /// Without the query, as the routes know it.
    pub(crate) path: String,
    /// Whose key it came with; none where no key is needed.
    pub(crate) owner: Option<Owner>,
    /// The conversation that its headers say it is part of.
    pub(crate) session: Option<u64>,
    pub(crate) started: Instant,
    headers: Mutex<Vec<(HeaderName, HeaderValue)>>,
    /// What came with it, where somebody wants to know.
    body: OnceLock<String>,
}

/// Whose request is being handled; nobody's where keys share what they know, or where there are none.
pub(crate) fn tenant(config: &ServerConfig) -> String {
    let owner = if config.cache_share { None } else { Call::current().and_then(|call| call.owner.clone()) };
    owner.map_or_else(String::new, |owner| owner.tenant)
}

/// Headers by which clients name a conversation, the narrowest first.
const SESSION: [&str; 6] =
    ["thread-id", "x-session-id", "session-id", "session_id", "x-claude-code-session-id", "x-session-affinity"];

/// The conversation that a request's headers name.
pub(crate) fn session(headers: &HeaderMap) -> Option<u64> {
    let named = SESSION.iter().filter_map(|name| headers.get(*name)).find(|name| !name.is_empty());
    named.map(|name| conversation(name.as_bytes()))
}

/// A conversation's name as slots remember it.
pub(crate) fn conversation(name: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(name)
}

tokio::task_local! {
    static CURRENT: Arc<Call>;
}

impl Call {
    pub(crate) fn new(
        id: String,
        family: Family,
        path: String,
        owner: Option<Owner>,
        session: Option<u64>,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            family,
            path,
            owner,
            session,
            started: Instant::now(),
            headers: Mutex::default(),
            body: OnceLock::new(),
        })
    }

    /// What this is part of, while its response has not begun. Tasks of their own are not part of it.
    pub(crate) fn current() -> Option<Arc<Self>> {
        CURRENT.try_with(Arc::clone).ok()
    }

    /// Runs `work` as part of this.
    pub(crate) async fn run<T>(self: &Arc<Self>, work: impl Future<Output = T>) -> T {
        CURRENT.scope(Arc::clone(self), work).await
    }

    /// Remembers the body.
    pub(crate) fn keep_body(&self, bytes: &[u8]) {
        // A request has one body.
        let _ = self.body.set(String::from_utf8_lossy(bytes).into_owned());
    }

    pub(crate) fn body(&self) -> String {
        self.body.get().cloned().unwrap_or_default()
    }

    /// The response's head will have this header. A text that is no header value is left out.
    pub(crate) fn header(&self, name: &'static str, value: &str) {
        if let Ok(value) = HeaderValue::from_str(value) {
            let header = (HeaderName::from_static(name), value);
            let mut headers = self.headers.lock().unwrap_or_else(PoisonError::into_inner);
            if !headers.contains(&header) {
                headers.push(header);
            }
        }
    }

    pub(crate) fn put_headers(&self, response: &mut HeaderMap) {
        let mut headers = self.headers.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, value) in headers.drain(..) {
            response.append(name, value);
        }
    }
}

/// The caller's id if it is usable, else a fresh one.
pub(crate) fn request_id(headers: &HeaderMap) -> String {
    let usable = |name: &str| {
        let id = headers.get(name)?.to_str().ok()?;
        (1..=128).contains(&id.len()).then_some(id)?.bytes().all(|b| b.is_ascii_graphic()).then(|| id.to_owned())
    };
    usable("x-request-id").or_else(|| usable("x-client-request-id")).unwrap_or_else(|| crate::app::fresh_id("req_", 12))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(headers: &[(&'static str, &'static str)]) -> Option<u64> {
        let headers =
            headers.iter().map(|&(name, value)| (name.parse().expect("a name"), HeaderValue::from_static(value)));
        session(&headers.collect())
    }

    #[test]
    fn every_clients_header_names_a_conversation_and_the_narrowest_counts() {
        for header in SESSION {
            assert_eq!(named(&[(header, "a")]), Some(conversation(b"a")), "{header}");
        }
        assert_eq!(named(&[("session-id", "a"), ("Thread-Id", "b")]), Some(conversation(b"b")));
        assert_eq!(named(&[("x-session-id", ""), ("x-session-affinity", "b")]), Some(conversation(b"b")));
        assert_eq!(named(&[("x-request-id", "a")]), None);
    }
}
