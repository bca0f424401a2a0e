//! What a journal gives back after an orderly end, damage, a full disk, and a kill at any moment.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use tempfile::TempDir;

use super::*;

const NAME: &str = "test.journal";
const WRITE: Mode = Mode::Write { slack: 0, most: 1 << 20 };

/// Keeps everything that is not empty.
#[derive(Debug, Default, PartialEq)]
struct Map(BTreeMap<Vec<u8>, Vec<u8>>);

impl Keeper for Map {
    fn restore(&mut self, key: &[u8], value: &[u8]) -> bool {
        self.0.insert(key.to_vec(), value.to_vec());
        !value.is_empty()
    }

    fn keeps(&self, key: &[u8]) -> bool {
        self.0.get(key).is_some_and(|value| !value.is_empty())
    }
}

impl Map {
    fn of(entries: &[(&str, &str)]) -> Map {
        Map(entries.iter().map(|(key, value)| (key.as_bytes().to_vec(), value.as_bytes().to_vec())).collect())
    }
}

fn put(key: &str, value: &str) -> Change {
    Change::Put(key.as_bytes().into(), value.into())
}

fn remove(key: &str) -> Change {
    Change::Remove(key.as_bytes().into())
}

fn log(dir: &TempDir, mode: Mode) -> Log {
    Log::open(dir.path(), NAME, &[7; 32], mode).unwrap()
}

/// What is there, without a change to it.
fn found(dir: &TempDir) -> Map {
    let mut map = Map::default();
    log(dir, Mode::Read).restore(&mut map).unwrap();
    map
}

fn folder(changes: Vec<Change>) -> TempDir {
    let dir = TempDir::new().unwrap();
    // Slack, so that everything stays where it was written.
    log(&dir, Mode::Write { slack: 1 << 20, most: 1 << 20 }).append(changes).unwrap();
    dir
}

#[test]
fn the_newest_of_every_key_comes_back() {
    let dir = folder(vec![put("a", "1"), put("b", "2"), put("a", "3"), put("c", "4"), remove("b")]);
    let expected = Map::of(&[("a", "3"), ("c", "4")]);
    assert_eq!(found(&dir), expected);
    let before = fs::metadata(dir.path().join(NAME)).unwrap().len();
    let mut map = Map::default();
    log(&dir, WRITE).restore(&mut map).unwrap();
    let after = fs::metadata(dir.path().join(NAME)).unwrap().len();
    assert!(map == expected && after < before, "{before} to {after}: what is dead goes");
    assert_eq!(found(&dir), expected);
    assert_eq!(log::verify(dir.path(), NAME).unwrap(), None);
}

#[test]
fn a_file_cut_anywhere_has_the_changes_before() {
    let dir = folder(vec![put("a", "1"), put("b", "2"), remove("a")]);
    let whole = fs::read(dir.path().join(NAME)).unwrap();
    let states = [Map::default(), Map::of(&[("a", "1")]), Map::of(&[("a", "1"), ("b", "2")]), Map::of(&[("b", "2")])];
    // Where the header of 56 bytes and the records end.
    let ends = [76, 96, 115];
    assert_eq!(whole.len(), ends[2]);
    for cut in 0..whole.len() {
        for zeros in [0, 5, 40] {
            fs::write(dir.path().join(NAME), [&whole[..cut], &vec![0; zeros]].concat()).unwrap();
            let records = ends.iter().filter(|&&end| end <= cut).count();
            if zeros == 0 {
                assert_eq!(found(&dir), states[records], "cut at {cut}");
            }
            let mut map = Map::default();
            let mut opened = log(&dir, WRITE);
            opened.restore(&mut map).unwrap();
            assert_eq!(map, states[records], "cut at {cut}, {zeros} zeros");
            opened.append(vec![put("z", "9")]).unwrap();
            map.0.insert(b"z".to_vec(), b"9".to_vec());
            assert_eq!(found(&dir), map);
            assert_eq!(log::verify(dir.path(), NAME).unwrap(), None);
        }
    }
}

#[test]
fn a_byte_that_changed_costs_its_record_at_most_those_behind() {
    let changes = || vec![put("a", "1"), put("b", "2"), put("c", "3")];
    let dir = folder(changes());
    let whole = fs::read(dir.path().join(NAME)).unwrap();
    let expected = Map::of(&[("a", "1"), ("b", "2"), ("c", "3")]);
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        fs::write(dir.path().join(NAME), &damaged).unwrap();
        // The file says in its header what it is of: a changed vocabulary has a wrong checksum.
        assert!(log::verify(dir.path(), NAME).unwrap().is_some(), "{at}");
        let mut map = Map::default();
        let mut opened = log(&dir, WRITE);
        opened.restore(&mut map).unwrap();
        assert!(map.0.iter().all(|(key, value)| expected.0.get(key) == Some(value)), "{at}: {map:?}");
        let record = at.saturating_sub(56) / 20;
        let in_length = at >= 56 && (at - 56) % 20 < 8;
        let left = if at < 56 {
            0
        } else if in_length {
            record
        } else {
            2
        };
        assert_eq!(map.0.len(), left, "{at}");
        drop(opened);
        assert_eq!((found(&dir), log::verify(dir.path(), NAME).unwrap()), (map, None), "{at}: mended");
    }
}

#[test]
fn records_do_not_work_in_another_place_or_file() {
    let (one, other) = (folder(vec![put("a", "1"), put("b", "2")]), folder(vec![put("x", "1"), put("y", "2")]));
    let mut mixed = fs::read(one.path().join(NAME)).unwrap();
    let bytes = mixed.clone();
    mixed[56..76].copy_from_slice(&bytes[76..96]);
    fs::write(one.path().join(NAME), &mixed).unwrap();
    assert_eq!(found(&one), Map::default());
    assert_eq!(found(&other), Map::of(&[("x", "1"), ("y", "2")]));
    let mut foreign = Log::open(other.path(), NAME, &[8; 32], Mode::Read).unwrap();
    let mut map = Map::default();
    foreign.restore(&mut map).unwrap();
    assert_eq!(map, Map::default(), "of another vocabulary");
}

#[test]
fn a_length_that_cannot_be_is_not_believed() {
    let dir = folder(vec![put("a", "1")]);
    let path = dir.path().join(NAME);
    let header: [u8; 56] = fs::read(&path).unwrap()[..56].try_into().unwrap();
    for length in [u32::MAX, log::MAX_VALUE as u32, 100] {
        let field = log::length_field(&header, 76, length);
        fs::write(&path, [&fs::read(&path).unwrap()[..76], &field, &[1; 8], b"few"].concat()).unwrap();
        assert_eq!(found(&dir), Map::of(&[("a", "1")]), "{length}");
    }
}

#[cfg(unix)]
#[test]
fn the_file_is_its_owners_and_no_link() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let dir = folder(vec![put("a", "1")]);
    let path = dir.path().join(NAME);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let elsewhere = dir.path().join("elsewhere");
    fs::rename(&path, &elsewhere).unwrap();
    symlink(&elsewhere, &path).unwrap();
    assert!(Log::open(dir.path(), NAME, &[7; 32], WRITE).is_err());
    fs::remove_file(&path).unwrap();
    // A link where the file is written anew is replaced, not followed.
    symlink(&elsewhere, dir.path().join(format!("{NAME}.tmp"))).unwrap();
    let before = fs::read(&elsewhere).unwrap();
    log(&dir, WRITE).append(vec![put("b", "2")]).unwrap();
    assert_eq!((fs::read(&elsewhere).unwrap(), found(&dir)), (before, Map::of(&[("b", "2")])));
}

#[test]
fn a_full_disk_costs_what_does_not_fit_and_no_removal() {
    let dir = TempDir::new().unwrap();
    let mut log = log(&dir, Mode::Write { slack: 1 << 20, most: 200 });
    log.append(vec![put("a", "1"), put("b", "2")]).unwrap();
    assert!(log.append(vec![put("c", &"3".repeat(200)), remove("a")]).is_err());
    assert_eq!(found(&dir), Map::of(&[("a", "1"), ("b", "2")]));
    log.append(vec![put("d", "4")]).unwrap();
    assert_eq!(found(&dir), Map::of(&[("b", "2"), ("d", "4")]));
}

#[test]
fn the_thread_writes_what_it_is_handed_and_says_when() {
    let dir = TempDir::new().unwrap();
    let journal = Journal::start(Ok(log(&dir, WRITE)), NAME, &mut Map::default());
    for n in 0..1000 {
        journal.put(format!("{}", n % 10).as_bytes(), || vec![b'x'; n + 1]);
    }
    journal.remove(b"3");
    journal.put(b"big", || vec![0; log::MAX_VALUE + 1]);
    assert!(journal.flush(PATIENCE));
    let map = found(&dir);
    let expected = (0..10).filter(|n| *n != 3).map(|n: usize| (n.to_string().into_bytes(), vec![b'x'; 991 + n]));
    assert_eq!(map.0, expected.collect());
    assert!(Journal::default().flush(PATIENCE), "nothing is written nowhere");
}

/// Where the child finds its directory; without it the child's test does nothing.
const DIR: &str = "DS4_TEST_JOURNAL_DIR";
const FROM: &str = "DS4_TEST_JOURNAL_FROM";

/// The `n`th change. Keys come again soon, so that the file is often written anew.
fn change(n: usize) -> (Vec<u8>, Option<Vec<u8>>) {
    let key = format!("{}", n * 7 % 13).into_bytes();
    (key, (n % 5 != 4).then(|| format!("{n} {}", "x".repeat(n * 37 % 3000)).into_bytes()))
}

/// Changes until it is killed, and says which are durable. Only meant to be run by the test below.
#[test]
fn child_writes_until_it_is_killed() {
    let (Some(dir), Ok(from)) = (std::env::var_os(DIR), std::env::var(FROM)) else { return };
    let log = Log::open(Path::new(&dir), NAME, &[7; 32], Mode::Write { slack: 20_000, most: 1 << 30 });
    let journal = Journal::start(log, NAME, &mut Map::default());
    let mut out = std::io::stdout();
    for n in from.parse::<usize>().unwrap().. {
        match change(n) {
            (key, Some(value)) => journal.put(&key, || value),
            (key, None) => journal.remove(&key),
        }
        if n % 3 == 0 {
            assert!(journal.flush(PATIENCE));
            writeln!(out, "\ndurable {}", n + 1).and_then(|()| out.flush()).unwrap();
        }
    }
}

/// Runs the child and kills it after `patience`; returns how many changes it called durable.
fn killed_child(dir: &Path, from: usize, patience: Duration) -> usize {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "journal::tests::child_writes_until_it_is_killed", "--nocapture", "--test-threads", "1"])
        .env(DIR, dir)
        .env(FROM, from.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let number = |line: String| line.strip_prefix("durable ")?.parse().ok();
    let first = lines.by_ref().find_map(number);
    std::thread::sleep(patience);
    // SIGKILL: nothing of the process gets to clean up.
    child.kill().unwrap();
    child.wait().unwrap();
    lines.filter_map(number).last().or(first).expect("one change")
}

/// After every kill the journal is as it was after some number of changes, none fewer than were called durable.
#[test]
fn a_killed_process_has_kept_all_that_it_called_durable() {
    let mut seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos() | 1;
    eprintln!("seed {seed}");
    let dir = TempDir::new().unwrap();
    let (mut done, mut state, mut torn) = (0, Map::default(), 0);
    for round in 0..30 {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let durable = killed_child(dir.path(), done, Duration::from_micros(u64::from(seed >> 16)));
        torn += usize::from(dir.path().join(format!("{NAME}.tmp")).exists());
        assert_eq!(log::verify(dir.path(), NAME).unwrap(), None, "a kill damages nothing");
        let left = found(&dir);
        let mut n = done;
        while n < durable || state != left {
            match change(n) {
                (key, Some(value)) => drop(state.0.insert(key, value)),
                (key, None) => drop(state.0.remove(&key)),
            }
            n += 1;
            assert!(n < durable + 1000, "round {round}: {durable} were durable, this is no state behind: {left:?}");
        }
        done = n;
    }
    eprintln!("{done} changes, {torn} kills while the file was written anew");
}
