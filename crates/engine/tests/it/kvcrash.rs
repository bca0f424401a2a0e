//! A process that is killed while it saves, over and over: the store opens again, serves no wrong state, and has lost the
//! newest save at most.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ds4_engine::{EngineConfig, KvStoreConfig, Source, kv_verify};
use ds4_model::Limits;
use tempfile::TempDir;

use crate::fake::Fake;
use crate::kvstore::{config, ids, over, say, settle, stats};
use crate::support::run;

const LIMITS: Limits = Limits { context: 4000, slots: 1, max_rows: 64, rewind: 4 };
/// Where the child finds its directory; without it the child's test does nothing.
const DIR: &str = "DS4_TEST_KVCRASH_DIR";
const KIND: &str = "DS4_TEST_KVCRASH_KIND";

fn kv(dir: &Path) -> KvStoreConfig {
    KvStoreConfig { turn_tokens: 8, cold_max_tokens: 0, continued_interval: 0, ..config(dir) }
}

/// Turn by turn the same sequence grows; each is saved at its end.
fn turn(kind: u32, n: u32) -> Vec<u32> {
    ids(40 + 12 * n, kind)
}

/// Saves until it is killed, and says after each save how many there are. Only meant to be run by the test below.
#[test]
fn child_saves_until_it_is_killed() {
    let (Some(dir), Ok(kind)) = (std::env::var_os(DIR), std::env::var(KIND)) else { return };
    let (engine, _) = over(Fake::new(LIMITS), kv(Path::new(&dir)));
    let kind = kind.parse().unwrap();
    let mut out = std::io::stdout();
    for n in 0..250 {
        say(&engine, &turn(kind, n), |r| r.max_tokens = 1);
        assert_eq!(settle(&engine).failed_writes, 0);
        writeln!(out, "\nsaved {n}").and_then(|()| out.flush()).unwrap();
    }
    std::thread::sleep(Duration::from_mins(1));
}

/// Runs the child and kills it after `patience`; returns the last save it told of.
fn killed_child(dir: &Path, kind: u32, patience: Duration) -> Option<u32> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kvcrash::child_saves_until_it_is_killed", "--nocapture", "--test-threads", "1"])
        .env(DIR, dir)
        .env(KIND, kind.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // The time runs from the first save on: what comes before is the start of a process.
    let first = lines.by_ref().map_while(Result::ok).find_map(|line| line.strip_prefix("saved ")?.parse().ok());
    std::thread::sleep(patience);
    // SIGKILL: nothing of the process gets to clean up.
    child.kill().unwrap();
    child.wait().unwrap();
    lines.map_while(Result::ok).filter_map(|line| line.strip_prefix("saved ")?.parse().ok()).last().or(first)
}

fn rounds(rounds: u32) {
    let mut seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos() | 1;
    eprintln!("seed {seed}");
    let dir = TempDir::new().unwrap();
    let plain = run(Fake::new(LIMITS), EngineConfig::default()).0;
    let mut unfinished = 0;
    for round in 0..rounds {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let kind = round + 1;
        let told = killed_child(dir.path(), kind, Duration::from_micros(u64::from(seed >> 18))).expect("one save");
        let is_unfinished = |path: &Path| path.extension().is_some_and(|extension| extension == "tmp");
        let mut paths = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
        unfinished += u32::from(paths.any(|path| is_unfinished(&path)));
        let (engine, _) = over(Fake::new(LIMITS), KvStoreConfig { turn_tokens: 0, ..kv(dir.path()) });
        let opened = stats(&engine);
        assert_eq!(opened.misses.corrupt, 0, "a kill leaves no damaged object: {opened:?}");
        for n in [told, told / 2] {
            let prompt = [&turn(kind, n)[..], &[7, 8]].concat();
            let (out, said) = say(&engine, &prompt, |_| {});
            assert_eq!(said, say(&plain, &prompt, |_| {}).1, "round {round}");
            let reached = (out.usage().source, out.usage().cached >= turn(kind, n).len() as u32);
            assert_eq!(reached, (Source::Disk, true), "round {round}: save {n} was told of and is there");
            engine.clear(0).unwrap();
        }
        engine.stop();
        assert_eq!(kv_verify(dir.path()).unwrap(), []);
        if round % 8 == 7 {
            ds4_engine::kv_remove(dir.path(), "").unwrap();
        }
    }
    eprintln!("{rounds} rounds, {unfinished} of them left an unfinished file");
}

#[test]
fn a_killed_process_loses_its_newest_save_at_most() {
    rounds(40);
}

#[test]
#[ignore = "200 processes; the 40 rounds beside it run every time, README has the command"]
fn two_hundred_killed_processes_lose_their_newest_save_at_most() {
    rounds(200);
}
