//! `ds4 bench`: prefill and decode speed, and beside them how fast this machine reads memory, which is what bounds decoding.

use std::collections::HashMap;
use std::ffi::OsString;
use std::hint::black_box;
use std::io::Write;
use std::path::PathBuf;
use std::thread;
use std::time::Instant;

use anyhow::bail;
use ds4_gguf::Gguf;
use ds4_model::{Batch, Class, Limits, LogitRows, Model, Shape, Span, tensor_specs};
use serde_json::json;

use crate::args::{Args, Item};
use crate::config::{ModelSource, Surroundings};
use crate::device::{self, Precision, open_gguf};
use crate::{help, memory, terminal};

/// Larger than the caches of any machine this runs on.
const BUFFER_BYTES: usize = 1 << 30;
const PASSES: usize = 3;

struct Options {
    model: Option<PathBuf>,
    prompt_tokens: u32,
    gen_tokens: u32,
    threads: Option<usize>,
    quality: bool,
    json: bool,
}

struct Speeds {
    prefill: f64,
    decode: f64,
    /// Bytes of weights that one decoded token reads.
    token_bytes: u64,
    /// Bytes a second that the machine can read.
    bandwidth: f64,
}

pub(crate) fn main(words: impl Iterator<Item = OsString>, out: &mut dyn Write) -> anyhow::Result<()> {
    let Some(options) = parse(words)? else { return terminal::show(out, help::BENCH) };
    let gguf = open_gguf(&ModelSource::resolve(options.model.clone(), &Surroundings::look()), false)?;
    let shape = Shape::from_gguf(&gguf)?;
    let context = options.prompt_tokens + options.gen_tokens;
    let default = Limits::default();
    let limits = Limits { context, slots: 1, max_rows: default.max_rows.min(options.prompt_tokens), ..default };
    let precision = if options.quality { Precision::Quality } else { Precision::Default };
    let plan = device::plan(&gguf, None, limits, precision)?;
    terminal::note(memory::line(&plan, context));
    memory::check(
        &plan,
        context,
        |context| Ok(device::plan(&gguf, None, Limits { context, ..limits }, precision)?.kv),
    )?;
    let mut model = device::load(&gguf, None, limits, precision, options.threads)?;
    let (prefill, decode) = measure(&mut *model, options.prompt_tokens, options.gen_tokens)?;
    drop(model);
    let speeds = Speeds {
        prefill,
        decode,
        token_bytes: token_bytes(&gguf, &shape),
        bandwidth: read_bandwidth(device::threads(options.threads)),
    };
    terminal::show(out, &report(&speeds, &options))
}

fn parse(words: impl Iterator<Item = OsString>) -> anyhow::Result<Option<Options>> {
    let mut args = Args::new(words, "try 'ds4 bench --help'");
    let mut options =
        Options { model: None, prompt_tokens: 256, gen_tokens: 32, threads: None, quality: false, json: false };
    while let Some(item) = args.next()? {
        let flag = match item {
            Item::Flag(flag) => flag,
            Item::Free(word) => return Err(args.unexpected(&word)),
        };
        match flag.as_str() {
            "-h" | "--help" => return Ok(None),
            "-m" | "--model" => options.model = Some(args.path(&flag)?),
            "--prompt-tokens" => options.prompt_tokens = args.int(&flag, 1..=1 << 20)? as u32,
            "--gen-tokens" => options.gen_tokens = args.int(&flag, 1..=1 << 20)? as u32,
            "-t" | "--threads" => options.threads = Some(args.int(&flag, 1..=1024)? as usize),
            "--quality" => options.quality = true,
            "--json" => options.json = true,
            _ => return Err(args.unknown(&flag)),
        }
    }
    Ok(Some(options))
}

/// Tokens a second of prefill and of decode. The prompt is a walk over the whole vocabulary, so that routing is not
/// flattered by repetition.
pub(crate) fn measure(model: &mut dyn Model, prompt_tokens: u32, gen_tokens: u32) -> anyhow::Result<(f64, f64)> {
    let n_vocab = model.shape().n_vocab;
    let tokens: Vec<u32> = (0..prompt_tokens).map(|i| (u64::from(i) * 7919 % n_vocab as u64) as u32).collect();
    let mut logits = vec![0.0; n_vocab];
    let rows = model.limits().max_rows as usize;
    let started = Instant::now();
    for (at, chunk) in tokens.chunks(rows).enumerate() {
        let last = (at + 1) * rows >= tokens.len();
        let (wanted, out) = if last { (LogitRows::Last, &mut logits[..]) } else { (LogitRows::None, &mut [][..]) };
        let span = Span { slot: 0, pos: (at * rows) as u32, len: chunk.len() as u32, logits: wanted };
        model.forward(&Batch { tokens: chunk, spans: &[span] }, out)?;
    }
    let prefill = f64::from(prompt_tokens) / started.elapsed().as_secs_f64();
    let started = Instant::now();
    for step in 0..gen_tokens {
        let best = (0..n_vocab).fold(0, |best, id| if logits[id] > logits[best] { id } else { best });
        if !logits[best].is_finite() {
            bail!("logit of token {best} is {}, expected a finite number", logits[best]);
        }
        let span = Span { slot: 0, pos: prompt_tokens + step, len: 1, logits: LogitRows::Last };
        model.forward(&Batch { tokens: &[best as u32], spans: &[span] }, &mut logits)?;
    }
    Ok((prefill, f64::from(gen_tokens) / started.elapsed().as_secs_f64()))
}

/// Weights that one token touches: everything but the embedding's and the hash tables' other rows and the experts that are
/// not chosen.
fn token_bytes(gguf: &Gguf, shape: &Shape) -> u64 {
    let bytes: HashMap<&str, u64> = gguf.tensors().iter().map(|info| (&*info.name, info.bytes)).collect();
    let share = |class: Class, bytes: u64| match class {
        Class::Embedding | Class::HashTable => bytes / shape.n_vocab as u64,
        Class::ExpertGateUp | Class::ExpertDown => bytes / shape.n_expert as u64 * shape.n_expert_used as u64,
        _ => bytes,
    };
    let of = |name: &str| bytes.get(name).copied().unwrap_or_default();
    tensor_specs(shape).iter().map(|spec| share(spec.class, of(&spec.name))).sum()
}

/// Bytes a second that all threads together sum from a buffer; the best of a few passes.
fn read_bandwidth(threads: usize) -> f64 {
    let words = vec![1_u64; BUFFER_BYTES / 8];
    let part = words.len().div_ceil(threads);
    let pass = || {
        let started = Instant::now();
        thread::scope(|scope| {
            for words in words.chunks(part) {
                scope.spawn(move || black_box(words.iter().fold(0_u64, |sum, &word| sum.wrapping_add(word))));
            }
        });
        BUFFER_BYTES as f64 / started.elapsed().as_secs_f64()
    };
    (0..PASSES).map(|_| pass()).fold(0.0, f64::max)
}

fn report(speeds: &Speeds, options: &Options) -> String {
    let used = speeds.decode * speeds.token_bytes as f64;
    let ratio = used / speeds.bandwidth;
    if options.json {
        let value = json!({
            "prompt_tokens": options.prompt_tokens,
            "gen_tokens": options.gen_tokens,
            "prefill_tps": speeds.prefill,
            "gen_tps": speeds.decode,
            "token_bytes": speeds.token_bytes,
            "decode_bytes_per_second": used,
            "read_bandwidth": speeds.bandwidth,
            "ratio": ratio,
        });
        return format!("{value}\n");
    }
    format!(
        "prefill: {:.2} t/s ({} tokens)\ndecode: {:.2} t/s ({} tokens)\nweights read per decoded token: {}\n\
         decode reads: {:.2} GB/s\nmachine reads: {:.2} GB/s\nratio: {ratio:.3}\n",
        speeds.prefill,
        options.prompt_tokens,
        speeds.decode,
        options.gen_tokens,
        memory::size(speeds.token_bytes),
        used / 1e9,
        speeds.bandwidth / 1e9,
    )
}
