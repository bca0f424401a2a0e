//! `/v1/messages`.

use axum::http::StatusCode;
use ds4_server::ServerConfig;
use serde_json::{Value, json};

use crate::support::{Server, block, config, golden};

const PATH: &str = "/v1/messages?beta=true";

fn user(text: &str) -> Value {
    json!({"model": "deepseek-v4-flash", "max_tokens": 500, "messages": [{"role": "user", "content": text}]})
}

fn with_tools(text: &str) -> Value {
    let mut body = user(text);
    body["tools"] = json!([{"name": "weather", "description": "Tells the weather", "input_schema":
        {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}}]);
    body
}

/// More of the text that a delta is about.
fn append(block: &mut Value, delta: &Value) {
    let field = delta["type"].as_str().unwrap().trim_end_matches("_delta");
    let text = format!("{}{}", block[field].as_str().unwrap(), delta[field].as_str().unwrap());
    block[field] = text.into();
}

/// What a stream says, as the message it would have been, checked for the order of its events.
pub(crate) fn accumulated(events: &[(String, Value)]) -> Value {
    let mut message = Value::Null;
    let mut json_text = String::new();
    let (mut open, mut signed) = (None, false);
    for (i, (name, data)) in events.iter().enumerate() {
        assert_eq!(data["type"], name.as_str());
        match name.as_str() {
            "message_start" => {
                assert_eq!(i, 0);
                message = data["message"].clone();
            }
            "ping" => {}
            "content_block_start" => {
                assert!(open.is_none());
                let at = message["content"].as_array().unwrap().len();
                assert_eq!(data["index"], at);
                open = Some(at);
                (signed, json_text) = (false, String::new());
                message["content"].as_array_mut().unwrap().push(data["content_block"].clone());
            }
            "content_block_delta" => {
                let at = open.expect("a block is open");
                assert_eq!(data["index"], at);
                match data["delta"]["type"].as_str().unwrap() {
                    "input_json_delta" => json_text += data["delta"]["partial_json"].as_str().unwrap(),
                    kind => {
                        assert!(!(signed && kind == "signature_delta"), "signed twice");
                        signed |= kind == "signature_delta";
                        append(&mut message["content"][at], &data["delta"]);
                    }
                }
            }
            "content_block_stop" => {
                let at = open.take().expect("a block is open");
                match message["content"][at]["type"].as_str().unwrap() {
                    "tool_use" => message["content"][at]["input"] = serde_json::from_str(&json_text).unwrap(),
                    "thinking" => assert!(signed),
                    _ => {}
                }
            }
            "message_delta" => {
                assert!(open.is_none());
                message["stop_reason"] = data["delta"]["stop_reason"].clone();
                message["stop_sequence"] = data["delta"]["stop_sequence"].clone();
                message["usage"] = data["usage"].clone();
            }
            "message_stop" => assert_eq!(i + 1, events.len()),
            other => panic!("{other}"),
        }
    }
    message
}

/// Without what is random or depends on what was asked before.
pub(crate) fn comparable(message: &Value) -> Value {
    let mut message = message.clone();
    message["id"] = Value::Null;
    for field in ["cache_read_input_tokens", "cache_creation_input_tokens", "cache_creation"] {
        message["usage"][field] = Value::Null;
    }
    for block in message["content"].as_array_mut().unwrap() {
        for field in ["id", "signature"] {
            if let Some(value) = block.get_mut(field) {
                assert!(value.as_str().is_some_and(|text| text.len() > 10), "{value}");
                *value = Value::Null;
            }
        }
    }
    message
}

fn kinds(message: &Value) -> Vec<&str> {
    message["content"].as_array().unwrap().iter().map(|block| block["type"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn streams_are_these_events_and_say_what_the_whole_message_says() {
    let two = block(&[
        ("weather", &[("city", true, "Oslo \"N\""), ("days", false, "3")]),
        ("weather", &[("city", true, "Rome")]),
    ]);
    let with = |name: &str, value: Value| {
        let mut body = user("hello");
        body[name] = value;
        body
    };
    let cases: [(&str, String, Value, &[&str], &str); 7] = [
        ("text", "Hello there!".to_owned(), with("thinking", json!({"type": "disabled"})), &["text"], "end_turn"),
        ("thinking_text", "<think>Hm.</think>Hello.".to_owned(), user("hello"), &["thinking", "text"], "end_turn"),
        (
            "tools",
            format!("<think>Look.</think>I look.{two}"),
            with_tools("weather?"),
            &["thinking", "text", "tool_use", "tool_use"],
            "tool_use",
        ),
        (
            "length_thinking",
            "<think>one two three four</think>x".to_owned(),
            with("max_tokens", 3.into()),
            &["thinking", "text"],
            "max_tokens",
        ),
        (
            "length_text",
            "<think>a</think>one two three four five".to_owned(),
            with("max_tokens", 6.into()),
            &["thinking", "text"],
            "max_tokens",
        ),
        (
            "stop",
            "<think>No END here.</think>one END two".to_owned(),
            user("x"),
            &["thinking", "text"],
            "stop_sequence",
        ),
        ("nothing_but_thinking", "<think>Hm.</think>".to_owned(), user("x"), &["thinking", "text"], "end_turn"),
    ];
    for (name, reply, mut body, blocks, reason) in cases {
        body["stop_sequences"] = json!(["END"]);
        let stream = Server::saying(&reply).stream(PATH, &body).await;
        assert_eq!(stream.headers["content-type"], "text/event-stream; charset=utf-8");
        golden(&format!("messages_{name}"), &stream.text);
        let message = Server::saying(&reply).ask(PATH, &body).await;
        assert_eq!(kinds(&message), blocks, "{name}");
        assert_eq!(message["stop_reason"], reason, "{name}");
        assert_eq!(message["stop_sequence"], if reason == "stop_sequence" { json!("END") } else { Value::Null });
        assert_eq!(comparable(&accumulated(&stream.events())), comparable(&message), "{name}");
    }
}

#[tokio::test]
async fn omitted_thinking_has_a_signature_and_no_text() {
    let server = Server::saying("<think>A secret.</think>Hello.");
    let mut body = user("hello");
    body["thinking"] = json!({"type": "adaptive", "display": "omitted"});
    body["output_config"] = json!({"effort": "high"});
    let message = server.ask(PATH, &body).await;
    assert_eq!(message["content"][0]["thinking"], "");
    let stream = server.stream(PATH, &body).await;
    assert!(!stream.text.contains("secret"));
    assert_eq!(comparable(&accumulated(&stream.events())), comparable(&message));
}

#[tokio::test]
async fn the_parts_of_the_prompt_sum_to_what_counting_says() {
    let server = Server::saying("<think>Hm.</think>Hello.");
    let mut body = with_tools("hello");
    for _ in 0..2 {
        let counted = server.ask("/v1/messages/count_tokens", &body).await["input_tokens"].as_u64().unwrap();
        let usage = &server.ask(PATH, &body).await["usage"];
        let part = |name: &str| usage[name].as_u64().unwrap();
        let sum = part("input_tokens") + part("cache_read_input_tokens") + part("cache_creation_input_tokens");
        assert_eq!(sum, counted);
        body.as_object_mut().unwrap().remove("max_tokens");
    }
}

#[tokio::test]
async fn errors_have_the_form_of_the_api_and_overflow_its_words() {
    let server = Server::scripted(r#"{"reply": "x"}"#, ServerConfig { context: 64, ..config() });
    let long = user(&"word ".repeat(500));
    let counted = server.ask("/v1/messages/count_tokens", &long).await["input_tokens"].clone();
    let answer = server.post(PATH, &long).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    let error = answer.json();
    assert_eq!(error["type"], "error");
    assert_eq!(error["error"]["type"], "invalid_request_error");
    assert_eq!(error["error"]["message"], format!("prompt is too long: {counted} tokens > 64 maximum"));
    assert_eq!(error["request_id"], answer.headers["request-id"].to_str().unwrap());
    for (body, said) in [
        (json!({"messages": []}), "messages must be an array of 1 to"),
        (json!({"max_tokens": 5}), "missing required field: messages"),
        (json!({"messages": [{"role": "tool", "content": "x"}]}), "messages[0].role must be user, assistant or system"),
        (json!({"messages": [{"content": "x"}]}), "missing required field: messages[0].role"),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}),
            "messages[0].content[0].type: content of type \"image\" is not supported",
        ),
        (
            json!({"messages": [{"role": "user", "content": "x"}], "tool_choice": {"type": "tool", "name": "y"}}),
            "tool_choice names \"y\", which is not declared",
        ),
        (
            json!({"messages": [{"role": "user", "content": "x"},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "y"}]}]}),
            "resend the full conversation history",
        ),
    ] {
        let answer = server.post(PATH, &body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}");
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains(said), "{message} for {body}");
    }
    let orphan = json!({"messages": [{"role": "user", "content":
        [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "y"}]}]});
    assert_eq!(server.post(PATH, &orphan).await.status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn an_error_in_a_stream_is_its_last_event() {
    let server = Server::scripted(r#"{"reply": "<think>a</think>one two three four", "nan_at": 4}"#, config());
    let events = server.stream(PATH, &user("x")).await.events();
    let (name, data) = events.last().unwrap();
    assert_eq!((name.as_str(), &data["type"], &data["error"]["type"]), ("error", &json!("error"), &json!("api_error")));
    assert_eq!(events.iter().filter(|(name, _)| name == "error").count(), 1);
}

/// The prompt size of a conversation.
async fn size(server: &Server, body: &Value) -> u64 {
    server.ask("/v1/messages/count_tokens", body).await["input_tokens"].as_u64().unwrap()
}

#[tokio::test]
async fn what_clients_change_from_turn_to_turn_does_not_change_the_prompt() {
    let server = Server::saying("x");
    let body = |system: Value, note: Value, mark: bool| {
        let mut text = json!({"type": "text", "text": "hello"});
        if mark {
            text["cache_control"] = json!({"type": "ephemeral"});
        }
        json!({"max_tokens": 9, "system": system, "messages": [
            {"content": [text], "role": "user"}, {"role": "system", "content": note},
            {"role": "assistant", "content": "hi"}, {"role": "user", "content": "go on"}]})
    };
    let first = body(
        json!([{"type": "text", "text": "x-anthropic-billing-header: 1"}, {"type": "text", "text": "Be kind."}]),
        json!([{"type": "text", "text": "Note this.", "cache_control": {"type": "ephemeral"}}]),
        true,
    );
    let second = body(
        json!([{"type": "text", "text": "x-anthropic-billing-header: 22222 and more"}, {"type": "text", "text": "Be kind."}]),
        json!("Note this."),
        false,
    );
    server.ask(PATH, &first).await;
    let usage = server.ask(PATH, &second).await["usage"].clone();
    assert!(usage["cache_creation_input_tokens"].as_u64().unwrap() <= 1, "{usage}");
    assert_eq!(size(&server, &first).await, size(&server, &body(json!("Be kind."), json!("Note this."), false)).await);
}

#[tokio::test]
async fn hidden_tools_appear_where_a_search_finds_them_and_server_tools_are_named_in_a_warning() {
    let server = Server::saying("x");
    let plain = with_tools("hello");
    let mut body = plain.clone();
    let tools = body["tools"].as_array_mut().unwrap();
    let hidden = json!({"name": "deep", "input_schema": {"type": "object", "properties": {"q": {"type": "string"}}},
        "defer_loading": true});
    tools.push(hidden);
    tools.push(json!({"type": "web_search_20250305", "name": "web_search"}));
    let answer = server.post(PATH, &body).await;
    assert_eq!(answer.headers["x-ds4-warning"], "ignored server tool web_search_20250305");
    assert_eq!(size(&server, &body).await, size(&server, &plain).await);
    let found = |kind: &str| {
        let mut body = body.clone();
        let messages = body["messages"].as_array_mut().unwrap();
        messages.push(json!({"role": "assistant", "content":
            [{"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}}]}));
        messages.push(json!({"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1",
            "content": [{"type": kind, "tool_name": "deep", "text": "deep\n"}]}]}));
        body["tool_choice"] = json!({"type": "tool", "name": "deep"});
        body
    };
    assert_eq!(server.post(PATH, &found("text")).await.status, StatusCode::BAD_REQUEST);
    let mut named = found("text");
    named.as_object_mut().unwrap().remove("tool_choice");
    assert!(size(&server, &found("tool_reference")).await > size(&server, &named).await);
}

#[tokio::test]
async fn a_last_message_of_the_assistant_is_continued() {
    let server = Server::saying("Once upon a time.");
    let mut body = user("Tell a story.");
    body["messages"].as_array_mut().unwrap().push(json!({"role": "assistant", "content": "Once upon"}));
    let message = server.ask(PATH, &body).await;
    assert_eq!(message["content"], json!([{"type": "text", "text": " a time."}]));
}

#[tokio::test]
async fn a_schema_of_either_name_is_shown_to_the_model() {
    let server = Server::saying("x");
    let plain = size(&server, &user("hello")).await;
    let form = json!({"type": "json_schema", "schema": {"type": "object", "properties": {"a": {"type": "string"}}}});
    let mut body = user("hello");
    body["output_format"] = form.clone();
    let shown = size(&server, &body).await;
    assert!(shown > plain);
    body = user("hello");
    body["output_config"] = json!({"format": form, "effort": "high"});
    assert_eq!(size(&server, &body).await, shown);
}

#[tokio::test]
async fn a_waiting_stream_is_kept_alive_by_comments_and_pings() {
    let script = json!({"reply": "<think>a</think>one two", "stall_ms": 700, "stall_at": 3});
    let alive = ServerConfig { keepalive: Some(std::time::Duration::from_millis(100)), ..config() };
    let server = Server::scripted(&script.to_string(), alive);
    let stream = server.stream(PATH, &user("x")).await;
    assert!(stream.text.matches("event: ping").count() >= 3, "{}", stream.text);
    assert!(stream.text.matches("\n: decode").count() >= 2, "{}", stream.text);
    let message = server.ask(PATH, &user("x")).await;
    assert_eq!(comparable(&accumulated(&stream.events())), comparable(&message));
}
