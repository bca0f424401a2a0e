//! What is in the directory, as far as headers tell: checkpoints, segments, who needs whom. Memory only; removing an entry here
//! is what decides, the file follows.

use std::collections::{BTreeMap, HashMap};

use super::format::{Header, Kind, KvRole};
use super::key::{Chain, Key, Owner};

/// All objects.
#[derive(Default)]
pub(crate) struct Index {
    tails: HashMap<Key, Tail>,
    segments: HashMap<Key, Segment>,
    /// Checkpoints by position: the only lengths at which a prompt's hash is of interest.
    positions: BTreeMap<u32, usize>,
    /// Checkpoints that must stay for now, and how often that was asked.
    pins: HashMap<Key, usize>,
    bytes: u64,
}

/// A checkpoint.
#[derive(Clone, Debug)]
pub(crate) struct Tail {
    pub(crate) header: Header,
    /// Seconds since 1970 of its last use.
    pub(crate) used: u64,
    /// Uses, as they were worth at `used`.
    pub(crate) hits: f64,
}

impl Tail {
    pub(crate) fn role(&self) -> KvRole {
        self.header.role.expect("a tail has a role")
    }
}

/// Rows of a range.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) header: Header,
    /// Checkpoints whose chain it is in.
    pub(crate) refs: usize,
}

/// Whose states will do: the first one's at best, the others' if they reach further.
pub(crate) struct Query<'a> {
    pub(crate) owners: &'a [Owner],
    pub(crate) tokens: &'a [u32],
    /// The checkpoint has to be longer than this.
    pub(crate) over: u32,
}

impl Index {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Objects, and the checkpoints among them.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.tails.len() + self.segments.len(), self.tails.len())
    }

    pub(crate) fn tail(&self, key: Key) -> Option<&Tail> {
        self.tails.get(&key)
    }

    pub(crate) fn tail_mut(&mut self, key: Key) -> Option<&mut Tail> {
        self.tails.get_mut(&key)
    }

    pub(crate) fn segment(&self, key: Key) -> Option<&Segment> {
        self.segments.get(&key)
    }

    pub(crate) fn tails(&self) -> impl Iterator<Item = &Tail> {
        self.tails.values()
    }

    pub(crate) fn is_pinned(&self, key: Key) -> bool {
        self.pins.contains_key(&key)
    }

    pub(crate) fn pin(&mut self, key: Key) {
        *self.pins.entry(key).or_default() += 1;
    }

    pub(crate) fn unpin(&mut self, key: Key) {
        if let Some(count) = self.pins.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.pins.remove(&key);
            }
        }
    }

    /// Segments of a checkpoint, last one first, as far as they are there.
    pub(crate) fn chain(&self, last: Key) -> impl Iterator<Item = &Segment> {
        let mut next = self.segments.get(&last);
        std::iter::from_fn(move || {
            let segment = next?;
            // Positions fall along a chain, so that there are no circles.
            let before = self.segments.get(&segment.header.parent);
            next = before.filter(|before| before.header.end == segment.header.start);
            Some(segment)
        })
    }

    /// Whether a tail's segments are all there and fit it.
    pub(crate) fn is_whole(&self, tail: &Header) -> bool {
        let mut from = tail.end;
        for segment in self.chain(tail.parent) {
            if segment.header.end != from || segment.header.owner != tail.owner {
                return false;
            }
            from = segment.header.start;
        }
        from == 0
    }

    /// Takes a segment in; one that is known stays as it is.
    pub(crate) fn add_segment(&mut self, header: Header) {
        self.segments.entry(header.key).or_insert_with(|| {
            self.bytes += header.file_bytes();
            Segment { header, refs: 0 }
        });
    }

    /// Keeps segments until [`Index::release`].
    pub(crate) fn hold(&mut self, keys: &[Key]) {
        for key in keys {
            if let Some(segment) = self.segments.get_mut(key) {
                segment.refs += 1;
            }
        }
    }

    /// Ends [`Index::hold`]. Returns the files of those that nobody needs.
    pub(crate) fn release(&mut self, keys: &[Key]) -> Vec<Header> {
        for key in keys {
            if let Some(segment) = self.segments.get_mut(key) {
                segment.refs = segment.refs.saturating_sub(1);
            }
        }
        self.remove_orphans()
    }

    /// Takes a checkpoint in whose segments are all there.
    pub(crate) fn add_tail(&mut self, header: Header, used: u64, hits: f64) {
        let chain: Vec<Key> = self.chain(header.parent).map(|segment| segment.header.key).collect();
        for key in chain {
            self.segments.get_mut(&key).expect("it was just found").refs += 1;
        }
        self.bytes += header.file_bytes();
        *self.positions.entry(header.end).or_default() += 1;
        self.tails.insert(header.key, Tail { header, used, hits });
    }

    /// Takes a checkpoint out, and the segments that only it needed. Returns what is to be deleted.
    pub(crate) fn remove_tail(&mut self, key: Key) -> Vec<Header> {
        let Some(tail) = self.tails.remove(&key) else { return Vec::new() };
        let mut out = vec![tail.header];
        if let Some(count) = self.positions.get_mut(&tail.header.end) {
            *count -= 1;
            if *count == 0 {
                self.positions.remove(&tail.header.end);
            }
        }
        let chain: Vec<Key> = self.chain(tail.header.parent).map(|segment| segment.header.key).collect();
        for key in chain {
            let segment = self.segments.get_mut(&key).expect("it was just found");
            segment.refs = segment.refs.saturating_sub(1);
            if segment.refs == 0 {
                out.extend(self.segments.remove(&key).map(|segment| segment.header));
            }
        }
        self.bytes -= out.iter().map(Header::file_bytes).sum::<u64>();
        out
    }

    /// Takes a segment out with every checkpoint that needs it.
    pub(crate) fn remove_segment(&mut self, key: Key) -> Vec<Header> {
        let needs = |tail: &&Tail| self.chain(tail.header.parent).any(|segment| segment.header.key == key);
        let tails: Vec<Key> = self.tails.values().filter(needs).map(|tail| tail.header.key).collect();
        let mut out: Vec<Header> = tails.into_iter().flat_map(|tail| self.remove_tail(tail)).collect();
        if let Some(segment) = self.segments.remove(&key) {
            self.bytes -= segment.header.file_bytes();
            out.push(segment.header);
        }
        out
    }

    /// Takes out the segments that no checkpoint needs.
    pub(crate) fn remove_orphans(&mut self) -> Vec<Header> {
        let orphans: Vec<Key> = self.segments.values().filter(|s| s.refs == 0).map(|s| s.header.key).collect();
        let out: Vec<Header> =
            orphans.iter().filter_map(|key| self.segments.remove(key)).map(|segment| segment.header).collect();
        self.bytes -= out.iter().map(Header::file_bytes).sum::<u64>();
        out
    }

    /// Takes an object out because of its file.
    pub(crate) fn remove(&mut self, kind: Kind, key: Key) -> Vec<Header> {
        match kind {
            Kind::Segment => self.remove_segment(key),
            Kind::Tail => self.remove_tail(key),
        }
    }

    /// The longest checkpoint that is a beginning of the tokens; all of them only if it knows what follows.
    pub(crate) fn find(&self, query: &Query<'_>) -> Option<&Tail> {
        let mut best: Option<&Tail> = None;
        for owner in query.owners {
            let mut chain = Chain::new(owner);
            let mut done = 0;
            let lengths = self.positions.range(query.over.saturating_add(1)..).map(|(&n, _)| n);
            for n in lengths.take_while(|&n| n as usize <= query.tokens.len()) {
                chain.push(&query.tokens[done..n as usize]);
                done = n as usize;
                let found = self.tails.get(&chain.key());
                let Some(tail) = found.filter(|tail| done < query.tokens.len() || tail.header.logits > 0) else {
                    continue;
                };
                if best.is_none_or(|best| best.header.end < n) {
                    best = Some(tail);
                }
            }
        }
        best
    }

    /// Models whose states are of this family, the given one first.
    pub(crate) fn relatives(&self, own: Owner, family: [u8; 32]) -> Vec<Owner> {
        let mut out = vec![own];
        for tail in self.tails.values().map(|tail| &tail.header) {
            if tail.family == family && tail.owner.tenant == own.tenant && !out.contains(&tail.owner) {
                out.push(tail.owner);
            }
        }
        out
    }
}
