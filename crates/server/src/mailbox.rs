//! Events of one answer on their way from the engine's thread to the task that tells the client. The engine's thread only
//! appends; how much waits is known to it, so that a sequence pauses whose client does not keep up (server.md 14.3).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ds4_engine::{Delta, Event, Listener};
use ds4_text::ToolCallKind;
use tokio::sync::Notify;

/// Bytes of waiting events at which the sequence pauses.
const FULL: usize = 1 << 20;

/// The reading end. Once it is dropped nobody listens.
pub(crate) struct Mailbox(Arc<Post>);

#[derive(Default)]
struct Post {
    queue: Mutex<Queue>,
    bytes: AtomicUsize,
    news: Notify,
}

#[derive(Default)]
struct Queue {
    events: VecDeque<Event>,
    closed: bool,
}

/// A mailbox and the listener that fills it.
pub(crate) fn mailbox() -> (Listener<Event>, Mailbox) {
    let post = Arc::new(Post::default());
    let (hearing, pausing) = (Arc::clone(&post), Arc::clone(&post));
    let listener = Listener::new(move |event| hearing.put(event));
    (listener.pausing(move || pausing.bytes.load(Ordering::Relaxed) >= FULL), Mailbox(post))
}

impl Post {
    /// Says whether anyone reads.
    fn put(&self, event: Event) -> bool {
        let mut queue = self.lock();
        if queue.closed {
            return false;
        }
        // The text of a token follows at once, and waking someone twice costs more than either. A second token in a row
        // says that the first one brought none.
        let quiet = matches!(event, Event::Token { .. }) && !matches!(queue.events.back(), Some(Event::Token { .. }));
        self.bytes.fetch_add(weight(&event), Ordering::Relaxed);
        queue.events.push_back(event);
        drop(queue);
        if !quiet {
            self.news.notify_one();
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mailbox {
    /// The next event if it is there.
    pub(crate) fn ready(&mut self) -> Option<Event> {
        let event = self.0.lock().events.pop_front()?;
        self.0.bytes.fetch_sub(weight(&event), Ordering::Relaxed);
        Some(event)
    }

    /// The next event. The engine ends every answer with one, so that this returns.
    pub(crate) async fn next(&mut self) -> Event {
        loop {
            if let Some(event) = self.ready() {
                return event;
            }
            self.0.news.notified().await;
        }
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.closed = true;
        queue.events.clear();
    }
}

/// About what an event occupies.
fn weight(event: &Event) -> usize {
    size_of::<Event>()
        + match event {
            Event::Token { logprobs: Some(found), .. } => size_of_val(&found.top[..]),
            Event::Delta(Delta::Thinking(text) | Delta::Text(text)) => text.len(),
            Event::Delta(Delta::ToolCall(call)) => match &call.kind {
                ToolCallKind::Start { name: text } | ToolCallKind::Arguments(text) => text.len(),
                ToolCallKind::End => 0,
            },
            _ => 0,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_mailbox_that_nobody_reads_fills_up_and_reading_makes_room() {
        let (listener, mut mailbox) = mailbox();
        let text = || Event::Delta(Delta::Text("x".repeat(FULL / 4)));
        for _ in 0..4 {
            assert!(!listener.is_full());
            assert!(listener.tell(text()));
        }
        assert!(listener.is_full());
        assert!(matches!(mailbox.next().await, Event::Delta(_)));
        assert!(!listener.is_full());
        drop(mailbox);
        assert!(!listener.tell(text()), "nobody reads any more");
    }

    #[tokio::test]
    async fn events_come_in_order_and_from_another_thread() {
        let (listener, mut mailbox) = mailbox();
        let token = |id| Event::Token { id, reasoning: false, logprobs: None };
        let sender = std::thread::spawn(move || {
            (0..1000).for_each(|id| assert!(listener.tell(token(id))));
            listener.tell(Event::Failed(ds4_engine::Error::Cancelled));
        });
        for expected in 0..1000 {
            assert!(matches!(mailbox.next().await, Event::Token { id, .. } if id == expected));
        }
        assert!(matches!(mailbox.next().await, Event::Failed(_)));
        sender.join().expect("the sender is done");
    }
}
