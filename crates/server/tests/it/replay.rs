//! Conversations that come back, in every way that clients send them, meet the state that exists.

use ds4_server::ServerConfig;
use serde_json::{Value, json};

use crate::spoken::{Spoken, cut};
use crate::support::{Server, block, config};

const CHAT: &str = "/v1/chat/completions";
const RESPONSES: &str = "/v1/responses";
const MESSAGES: &str = "/v1/messages";

/// Says a text in pieces that no tokenizer would make of it.
fn saying(reply: &str) -> Server {
    saying_with(reply, config())
}

fn saying_with(reply: &str, config: ServerConfig) -> Server {
    let mut n = 0;
    let ids = cut(reply, || {
        n += 1;
        n * 7 % 5
    });
    Server::over(Box::new(Spoken::new(ids)), config)
}

fn schema() -> Value {
    json!({"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}})
}

fn calling() -> String {
    let call: &[(&str, bool, &str)] = &[("city", true, "Oslo <north> & \"süd\""), ("days", false, "{ \"n\": 3.0 }")];
    let block = block(&[("weather", call), ("weather", &[("city", true, "Rome")])]);
    format!("<think>They want the weather, which I have to look up.</think>I look it up, twice.{block}")
}

fn strip(reply: &str) -> &str {
    reply.strip_prefix("<think>").unwrap_or(reply)
}

/// Prompt and cached tokens of a usage, whatever API it is of.
fn sizes(answer: &Value) -> (u64, u64) {
    let usage = &answer["usage"];
    let n = |value: &Value| value.as_u64();
    if let Some(prompt) = n(&usage["prompt_tokens"]) {
        return (prompt, n(&usage["prompt_tokens_details"]["cached_tokens"]).unwrap());
    }
    if let Some(cached) = n(&usage["input_tokens_details"]["cached_tokens"]) {
        return (n(&usage["input_tokens"]).unwrap(), cached);
    }
    let cached = n(&usage["cache_read_input_tokens"]).unwrap();
    (cached + n(&usage["cache_creation_input_tokens"]).unwrap(), cached)
}

pub(crate) fn assert_met(answer: &Value, way: &str) {
    let (prompt, cached) = sizes(answer);
    assert!(cached + 64 >= prompt, "{way}: {cached} of {prompt} were there");
}

/// Another spelling of the same JSON.
fn respelled(arguments: &Value) -> Value {
    let parsed: Value = serde_json::from_str(arguments.as_str().unwrap()).unwrap();
    let mut members: Vec<(String, Value)> = parsed.as_object().unwrap().clone().into_iter().collect();
    members.reverse();
    let parsed: serde_json::Map<String, Value> = members.into_iter().collect();
    serde_json::to_string_pretty(&parsed).unwrap().into()
}

pub(crate) type Change = fn(&mut Value);

#[tokio::test]
async fn chat_histories_with_calls_meet_the_state() {
    let ways: [(&str, Change); 4] = [
        ("as received", |_| {}),
        ("without reasoning", |m| drop(m.as_object_mut().unwrap().remove("reasoning_content"))),
        ("respelled", |m| {
            for call in m["tool_calls"].as_array_mut().unwrap() {
                let arguments = &mut call["function"]["arguments"];
                *arguments = respelled(arguments);
            }
        }),
        ("content as parts", |m| {
            m["content"] = json!([{"type": "text", "text": format!("{} ", m["content"].as_str().unwrap())}]);
        }),
    ];
    for (way, change) in ways {
        let server = saying(strip(&calling()));
        let tool = json!({"type": "function", "function": {"name": "weather", "parameters": schema()}});
        let mut body = json!({"messages": [{"role": "user", "content": "weather?"}], "tools": [tool]});
        let mut message = server.ask(CHAT, &body).await["choices"][0]["message"].clone();
        assert_eq!(message["tool_calls"].as_array().unwrap().len(), 2);
        let results: Vec<Value> = message["tool_calls"]
            .as_array()
            .unwrap()
            .iter()
            .map(|call| json!({"role": "tool", "tool_call_id": call["id"], "content": "sunny"}))
            .collect();
        change(&mut message);
        let messages = body["messages"].as_array_mut().unwrap();
        messages.push(message);
        messages.extend(results.clone());
        assert_met(&server.ask(CHAT, &body).await, way);
        // The call itself left out: it is still known.
        let messages = body["messages"].as_array_mut().unwrap();
        messages.remove(1);
        assert_met(&server.ask(CHAT, &body).await, "without the call");
    }
}

#[tokio::test]
async fn what_a_client_edits_is_rendered_as_edited() {
    let edits: [(&str, Change); 3] = [
        ("arguments", |m| m["tool_calls"][0]["function"]["arguments"] = "{\"city\":\"Bergen\"}".into()),
        ("text", |m| m["content"] = "Something else.".into()),
        ("a call less", |m| drop(m["tool_calls"].as_array_mut().unwrap().remove(1))),
    ];
    for (what, edit) in edits {
        let server = saying(strip(&calling()));
        let tool = json!({"type": "function", "function": {"name": "weather", "parameters": schema()}});
        let mut body = json!({"messages": [{"role": "user", "content": "weather?"}], "tools": [tool]});
        let mut message = server.ask(CHAT, &body).await["choices"][0]["message"].clone();
        edit(&mut message);
        let id = message["tool_calls"][0]["id"].clone();
        let messages = body["messages"].as_array_mut().unwrap();
        messages.push(message);
        messages.push(json!({"role": "tool", "tool_call_id": id, "content": "sunny"}));
        let (prompt, cached) = sizes(&server.ask(CHAT, &body).await);
        assert!(cached + 64 < prompt, "{what}: {cached} of {prompt}");
    }
}

#[tokio::test]
async fn responses_histories_meet_the_state() {
    let ways: [(&str, Change); 5] = [
        ("as received", |_| {}),
        ("sealed reasoning unread", |output| output[0]["encrypted_content"] = Value::Null),
        ("sealed reasoning alone", |output| output[0]["summary"] = json!([])),
        ("without reasoning", |output| drop(output.as_array_mut().unwrap().remove(0))),
        ("respelled", |output| {
            for item in output.as_array_mut().unwrap().iter_mut().filter(|item| item["type"] == "function_call") {
                item["arguments"] = respelled(&item["arguments"]);
            }
        }),
    ];
    for (way, change) in ways {
        let server = saying(strip(&calling()));
        let tool = json!({"type": "function", "name": "weather", "parameters": schema()});
        let mut body = json!({"input": [{"role": "user", "content": "weather?"}], "tools": [tool], "store": false,
            "include": ["reasoning.encrypted_content"], "reasoning": {"summary": "auto"}});
        let mut output = server.ask(RESPONSES, &body).await["output"].clone();
        let calls = output.as_array().unwrap().iter().filter(|item| item["type"] == "function_call");
        let results: Vec<Value> = calls
            .map(|call| json!({"type": "function_call_output", "call_id": call["call_id"], "output": "sunny"}))
            .collect();
        assert_eq!(results.len(), 2);
        change(&mut output);
        let input = body["input"].as_array_mut().unwrap();
        input.extend(output.as_array().unwrap().clone());
        input.extend(results);
        assert_met(&server.ask(RESPONSES, &body).await, way);
    }
}

#[tokio::test]
async fn stored_responses_meet_the_state() {
    let server = saying(strip(&calling()));
    let tool = json!({"type": "function", "name": "weather", "parameters": schema()});
    let mut body = json!({"input": "weather?", "tools": [tool]});
    let first = server.ask(RESPONSES, &body).await;
    let calls = first["output"].as_array().unwrap().iter().filter(|item| item["type"] == "function_call");
    let results: Vec<Value> = calls
        .map(|call| json!({"type": "function_call_output", "call_id": call["call_id"], "output": "sunny"}))
        .collect();
    body["previous_response_id"] = first["id"].clone();
    body["input"] = results.into();
    assert_met(&server.ask(RESPONSES, &body).await, "previous_response_id");
}

fn asking(display: &str) -> Value {
    json!({"max_tokens": 900, "thinking": {"type": "adaptive", "display": display},
        "tools": [{"name": "weather", "input_schema": schema()}],
        "messages": [{"role": "user", "content": "weather?"}]})
}

/// The next request, after `change` of what was received.
pub(crate) fn continued(mut body: Value, message: &Value, change: Change) -> Value {
    let mut content = message["content"].clone();
    let calls = content.as_array().unwrap().iter().filter(|block| block["type"] == "tool_use");
    let results: Vec<Value> = calls
        .map(|call| json!({"type": "tool_result", "tool_use_id": call["id"], "content": "sunny", "is_error": false}))
        .collect();
    change(&mut content);
    let messages = body["messages"].as_array_mut().unwrap();
    messages.push(json!({"role": "assistant", "content": content}));
    messages.push(json!({"role": "user", "content": results}));
    body
}

#[tokio::test]
async fn messages_histories_meet_the_state() {
    let ways: [(&str, Change); 4] = [
        ("as received", |_| {}),
        ("unsigned", |content| content[0]["signature"] = "".into()),
        ("redacted", |content| {
            content[0] = json!({"type": "redacted_thinking", "data": content[0]["signature"]});
        }),
        ("without thinking", |content| drop(content.as_array_mut().unwrap().remove(0))),
    ];
    for (way, change) in ways {
        for display in ["summarized", "omitted"] {
            let server = saying(strip(&calling()));
            let body = asking(display);
            let message = server.ask(MESSAGES, &body).await;
            assert_eq!(message["stop_reason"], "tool_use");
            let next = continued(body, &message, change);
            assert_met(&server.ask(MESSAGES, &next).await, &format!("{way}, {display}"));
        }
    }
}

#[tokio::test]
async fn a_signature_alone_restores_the_reasoning_where_its_key_is_known() {
    let reply = calling();
    let body = asking("omitted");
    let message = saying(strip(&reply)).ask(MESSAGES, &body).await;
    let next = continued(body.clone(), &message, |_| {});
    let size =
        async |server: &Server| server.ask("/v1/messages/count_tokens", &next).await["input_tokens"].as_u64().unwrap();
    let restarted = saying(strip(&reply));
    let stranger = saying_with(strip(&reply), ServerConfig { state_key: [8; 32], ..config() });
    let renamed = saying_with(strip(&reply), ServerConfig { served_names: vec!["other".to_owned()], ..config() });
    let known = size(&restarted).await;
    assert!(known >= size(&stranger).await + 12, "the reasoning is gone there");
    assert_eq!(size(&stranger).await, size(&renamed).await);
    // Not the text that it was, but the ids: there are more of them than that text needs.
    let mut spelled = continued(body, &message, |_| {});
    spelled["messages"][1]["content"][0] =
        json!({"type": "thinking", "thinking": "They want the weather, which I have to look up.", "signature": ""});
    let spelled = restarted.ask("/v1/messages/count_tokens", &spelled).await["input_tokens"].as_u64().unwrap();
    assert!(known > spelled + 4, "{known} and {spelled}");
}

#[tokio::test]
async fn answers_without_calls_are_found_by_their_conversation() {
    let reply = "<think>They greet me, so I greet them.</think>Hello there, my dear friend of old!";
    for (sticky, kept) in [(true, true), (false, false)] {
        let server = saying_with(strip(reply), ServerConfig { sticky_reasoning: sticky, ..config() });
        let greeting = "hello ".repeat(80);
        let mut body = json!({"messages": [{"role": "user", "content": greeting}]});
        let first = server.ask(CHAT, &body).await;
        let messages = body["messages"].as_array_mut().unwrap();
        messages.push(json!({"role": "assistant", "content": first["choices"][0]["message"]["content"]}));
        messages.push(json!({"role": "user", "content": "hello again"}));
        let (prompt, cached) = sizes(&server.ask(CHAT, &body).await);
        let (before, _) = sizes(&first);
        if kept {
            assert!(cached > before + 30 && cached + 16 >= prompt, "{cached} of {prompt} after {before}");
        } else {
            assert!(cached + 2 >= before, "{cached} of {prompt} after {before}");
        }
    }
}

#[tokio::test]
async fn replay_can_be_switched_off() {
    let server = saying_with(strip(&calling()), ServerConfig { canonical_replay: true, ..config() });
    let body = asking("omitted");
    let message = server.ask(MESSAGES, &body).await;
    let (prompt, cached) = sizes(&server.ask(MESSAGES, &continued(body, &message, |_| {})).await);
    assert!(cached + 64 < prompt, "{cached} of {prompt}");
}

#[tokio::test]
async fn the_miniature_meets_what_it_said() {
    for seed in 1..4 {
        let server = Server::miniature(config());
        let mut body = asking("omitted");
        body["seed"] = seed.into();
        body["max_tokens"] = 120.into();
        body["messages"][0]["content"] = "What is the weather like in Oslo? Then tell me a story.".into();
        body["temperature"] = 1.2.into();
        body["min_p"] = 0.0.into();
        let message = server.ask(MESSAGES, &body).await;
        let mut next = continued(body, &message, |_| {});
        if message["stop_reason"] != "tool_use" {
            let last = next["messages"].as_array_mut().unwrap().last_mut().unwrap();
            *last = json!({"role": "user", "content": "Go on."});
        }
        assert_met(&server.ask(MESSAGES, &next).await, &format!("seed {seed}: {message}"));
    }
}

#[tokio::test]
async fn a_block_that_was_cut_off_comes_back_closed() {
    let server = saying(strip(&calling()));
    let mut body = asking("omitted");
    body["max_tokens"] = 120.into();
    body["reply_reserve"] = 0.into();
    let message = server.ask(MESSAGES, &body).await;
    assert_eq!((&message["stop_reason"], &message["content"][2]["type"]), (&json!("max_tokens"), &json!("tool_use")));
    // The reasoning is what it was; the call is rendered as its client has it.
    let next = continued(body.clone(), &message, |_| {});
    let exact = sizes(&server.ask(MESSAGES, &next).await).0;
    let restarted = saying(strip(&calling()));
    assert_eq!(sizes(&restarted.ask(MESSAGES, &next).await).0, exact);
}

#[tokio::test]
async fn a_block_that_ended_between_two_calls_meets_its_state() {
    let reply = calling();
    let open = reply.strip_suffix("</｜DSML｜tool_calls>").unwrap();
    for reply in [open, open.trim_end()] {
        let server = saying(strip(reply));
        let body = asking("omitted");
        let message = server.ask(MESSAGES, &body).await;
        assert_eq!(message["stop_reason"], "tool_use");
        assert_met(&server.ask(MESSAGES, &continued(body, &message, |_| {})).await, "an open block");
    }
}
