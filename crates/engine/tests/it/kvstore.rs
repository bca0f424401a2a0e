//! The store through the door: what comes back, what is not let in, what no failure of a disk may do.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ds4_cpu::{Options, load};
use ds4_engine::{
    EngineConfig, EngineHandle, KvCompression, KvFault, KvFaults, KvLog, KvOp, KvRole, KvSpace, KvStats, KvStoreConfig,
    Request, Source, kv_list, kv_remove, kv_verify,
};
use ds4_model::{Limits, Model};
use tempfile::TempDir;

use crate::fake::{Fake, NOT_A_NUMBER, Watch};
use crate::support::{LIMITS, Outcome, TOKENIZER, collect, generate, run, submit, tiny};

/// A store for sequences of a few hundred tokens.
pub(crate) fn config(dir: &Path) -> KvStoreConfig {
    KvStoreConfig {
        min_tokens: 16,
        cold_max_tokens: 300,
        continued_interval: 96,
        boundary_trim: 4,
        boundary_align: 32,
        turn_tokens: 24,
        write_mbps: 0,
        faults: KvFaults::default().with_space(roomy),
        ..KvStoreConfig::new(dir)
    }
}

/// A file system with room, whatever the one has that the tests run on.
fn roomy() -> KvSpace {
    KvSpace { free: 1 << 40, total: 1 << 40 }
}

pub(crate) fn over(fake: Fake, kv: KvStoreConfig) -> (EngineHandle, Watch) {
    run(fake, EngineConfig { kv: Some(kv), ..EngineConfig::default() })
}

pub(crate) fn ids(n: u32, kind: u32) -> Vec<u32> {
    (0..n).map(|i| (i * i * 31 + i * 17 + 5 + kind * (i + 3)) % 300).collect()
}

/// Two samples of everything a request brings but its sources and times.
type Said = (Vec<u32>, Vec<Vec<(u32, u32)>>);

pub(crate) fn say(engine: &EngineHandle, prompt: &[u32], change: impl FnOnce(&mut Request)) -> (Outcome, Said) {
    let out = generate(engine, prompt, |r| {
        (r.max_tokens, r.ignore_eos, r.logprobs) = (6, true, Some(5));
        change(r);
    });
    let bits = |l: &ds4_engine::TokenLogprobs| l.top.iter().map(|c| (c.id, c.logit.to_bits())).collect();
    let logprobs = out.logprobs.iter().map(bits).collect();
    let said = (out.ids.clone(), logprobs);
    (out, said)
}

pub(crate) fn stats(engine: &EngineHandle) -> KvStats {
    engine.kv_stats().expect("there is a store")
}

/// Waits until the engine and its writer have nothing left to do.
pub(crate) fn settle(engine: &EngineHandle) -> KvStats {
    let until = Instant::now() + Duration::from_secs(20);
    // What a request leaves behind is handed over after its last event, but before the next question.
    engine.slots().unwrap();
    while stats(engine).pending > 0 {
        assert!(Instant::now() < until, "{:?}", stats(engine));
        std::thread::sleep(Duration::from_millis(1));
    }
    stats(engine)
}

fn files(dir: &Path, suffix: &str) -> Vec<PathBuf> {
    let all = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut out: Vec<PathBuf> = all.filter(|path| path.to_str().unwrap().ends_with(suffix)).collect();
    out.sort();
    out
}

#[test]
fn a_state_that_lost_its_slot_comes_back_from_host_memory() {
    let limits = Limits { context: 512, slots: 1, max_rows: 48, rewind: 8 };
    let model = || load(&tiny("tiny-a.gguf"), limits, Options::default()).unwrap();
    let engine = |kv| {
        let config = EngineConfig { kv, ..EngineConfig::default() };
        EngineHandle::start(model(), Arc::clone(&TOKENIZER), config).unwrap()
    };
    let kv = KvStoreConfig { dir: None, faults: KvFaults::default(), ..config(Path::new("")) };
    let remembering = engine(Some(kv));
    let (first, other) = (ids(150, 1), ids(140, 2));
    let (cold, said) = say(&remembering, &first, |_| {});
    assert_eq!(cold.usage().source, Source::None);
    say(&remembering, &other, |_| {});
    settle(&remembering);
    let (again, said_again) = say(&remembering, &first, |_| {});
    assert_eq!((again.usage().source, again.usage().cached), (Source::Ram, 149), "all but the last token");
    assert_eq!(said_again, said);
    assert_eq!(say(&engine(None), &first, |_| {}).1, said);
    let begun = Instant::now();
    let report = remembering.shutdown(Duration::from_secs(20));
    assert!(report.complete && report.saved == 0 && begun.elapsed() < Duration::from_secs(10), "{report:?}");
}

#[test]
fn a_restored_state_says_what_the_live_and_the_cold_one_say_bit_for_bit() {
    let limits = Limits { context: 512, slots: 1, max_rows: 48, rewind: 8 };
    for name in ["tiny-a.gguf", "tiny-b.gguf"] {
        let model = || load(&tiny(name), limits, Options::default()).unwrap();
        let engine = |kv: Option<KvStoreConfig>| {
            EngineHandle::start(model(), Arc::clone(&TOKENIZER), EngineConfig { kv, ..EngineConfig::default() })
                .unwrap()
        };
        let prompt = ids(290, 0);
        let seeded = |r: &mut Request| (r.sampling.seed, r.sampling.temperature) = (7, 1.0);
        let cold: Vec<_> = [200, 290].map(|n| say(&engine(None), &prompt[..n], seeded).1).into();
        for compression in [KvCompression::None, KvCompression::Lz4] {
            let dir = TempDir::new().unwrap();
            let kv = || Some(KvStoreConfig { compression, ..config(dir.path()) });
            let first = engine(kv());
            let (out, live) = say(&first, &prompt[..200], seeded);
            assert_eq!((&live, out.usage().source), (&cold[0], Source::None));
            assert!(first.shutdown(Duration::from_secs(20)).complete);
            let second = engine(kv());
            let (out, restored) = say(&second, &prompt[..200], seeded);
            assert_eq!((&restored, out.usage().source), (&cold[0], Source::Disk), "{name}");
            assert_eq!(out.usage().cached, 199, "all but the last token of its question");
            let (out, restored) = say(&second, &prompt, seeded);
            assert_eq!((&restored, out.usage().source), (&cold[1], Source::Live));
            second.stop();
            let (out, restored) = say(&engine(kv()), &prompt, seeded);
            assert_eq!((&restored, out.usage().source), (&cold[1], Source::Disk));
        }
    }
}

#[test]
fn logits_of_a_restored_prompt_are_used_as_they_were() {
    let dir = TempDir::new().unwrap();
    let prompt = ids(40, 0);
    let kv = || KvStoreConfig { boundary_align: 64, ..config(dir.path()) };
    let (engine, _) = over(Fake::new(LIMITS), kv());
    let (_, cold) = say(&engine, &prompt, |_| {});
    settle(&engine);
    engine.stop();
    let (engine, watch) = over(Fake::new(LIMITS), kv());
    let (out, restored) = say(&engine, &prompt, |_| {});
    assert_eq!((out.usage().cached, restored), (40, cold));
    assert_eq!(watch.evaluated(), 5, "all of the prompt was there: only what was drawn is evaluated");
}

#[test]
fn a_restart_continues_where_any_slot_was() {
    let dir = TempDir::new().unwrap();
    let kv = || KvStoreConfig { turn_tokens: 0, ..config(dir.path()) };
    let (engine, _) = over(Fake::new(LIMITS), kv());
    let prompts: Vec<Vec<u32>> = (0..2).map(|kind| ids(50 + 30 * kind, kind)).collect();
    let said: Vec<_> = prompts.iter().map(|prompt| say(&engine, prompt, |_| {}).1).collect();
    let report = engine.shutdown(Duration::from_secs(20));
    assert_eq!((report.saved, report.unsaved, report.complete), (2, 0, true));
    let (engine, watch) = over(Fake::new(LIMITS), kv());
    for (prompt, (ids, _)) in prompts.iter().zip(&said) {
        let mut next = [&prompt[..], ids].concat();
        next.push(9);
        let (out, again) = say(&engine, &next, |_| {});
        assert_eq!(out.usage().source, Source::Disk);
        assert_eq!(out.usage().cached as usize, next.len() - 2, "all but the last drawn token and the new one");
        assert_eq!(again, say(&run(Fake::new(LIMITS), EngineConfig::default()).0, &next, |_| {}).1);
    }
    assert_eq!(watch.evaluated(), 2 * (2 + 5));
    assert_eq!(stats(&engine).hits, 2);
}

#[test]
fn a_stored_beginning_serves_every_prompt_that_has_it_and_grows_by_what_is_new() {
    let dir = TempDir::new().unwrap();
    let one = Limits { slots: 1, ..LIMITS };
    let kv = || KvStoreConfig { turn_tokens: 0, compression: KvCompression::None, ..config(dir.path()) };
    let (engine, _) = over(Fake::new(one), kv());
    let base = ids(140, 0);
    say(&engine, &base, |_| {});
    // 96 regular, 128 cold.
    let before = settle(&engine);
    assert_eq!((before.writes, before.checkpoints, before.objects), (2, 2, 2 + 4));
    let mut other = base.clone();
    other[110] += 1;
    let (out, _) = say(&engine, &other, |_| {});
    assert_eq!((out.usage().source, out.usage().cached), (Source::Live, 96), "a rewind point at 96");
    say(&engine, &ids(60, 5), |_| {});
    engine.stop();
    let (engine, _) = over(Fake::new(one), kv());
    let (out, _) = say(&engine, &other, |_| {});
    assert_eq!(out.usage().source, Source::Disk);
    assert!(out.usage().cached >= 96);
    let longer = [&base[..], &ids(150, 3)].concat();
    let (out, _) = say(&engine, &longer, |_| {});
    assert_eq!((out.usage().source, out.usage().cached), (Source::Disk, 139), "all but the last token of its question");
    engine.shutdown(Duration::from_secs(20));
    assert_eq!(kv_verify(dir.path()).unwrap(), []);
    let starts: Vec<u32> = kv_list(dir.path()).unwrap().iter().filter(|o| o.role.is_none()).map(|o| o.start).collect();
    assert_eq!(
        starts.iter().filter(|&&start| start == 0).count(),
        2,
        "one beginning for three sequences, one for another"
    );
}

#[test]
fn tenants_see_their_own_states_only() {
    let dir = TempDir::new().unwrap();
    let prompt = ids(100, 0);
    let kv = || config(dir.path());
    let (engine, _) = over(Fake::new(LIMITS), kv());
    say(&engine, &prompt, |r| r.tenant = 1);
    let (out, _) = say(&engine, &prompt, |r| r.tenant = 2);
    assert_eq!((out.usage().source, out.usage().cached), (Source::None, 0));
    let (out, _) = say(&engine, &prompt, |r| r.tenant = 1);
    assert_eq!(out.usage().source, Source::Live);
    engine.shutdown(Duration::from_secs(20));
    let (engine, _) = over(Fake::new(LIMITS), kv());
    assert_eq!(say(&engine, &prompt, |r| r.tenant = 3).0.usage().source, Source::None);
    assert_eq!(say(&engine, &prompt, |r| r.tenant = 2).0.usage().source, Source::Disk);
}

#[test]
fn an_idle_sequence_that_loses_its_slot_is_kept() {
    let dir = TempDir::new().unwrap();
    let kv = KvStoreConfig { turn_tokens: 0, ..config(dir.path()) };
    let (engine, _) = over(Fake::new(Limits { slots: 1, ..LIMITS }), kv);
    let (_, (said, _)) = say(&engine, &ids(60, 0), |_| {});
    say(&engine, &ids(60, 1), |_| {});
    settle(&engine);
    let again = [&ids(60, 0)[..], &said].concat();
    let (out, _) = say(&engine, &again, |_| {});
    assert_eq!((out.usage().source, out.usage().cached), (Source::Disk, 65));
    assert!(kv_list(dir.path()).unwrap().iter().any(|object| object.role == Some(KvRole::Evict)));
}

#[test]
fn a_turn_without_what_was_drawn_goes_on_from_its_question() {
    let dir = TempDir::new().unwrap();
    let kv = || KvStoreConfig { turn_tokens: 0, ..config(dir.path()) };
    for name in ["tiny-a.gguf", "tiny-b.gguf"] {
        let limits = Limits { context: 512, slots: 1, max_rows: 48, rewind: 4 };
        let engine = |kv: Option<KvStoreConfig>| {
            let model = load(&tiny(name), limits, Options::default()).unwrap();
            EngineHandle::start(model, Arc::clone(&TOKENIZER), EngineConfig { kv, ..EngineConfig::default() }).unwrap()
        };
        let first = engine(Some(kv()));
        let prompt = ids(171, 0);
        say(&first, &prompt, |r| r.max_tokens = 40);
        assert!(first.shutdown(Duration::from_secs(20)).complete);
        let second = engine(Some(kv()));
        let next = [&prompt[..170], &ids(20, 4)].concat();
        let (out, said) = say(&second, &next, |_| {});
        assert_eq!((out.usage().source, out.usage().cached), (Source::Disk, 170), "all but the prompt's last token");
        assert_eq!(said, say(&engine(None), &next, |_| {}).1);
        second.stop();
    }
}

#[test]
fn a_state_still_on_its_way_to_the_disk_is_waited_for() {
    let dir = TempDir::new().unwrap();
    let faults = KvFaults::new(|op| {
        if op == KvOp::Sync {
            std::thread::sleep(Duration::from_millis(30));
        }
        None
    });
    let faults = faults.with_space(roomy);
    let kv = KvStoreConfig { turn_tokens: 0, cold_max_tokens: 0, faults, ..config(dir.path()) };
    let (engine, _) = over(Fake::new(Limits { slots: 1, ..LIMITS }), kv);
    let (_, (said, _)) = say(&engine, &ids(60, 0), |_| {});
    say(&engine, &ids(60, 1), |_| {});
    let (out, _) = say(&engine, &[&ids(60, 0)[..], &said].concat(), |_| {});
    assert_eq!((out.usage().source, out.usage().cached), (Source::Disk, 65));
}

#[test]
fn a_conversation_that_scoring_displaces_is_kept_and_what_was_scored_is_not() {
    let dir = TempDir::new().unwrap();
    let kv = KvStoreConfig { turn_tokens: 0, cold_max_tokens: 0, continued_interval: 0, ..config(dir.path()) };
    let (engine, _) = over(Fake::new(Limits { slots: 1, ..LIMITS }), kv);
    say(&engine, &ids(60, 0), |_| {});
    engine.next_logits(ids(200, 1)).unwrap();
    let report = engine.shutdown(Duration::from_secs(20));
    assert_eq!((report.saved, report.unsaved), (0, 0));
    let ends: Vec<u32> = kv_list(dir.path()).unwrap().iter().filter(|o| o.role.is_some()).map(|o| o.end).collect();
    assert_eq!(ends, [59, 65], "its last question and its end");
}

/// A directory with one checkpoint of one segment each, and its prompt.
fn small(kv: &KvStoreConfig) -> Vec<u32> {
    let prompt = ids(36, 0);
    let (engine, _) = over(Fake::new(LIMITS), KvStoreConfig { turn_tokens: 0, ..kv.clone() });
    say(&engine, &prompt, |_| {});
    settle(&engine);
    engine.stop();
    prompt
}

#[test]
fn a_damaged_object_is_a_miss_and_gone() {
    let original = TempDir::new().unwrap();
    let prompt = small(&config(original.path()));
    let (_, cold) = say(&run(Fake::new(LIMITS), EngineConfig::default()).0, &prompt, |_| {});
    for suffix in [".tail", ".segment"] {
        let [file] = &files(original.path(), suffix)[..] else { panic!("one {suffix}") };
        let good = fs::read(file).unwrap();
        // Every byte of the header and of the first block's header, then a sample, then the end.
        let spots = (0..280).chain((280..good.len()).step_by(37)).chain([good.len() - 1]);
        let mut cases: Vec<Vec<u8>> = spots
            .map(|at| {
                let mut bad = good.clone();
                bad[at] ^= 1 << (at % 8);
                bad
            })
            .collect();
        cases.extend([0, 1, 255, 256, 271, good.len() - 1].map(|len| good[..len].to_vec()));
        cases.push([&good[..], &[0]].concat());
        cases.push([&good[..], &good[..]].concat());
        for (i, bad) in cases.iter().enumerate() {
            let dir = TempDir::new().unwrap();
            for from in files(original.path(), "") {
                fs::copy(&from, dir.path().join(from.file_name().unwrap())).unwrap();
            }
            let damaged = dir.path().join(file.file_name().unwrap());
            let notes = Arc::new(Mutex::new(Vec::new()));
            let log = Arc::clone(&notes);
            let kv = KvStoreConfig {
                log: KvLog::new(move |line| log.lock().unwrap().push(line.to_owned())),
                cold_max_tokens: 0,
                turn_tokens: 0,
                ..config(dir.path())
            };
            // Half of them are damaged behind the store's back.
            let engine = if i % 2 == 0 {
                fs::write(&damaged, bad).unwrap();
                over(Fake::new(LIMITS), kv).0
            } else {
                let engine = over(Fake::new(LIMITS), kv).0;
                fs::write(&damaged, bad).unwrap();
                engine
            };
            let (out, said) = say(&engine, &prompt, |_| {});
            assert_eq!((out.usage().source, &said), (Source::None, &cold), "{suffix}, case {i}");
            engine.stop();
            assert!(!damaged.exists(), "{suffix}, case {i}");
            let about = |line: &&String| line.contains(file.file_name().unwrap().to_str().unwrap());
            let notes = notes.lock().unwrap();
            assert_eq!(notes.iter().filter(about).count(), 1, "{suffix}, case {i}: {notes:?}");
        }
    }
}

/// A model with the state of another that says it is itself.
struct Other(Fake);

impl Model for Other {
    fn shape(&self) -> &ds4_model::Shape {
        self.0.shape()
    }
    fn limits(&self) -> Limits {
        self.0.limits()
    }
    fn forward(&mut self, batch: &ds4_model::Batch<'_>, logits: &mut [f32]) -> ds4_model::Result<()> {
        self.0.forward(batch, logits)
    }
    fn save(&mut self, slot: u32, rows: std::ops::Range<u32>, out: &mut dyn io::Write) -> ds4_model::Result<()> {
        self.0.save(slot, rows, out)
    }
    fn load(&mut self, slot: u32, rows: std::ops::Range<u32>, src: &mut dyn io::Read) -> ds4_model::Result<()> {
        self.0.load(slot, rows, src)
    }
    fn state_bytes(&self, rows: std::ops::Range<u32>) -> u64 {
        self.0.state_bytes(rows)
    }
    fn parts(&self, n: u32) -> Vec<ds4_model::Part> {
        self.0.parts(n)
    }
    fn fingerprint(&self) -> [u8; 32] {
        [8; 32]
    }
    fn variant(&self) -> ds4_model::Variant {
        ds4_model::Variant { family: [7; 32], quant: 12 }
    }
}

#[test]
fn another_quantisation_of_the_model_shares_states_unless_told_not_to() {
    let dir = TempDir::new().unwrap();
    let prompt = small(&config(dir.path()));
    let ask = |reject_different_quant| {
        let kv = KvStoreConfig { reject_different_quant, readonly: true, ..config(dir.path()) };
        let config = EngineConfig { kv: Some(kv), ..EngineConfig::default() };
        let engine = EngineHandle::start(Box::new(Other(Fake::new(LIMITS))), Arc::clone(&TOKENIZER), config).unwrap();
        say(&engine, &prompt, |_| {}).0.usage().source
    };
    assert_eq!([ask(true), ask(false)], [Source::None, Source::Disk]);
    assert_eq!(files(dir.path(), ".tail").len(), 1, "the other model's states stay");
}

#[test]
fn a_state_that_does_not_work_is_removed_and_the_request_starts_again() {
    let dir = TempDir::new().unwrap();
    let poisoned = ids(36, 0);
    let kv = config(dir.path());
    small(&kv);
    // The restored state is fine, the first token behind it is not: the retry meets it again, and only then it fails.
    let (engine, watch) = over(Fake::new(LIMITS), kv);
    let prompt = [&poisoned[..], &[NOT_A_NUMBER]].concat();
    let out = generate(&engine, &prompt, |_| {});
    assert!(out.end.is_err());
    assert_eq!(out.prefill.first().unwrap().0, 32);
    assert!(out.prefill.iter().skip(1).any(|&(done, ..)| done == 0), "{:?}", out.prefill);
    assert_eq!(watch.evaluated(), 5 + 37);
    assert_eq!(stats(&engine).misses.refused, 1);
    engine.stop();
    assert_eq!(files(dir.path(), ".tail"), [] as [PathBuf; 0]);
}

#[test]
fn no_failure_of_the_disk_ends_a_request() {
    use io::ErrorKind::{Other, PermissionDenied, StorageFull};
    let prompts: Vec<Vec<u32>> = (0..4).map(|kind| ids(60 + 10 * kind, kind)).collect();
    let plain = run(Fake::new(LIMITS), EngineConfig::default()).0;
    let cold: Vec<_> = prompts.iter().map(|prompt| say(&plain, prompt, |_| {}).1).collect();
    let failures = [
        (KvOp::Create, KvFault::Error(PermissionDenied)),
        (KvOp::Write, KvFault::Error(StorageFull)),
        (KvOp::Write, KvFault::Short),
        (KvOp::Write, KvFault::Torn),
        (KvOp::Sync, KvFault::Error(Other)),
        (KvOp::Rename, KvFault::Error(Other)),
        (KvOp::SyncDir, KvFault::Error(Other)),
        (KvOp::Read, KvFault::Error(Other)),
        (KvOp::Remove, KvFault::Error(PermissionDenied)),
    ];
    for (which, fault) in failures {
        // From the first, the second ... call of its kind on, and at every third.
        for start in 0..4_u64 {
            let dir = TempDir::new().unwrap();
            let calls = AtomicU64::new(0);
            let faults = KvFaults::new(move |op| {
                let due = op == which && {
                    let call = calls.fetch_add(1, Ordering::Relaxed);
                    if start == 3 { call % 3 == 1 } else { call >= start }
                };
                due.then_some(fault)
            });
            for faults in [faults, KvFaults::default()] {
                let faults = faults.with_space(roomy);
                let kv = KvStoreConfig { faults, ..config(dir.path()) };
                let (engine, _) = over(Fake::new(Limits { slots: 1, ..LIMITS }), kv);
                for _ in 0..2 {
                    for (prompt, cold) in prompts.iter().zip(&cold) {
                        assert_eq!(&say(&engine, prompt, |_| {}).1, cold, "{which:?} {fault:?} from {start}");
                    }
                }
                engine.shutdown(Duration::from_secs(20));
            }
            assert_eq!(kv_verify(dir.path()).unwrap(), [], "{which:?} {fault:?} from {start}");
            assert_eq!(files(dir.path(), ".tmp"), [] as [PathBuf; 0]);
        }
    }
}

#[test]
fn a_second_opener_is_told_and_readers_share() {
    let dir = TempDir::new().unwrap();
    let start = |readonly| {
        let kv = KvStoreConfig { readonly, ..config(dir.path()) };
        let config = EngineConfig { kv: Some(kv), ..EngineConfig::default() };
        EngineHandle::start(Box::new(Fake::new(LIMITS)), Arc::clone(&TOKENIZER), config)
    };
    let first = start(false).unwrap();
    for readonly in [false, true] {
        let error = start(readonly).unwrap_err().to_string();
        assert!(error.contains("in use by another process") && error.contains(dir.path().to_str().unwrap()), "{error}");
    }
    assert!(kv_remove(dir.path(), "").is_err());
    first.stop();
    let readers = (start(true).unwrap(), start(true).unwrap());
    assert!(start(false).is_err());
    drop(readers);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let inner = dir.path().join("made/for/it");
        small(&config(&inner));
        assert_eq!(mode(&inner), 0o700);
        assert!(files(&inner, "").iter().all(|file| mode(file) == 0o600));
    }
}

#[test]
fn a_reader_changes_nothing() {
    let dir = TempDir::new().unwrap();
    let prompt = small(&config(dir.path()));
    fs::write(files(dir.path(), ".segment")[0].clone(), b"damaged").unwrap();
    let before = files(dir.path(), "");
    let (engine, _) = over(Fake::new(LIMITS), KvStoreConfig { readonly: true, ..config(dir.path()) });
    assert_eq!(say(&engine, &prompt, |_| {}).0.usage().source, Source::None);
    assert_eq!(engine.shutdown(Duration::from_secs(5)).saved, 0);
    assert_eq!(files(dir.path(), ""), before);
}

#[test]
fn a_request_that_waits_for_the_disk_holds_nobody_up() {
    let dir = TempDir::new().unwrap();
    let prompt = small(&config(dir.path()));
    let (held, reading) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
    let (hold, read) = (Arc::clone(&held), Arc::clone(&reading));
    let faults = KvFaults::new(move |op| {
        if op == KvOp::Read {
            read.store(true, Ordering::SeqCst);
            while hold.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        None
    });
    let faults = faults.with_space(roomy);
    let (engine, _) = over(Fake::new(LIMITS), KvStoreConfig { faults, ..config(dir.path()) });
    let waiting = submit(&engine, &prompt, |_| {});
    while !reading.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(1));
    }
    let (other, _) = say(&engine, &ids(12, 3), |_| {});
    assert_eq!(other.ids.len(), 6, "a request too short for the store runs meanwhile");
    assert!(waiting.try_recv().is_err());
    let cancelled = submit(&engine, &prompt, |r| r.cancel.cancel());
    assert_eq!(collect(&cancelled).reason(), ds4_engine::StopReason::Cancelled);
    held.store(false, Ordering::SeqCst);
    let out = collect(&waiting);
    assert_eq!((out.usage().source, out.usage().cached), (Source::Disk, 32));
}

#[test]
fn a_budget_of_nothing_removes_everything_and_serves_on() {
    let dir = TempDir::new().unwrap();
    let prompt = small(&config(dir.path()));
    let (engine, _) = over(Fake::new(LIMITS), KvStoreConfig { space_mb: 0, ..config(dir.path()) });
    assert_eq!(stats(&engine).bytes, 0);
    assert_eq!(say(&engine, &prompt, |_| {}).0.usage().source, Source::None);
    assert!(settle(&engine).skipped.no_room > 0);
    assert_eq!(files(dir.path(), "").len(), 1, "the lock");
}

#[test]
fn a_twentieth_of_the_file_system_stays_free() {
    const TOTAL: u64 = 20 << 20;
    let dir = TempDir::new().unwrap();
    let free = Arc::new(AtomicU64::new(TOTAL / 20));
    let measured = Arc::clone(&free);
    let space = move || KvSpace { free: measured.load(Ordering::Relaxed), total: TOTAL };
    let notes = Arc::new(AtomicU64::new(0));
    let heard = Arc::clone(&notes);
    let log = KvLog::new(move |line| {
        heard.fetch_add(u64::from(line.contains("5%")), Ordering::Relaxed);
    });
    let kv = KvStoreConfig { faults: KvFaults::default().with_space(space), turn_tokens: 0, log, ..config(dir.path()) };
    let (engine, _) = over(Fake::new(LIMITS), kv);
    let (out, _) = say(&engine, &ids(36, 0), |_| {});
    assert_eq!(out.ids.len(), 6, "no room is no reason to fail");
    let before = settle(&engine);
    assert_eq!((before.writes, before.skipped.no_room), (0, 1));
    assert_eq!(notes.load(Ordering::Relaxed), 1, "told why");
    // With room beside that twentieth something is written; without, only what takes the place of something else.
    free.store(TOTAL / 20 + 100_000, Ordering::Relaxed);
    say(&engine, &ids(36, 1), |_| {});
    let after = settle(&engine);
    assert_eq!((after.writes, after.evictions), (1, [0; 5]));
    free.store(TOTAL / 20, Ordering::Relaxed);
    say(&engine, &ids(36, 2), |_| {});
    let last = settle(&engine);
    assert!(
        last.bytes <= after.bytes && last.skipped.no_room + last.evictions.iter().sum::<u64>() > after.skipped.no_room,
        "{last:?}"
    );
}

#[test]
fn removing_an_object_takes_what_needs_it() {
    let dir = TempDir::new().unwrap();
    let (engine, _) = over(Fake::new(LIMITS), config(dir.path()));
    say(&engine, &ids(140, 0), |_| {});
    engine.shutdown(Duration::from_secs(20));
    let objects = kv_list(dir.path()).unwrap();
    let first = objects.iter().find(|object| object.role.is_none() && object.start == 0).unwrap();
    let (count, bytes) = kv_remove(dir.path(), &first.name[..12]).unwrap();
    assert_eq!((count, bytes), (objects.len(), objects.iter().map(|object| object.bytes).sum()));
    assert_eq!(kv_list(dir.path()).unwrap(), []);
}
