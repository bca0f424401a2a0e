//! Scheduler and store in one thread, over a directory in memory, with everything that can go wrong drawn from a seed: which
//! part does something next, requests that begin alike, cancels, deaf listeners, a disk that is full, fails, lies or loses
//! its power between any two changes, and restarts. The parts are the real ones; only the threads are not.

use std::env;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, mpsc};

use ds4_gguf::Gguf;
use ds4_model::{Limits, Model};
use ds4_text::Tokenizer;

use self::fake::{Fake, straight};
use super::Scheduler;
use crate::handle::{Control, EngineHandle, Message};
use crate::kvstore::{Counters, Directory, Identity, Key, KvStore, Memory, Workers, Writer};
use crate::{
    Cancel, CheckpointPolicy, EngineConfig, Event, KvCompression, KvFault, KvFaults, KvOp, KvStoreConfig, Listener,
    Request, Sampler, SamplingParams, StopReason,
};

#[path = "../../tests/it/fake.rs"]
#[allow(dead_code, reason = "shared with the tests of the crate from outside, which use all of it")]
mod fake;

static TOKENIZER: LazyLock<Arc<Tokenizer>> = LazyLock::new(|| {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tiny/tiny-a.gguf");
    Arc::new(Tokenizer::from_metadata(Gguf::open(&path).unwrap().metadata()).unwrap())
});

/// Numbers from a seed.
#[derive(Clone)]
struct Chance(u64);

impl Chance {
    /// A number below `n`.
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// A request and what was heard of it.
struct Asked {
    prompt: Vec<u32>,
    sampling: SamplingParams,
    max_tokens: u32,
    cancel: Cancel,
    deaf: Arc<AtomicBool>,
    heard: Arc<Mutex<Vec<Event>>>,
    /// The engine it was sent to was ended.
    cut: bool,
}

impl Asked {
    fn is_over(&self) -> bool {
        self.heard.lock().unwrap().iter().any(|event| matches!(event, Event::Done { .. } | Event::Failed(_)))
    }

    /// What a model would say that was given nothing but this prompt.
    fn reference(&self) -> Vec<u32> {
        let mut sampler = Sampler::new(self.sampling);
        let mut tokens = self.prompt.clone();
        for _ in 0..self.max_tokens {
            tokens.push(sampler.sample(&straight(&tokens), false).unwrap());
        }
        tokens.split_off(self.prompt.len())
    }

    fn check(&self) {
        let heard = self.heard.lock().unwrap();
        let mut ids = Vec::new();
        for event in &heard[..heard.len() - 1] {
            match event {
                Event::Token { id, .. } => ids.push(*id),
                Event::Prefill { done, total, cached, .. } => assert!(cached <= total && done <= total),
                Event::Done { .. } | Event::Failed(_) => panic!("a last event that is not the last"),
                _ => {}
            }
        }
        let reference = self.reference();
        match heard.last().unwrap() {
            Event::Done { reason: StopReason::Length, .. } => assert_eq!(ids, reference),
            Event::Done { reason: StopReason::Cancelled, .. } => {
                let wanted = self.cancel.is_cancelled() || self.deaf.load(Ordering::Relaxed) || self.cut;
                assert!(wanted && reference.starts_with(&ids), "{ids:?}, {reference:?}");
            }
            Event::Failed(error) => {
                assert!(self.cut, "{error}");
                assert!(reference.starts_with(&ids), "{ids:?}, {reference:?}");
            }
            other => panic!("{other:?}"),
        }
    }
}

/// What runs until it is stopped or the power goes.
struct Running {
    handle: EngineHandle,
    scheduler: Scheduler,
    workers: Workers,
}

impl Running {
    fn start(limits: Limits, memory: &Memory, faults: KvFaults) -> Running {
        let kv = KvStoreConfig {
            min_tokens: 16,
            cold_max_tokens: 300,
            continued_interval: 96,
            boundary_trim: 4,
            boundary_align: 32,
            turn_tokens: 24,
            write_mbps: 0,
            compression: KvCompression::None,
            faults,
            ..KvStoreConfig::new("")
        };
        let model = Fake::new(limits);
        let identity = Identity { fingerprint: model.fingerprint(), variant: model.variant() };
        let counters = Arc::new(Counters::default());
        let directory =
            Directory::over(Box::new(memory.clone()), None, &kv, identity, Arc::clone(&counters)).expect("it opens");
        let (store, workers) = KvStore::over(directory, kv.clone(), Arc::clone(&counters));
        let checkpoints = CheckpointPolicy { interval: 32, ..CheckpointPolicy::default() };
        // So small that no clock has a say in it: a seed has to do the same every time.
        let prefill_quantum = 12;
        let config =
            EngineConfig { queue: 1000, prefill_quantum, checkpoints, kv: Some(kv), ..EngineConfig::default() };
        let (handle, scheduler) =
            EngineHandle::over(Box::new(model), Arc::clone(&TOKENIZER), config, Some((store, counters)));
        Running { handle, scheduler, workers }
    }

    /// One round of the scheduler. Says whether it goes on.
    fn turn(&mut self) -> bool {
        // A question that is always there, so that it never waits for one.
        let (reply, answer) = mpsc::channel();
        self.handle.inbox.send(Message::Control(Control::Slots(reply))).unwrap();
        let goes_on = self.scheduler.turn().expect("the device is sound");
        assert_eq!(answer.recv().unwrap().len(), self.scheduler.seats.len());
        goes_on
    }

    fn write(&mut self) -> bool {
        self.workers.writer.as_mut().is_some_and(Writer::turn)
    }

    fn checkpoints(&self) -> Vec<Key> {
        self.scheduler.kv.as_ref().expect("there is a store").checkpoints()
    }
}

struct World {
    chance: Chance,
    limits: Limits,
    memory: Memory,
    faults: KvFaults,
    /// Something on the medium may differ from what was written.
    damaged: Arc<AtomicBool>,
    running: Running,
    asked: Vec<Asked>,
}

impl World {
    fn new(seed: u64) -> World {
        let mut chance = Chance(seed);
        let limits = Limits {
            context: 400,
            slots: 1 + chance.below(4) as u32,
            max_rows: 4 + chance.below(40) as u32,
            rewind: chance.below(7) as u32,
        };
        let room = if chance.one_in(4) { 4000 + chance.below(60_000) } else { 1 << 30 };
        let memory = Memory::new(room);
        let damaged = Arc::new(AtomicBool::new(false));
        let faults = faults(&mut chance, Arc::clone(&damaged));
        let running = Running::start(limits, &memory, faults.clone());
        World { chance, limits, memory, faults, damaged, running, asked: Vec::new() }
    }

    fn act(&mut self) {
        match self.chance.below(20) {
            0..=2 => self.ask(),
            3..=11 => drop(self.running.turn()),
            12..=14 => drop(self.running.workers.reader.turn()),
            15..=17 => drop(self.running.write()),
            18 => self.annoy(),
            _ => match self.chance.below(12) {
                0 => self.stop(),
                1 => self.crash(),
                2 if self.chance.one_in(2) => self.memory.light(self.chance.below(12)),
                _ => {}
            },
        }
        if self.memory.is_dark() {
            self.crash();
        }
    }

    fn ask(&mut self) {
        let chance = &mut self.chance;
        let (kind, common) = (chance.below(3) as u32, chance.below(120) as u32);
        // From time to time what somebody said before is the beginning.
        let mut prompt: Vec<u32> = match self.asked.last() {
            Some(last) if chance.one_in(3) => last.prompt.clone(),
            _ => (0..=common).map(|i| (i * i * 31 + i * 17 + 5 + kind * (i + 3)) % 300).collect(),
        };
        let other = chance.below(300) as u32;
        prompt.extend((0..chance.below(30) as u32).map(|i| (i * 7 + other) % 300));
        prompt.truncate(300);
        let greedy = chance.one_in(2);
        let sampling = if greedy {
            SamplingParams::greedy()
        } else {
            SamplingParams { seed: chance.below(5), ..SamplingParams::default() }
        };
        let (heard, deaf) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (ears, lost) = (Arc::clone(&heard), Arc::clone(&deaf));
        let listener = Listener::new(move |event| {
            ears.lock().unwrap().push(event);
            !lost.load(Ordering::Relaxed)
        });
        let copies = if chance.one_in(5) { 1 + chance.below(3) } else { 1 };
        let max_tokens = 1 + chance.below(10) as u32;
        let tenant = u64::from(chance.one_in(6));
        let cancel = Cancel::default();
        let request = Request {
            sampling,
            max_tokens,
            tenant,
            ignore_eos: true,
            cancel: cancel.clone(),
            ..Request::new(prompt.clone(), listener)
        };
        self.running.handle.submit(request.clone()).expect("the queue is long enough");
        self.asked.push(Asked { prompt, sampling, max_tokens, cancel, deaf, heard, cut: false });
        for _ in 1..copies {
            let heard = Arc::new(Mutex::new(Vec::new()));
            let ears = Arc::clone(&heard);
            let events = Listener::new(move |event| {
                ears.lock().unwrap().push(event);
                true
            });
            let cancel = Cancel::default();
            self.running.handle.submit(Request { events, cancel: cancel.clone(), ..request.clone() }).unwrap();
            let Asked { prompt, sampling, max_tokens, .. } = &self.asked[self.asked.len() - 1];
            let (prompt, sampling, max_tokens) = (prompt.clone(), *sampling, *max_tokens);
            let deaf = Arc::new(AtomicBool::new(false));
            self.asked.push(Asked { prompt, sampling, max_tokens, cancel, deaf, heard, cut: false });
        }
    }

    /// Somebody goes, with or without a word.
    fn annoy(&mut self) {
        if self.asked.is_empty() {
            return;
        }
        let at = self.chance.below(self.asked.len() as u64) as usize;
        if self.chance.one_in(2) {
            self.asked[at].cancel.cancel();
        } else {
            self.asked[at].deaf.store(true, Ordering::Relaxed);
        }
    }

    fn cut(&mut self) {
        self.asked.iter_mut().filter(|asked| !asked.is_over()).for_each(|asked| asked.cut = true);
    }

    /// An orderly end and a new beginning.
    fn stop(&mut self) {
        self.cut();
        self.running.handle.inbox.send(Message::Control(Control::Stop)).unwrap();
        while self.running.turn() {}
        while self.running.write() || self.running.workers.reader.turn() {}
        if !self.memory.is_dark() {
            self.restart(self.memory.clone());
        }
    }

    /// The power goes: the process is gone, and of the disk what was not made durable.
    fn crash(&mut self) {
        self.cut();
        let before = self.running.checkpoints();
        let chance = &mut self.chance;
        let after = self.memory.after_crash(&mut |n| chance.below(n));
        self.restart(after);
        if !self.damaged.load(Ordering::Relaxed) {
            let there = self.running.checkpoints();
            assert!(before.iter().all(|key| there.contains(key)), "a checkpoint that was written is lost");
        }
        if self.chance.one_in(4) {
            self.damaged.store(true, Ordering::Relaxed);
            let chance = &mut self.chance;
            self.memory.flip_a_bit(&mut |n| chance.below(n));
        }
    }

    fn restart(&mut self, memory: Memory) {
        self.memory = memory;
        self.running = Running::start(self.limits, &self.memory, self.faults.clone());
    }

    /// Lets everything come to its end.
    fn finish(&mut self) {
        for _ in 0..20_000 {
            if self.asked.iter().all(Asked::is_over) {
                break;
            }
            self.running.turn();
            self.running.workers.reader.turn();
            self.running.write();
            if self.memory.is_dark() {
                self.crash();
            }
        }
        self.running.turn();
        assert!(self.asked.iter().all(Asked::is_over), "somebody waits forever");
        self.asked.iter().for_each(Asked::check);
        assert_eq!((self.running.handle.waiting(), self.running.handle.activity().running), (0, 0));
        let scheduler = &self.running.scheduler;
        assert!(scheduler.waiting.is_empty() && scheduler.seats.iter().all(|seat| seat.job.is_none()));
        while self.running.write() || self.running.workers.reader.turn() {}
        assert_eq!(self.running.handle.kv_stats().unwrap().pending, 0);
    }
}

/// A disk that fails now and then, or never.
fn faults(chance: &mut Chance, damaged: Arc<AtomicBool>) -> KvFaults {
    use std::io::ErrorKind::{Other, StorageFull};
    if chance.one_in(3) {
        return KvFaults::default();
    }
    let rarity = 3 + chance.below(60);
    let chance = Mutex::new(Chance(chance.below(u64::MAX)));
    KvFaults::new(move |op| {
        let mut chance = chance.lock().unwrap();
        if !chance.one_in(rarity) {
            return None;
        }
        Some(match (op, chance.below(3)) {
            (KvOp::Write, 0) => KvFault::Short,
            (KvOp::Write, 1) => {
                damaged.store(true, Ordering::Relaxed);
                KvFault::Torn
            }
            (KvOp::Write | KvOp::Create, _) => KvFault::Error(StorageFull),
            _ => KvFault::Error(Other),
        })
    })
}

/// Runs the seeds from `first` on.
fn run(first: u64, seeds: u64) {
    let mut hits = 0;
    for seed in first..first + seeds {
        // A panic says which; the same seed brings it back.
        let told = Told(seed);
        let mut world = World::new(seed);
        for _ in 0..150 + world.chance.below(400) {
            world.act();
        }
        world.finish();
        hits += world.running.handle.kv_stats().unwrap().hits;
        std::mem::forget(told);
    }
    eprintln!("seeds {first} to {}, {hits} hits in their last lives", first + seeds - 1);
}

/// Names a seed when it goes out of scope, which it only does in a panic.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        eprintln!("seed {}: DS4_SIM_SEED={} brings it back", self.0, self.0);
    }
}

#[test]
fn whatever_happens_every_request_ends_once_and_says_what_the_model_says() {
    match env::var("DS4_SIM_SEED") {
        Ok(seed) => run(seed.parse().expect("a number"), 1),
        Err(_) => run(0, 200),
    }
}

#[test]
#[ignore = "minutes; 200 seeds run every time. cargo test -p ds4-engine --lib ten_thousand -- --ignored --nocapture"]
fn ten_thousand_other_seeds_find_nothing_either() {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    eprintln!("first seed {now}");
    run(now, 10_000);
}
