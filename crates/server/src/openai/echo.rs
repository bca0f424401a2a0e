//! A prompt repeated in front of its completions, with what the model says of its tokens where that was asked for.

use std::sync::{Arc, mpsc};
use std::time::Instant;

use ds4_engine::{Cancel, ScoreEvent, ScoreRequest, TokenLogprobs, Want};
use tokio::task::JoinHandle;

use crate::app::App;
use crate::error::{ApiError, Result};
use crate::follow::after;
use crate::job::Token;
use crate::lifecycle::Stage;

/// A prompt that is repeated.
pub(super) struct Echo {
    pub(super) text: String,
    /// With log-probabilities, where they were asked for. Nothing stands before the first one: its own means nothing.
    pub(super) tokens: Vec<Token>,
}

impl Echo {
    /// Repeats `ids` from position `own` on: those before are the server's. The scoring begins at once; waiting for it is the
    /// future's part.
    pub(super) fn start(
        app: &Arc<App>,
        ids: &[u32],
        own: usize,
        logprobs: Option<usize>,
    ) -> Result<impl Future<Output = Result<Arc<Echo>>> + Send + use<>> {
        let shown = ids[own..].to_vec();
        let scoring = match logprobs {
            Some(top) if shown.len() > 1 => Some(Scoring::start(app, ids, own + 1, top)?),
            _ => None,
        };
        let app = Arc::clone(app);
        Ok(async move {
            let scored = match scoring {
                Some(scoring) => scoring.finish(&app).await?,
                None => Vec::new(),
            };
            let bytes = |id: u32| app.tokenizer.token_bytes(id).to_vec();
            let first = shown.first().map(|&id| Token { bytes: bytes(id), logprob: 0.0, top: Vec::new() });
            let text = String::from_utf8_lossy(&app.tokenizer.decode(&shown)).into_owned();
            let mut tokens = Vec::new();
            if logprobs.is_some() {
                tokens.extend(first);
                tokens.extend(scored.iter().map(|found| Token::of(found, bytes)));
            }
            Ok(Arc::new(Echo { text, tokens }))
        })
    }
}

/// A running scoring. Dropping it cancels it.
struct Scoring {
    cancel: Cancel,
    scored: JoinHandle<Result<Vec<TokenLogprobs>>>,
    started: Instant,
}

impl Scoring {
    fn start(app: &App, ids: &[u32], from: usize, top: usize) -> Result<Self> {
        let (events, results) = mpsc::channel();
        let cancel = Cancel::default();
        let (tokens, from, want) = (ids.to_vec(), from as u32, Want::Logprobs { top });
        let request = ScoreRequest { tokens, from, want, cancel: cancel.clone(), events };
        app.engine.score(request).map_err(|error| ApiError::from_engine(&error, "prompt"))?;
        let expected = ids.len() - from as usize;
        let scored = tokio::task::spawn_blocking(move || {
            let mut scored = Vec::with_capacity(expected);
            for event in results {
                match event {
                    ScoreEvent::Scored { tokens, .. } => scored.extend(tokens),
                    ScoreEvent::Failed(error) => return Err(ApiError::from_engine(&error, "prompt")),
                    ScoreEvent::Progress { .. } | ScoreEvent::Logits { .. } | ScoreEvent::Done => {}
                }
            }
            if scored.len() == expected { Ok(scored) } else { Err(ApiError::engine("the prompt was not scored")) }
        });
        Ok(Self { cancel, scored, started: Instant::now() })
    }

    async fn finish(mut self, app: &App) -> Result<Vec<TokenLogprobs>> {
        tokio::select! {
            scored = &mut self.scored => scored.unwrap_or_else(|_| Err(ApiError::engine("the engine did not answer"))),
            () = app.lifecycle.reached(Stage::Cutting) => Err(ApiError::shutting_down()),
            () = after(self.started, app.config.request_timeout) => Err(ApiError::timeout("the request took too long")),
        }
    }
}

impl Drop for Scoring {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}
