//! What no request should be (server.md 3, 14, 18): every refusal in the words of its API, and a server that goes on.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use ds4_server::ServerConfig;
use serde_json::{Value, json};

use crate::live::{self, Live, chat};
use crate::support::{Answer, Server, config};

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";
const RESPONSES: &str = "/v1/responses";
const MESSAGES: &str = "/v1/messages";

/// Every API with the members of a body that it takes.
const APIS: [(&str, &str); 4] = [
    (CHAT, r#""messages": [{"role": "user", "content": "a"}]"#),
    (COMPLETIONS, r#""prompt": "a""#),
    (RESPONSES, r#""input": "a""#),
    (MESSAGES, r#""max_tokens": 9, "messages": [{"role": "user", "content": "a"}]"#),
];

/// Members that no API takes, and the path that the refusal names.
const EVERYWHERE: &[(&str, &str)] = &[
    (r#""model": 1"#, "model"),
    (r#""temperature": "hot""#, "temperature"),
    (r#""temperature": -0.5"#, "temperature"),
    (r#""temperature": 1e400"#, "temperature"),
    (r#""temperature": 101"#, "temperature"),
    (r#""top_p": 1.5"#, "top_p"),
    (r#""top_p": []"#, "top_p"),
    (r#""top_k": 1.5"#, "top_k"),
    (r#""top_k": -2"#, "top_k"),
    (r#""min_p": true"#, "min_p"),
    (r#""frequency_penalty": 3"#, "frequency_penalty"),
    (r#""presence_penalty": {}"#, "presence_penalty"),
    (r#""repetition_penalty": 0"#, "repetition_penalty"),
    (r#""seed": "1""#, "seed"),
    (r#""seed": 1.5"#, "seed"),
    (r#""seed": 99999999999999999999999"#, "seed"),
    (r#""logit_bias": [1]"#, "logit_bias"),
    (r#""logit_bias": {"x": 1}"#, "logit_bias.x"),
    (r#""logit_bias": {"1": 101}"#, "logit_bias.1"),
    (r#""logit_bias": {"1": "a"}"#, "logit_bias.1"),
    (r#""logit_bias": {"99999999": 1}"#, "logit_bias"),
    (r#""stop": 1"#, "stop"),
    (r#""stop": [1]"#, "stop"),
    (r#""stop": ["1","2","3","4","5","6","7","8","9","10","11","12","13","14","15","16","17"]"#, "stop"),
    (r#""include_stop_str_in_output": 1"#, "include_stop_str_in_output"),
    (r#""ignore_eos": "no""#, "ignore_eos"),
    (r#""stream": "true""#, "stream"),
    (r#""timings": 1"#, "timings"),
    (r#""reply_reserve": -1"#, "reply_reserve"),
    (r#""thinking": 1"#, "thinking"),
    (r#""thinking": {"type": "sometimes"}"#, "thinking.type"),
    (r#""thinking": {"type": 1}"#, "thinking.type"),
    (r#""thinking": {"type": "enabled", "budget_tokens": 0}"#, "thinking.budget_tokens"),
    (r#""think": 1"#, "think"),
    (r#""think": true, "thinking": false"#, "think"),
    (r#""chat_template_kwargs": 1"#, "chat_template_kwargs"),
    (r#""chat_template_kwargs": {"enable_thinking": 1}"#, "chat_template_kwargs.enable_thinking"),
    (r#""reasoning_effort": 1"#, "reasoning_effort"),
    (r#""reasoning_effort": "some""#, "reasoning_effort"),
    (r#""reasoning": 1"#, "reasoning"),
    (r#""reasoning": {"effort": "some"}"#, "reasoning.effort"),
    (r#""output_config": {"effort": 1}"#, "output_config.effort"),
    (r#""thinking_budget": 0"#, "thinking_budget"),
    (r#""max_tokens": -1"#, "max_tokens"),
    (r#""max_tokens": 1.5"#, "max_tokens"),
    (r#""max_tokens": "9""#, "max_tokens"),
    (r#""max_tokens": 0"#, "max_tokens"),
];

const OF_CHATS: &[(&str, &str)] = &[
    (r#""messages": null"#, "messages"),
    (r#""messages": []"#, "messages"),
    (r#""messages": "a""#, "messages"),
    (r#""messages": [1]"#, "messages[0]"),
    (r#""messages": [{}]"#, "messages[0].role"),
    (r#""messages": [{"content": "a"}]"#, "messages[0].role"),
    (r#""messages": [{"role": "king", "content": "a"}]"#, "messages[0].role"),
    (r#""messages": [{"role": 1, "content": "a"}]"#, "messages[0].role"),
    (r#""messages": [{"role": "user", "content": 1}]"#, "messages[0].content"),
    (r#""messages": [{"role": "user", "content": [1]}]"#, "messages[0].content[0]"),
    (r#""messages": [{"role": "user", "content": [{"type": "text"}]}]"#, "messages[0].content[0].text"),
    (r#""messages": [{"role": "user", "content": [{"type": "image_url"}]}]"#, "messages[0].content[0].type"),
    (r#""messages": [{"role": "user", "content": [{"type": "input_audio"}]}]"#, "messages[0].content[0].type"),
    (r#""messages": [{"role": "user", "content": "a"}, {"role": "tool", "content": "b"}]"#, "messages[1].tool_call_id"),
    (
        r#""messages": [{"role": "user", "content": "a"}, {"role": "tool", "tool_call_id": "call_9", "content": "b"}]"#,
        "messages[1].tool_call_id",
    ),
    (r#""messages": [{"role": "assistant", "tool_calls": 1}]"#, "messages[0].tool_calls"),
    (r#""messages": [{"role": "assistant", "tool_calls": [{}]}]"#, "messages[0].tool_calls[0].function"),
    (
        r#""messages": [{"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": 1}}]}]"#,
        "messages[0].tool_calls[0].function.arguments",
    ),
    (r#""n": 0"#, "n"),
    (r#""n": 9"#, "n"),
    (r#""max_completion_tokens": 0"#, "max_completion_tokens"),
    (r#""tools": {}"#, "tools"),
    (r#""tools": [1]"#, "tools[0]"),
    (r#""tools": [{"type": "function"}]"#, "tools[0].function"),
    (r#""tools": [{"type": "function", "function": {}}]"#, "tools[0].function.name"),
    (r#""tools": [{"type": "function", "function": {"name": "a\u0007"}}]"#, "tools[0].function.name"),
    (r#""tools": [{"type": "function", "function": {"name": "a", "parameters": 1}}]"#, "tools[0].function.parameters"),
    (
        r#""tools": [{"type": "function", "function": {"name": "a", "description": 1}}]"#,
        "tools[0].function.description",
    ),
    (r#""tool_choice": 1"#, "tool_choice"),
    (r#""tool_choice": "perhaps""#, "tool_choice"),
    (r#""tool_choice": "required""#, "tool_choice"),
    (r#""tool_choice": {"type": "function", "function": {"name": "b"}}"#, "tool_choice"),
    (r#""tool_choice": {"type": "king"}"#, "tool_choice.type"),
    (r#""parallel_tool_calls": 1"#, "parallel_tool_calls"),
    (r#""response_format": "json""#, "response_format"),
    (r#""response_format": {"type": "xml"}"#, "response_format.type"),
    (r#""response_format": {"type": "json_schema"}"#, "response_format.json_schema"),
    (r#""response_format": {"type": "json_schema", "json_schema": {}}"#, "response_format.json_schema.schema"),
    (
        r#""response_format": {"type": "json_schema", "json_schema": {"schema": 1}}"#,
        "response_format.json_schema.schema",
    ),
    (
        r#""response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "king"}}}"#,
        "response_format.json_schema.schema.type",
    ),
    (
        r##""response_format": {"type": "json_schema", "json_schema": {"schema": {"$ref": "#/$defs/a"}}}"##,
        "response_format",
    ),
    (
        r#""response_format": {"type": "json_schema", "json_schema": {"strict": true, "schema": {"type": "string", "pattern": "("}}}"#,
        "response_format",
    ),
    (
        r#""response_format": {"type": "json_schema", "json_schema": {"strict": true, "schema": {"not": {}}}}"#,
        "response_format",
    ),
    (r#""guided_regex": "(""#, "response_format"),
    (r#""guided_choice": []"#, "response_format"),
    (r#""guided_choice": [1]"#, "guided_choice"),
    (r#""grammar": "start: nothing""#, "response_format"),
    (r#""logprobs": 1"#, "logprobs"),
    (r#""top_logprobs": 1"#, "top_logprobs"),
    (r#""logprobs": true, "top_logprobs": 21"#, "top_logprobs"),
    (r#""audio": {}"#, "audio"),
    (r#""modalities": ["audio"]"#, "modalities"),
    (r#""functions": []"#, "functions"),
    (r#""web_search_options": {}"#, "web_search_options"),
    (r#""stream_options": 1"#, "stream_options"),
    (r#""stream_options": {"include_usage": 1}"#, "stream_options.include_usage"),
    (r#""return_progress": 1"#, "return_progress"),
    (r#""continue_final_message": 1"#, "continue_final_message"),
];

const OF_COMPLETIONS: &[(&str, &str)] = &[
    (r#""prompt": null"#, "prompt"),
    (r#""prompt": 1"#, "prompt"),
    (r#""prompt": []"#, "prompt"),
    (r#""prompt": [[]]"#, "prompt"),
    (r#""prompt": [1, "a"]"#, "prompt"),
    (r#""prompt": ["a", 1]"#, "prompt"),
    (r#""prompt": [-1]"#, "prompt"),
    (r#""prompt": [99999999]"#, "prompt"),
    (r#""prompt": [1.5]"#, "prompt"),
    (r#""suffix": "b""#, "suffix"),
    (r#""n": 9"#, "n"),
    (r#""best_of": 3"#, "best_of"),
    (r#""echo": 1"#, "echo"),
    (r#""logprobs": true"#, "logprobs"),
    (r#""logprobs": 21"#, "logprobs"),
    (r#""template": "jinja""#, "template"),
    (r#""parse_special": 1"#, "parse_special"),
    (r#""stream_options": 1"#, "stream_options"),
];

const OF_RESPONSES: &[(&str, &str)] = &[
    (r#""input": null"#, "input"),
    (r#""input": 1"#, "input"),
    (r#""input": []"#, "input"),
    (r#""input": [1]"#, "input[0]"),
    (r#""input": [{"type": "king"}]"#, "input[0].type"),
    (r#""input": [{"role": "king", "content": "a"}]"#, "input[0].role"),
    (r#""input": [{"role": "user", "content": [{"type": "input_image"}]}]"#, "input[0].content[0].type"),
    (r#""input": [{"type": "function_call", "call_id": "a"}]"#, "input[0].name"),
    (r#""input": [{"role": "user", "content": "a"}, {"type": "function_call_output", "call_id": "b"}]"#, "input[1]"),
    (r#""input": [{"type": "message", "role": "user", "content": "a", "status": "in_progress"}]"#, "input[0].status"),
    (r#""input": [{"type": "item_reference", "id": "a"}]"#, "input[0].id"),
    (r#""instructions": 1"#, "instructions"),
    (r#""max_output_tokens": 0"#, "max_output_tokens"),
    (r#""max_tool_calls": 0"#, "max_tool_calls"),
    (r#""conversation": "a""#, "conversation"),
    (r#""prompt": {}"#, "prompt"),
    (r#""background": true"#, "background"),
    (r#""background": 1"#, "background"),
    (r#""metadata": 1"#, "metadata"),
    (r#""store": 1"#, "store"),
    (r#""truncation": "some""#, "truncation"),
    (r#""include": 1"#, "include"),
    (r#""top_logprobs": 21"#, "top_logprobs"),
    (r#""tools": [1]"#, "tools[0]"),
    (r#""tools": [{"type": "function"}]"#, "tools[0].name"),
    (r#""tool_choice": "perhaps""#, "tool_choice"),
    (r#""tool_choice": {"type": "function", "name": "b"}"#, "tool_choice"),
    (r#""text": 1"#, "text"),
    (r#""text": {"format": {"type": "xml"}}"#, "text.format.type"),
    (r#""text": {"format": {"type": "json_schema", "name": "a", "schema": {"type": "king"}}}"#, "text.format"),
];

const OF_MESSAGES: &[(&str, &str)] = &[
    (r#""messages": null"#, "messages"),
    (r#""messages": []"#, "messages"),
    (r#""messages": [{"role": "tool", "content": "a"}]"#, "messages[0].role"),
    (r#""messages": [{"role": "user"}]"#, "messages[0].content"),
    (r#""messages": [{"role": "user", "content": 1}]"#, "messages[0].content"),
    (r#""messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]"#, "messages[0].content[0].type"),
    (
        r#""messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "tool_result"}]}]"#,
        "messages[0].content[1].tool_use_id",
    ),
    (
        r#""messages": [{"role": "user", "content": "a"},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_9"}]}]"#,
        "toolu_9",
    ),
    (r#""messages": [{"role": "assistant", "content": [{"type": "tool_use"}]}]"#, "messages[0].content[0].id"),
    (
        r#""messages": [{"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "b", "input": 1}]}]"#,
        "messages[0].content[0].input",
    ),
    (r#""system": 1"#, "system"),
    (r#""system": [{"type": "image"}]"#, "system[0].type"),
    (r#""stop_sequences": 1"#, "stop_sequences"),
    (r#""tools": [{"input_schema": {}}]"#, "tools[0].name"),
    (r#""tools": [{"name": "a", "input_schema": 1}]"#, "tools[0].input_schema"),
    (r#""tool_choice": "auto""#, "tool_choice"),
    (r#""tool_choice": {"type": "king"}"#, "tool_choice.type"),
    (r#""tool_choice": {"type": "tool"}"#, "tool_choice.name"),
    (r#""tool_choice": {"type": "any"}"#, "tool_choice"),
    (r#""output_config": {"format": {"type": "xml"}}"#, "output_config.format.type"),
    (r#""output_config": {"format": {"type": "json_schema", "schema": {"type": "king"}}}"#, "output_config.format"),
    (r#""thinking": {"type": "enabled", "display": "loud"}"#, "thinking.display"),
];

/// An error in the words of the path's API; the message.
fn refusal(path: &str, answer: &Answer, what: &str) -> String {
    let body = answer.json();
    let error = &body["error"];
    if path.starts_with(MESSAGES) {
        assert_eq!(body["type"], "error", "{what}");
        assert!(body["request_id"].as_str().is_some_and(|id| !id.is_empty()), "{what}");
    } else {
        let members: Vec<&String> = error.as_object().expect(what).keys().collect();
        assert!(["message", "type", "param", "code"].iter().all(|name| members.iter().any(|m| m == name)), "{what}");
    }
    assert_eq!(error["type"], "invalid_request_error", "{what}");
    error["message"].as_str().expect(what).to_owned()
}

#[tokio::test]
async fn every_field_of_the_wrong_kind_is_named() {
    let server = Server::saying("fine.");
    let mut unnamed = Vec::new();
    for ((path, base), own) in APIS.iter().zip([OF_CHATS, OF_COMPLETIONS, OF_RESPONSES, OF_MESSAGES]) {
        let good = server.send("POST", path, format!("{{{base}}}")).await;
        assert_eq!(good.status, StatusCode::OK, "{}", good.text);
        for (wrong, place) in EVERYWHERE.iter().chain(own) {
            // The last of two members of one name counts.
            let what = format!("{path} {{{base}, {wrong}}}");
            let answer = server.send("POST", path, format!("{{{base}, {wrong}}}")).await;
            if answer.status != StatusCode::BAD_REQUEST {
                unnamed.push(format!("{what}: {} {}", answer.status, answer.text));
                continue;
            }
            let message = refusal(path, &answer, &what);
            let param = answer.json()["error"]["param"].as_str().unwrap_or_default().to_owned();
            if !message.contains(place) && !param.contains(place) {
                unnamed.push(format!("{what}: {param}: {message}"));
            }
        }
    }
    assert!(unnamed.is_empty(), "{}", unnamed.join("\n"));
}

#[tokio::test]
async fn what_is_no_object_at_all_is_refused() {
    let server = Server::saying("fine.");
    let deep = |n: usize| format!("{{\"x\": {}{}}}", "[".repeat(n), "]".repeat(n));
    let bodies: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"{".to_vec(),
        b"[]".to_vec(),
        b"null".to_vec(),
        b"1".to_vec(),
        b"{} {}".to_vec(),
        b"{'a': 1}".to_vec(),
        b"{\"a\": 1,}".to_vec(),
        b"{\"a\": NaN}".to_vec(),
        b"{\"a\": -}".to_vec(),
        b"{\"a\": 01}".to_vec(),
        b"{\"a\": \"\xff\"}".to_vec(),
        b"{\"a\": \"\xed\xa0\x80\"}".to_vec(),
        b"{\"a\": \"\\ud800\"}".to_vec(),
        b"{\"a\": \"\\x\"}".to_vec(),
        b"{\"a\": \"\x01\"}".to_vec(),
        b"\xff\xfe{\0}\0".to_vec(),
        deep(64).into_bytes(),
        "[".repeat(1 << 20).into_bytes(),
        "{\"a\":".repeat(1 << 18).into_bytes(),
    ];
    for (path, base) in APIS {
        for body in &bodies {
            let shown = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
            let answer = server.bytes(path, body.clone()).await;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path} {shown:?}: {}", answer.text);
            refusal(path, &answer, &shown);
        }
        let allowed = format!("{{{base}, \"x\": {}{}}}", "[".repeat(63), "]".repeat(63));
        assert_eq!(server.send("POST", path, allowed).await.status, StatusCode::OK, "{path}");
    }
}

#[test]
fn bodies_that_say_how_large_they_are_are_refused_at_once() {
    let live = Live::start(ServerConfig { max_body: 100_000, ..live::config() });
    for (path, _) in APIS {
        let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n");
        let started = Instant::now();
        // Nothing of the body comes.
        let mut stream = live.connect();
        stream.write_all(format!("{head}Content-Length: 100001\r\n\r\n").as_bytes()).expect("sent");
        let mut first = [0; 12];
        stream.read_exact(&mut first).expect("an answer");
        assert_eq!(&first, b"HTTP/1.1 413", "{path}");
        assert!(started.elapsed() < Duration::from_secs(2), "{path}: {:?}", started.elapsed());
        // All of it comes, and more than the system keeps: the answer is there all the same.
        let all = format!("{head}Content-Length: 30000000\r\n\r\n{}", "a".repeat(30_000_000));
        let answer = live.raw(all);
        assert_eq!((answer.status, answer.header("connection")), (413, Some("close")), "{path}");
        let error = &answer.json()["error"];
        let said = if path == MESSAGES { &error["type"] } else { &error["code"] };
        assert_eq!(said, "request_too_large", "{path}");
    }
    assert_eq!(live.get("/health").status, 200);
}

#[test]
fn heads_that_could_mean_two_things_are_refused() {
    let live = Live::start(live::config());
    let smuggled = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let long = smuggled.len();
    let post = "POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    let cases = [
        format!("{post}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("{post}Transfer-Encoding: chunked\r\nContent-Length: {long}\r\n\r\n{smuggled}"),
        format!("{post}Content-Length: 0\r\nContent-Length: {long}\r\n\r\n{smuggled}"),
        format!("{post}Content-Length: {long}\r\nContent-Length: {long}\r\n\r\n{smuggled}"),
        format!("{post}Content-Length: 0, {long}\r\n\r\n{smuggled}"),
        format!("{post}Content-Length: +2\r\n\r\n{{}}{smuggled}"),
        format!("{post}Content-Length: -1\r\n\r\n{smuggled}"),
        format!("{post}Content-Length: 0x2\r\n\r\n{{}}{smuggled}"),
        format!("{post}Content-Length: 99999999999999999999\r\n\r\n{smuggled}"),
        format!("{post}Content-Length : 2\r\n\r\n{{}}{smuggled}"),
        format!("{post}X: a\r\n Content-Length: 2\r\n\r\n{{}}{smuggled}"),
        format!("{post}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("{post}Transfer-Encoding: identity\r\n\r\n{smuggled}"),
        format!("{post}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("{post}Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("{post}Transfer-Encoding: chunked\r\n\r\n2x\r\n{{}}\r\n0\r\n\r\n{smuggled}"),
        format!("{post}Transfer-Encoding: chunked\r\n\r\n-1\r\n{{}}\r\n0\r\n\r\n{smuggled}"),
        format!("{post}Transfer-Encoding: chunked\r\n\r\n10000000000000002\r\n{{}}\r\n0\r\n\r\n{smuggled}"),
        format!("{post}Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}x0\r\n\r\n{smuggled}"),
        post.replace("HTTP/1.1", "HTTP/1.0") + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled,
        format!("{post}Host: evil.example\r\nContent-Length: 0\r\n\r\n{smuggled}"),
        format!("{post}X: a\0b\r\n\r\n{smuggled}"),
        format!("{post}X\r\n\r\n{smuggled}"),
        format!(" {smuggled}"),
        smuggled.replace("GET ", "GET  "),
        smuggled.replace("HTTP/1.1", "HTTP/3.1"),
        smuggled.replace("GET", "G\x01T"),
    ];
    for case in cases {
        let mut stream = live.connect();
        stream.write_all(case.as_bytes()).expect("sent");
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.starts_with("HTTP/1.1 4") || text.starts_with("HTTP/1.0 4"), "{case:?}: {text}");
        assert_eq!(text.matches("HTTP/1.").count(), 1, "{case:?}: {text}");
    }
    assert_eq!(live.get("/health").status, 200);
}

/// A sequence that only its seed decides.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides as u64) as usize
    }

    fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.roll(all.len())]
    }

    /// Spoils a text in one to four places.
    fn spoil(&mut self, text: &[u8], words: &[&[u8]]) -> Vec<u8> {
        let mut text = text.to_vec();
        for _ in 0..=self.roll(4) {
            let at = self.roll(text.len() + 1);
            let end = (at + 1 + self.roll(24)).min(text.len());
            match self.roll(6) {
                0 => text.truncate(at),
                1 => drop(text.drain(at..end)),
                2 => {
                    let twice = text[at..end].to_vec();
                    text.splice(at..at, twice);
                }
                3 if at < text.len() => text[at] = self.roll(256) as u8,
                4 => drop(text.splice(at..end, self.pick(words).iter().copied())),
                _ => drop(text.splice(at..at, self.pick(words).iter().copied())),
            }
        }
        text
    }
}

const SEED: u64 = 0x0005_eed0_fd54;

const WORDS: &[&[u8]] = &[
    b"null",
    b"-1",
    b"0",
    b"1e400",
    b"1e-400",
    b"18446744073709551616",
    b"\"\"",
    b"\"\\ud800\"",
    b"\\",
    b"\"",
    b"[[[[",
    b"]",
    b"{\"\":",
    b"}",
    b",",
    b":",
    b"true",
    b"\xff\xfe",
    b"\xe2\x80",
    b"\xef\xbb\xbf",
    b"\0",
    b"{}",
    b"[]",
    b"\"role\":\"tool\"",
    b"\"type\":\"tool_result\"",
    b"\"tool_choice\":\"required\"",
    b"\"n\":8",
    "<｜DSML｜".as_bytes(),
    b"\"$ref\":\"#\"",
];

const BODIES: &[(&str, &str)] = &[
    (
        CHAT,
        r#"{"model": "m", "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text",
        "text": "a"}]}, {"role": "assistant", "reasoning_content": "r", "tool_calls": [{"id": "c", "type": "function",
        "function": {"name": "f", "arguments": "{\"x\": 1}"}}]}, {"role": "tool", "tool_call_id": "c", "content": "b"}],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties":
        {"x": {"type": "integer"}}}}}], "tool_choice": "auto", "temperature": 0.5, "stop": ["x"], "logprobs": true,
        "top_logprobs": 2, "logit_bias": {"5": 1}, "seed": 7, "n": 2, "max_tokens": 9, "stream": false}"#,
    ),
    (
        CHAT,
        r##"{"messages": [{"role": "user", "content": "a"}], "response_format": {"type": "json_schema", "json_schema":
        {"name": "n", "strict": true, "schema": {"type": "object", "properties": {"a": {"enum": ["b", 1, null]}, "c":
        {"type": "array", "items": {"$ref": "#/$defs/d"}, "maxItems": 2}}, "required": ["a"], "additionalProperties": false,
        "$defs": {"d": {"type": "string", "pattern": "^x+$", "maxLength": 3}}}}}, "thinking": {"type": "disabled"}}"##,
    ),
    (
        COMPLETIONS,
        r#"{"prompt": ["a", "b"], "echo": true, "logprobs": 2, "max_tokens": 3, "n": 2, "stop": "x", "template": "raw",
        "parse_special": true, "best_of": 2, "stream": true, "stream_options": {"include_usage": true}}"#,
    ),
    (
        RESPONSES,
        r#"{"input": [{"role": "user", "content": [{"type": "input_text", "text": "a"}]}, {"type": "reasoning", "summary":
        [{"type": "summary_text", "text": "r"}], "encrypted_content": "ds4r1.AAAA"}, {"type": "function_call", "call_id":
        "c", "name": "f", "arguments": "{}"}, {"type": "function_call_output", "call_id": "c", "output": "b"}],
        "instructions": "s", "tools": [{"type": "function", "name": "f", "parameters": {}}, {"type": "custom", "name": "g"}],
        "reasoning": {"effort": "low", "summary": "auto"}, "text": {"format": {"type": "text"}}, "store": true,
        "include": ["reasoning.encrypted_content"], "max_output_tokens": 9, "truncation": "auto"}"#,
    ),
    (
        MESSAGES,
        r#"{"max_tokens": 9, "system": [{"type": "text", "text": "s", "cache_control": {}}], "messages": [{"role": "user",
        "content": "a"}, {"role": "assistant", "content": [{"type": "thinking", "thinking": "r", "signature": "ds4r1.A"},
        {"type": "tool_use", "id": "c", "name": "f", "input": {"x": [1]}}]}, {"role": "user", "content": [{"type":
        "tool_result", "tool_use_id": "c", "content": [{"type": "text", "text": "b"}], "is_error": true}]}], "tools":
        [{"name": "f", "input_schema": {"type": "object"}}], "tool_choice": {"type": "auto"}, "thinking": {"type":
        "enabled", "budget_tokens": 1024}, "stop_sequences": ["x"], "stream": true}"#,
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nine_thousand_spoilt_bodies_are_survived() {
    let server = Server::scripted(r#"{"reply": "fine."}"#, ServerConfig { max_tokens: 20, ..config() });
    let (mut dice, mut taken, mut refused) = (Dice(SEED), 0, 0);
    for round in 0..9000 {
        let (path, body) = dice.pick(BODIES);
        let body = dice.spoil(body.as_bytes(), WORDS);
        let answer = server.bytes(path, body.clone()).await;
        let what =
            format!("seed {SEED:#x}, round {round}: {path} {:?}: {}", String::from_utf8_lossy(&body), answer.text);
        match answer.status {
            StatusCode::OK => taken += 1,
            status => {
                assert!(status.is_client_error(), "{status}: {what}");
                refusal(path, &answer, &what);
                refused += 1;
            }
        }
    }
    assert!(taken > 100 && refused > 4000, "both happen: {taken} and {refused}");
    for (path, base) in APIS {
        assert_eq!(server.send("POST", path, format!("{{{base}}}")).await.status, StatusCode::OK);
    }
}

#[test]
fn a_thousand_spoilt_requests_are_survived() {
    let live = Live::start(ServerConfig { io_timeout: Duration::from_secs(1), max_tokens: 20, ..live::config() });
    let body = json!({"prompt": "SHORT", "max_tokens": 3}).to_string();
    let request = format!(
        "POST /v1/completions?a=b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nX-Request-Id: a\r\n\
         Authorization: Bearer b\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let words: &[&[u8]] = &[
        b"\r\n",
        b"\r",
        b"\n",
        b"\r\n\r\n",
        b":",
        b" ",
        b"\0",
        b"\xff",
        b"%00",
        b"%ff",
        b"/../",
        b"HTTP/1.0",
        b"HTTP/0.9",
        b"Transfer-Encoding: chunked\r\n",
        b"Content-Length: 0\r\n",
        b"Expect: 100-continue\r\n",
        b"Upgrade: h2c\r\n",
        b"Connection: keep-alive, close\r\n",
        b"Host:\r\n",
        b"Origin: null\r\n",
        b"9999999999",
        b"-1",
    ];
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (live, request) = (&live, request.as_bytes());
            scope.spawn(move || {
                let mut dice = Dice(SEED + thread);
                for _ in 0..125 {
                    let mut stream = live.connect();
                    let spoilt = dice.spoil(request, words);
                    // A server that refuses early may close early.
                    let _ = stream.write_all(&spoilt);
                    let _ = stream.shutdown(Shutdown::Write);
                    let mut answer = Vec::new();
                    let _ = stream.read_to_end(&mut answer);
                    let text = String::from_utf8_lossy(&answer);
                    assert!(
                        !text.starts_with("HTTP/1.1 5"),
                        "seed {SEED:#x}: {:?}: {text}",
                        String::from_utf8_lossy(&spoilt)
                    );
                }
            });
        }
    });
    let good: Value = live.post(CHAT, &chat("SHORT", false)).json();
    assert_eq!(good["choices"][0]["message"]["content"], "fine.");
}
