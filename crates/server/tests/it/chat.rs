//! `/v1/chat/completions`.

use serde_json::{Value, json};

use crate::support::{Server, block, config, golden};
use ds4_server::ServerConfig;

const PATH: &str = "/v1/chat/completions";

fn user(text: &str) -> Value {
    json!({"messages": [{"role": "user", "content": text}], "stream_options": {"include_usage": true}})
}

#[tokio::test]
async fn streams_are_these_chunks() {
    let mut plain = user("hello");
    plain["thinking"] = json!({"type": "disabled"});
    let mut cut = user("hello");
    cut["max_tokens"] = 3.into();
    let mut called = user("weather?");
    let parameters = json!({"type": "object", "properties": {"city": {"type": "string"}}});
    called["tools"] = json!([{"type": "function", "function": {"name": "weather", "parameters": parameters}}]);
    let call = block(&[("weather", &[("city", true, "Oslo"), ("days", false, "[1, 2]")])]);
    for (name, reply, body) in [
        ("text", "Hello there!".to_owned(), plain),
        ("thinking_text", "<think>Hm.</think>Hello.".to_owned(), user("hello")),
        ("tools", format!("<think>Look.</think>I look.{call}"), called),
        ("length", "<think>one two three four</think>x".to_owned(), cut),
    ] {
        let stream = Server::saying(&reply).stream(PATH, &body).await;
        golden(&format!("chat_{name}"), &stream.text);
    }
}

#[tokio::test]
async fn overflow_has_its_words() {
    let server = Server::scripted(r#"{"reply": "x"}"#, ServerConfig { context: 64, ..config() });
    let error = server.post(PATH, &user(&"word ".repeat(500))).await.json()["error"].clone();
    let n = &error["n_prompt_tokens"];
    let said =
        format!("This model's maximum context length is 64 tokens. However, your prompt resulted in {n} tokens.");
    assert_eq!(error["message"], said);
    assert_eq!((&error["code"], &error["param"]), (&json!("context_length_exceeded"), &json!("messages")));
}

#[tokio::test]
async fn an_error_in_a_stream_is_its_end() {
    let server = Server::scripted(r#"{"reply": "<think>a</think>one two three four", "nan_at": 4}"#, config());
    let stream = server.stream(PATH, &user("x")).await;
    let events = stream.events();
    let (name, data) = events.last().unwrap();
    assert_eq!((name.as_str(), &data["error"]["type"]), ("", &json!("server_error")));
    assert!(!stream.text.contains("[DONE]"));
}

#[tokio::test]
async fn results_of_unknown_calls_are_refused() {
    let server = Server::saying("x");
    let tool = json!({"role": "tool", "tool_call_id": "call_1", "content": "y"});
    let alone = server.post(PATH, &json!({"messages": [tool]})).await;
    assert_eq!((alone.status.as_u16(), &alone.json()["error"]["code"]), (409, &json!("continuation_unavailable")));
    let after = server.post(PATH, &json!({"messages": [{"role": "user", "content": "x"}, tool]})).await;
    assert_eq!(after.status.as_u16(), 400);
    assert!(after.text.contains("call_1") && after.text.contains("resend the full conversation history"));
}

#[tokio::test]
async fn a_stream_tells_how_far_it_is_if_that_was_asked_for() {
    let server = Server::saying("<think>One two.</think>Three four.");
    let body = json!({
        "messages": [{"role": "user", "content": "hi"}], "logprobs": true, "include_reasoning_logprobs": true,
        "return_progress": true, "stream_options": {"include_usage": true, "continuous_usage_stats": true},
    });
    let answer = server.stream("/v1/chat/completions", &body).await;
    let chunks: Vec<Value> = answer.events().into_iter().map(|(_, chunk)| chunk).filter(Value::is_object).collect();
    let progress = chunks.iter().filter_map(|chunk| chunk.get("prompt_progress")).next_back().expect("progress");
    assert!(progress["time_ms"].is_u64() && progress["processed"] == progress["total"], "{progress}");
    let counts: Vec<u64> = chunks.iter().filter_map(|chunk| chunk["usage"]["completion_tokens"].as_u64()).collect();
    assert!(counts.is_sorted() && counts.len() > 3 && counts[0] < counts[counts.len() - 1], "{counts:?}");
    let tokens = |list: &str| -> String {
        let choices = chunks.iter().flat_map(|chunk| chunk["choices"].as_array().unwrap());
        let lists = choices.filter_map(|choice| choice["logprobs"][list].as_array().cloned()).flatten();
        lists.map(|token| token["token"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!((tokens("reasoning_content"), tokens("content")), ("One two.".into(), "Three four.".into()));
}

#[tokio::test]
async fn the_tokens_of_a_prompt_are_judged() {
    let server = Server::miniature(config());
    let body = json!({
        "messages": [{"role": "user", "content": "hello"}], "max_tokens": 1, "temperature": 0, "prompt_logprobs": 1,
        "priority": -3, "id_slot": 0,
    });
    let answer = server.ask("/v1/chat/completions", &body).await;
    let judged = answer["prompt_logprobs"].as_array().expect("a list");
    assert_eq!(judged.len() as u64, answer["usage"]["prompt_tokens"].as_u64().unwrap());
    assert!(judged[0].is_null() && judged[1..].iter().all(|token| token["logprob"].as_f64().is_some_and(|p| p <= 0.0)));
    let text: String = judged[1..].iter().map(|token| token["token"].as_str().unwrap()).collect();
    assert!(text.contains("hello"), "{text}");
    for (field, value) in [("priority", json!(11)), ("id_slot", json!("x")), ("prompt_logprobs", json!(21))] {
        let mut wrong = body.clone();
        wrong[field] = value;
        assert_eq!(server.post("/v1/chat/completions", &wrong).await.json()["error"]["param"], field);
    }
}
