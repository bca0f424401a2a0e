//! Rules of eviction on indexes made by hand.

use super::super::config::KvCompression;
use super::super::format::Kind;
use super::super::key::Owner;
use super::*;

const NOW: u64 = 1_000_000;
const HOUR: u64 = 3600;
const STEP: u32 = 100;

fn key(a: u8, b: u32) -> Key {
    let mut key = [a; 32];
    key[..4].copy_from_slice(&b.to_le_bytes());
    Key(key)
}

fn header(kind: Kind, role: Option<KvRole>, start: u32, end: u32, key: Key, parent: Key, bytes: u64) -> Header {
    let owner = Owner { fingerprint: [1; 32], tenant: 0 };
    Header {
        kind,
        compression: KvCompression::None,
        quant: 0,
        role,
        start,
        end,
        owner,
        family: [1; 32],
        key,
        parent,
        raw: bytes,
        stored: bytes,
        created: 0,
        logits: 0,
    }
}

/// Adds the checkpoint at `end`, a multiple of the step, of sequence `sequence`; its rows weigh 1000 a segment.
fn add(index: &mut Index, sequence: u8, role: KvRole, end: u32, used: u64, hits: f64) -> Key {
    let mut parent = Key::NONE;
    for start in (0..end).step_by(STEP as usize) {
        let this = key(sequence, start);
        index.add_segment(header(Kind::Segment, None, start, start + STEP, this, parent, 1000));
        parent = this;
    }
    let this = key(sequence, end + 1_000_000);
    index.add_tail(header(Kind::Tail, Some(role), 0, end, this, parent, 500), used, hits);
    this
}

fn evicted(tokens: u32, bytes: u64) -> Newcomer<'static> {
    Newcomer { role: KvRole::Evict, tokens, bytes, chain: &[] }
}

#[test]
fn a_small_shared_beginning_outlives_a_big_dump() {
    let mut index = Index::default();
    let anchor = add(&mut index, 1, KvRole::Cold, 100, NOW - 48 * HOUR, 3.0);
    let dump = add(&mut index, 2, KvRole::Shutdown, 5000, NOW - HOUR, 1.0);
    assert_eq!(choose(&index, 1, None, NOW), Some(vec![dump]));
    assert_eq!(choose(&index, 100_000, None, NOW), None, "there is not that much");
    assert_eq!(choose(&index, 64_000, None, NOW), Some(vec![dump, anchor]));
}

#[test]
fn what_a_request_is_about_to_use_stays() {
    let mut index = Index::default();
    let pinned = add(&mut index, 1, KvRole::Continued, 100, 0, 0.0);
    let other = add(&mut index, 2, KvRole::Cold, 100, NOW, 9.0);
    index.pin(pinned);
    index.pin(pinned);
    index.unpin(pinned);
    assert_eq!(choose(&index, 1, None, NOW), Some(vec![other]));
    assert_eq!(choose(&index, 3000, None, NOW), None);
    index.unpin(pinned);
    assert_eq!(choose(&index, 1, None, NOW), Some(vec![pinned]));
}

#[test]
fn of_the_points_of_one_long_prompt_the_longest_and_the_ends_of_turns_stay() {
    let mut index = Index::default();
    let points: Vec<Key> = (1..=4).map(|n| add(&mut index, 1, KvRole::Continued, n * 1000, NOW, 0.0)).collect();
    let turn = add(&mut index, 1, KvRole::Turn, 2500, NOW, 0.0);
    let gone = choose(&index, 3 * 700, None, NOW).unwrap();
    assert_eq!(gone.len(), 3);
    assert!(gone.iter().all(|key| points[..3].contains(key)), "not the longest, not the turn {turn}");
    let freed: u64 = gone.into_iter().flat_map(|key| index.remove_tail(key)).map(|h| h.file_bytes()).sum();
    assert_eq!(freed, 3 * 756, "their rows are the longest one's too");
    let bytes = index.bytes();
    assert_eq!(index.remove_tail(points[3]).len(), 1 + 15, "and those beyond the turn go with it");
    assert_eq!(index.bytes(), bytes - 756 - 15 * 1256);
}

#[test]
fn nothing_is_stored_at_the_cost_of_something_worth_more() {
    let mut index = Index::default();
    let anchor = add(&mut index, 1, KvRole::Cold, 1000, NOW, 5.0);
    assert_eq!(choose(&index, 1, Some(evicted(1000, 13_000)), NOW), None);
    assert_eq!(choose(&index, 0, Some(evicted(1000, 13_000)), NOW), Some(vec![]));
    let stale = add(&mut index, 2, KvRole::Evict, 1000, 0, 1.0);
    // Younger by its last use, and so not worth less than what is coming.
    let fresh = add(&mut index, 3, KvRole::Evict, 1000, NOW, 1.0);
    let coming = Some(evicted(1000, 13_000));
    assert_eq!(choose(&index, 1, coming, NOW), Some(vec![stale]));
    assert_eq!(choose(&index, 14_000, coming, NOW), None, "{fresh} and {anchor} are worth more");
}

#[test]
fn hits_fade_faster_for_what_was_live_than_for_beginnings() {
    let mut index = Index::default();
    // 100 hits are 6.25 after a day, 8 are 7.1 after an hour.
    let old = add(&mut index, 1, KvRole::Evict, 1000, NOW - 24 * HOUR, 100.0);
    add(&mut index, 2, KvRole::Evict, 1000, NOW - HOUR, 8.0);
    assert_eq!(choose(&index, 1, None, NOW), Some(vec![old]));
    // 3 are 2.7 after a day, and 4 are promised.
    add(&mut index, 3, KvRole::Cold, 1000, NOW - 24 * HOUR, 4.0);
    let later = choose(&index, 27_000, None, NOW + 24 * HOUR).unwrap();
    assert_eq!(later, [old, key(2, 1_001_000), key(3, 1_001_000)]);
}

#[test]
fn segments_go_with_the_last_checkpoint_that_needs_them() {
    let mut index = Index::default();
    let short = add(&mut index, 1, KvRole::Cold, 200, NOW, 0.0);
    let long = add(&mut index, 1, KvRole::Turn, 400, NOW, 0.0);
    assert_eq!(index.counts(), (6, 2));
    assert_eq!(index.remove_tail(short).len(), 1);
    assert_eq!(index.counts(), (5, 1));
    assert_eq!(index.remove_segment(key(1, 0)).len(), 5, "a checkpoint is nothing without its first rows");
    assert_eq!((index.counts(), index.bytes()), ((0, 0), 0));
    assert!(index.tail(long).is_none());
}
