//! Which row is run next. Pure bookkeeping: rows of one document follow one another in the same worker, so that the
//! document is read once; a row that was asked for goes first.

use std::collections::VecDeque;

/// Rows that wait.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: VecDeque<usize>,
    urgent: VecDeque<usize>,
    /// Document of each row.
    documents: Vec<Option<String>>,
    /// What each worker read last.
    reading: Vec<Option<String>>,
}

impl Queue {
    pub(super) fn new(documents: Vec<Option<String>>, workers: usize) -> Self {
        let waiting = (0..documents.len()).collect();
        Self { waiting, urgent: VecDeque::new(), documents, reading: vec![None; workers] }
    }

    /// The next row for a worker: an urgent one, one of its document, one that no other worker reads. Rows of a document
    /// that another worker reads are left to that one: reading takes far longer than answering. Who gets none is done.
    pub(super) fn take(&mut self, worker: usize) -> Option<usize> {
        let reading = self.reading[worker].take();
        let row = self.urgent.pop_front().or_else(|| {
            let mine = |row: &usize| self.documents[*row].is_some() && self.documents[*row] == reading;
            let free = |row: &usize| self.documents[*row].is_none() || !self.reading.contains(&self.documents[*row]);
            let at = self.waiting.iter().position(mine).or_else(|| self.waiting.iter().position(free))?;
            self.waiting.remove(at)
        })?;
        self.reading[worker].clone_from(&self.documents[row]);
        Some(row)
    }

    /// Makes a waiting row the next one; others are left alone.
    pub(super) fn hurry(&mut self, row: usize) {
        if let Some(at) = self.waiting.iter().position(|&waiting| waiting == row) {
            self.waiting.remove(at);
            self.urgent.push_back(row);
        }
    }

    /// Takes a row out that has not begun. Whether it was there.
    pub(super) fn skip(&mut self, row: usize) -> bool {
        let before = self.waiting.len() + self.urgent.len();
        self.waiting.retain(|&waiting| waiting != row);
        self.urgent.retain(|&waiting| waiting != row);
        self.waiting.len() + self.urgent.len() < before
    }

    pub(super) fn clear(&mut self) {
        self.waiting.clear();
        self.urgent.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_keep_to_their_documents_and_urgent_rows_go_first() {
        let document = |name: &str| Some(name.to_owned());
        let documents = vec![document("a"), document("a"), document("b"), None, document("a"), document("b")];
        let mut queue = Queue::new(documents, 3);
        assert_eq!((queue.take(0), queue.take(1)), (Some(0), Some(2)));
        assert_eq!((queue.take(0), queue.take(1)), (Some(1), Some(5)));
        queue.hurry(3);
        queue.hurry(0);
        assert_eq!(queue.take(1), Some(3));
        assert_eq!(queue.take(2), None, "the document is being read");
        assert_eq!((queue.take(0), queue.take(0)), (Some(4), None));
    }

    #[test]
    fn a_document_that_nobody_reads_any_more_is_free_and_skipped_rows_are_gone() {
        let document = Some("a".to_owned());
        let mut queue = Queue::new(vec![document.clone(), document.clone(), document, None], 2);
        assert_eq!(queue.take(0), Some(0));
        queue.hurry(3);
        assert_eq!(queue.take(0), Some(3));
        assert_eq!(queue.take(1), Some(1));
        assert!(queue.skip(2) && !queue.skip(2));
        assert_eq!((queue.take(0), queue.take(1)), (None, None));
    }
}
