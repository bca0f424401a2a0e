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
