//! A small vocabulary, engines over the fake model, and what a request brought.

use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use ds4_engine::{
    CheckpointPolicy, ClosedBy, Delta, EngineConfig, EngineHandle, Error, Event, Request, StopReason, Timings,
    TokenLogprobs, ToolCallDelta, Usage,
};
use ds4_gguf::Gguf;
use ds4_model::Limits;
use ds4_text::Tokenizer;

use crate::fake::{Fake, Favour, Watch};

pub(crate) const LIMITS: Limits = Limits { context: 400, slots: 2, max_rows: 16, rewind: 4 };

/// The tiny models' file: its vocabulary, and a real model to run.
pub(crate) fn tiny(name: &str) -> Gguf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tiny").join(name);
    Gguf::open(&path).unwrap()
}

pub(crate) static TOKENIZER: LazyLock<Arc<Tokenizer>> =
    LazyLock::new(|| Arc::new(Tokenizer::from_metadata(tiny("tiny-a.gguf").metadata()).unwrap()));

pub(crate) fn encode(text: &str) -> Vec<u32> {
    TOKENIZER.encode(text)
}

/// One id a byte, whatever merges there are.
pub(crate) fn byte_ids(text: &str) -> Vec<u32> {
    text.bytes().map(|b| (0..320).find(|&id| TOKENIZER.token_bytes(id) == [b]).unwrap()).collect()
}

pub(crate) fn start(limits: Limits) -> (EngineHandle, Watch) {
    run(Fake::new(limits), EngineConfig::default())
}

pub(crate) fn run(fake: Fake, config: EngineConfig) -> (EngineHandle, Watch) {
    let watch = fake.watch.clone();
    let checkpoints = CheckpointPolicy { interval: 32, ..config.checkpoints };
    let config = EngineConfig { checkpoints, ..config };
    (EngineHandle::start(Box::new(fake), Arc::clone(&TOKENIZER), config).unwrap(), watch)
}

/// An engine that says `script` after a prompt of `prompt` tokens, each token `over(i)` above all others.
pub(crate) fn scripted(
    prompt: usize,
    script: Vec<u32>,
    over: impl Fn(usize) -> f32 + Send + Sync + 'static,
) -> EngineHandle {
    let favour: Favour = Arc::new(move |pos| {
        let at = (pos as usize + 1).checked_sub(prompt)?;
        Some((*script.get(at)?, over(at)))
    });
    run(Fake::favouring(LIMITS, favour), EngineConfig::default()).0
}

/// What a request brought.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) ids: Vec<u32>,
    pub(crate) thinking: String,
    pub(crate) text: String,
    pub(crate) calls: Vec<ToolCallDelta>,
    pub(crate) logprobs: Vec<TokenLogprobs>,
    pub(crate) prefill: Vec<(u32, u32, u32)>,
    pub(crate) closed: Vec<(ClosedBy, u32)>,
    /// How many tokens were taken back each time; they are not among `ids`.
    pub(crate) taken_back: Vec<u32>,
    pub(crate) end: Result<(StopReason, Usage, Timings), Error>,
}

impl Outcome {
    pub(crate) fn reason(&self) -> StopReason {
        self.end.as_ref().unwrap().0.clone()
    }

    pub(crate) fn usage(&self) -> Usage {
        self.end.as_ref().unwrap().1
    }

    pub(crate) fn error(&self) -> Error {
        self.end.clone().unwrap_err()
    }
}

pub(crate) fn submit(engine: &EngineHandle, prompt: &[u32], change: impl FnOnce(&mut Request)) -> Receiver<Event> {
    let (sender, events) = mpsc::channel();
    let mut request = Request { max_tokens: 20, ..Request::new(prompt.to_vec(), sender) };
    change(&mut request);
    engine.submit(request).unwrap();
    events
}

pub(crate) fn collect(events: &Receiver<Event>) -> Outcome {
    let mut out = Outcome {
        ids: Vec::new(),
        thinking: String::new(),
        text: String::new(),
        calls: Vec::new(),
        logprobs: Vec::new(),
        prefill: Vec::new(),
        closed: Vec::new(),
        taken_back: Vec::new(),
        end: Err(Error::Cancelled),
    };
    loop {
        match events.recv_timeout(Duration::from_secs(30)).expect("a request ends with Done or Failed") {
            Event::Prefill { done, total, cached, .. } => out.prefill.push((done, total, cached)),
            Event::Token { id, logprobs, .. } => {
                out.ids.push(id);
                out.logprobs.extend(logprobs);
            }
            Event::ReasoningClosed { by, rank } => out.closed.push((by, rank)),
            Event::TakenBack { tokens } => {
                out.ids.truncate(out.ids.len() - tokens as usize);
                out.taken_back.push(tokens);
            }
            Event::Delta(Delta::Thinking(text)) => out.thinking += &text,
            Event::Delta(Delta::Text(text)) => out.text += &text,
            Event::Delta(Delta::ToolCall(call)) => out.calls.push(call),
            Event::Done { reason, usage, timings } => out.end = Ok((reason, usage, timings)),
            Event::Failed(error) => out.end = Err(error),
            Event::Matched(_) => {}
        }
        let last = out.end != Err(Error::Cancelled);
        if last {
            return out;
        }
    }
}

pub(crate) fn generate(engine: &EngineHandle, prompt: &[u32], change: impl FnOnce(&mut Request)) -> Outcome {
    collect(&submit(engine, prompt, change))
}
