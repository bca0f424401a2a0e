//! `ds4 server`: sockets first, then the model, then requests until a signal.

mod kv;
mod options;

use std::ffi::OsString;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::{Context, bail};
use ds4_engine::KvLog;
use ds4_gguf::{DType, Gguf};
use ds4_model::MemoryPlan;
use ds4_server::{End, ModelInfo, Server, Service, StartError};
use ds4_text::Thinking;

use crate::config::{self, ModelSource, Runtime, Surroundings};
use crate::device::{self, Loaded, ModelFile, Seats, Telling, open_file, planned, threads};
use crate::failure::{Interrupted, usage};
use crate::lock::Lock;
use crate::memory::{available, largest, size, warm};
use crate::{help, state, terminal};
use options::{Asked, MOST_PARALLEL, Options};

/// Context below which thinking at length makes no sense.
const MAX_THINKING_CTX: u32 = 393_216;

pub(crate) fn main(words: impl Iterator<Item = OsString>, out: &mut dyn Write) -> anyhow::Result<()> {
    match options::parse(words)? {
        Asked::Help => terminal::show(out, help::SERVER),
        Asked::Version => terminal::show(out, &help::version()),
        Asked::Serve(options) => serve(*options, out),
    }
}

fn serve(mut options: Options, out: &mut dyn Write) -> anyhow::Result<()> {
    options.kv.check()?;
    (options.server.journals, options.server.journals_readonly) = options.kv.journals();
    if let Some(folder) = &options.chdir {
        std::env::set_current_dir(folder).with_context(|| format!("cannot change to folder: {}", folder.display()))?;
    }
    if let Some(key) = std::env::var_os("DS4_API_KEY").filter(|key| !key.is_empty()) {
        let key = key.into_string().map_err(|_| usage("$DS4_API_KEY is not valid UTF-8"))?;
        options.server.api_keys.push((key, None));
    }
    let mut runtime = config::runtime(&options.common)?;
    let source = ModelSource::resolve(options.common.model.clone(), &Surroundings::look());
    device::settle(&source, &mut runtime, false)?;
    // The header of the file says what the server has to know before it listens; no weight is touched.
    let file = open_model(&source)?;
    options.server.context = runtime.context(file.shape.context)?;
    if options.server.thinking == Thinking::Max && options.server.context < MAX_THINKING_CTX {
        let context = options.server.context;
        note(format_args!("warning: --think-max needs --ctx={MAX_THINKING_CTX}, got {context}: thinking as usual"));
        options.server.thinking = Thinking::High;
    }
    if let Some(folder) = state::folder() {
        // Without it what clients keep for the server is unreadable after a restart, and then ignored.
        options.server.state_key = ds4_server::load_or_create_key(&folder)
            .with_context(|| format!("cannot read or make the key in {}", folder.display()))?;
    }
    ds4_server::start_log(&options.server.log).context("cannot open log file")?;
    let server = Server::bind(options.server.clone()).map_err(start_error)?;
    for address in server.addresses() {
        note(format_args!("bound to http://{address}, loading the model"));
    }
    let addresses = server.addresses().to_vec();
    let (queue, active, quantum, parallel) = (options.queue, options.active, options.quantum, options.parallel);
    let kv = options.kv.store(KvLog::new(|line| note(format_args!("kv: {line}"))), available());
    let place = kv.dir.as_ref().map_or_else(|| "host memory".to_owned(), |dir| dir.display().to_string());
    note(format_args!("states beyond their slot: {place}, at most {} MiB", kv.space_mb));
    let kv = Some(kv);
    // The device is ours until the server has ended.
    let lock = Arc::new(OnceLock::new());
    let keep = Arc::clone(&lock);
    let progress: Arc<dyn Fn(f64) + Send + Sync> = Arc::new(server.progress());
    let load = move || {
        let info = info(&file, &runtime);
        note(format_args!(
            "model: {}: {} layers, {} parameters, experts {}",
            info.file,
            file.shape.n_layer,
            info.parameters.map_or_else(String::new, count),
            info.quant
        ));
        let lock = Lock::for_model(&source, &runtime)?;
        let _ = keep.set(lock);
        let slots = fit(&file, &runtime, parallel)?;
        let runtime = warmed(&file, runtime, &*progress);
        let (queue, prefill_quantum) = (Some(queue), Some(quantum));
        let seats = Seats { slots, queue, active, prefill_quantum, kv, ..Seats::default() };
        let Loaded { file, engine, .. } =
            Loaded::open_with(file, &runtime, seats, &Telling::Server(progress), |model| model)?;
        anyhow::Ok(Service { engine, tokenizer: Arc::clone(&file.tokenizer), model: info })
    };
    match server.run(load, || announce(&addresses, &options, out))? {
        End::Stopped => Ok(()),
        End::Forced => Err(Interrupted { code: 130 }.into()),
        End::Failed(error) => Err(error.into()),
    }
}

/// Reads the weights, if that was asked for, and tells how far it is. What is left to be done of it is in the result.
fn warmed(file: &ModelFile, runtime: Runtime, progress: &(dyn Fn(f64) + Sync)) -> Runtime {
    // On a card loading itself reads the file, and tells how far it is.
    if !runtime.warm_weights || runtime.backend.is_card() {
        return runtime;
    }
    let (done, all) = (AtomicU64::new(0), file.gguf.file_bytes().max(1));
    warm(&file.gguf, threads(runtime.threads), |bytes| {
        let done = done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        progress(done as f64 / all as f64);
    });
    Runtime { warm_weights: runtime.mtp.is_some(), ..runtime }
}

/// Says on standard output where requests are taken.
fn announce(addresses: &[SocketAddr], options: &Options, out: &mut dyn Write) {
    let network = addresses.iter().map(|address| format!("http://{address}"));
    let file = options.server.unix_socket.iter().map(|path| format!("unix:{}", path.display()));
    for place in network.chain(file) {
        // A server without standard output serves as well.
        let _ = terminal::show(out, &format!("listening on {place}\n"));
    }
}

fn note(line: impl std::fmt::Display) {
    terminal::note(format_args!("ds4-server: {line}"));
}

fn start_error(error: StartError) -> anyhow::Error {
    anyhow::Error::new(error)
}

fn open_model(source: &ModelSource) -> anyhow::Result<ModelFile> {
    if *source == ModelSource::Embedded {
        let default = config::DEFAULT_MODEL;
        note(format_args!("no -m, no $DS4_MODEL and no {default} here: using the miniature inside the program"));
    }
    open_file(source, true)
}

/// Sequences side by side that fit into memory with everything else; says what goes where.
fn fit(file: &ModelFile, runtime: &Runtime, wanted: Option<u32>) -> anyhow::Result<u32> {
    let context = runtime.context(file.shape.context)?;
    let Some(one) = planned(file, runtime, context, 1)? else {
        return Ok(wanted.unwrap_or(MOST_PARALLEL));
    };
    let room = device::room(runtime)?;
    let free = room.free;
    let fits =
        |context, slots| Ok(planned(file, runtime, context, slots)?.is_some_and(|plan| room.lacks(&plan).is_none()));
    let slots = match wanted {
        Some(slots) => slots,
        None => largest(free.map_or(1, |free| automatic(&one, free)), |slots| fits(context, slots))?.max(1),
    };
    let plan = planned(file, runtime, context, slots)?.unwrap_or(one);
    if let Some(lacking) = room.lacks(&plan) {
        let parallel = largest(slots, |slots| fits(context, slots))?;
        let ctx = largest(context, |context| fits(context, slots))?;
        let mut sizes = Vec::new();
        sizes.extend((parallel > 0).then(|| format!("--parallel={parallel}")));
        sizes.extend((ctx >= 256).then(|| format!("--ctx={ctx}")));
        let way_out = if sizes.is_empty() {
            room.way_out(&plan).to_owned()
        } else {
            format!("largest that fits is {}", sizes.join(" or "))
        };
        bail!("not enough memory for --ctx={context} --parallel={slots}: {lacking}: {way_out}");
    }
    note(format_args!(
        "memory: weights {}, KV {} for each of {slots} sequences of {context} tokens, scratch {}, free {}",
        size(plan.weights),
        size(plan.kv / u64::from(slots)),
        size(plan.scratch),
        free.map_or_else(|| "unknown".to_owned(), size),
    ));
    Ok(slots)
}

/// As many sequences as half of the memory beside the weights holds: what they remember for rewinding needs room, too.
fn automatic(one: &MemoryPlan, free: u64) -> u32 {
    let room = free.saturating_sub(one.weights + one.scratch) / 2;
    (room / one.kv.max(1)).clamp(1, u64::from(MOST_PARALLEL)) as u32
}

fn info(file: &ModelFile, runtime: &Runtime) -> ModelInfo {
    let tensors = file.gguf.tensors();
    ModelInfo {
        file: file.gguf.name().rsplit(['/', '\\']).next().unwrap_or_default().to_owned(),
        quant: quant(&file.gguf),
        size: file.gguf.file_bytes(),
        parameters: Some(tensors.iter().filter_map(|tensor| tensor.dims.elements()).sum()),
        trained_context: file.shape.context,
        backend: runtime.backend.name().to_owned(),
    }
}

/// What files of this model are called by: how the routed experts are stored, which are nearly all of it.
fn quant(gguf: &Gguf) -> String {
    match gguf.tensor("blk.0.ffn_gate_exps.weight").map(|tensor| tensor.dtype) {
        Some(DType::Iq2Xxs | DType::Q2K) => "q2".to_owned(),
        Some(DType::Q4K) => "q4".to_owned(),
        Some(other) => other.name().to_lowercase(),
        None => "unknown".to_owned(),
    }
}

/// A number of parameters with its unit.
fn count(n: u64) -> String {
    if n < 1_000_000_000 { format!("{:.1} million", n as f64 / 1e6) } else { format!("{:.1} billion", n as f64 / 1e9) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_takes_half_of_what_the_weights_leave() {
        let plan = |kv| MemoryPlan { weights: 100, kv, scratch: 20, piece: 0 };
        assert_eq!(automatic(&plan(10), 320), 10);
        assert_eq!(automatic(&plan(1), 10_000), MOST_PARALLEL);
        assert_eq!(automatic(&plan(1000), 90), 1, "whether one fits is decided elsewhere");
    }
}
