//! `/v1/responses`.

use axum::http::StatusCode;
use ds4_server::ServerConfig;
use serde_json::{Value, json};

use crate::support::{Server, block, config, golden};

const PATH: &str = "/v1/responses";

fn ask(text: &str) -> Value {
    json!({"model": "deepseek-v4-flash", "input": text, "include": ["reasoning.encrypted_content"],
        "reasoning": {"summary": "auto"}})
}

fn tools() -> Value {
    let city = json!({"type": "object", "properties": {"city": {"type": "string"}}});
    json!([
        {"type": "function", "name": "weather", "description": "Tells the weather", "parameters": city, "strict": false},
        {"type": "namespace", "name": "mcp__maps", "description": "Maps", "tools":
            [{"type": "function", "name": "route", "parameters": city}]},
        {"type": "custom", "name": "patch", "description": "Applies a patch",
            "format": {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"}},
        {"type": "tool_search", "execution": "client"},
        {"type": "web_search"}])
}

fn all_kinds() -> String {
    block(&[
        ("weather", &[("city", true, "Oslo")]),
        ("mcp__maps__route", &[("city", true, "Rome")]),
        ("patch", &[("input", true, "*** Begin\n+a \"b\"")]),
        ("tool_search", &[("query", true, "maps")]),
    ])
}

/// What a stream's events add up to, checked for order and numbers.
pub(crate) fn accumulated(events: &[(String, Value)]) -> Value {
    let mut items: Vec<Value> = Vec::new();
    let (mut texts, mut open) = (String::new(), None);
    let mut last = Value::Null;
    for (i, (name, data)) in events.iter().enumerate() {
        assert_eq!(data["type"], name.as_str());
        assert_eq!(data["sequence_number"], i);
        match i {
            0 => assert_eq!(name, "response.created"),
            1 => assert_eq!(name, "response.in_progress"),
            _ => {}
        }
        if let Some(id) = data.get("item_id") {
            assert_eq!(Some(id), open.as_ref());
            assert_eq!(data["output_index"], items.len());
        }
        match name.as_str() {
            "response.output_item.added" => {
                assert!(open.is_none());
                assert_eq!(data["item"]["status"], "in_progress");
                (open, texts) = (Some(data["item"]["id"].clone()), String::new());
            }
            "response.output_item.done" => {
                assert_eq!(open.take(), Some(data["item"]["id"].clone()));
                items.push(data["item"].clone());
            }
            name if name.rsplit('.').next() == Some("delta") => texts += data["delta"].as_str().unwrap(),
            "response.output_text.done" | "response.reasoning_summary_text.done" => assert_eq!(data["text"], texts),
            "response.function_call_arguments.done" => assert_eq!(data["arguments"], texts),
            "response.custom_tool_call_input.done" => assert_eq!(data["input"], texts),
            "response.completed" | "response.incomplete" => {
                assert_eq!(i + 1, events.len());
                last = data["response"].clone();
            }
            _ => {}
        }
    }
    assert_eq!(last["output"], Value::Array(items));
    last
}

/// Without what is random or depends on what was asked before.
pub(crate) fn comparable(response: &Value) -> Value {
    let mut response = response.clone();
    for field in ["id", "created_at", "completed_at"] {
        assert!(!response[field].is_null(), "{field}");
        response[field] = Value::Null;
    }
    response["usage"]["input_tokens_details"] = Value::Null;
    for item in response["output"].as_array_mut().unwrap() {
        for field in ["id", "call_id", "encrypted_content"] {
            if let Some(value) = item.get_mut(field) {
                *value = value.is_string().into();
            }
        }
    }
    response
}

fn kinds(response: &Value) -> Vec<&str> {
    response["output"].as_array().unwrap().iter().map(|item| item["type"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn streams_are_these_events_and_say_what_the_whole_response_says() {
    let thinking = |reply: &str| format!("<think>Hm.</think>{reply}");
    let cut = |n: u32| {
        let mut body = ask("hello");
        body["max_output_tokens"] = n.into();
        body
    };
    let mut plain = ask("hello");
    plain["reasoning"]["effort"] = "none".into();
    let mut called = ask("do it");
    called["tools"] = tools();
    let call = block(&[("weather", &[("city", true, "a long name that is cut")])]);
    let mut cut_call = cut(40);
    cut_call["tools"] = tools();
    let cases: [(&str, String, Value, &[&str], &str); 6] = [
        ("text", "Hello there!".to_owned(), plain, &["message"], "completed"),
        ("thinking_text", thinking("Hello."), ask("hello"), &["reasoning", "message"], "completed"),
        (
            "tools",
            thinking(&format!("I do.{}", all_kinds())),
            called,
            &["reasoning", "message", "function_call", "function_call", "custom_tool_call", "tool_search_call"],
            "completed",
        ),
        ("length_thinking", "<think>one two three four</think>x".to_owned(), cut(3), &["reasoning"], "incomplete"),
        ("length_text", thinking("one two three four five"), cut(7), &["reasoning", "message"], "incomplete"),
        ("length_call", thinking(&call), cut_call, &["reasoning", "function_call"], "incomplete"),
    ];
    for (name, reply, body, items, status) in cases {
        let stream = Server::saying(&reply).stream(PATH, &body).await;
        golden(&format!("responses_{name}"), &stream.text);
        let mut same = body.clone();
        same["stream"] = false.into();
        let response = Server::saying(&reply).ask(PATH, &same).await;
        assert_eq!(kinds(&response), items, "{name}");
        assert_eq!(response["status"], status, "{name}");
        let last = response["output"].as_array().unwrap().last().unwrap();
        assert_eq!(last["status"], status, "{name}");
        let reason = if status == "incomplete" { json!({"reason": "max_output_tokens"}) } else { Value::Null };
        assert_eq!(response["incomplete_details"], reason);
        assert_eq!(comparable(&accumulated(&stream.events())), comparable(&response), "{name}");
    }
}

#[tokio::test]
async fn calls_are_items_of_the_kind_their_tool_was_declared_as() {
    let server = Server::saying(&format!("<think>a</think>{}", all_kinds()));
    let mut body = ask("do it");
    body["tools"] = tools();
    let answer = server.post(PATH, &body).await;
    assert_eq!(answer.headers["x-ds4-warning"], "ignored hosted tool web_search");
    let response = answer.json();
    let output = &response["output"];
    assert_eq!(output[1]["name"], "weather");
    assert_eq!(output[1]["arguments"], r#"{"city":"Oslo"}"#);
    assert_eq!((&output[2]["name"], &output[2]["namespace"]), (&json!("route"), &json!("mcp__maps")));
    assert_eq!(output[3]["input"], "*** Begin\n+a \"b\"");
    assert_eq!((&output[4]["execution"], &output[4]["arguments"]), (&json!("client"), &json!({"query": "maps"})));
    assert_eq!(response["tools"], tools());
    assert_eq!(response["usage"]["input_tokens"], {
        let counted = server.ask("/v1/responses/input_tokens", &body).await;
        assert_eq!(counted["object"], "response.input_tokens");
        counted["input_tokens"].clone()
    });
    // All of it is history: every call meets its result.
    let mut next = output.as_array().unwrap().clone();
    let result = |i: usize, kind: &str, value: Value| {
        let key = if kind == "tool_search_output" { "tools" } else { "output" };
        json!({"type": kind, "call_id": output[i]["call_id"], key: value})
    };
    next.insert(0, json!({"role": "user", "content": "do it"}));
    next.push(result(1, "function_call_output", json!("sunny")));
    next.push(result(2, "function_call_output", json!([{"type": "input_text", "text": "left"}])));
    next.push(result(3, "custom_tool_call_output", json!({"ok": true})));
    next.push(result(4, "tool_search_output", json!([{"type": "function", "name": "zoom", "parameters": {}}])));
    body["input"] = next.into();
    body["tool_choice"] = json!({"type": "function", "name": "zoom"});
    let usage = &server.ask(PATH, &body).await["usage"];
    let (prompt, cached) = (&usage["input_tokens"], &usage["input_tokens_details"]["cached_tokens"]);
    assert!(prompt.as_u64().unwrap() <= cached.as_u64().unwrap() + 120, "{usage}");
}

#[tokio::test]
async fn every_kind_of_item_has_a_place_in_the_prompt_and_unknown_ones_are_refused() {
    let server = Server::saying("x");
    let items = json!([
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "input_text", "text": "one"}]},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "two"}], "encrypted_content": "gAAA"},
        {"type": "local_shell_call", "call_id": "c1", "action": {"command": ["three"]}, "status": "incomplete"},
        {"type": "local_shell_call_output", "id": "c1", "output": "four"},
        {"type": "web_search_call", "id": "ws", "action": {"query": "five"}, "status": "completed"},
        {"type": "mcp_call", "id": "mcp", "name": "six", "arguments": "{\"a\":1}", "output": "seven", "server_label": "s"},
        {"type": "compaction_summary", "text": "eight"},
        {"type": "compaction", "encrypted_content": "opaque"},
        {"role": "user", "content": "nine"}
    ]);
    let mut sizes = Vec::new();
    for n in 2..=items.as_array().unwrap().len() {
        let body = json!({"input": items.as_array().unwrap()[..n].to_vec()});
        let counted = server.ask("/v1/responses/input_tokens", &body).await["input_tokens"].as_u64().unwrap();
        sizes.push(counted);
    }
    server.ask(PATH, &json!({"input": items})).await;
    for (item, said) in [
        (json!({"type": "hologram"}), "input[1].type: items of type \"hologram\" are not supported"),
        (json!({"type": "message", "role": "user", "content": [{"type": "input_image"}]}), "input[1].content[0].type"),
        (json!({"type": "function_call", "call_id": "a", "name": "b", "status": "in_progress"}), "input[1].status"),
        (json!({"type": "function_call_output", "call_id": "nope", "output": "x"}), "resend the full conversation"),
        (json!({"type": "item_reference", "id": "nope"}), "no item \"nope\" is stored"),
    ] {
        let body = json!({"input": [{"role": "user", "content": "x"}, item]});
        let answer = server.post(PATH, &body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}");
        assert!(answer.text.contains(&said.replace('"', "\\\"")), "{} for {body}", answer.text);
    }
    let orphan = json!({"input": [{"type": "function_call_output", "call_id": "gone", "output": "x"}]});
    let answer = server.post(PATH, &orphan).await;
    assert_eq!(answer.status, StatusCode::CONFLICT);
    assert_eq!(answer.json()["error"]["code"], "continuation_unavailable");
}

#[tokio::test]
async fn kept_responses_can_be_continued_read_and_deleted() {
    let server = Server::saying("<think>Hm.</think>Hello.");
    let first = server.ask(PATH, &ask("My name is Ada.")).await;
    let id = first["id"].as_str().unwrap();
    let mut body = ask("What is my name?");
    body["previous_response_id"] = id.into();
    let second = server.ask(PATH, &body).await;
    assert_eq!(second["previous_response_id"], id);
    let whole = json!({"input": [{"role": "user", "content": "My name is Ada."}, first["output"][0], first["output"][1],
        {"role": "user", "content": "What is my name?"}]});
    let counted = server.ask("/v1/responses/input_tokens", &whole).await;
    assert_eq!(second["usage"]["input_tokens"], counted["input_tokens"]);
    let path = format!("{PATH}/{}", second["id"].as_str().unwrap());
    let read = server.send("GET", &path, String::new()).await;
    assert_eq!(read.json(), second);
    assert_eq!(server.post(&format!("{path}/cancel"), &json!({})).await.json(), second);
    let items = server.send("GET", &format!("{path}/input_items?order=asc&limit=3"), String::new()).await.json();
    assert_eq!((items["data"].as_array().unwrap().len(), &items["has_more"]), (3, &json!(true)));
    assert_eq!(items["data"][2]["id"], first["output"][1]["id"]);
    let reference = json!({"input": [{"type": "item_reference", "id": first["output"][1]["id"]},
        {"role": "user", "content": "x"}]});
    server.ask(PATH, &reference).await;
    assert_eq!(server.send("DELETE", &path, String::new()).await.json()["deleted"], true);
    assert_eq!(server.send("GET", &path, String::new()).await.status, StatusCode::NOT_FOUND);
    let mut unstored = ask("x");
    unstored["store"] = false.into();
    body["previous_response_id"] = server.ask(PATH, &unstored).await["id"].clone();
    let answer = server.post(PATH, &body).await;
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (StatusCode::NOT_FOUND, &json!("response_not_found")));
    assert_eq!(server.post("/v1/responses/compact", &json!({})).await.status, StatusCode::NOT_IMPLEMENTED);
}

#[tokio::test]
async fn a_running_response_can_be_cancelled() {
    use futures_util::StreamExt;
    let script = json!({"reply": "<think>a</think>".to_owned() + &"word ".repeat(400), "tokens_per_second": 40});
    let server = Server::scripted(&script.to_string(), config());
    let mut body = ask("x");
    body["stream"] = true.into();
    let mut frames = server.open(PATH, &body).await;
    let mut text = String::new();
    while !text.contains("output_text.delta") {
        text += std::str::from_utf8(&frames.next().await.unwrap().unwrap()).unwrap();
    }
    let id = text.split("\"id\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let answer = server.post(&format!("{PATH}/{id}/cancel"), &json!({})).await;
    assert_eq!((answer.status, &answer.json()["status"]), (StatusCode::OK, &json!("cancelled")));
    while let Some(frame) = frames.next().await {
        text += std::str::from_utf8(&frame.unwrap()).unwrap();
    }
    let last = text.trim_end().rsplit("data: ").next().unwrap();
    let last: Value = serde_json::from_str(last).unwrap();
    assert_eq!(last["response"]["status"], "cancelled");
    assert!(text.len() < 400 * 100);
}

#[tokio::test]
async fn what_cannot_be_honoured_is_refused_and_overflow_has_its_words() {
    let server = Server::scripted(r#"{"reply": "x"}"#, ServerConfig { context: 64, ..config() });
    let long = json!({"input": "word ".repeat(500)});
    let answer = server.post(PATH, &long).await;
    let error = &answer.json()["error"];
    let n = &error["n_prompt_tokens"];
    let said =
        format!("This model's maximum context length is 64 tokens. However, your prompt resulted in {n} tokens.");
    assert_eq!((&error["code"], &error["param"]), (&json!("context_length_exceeded"), &json!("input")));
    assert_eq!(error["message"], said);
    let items: Vec<Value> = (0..200).map(|i| json!({"role": "user", "content": format!("word {i}")})).collect();
    assert_eq!(server.post(PATH, &json!({"input": items})).await.status, StatusCode::BAD_REQUEST);
    let cut = server.ask(PATH, &json!({"input": items, "truncation": "auto"})).await;
    assert!(cut["usage"]["input_tokens"].as_u64().unwrap() > 40, "{cut}");
    for (name, value) in [
        ("background", json!(true)),
        ("conversation", json!("conv_1")),
        ("truncation", json!("some")),
        ("top_logprobs", json!(21)),
        ("reasoning", json!({"summary": "long"})),
        ("tool_choice", json!("required")),
        ("input", json!([])),
    ] {
        let mut body = json!({"input": "x"});
        body[name] = value;
        let answer = server.post(PATH, &body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{name}: {}", answer.text);
        assert!(answer.json()["error"]["param"].as_str().unwrap().starts_with(name), "{}", answer.text);
    }
}

#[tokio::test]
async fn an_error_in_a_stream_is_a_failed_response() {
    let server = Server::scripted(r#"{"reply": "<think>a</think>one two three four", "nan_at": 4}"#, config());
    let events = server.stream(PATH, &ask("x")).await.events();
    let (name, data) = events.last().unwrap();
    assert_eq!(name, "response.failed");
    assert_eq!(
        (&data["response"]["status"], &data["response"]["error"]["code"]),
        (&json!("failed"), &json!("server_error"))
    );
}

#[tokio::test]
async fn logprobs_are_those_of_the_answer() {
    let server = Server::saying("<think>a</think>Hello there");
    let mut body = ask("x");
    body["include"] = json!(["message.output_text.logprobs"]);
    body["top_logprobs"] = 2.into();
    let response = server.ask(PATH, &body).await;
    assert_eq!(response["output"][0]["encrypted_content"], Value::Null);
    let part = &response["output"][1]["content"][0];
    let tokens = part["logprobs"].as_array().unwrap();
    let text: String = tokens.iter().map(|token| token["token"].as_str().unwrap()).collect();
    assert_eq!(text, part["text"].as_str().unwrap());
    assert!(tokens.iter().all(|token| token["top_logprobs"].as_array().unwrap().len() == 2));
    let events = server.stream(PATH, &body).await.events();
    let streamed = events.iter().filter(|(name, _)| name == "response.output_text.delta");
    assert_eq!(streamed.map(|(_, data)| data["logprobs"].as_array().unwrap().len()).sum::<usize>(), tokens.len());
}
