//! Any bytes as the body of a request of every API, packed or as they are, up to the prompt that it becomes. Completions
//! have no way that ends there: theirs are answered, with one token.
#![no_main]

use std::cell::LazyCell;
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::http::{Request, header};
use ds4_engine::{EngineConfig, EngineHandle};
use ds4_gguf::Gguf;
use ds4_model::{Limits, Shape};
use ds4_server::{ModelInfo, ServerConfig, router};
use ds4_testkit::{Script, ScriptedModel};
use ds4_text::Tokenizer;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};
use tower::ServiceExt;

const PATHS: [&str; 4] =
    ["/apply-template", "/v1/responses/input_tokens", "/v1/messages/count_tokens", "/v1/completions"];

thread_local! {
    static SERVER: LazyCell<(Runtime, axum::Router)> = LazyCell::new(|| {
        let file = include_bytes!("../../models/ds4-mini.gguf");
        let file = Gguf::from_bytes("ds4-mini", (&file[..]).into()).expect("a model");
        let tokenizer = Arc::new(Tokenizer::from_metadata(file.metadata()).expect("a tokenizer"));
        let (shape, script) = (Shape::from_gguf(&file).expect("a shape"), Script::parse(r#"{"reply": "a"}"#));
        let limits = Limits { context: 4096, slots: 2, max_rows: 128, rewind: 8 };
        let model = ScriptedModel::new(shape, limits, Arc::clone(&tokenizer), script.expect("a script"));
        let engine = EngineHandle::start(Box::new(model), Arc::clone(&tokenizer), EngineConfig::default());
        let config = ServerConfig { context: limits.context, max_tokens: 1, keepalive: None, ..ServerConfig::default() };
        let router = router(config, engine.expect("an engine"), tokenizer, ModelInfo::default());
        (Builder::new_current_thread().enable_all().build().expect("a runtime"), router)
    });
}

fuzz_target!(|data: &[u8]| {
    let Some((&which, body)) = data.split_first() else { return };
    let path = PATHS[usize::from(which) % PATHS.len()];
    SERVER.with(|server| {
        let (runtime, router) = &**server;
        let coding = if which & 4 == 0 { "identity" } else { "zstd" };
        let request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
        let request = request.header(header::CONTENT_ENCODING, coding);
        let request = request.body(Body::from(body.to_vec())).expect("a request");
        let (status, answer) = runtime.block_on(async {
            let response = router.clone().oneshot(request).await.expect("infallible");
            let status = response.status();
            (status, to_bytes(response.into_body(), usize::MAX).await.expect("a whole answer"))
        });
        assert!(status.is_success() || status.is_client_error(), "{status}: {}", String::from_utf8_lossy(&answer));
        if status.is_client_error() {
            let told: Value = serde_json::from_slice(&answer).expect("an error is an object");
            assert!(told["error"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{told}");
        }
    });
});
