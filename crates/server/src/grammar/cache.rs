//! Grammars that were compiled before. Owns the limits on time and size, and the threads on which grammars compile: they are
//! clients' text, and the parser recurses into it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{InferenceCapabilities, TokEnv};
use llguidance::{Matcher, ParserFactory};
use sha2::{Digest, Sha256};

use super::GrammarError;
use super::mask::first_line;
use super::schema::invalid;
use super::vocabulary::Vocabulary;
use crate::aside::aside;

/// Compiled grammars by the hash of their text, the last used first.
pub(super) struct Cache {
    factory: Arc<ParserFactory>,
    kept: Mutex<VecDeque<([u8; 32], Matcher)>>,
}

const MAX_KEPT: usize = 64;
const MAX_SECONDS: u64 = 2;
/// Of the compiling thread; touched only as far as a grammar nests.
const STACK: usize = 64 << 20;

impl Cache {
    pub(super) fn new(vocabulary: Arc<Vocabulary>) -> Result<Self, GrammarError> {
        let env: TokEnv = vocabulary;
        let slices = llguidance::earley::SlicedBiasComputer::general_slices();
        let factory = ParserFactory::new(&env, InferenceCapabilities::default(), &slices);
        let mut factory = factory.map_err(|e| invalid("vocabulary", e.to_string()))?;
        factory.quiet();
        factory.limits_mut().verbose_errors = false;
        Ok(Cache { factory: Arc::new(factory), kept: Mutex::default() })
    }

    /// A matcher at the start of `grammar`, which stands at `path` in the request.
    pub(super) fn get(&self, grammar: TopLevelGrammar, path: &str) -> Result<Matcher, GrammarError> {
        let text = serde_json::to_vec(&grammar).map_err(|e| invalid(path, e.to_string()))?;
        let key: [u8; 32] = Sha256::digest(&text).into();
        if let Some(found) = self.find(&key) {
            return Ok(found);
        }
        let matcher = aside(true, || self.compile(grammar, path))?;
        let mut kept = self.kept();
        kept.push_front((key, matcher.deep_clone()));
        kept.truncate(MAX_KEPT);
        Ok(matcher)
    }

    fn find(&self, key: &[u8; 32]) -> Option<Matcher> {
        let mut kept = self.kept();
        let at = kept.iter().position(|(found, _)| found == key)?;
        let entry = kept.remove(at)?;
        let matcher = entry.1.deep_clone();
        kept.push_front(entry);
        Some(matcher)
    }

    /// A thread that is too slow is left to its own limits, which are finite.
    fn compile(&self, grammar: TopLevelGrammar, path: &str) -> Result<Matcher, GrammarError> {
        let factory = Arc::clone(&self.factory);
        let (reply, answer) = mpsc::channel();
        let work = move || {
            let mut matcher = Matcher::new(factory.create_parser(grammar));
            // A grammar without a first token is found out here, and the first states of the lexer are there for all.
            let first = matcher.compute_mask();
            drop(reply.send(first.map(|_| matcher).map_err(|e| e.to_string())));
        };
        let spawned = thread::Builder::new().name("ds4-grammar".to_owned()).stack_size(STACK).spawn(work);
        spawned.map_err(|e| invalid(path, format!("cannot start a thread: {e}")))?;
        match answer.recv_timeout(Duration::from_secs(MAX_SECONDS)) {
            Ok(Ok(matcher)) => Ok(matcher),
            Ok(Err(message)) => Err(invalid(path, first_line(&message))),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                Err(GrammarError::TooSlow { path: path.to_owned(), seconds: MAX_SECONDS })
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(invalid(path, "cannot be compiled")),
        }
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<([u8; 32], Matcher)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
