//! Whatever is said and however it is cut into tokens: streams say what whole answers say.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::replay::{assert_met, continued};
use crate::spoken::{Spoken, cut};
use crate::support::{Call, Server, block, config};
use crate::{messages, responses};

#[derive(Clone, Debug)]
struct Said {
    thinking: String,
    text: String,
    calls: Vec<(String, String, i64)>,
    limit: u32,
    cuts: Vec<usize>,
}

fn said() -> impl Strategy<Value = Said> {
    let text = "[a-zé😀\"\\\\ <&\n]{0,24}";
    let calls = prop::collection::vec(("weather|other", "[a-zß😀\"\\\\ <&\n]{0,16}", any::<i64>()), 0..3);
    let cuts = prop::collection::vec(0_usize..8, 1..20);
    (text, text, calls, prop_oneof![Just(2000_u32), 1_u32..60], cuts)
        .prop_map(|(thinking, text, calls, limit, cuts)| Said { thinking, text, calls, limit, cuts })
}

impl Said {
    fn server(&self) -> Server {
        let mut reply = format!("{}</think>{}", self.thinking, self.text.trim());
        if !self.calls.is_empty() {
            let days: Vec<String> = self.calls.iter().map(|call| call.2.to_string()).collect();
            let calls: Vec<[(&str, bool, &str); 2]> = self
                .calls
                .iter()
                .zip(&days)
                .map(|((_, city, _), days)| [("city", true, city.as_str()), ("days", false, days.as_str())])
                .collect();
            let named: Vec<Call<'_>> =
                self.calls.iter().zip(&calls).map(|((name, ..), call)| (name.as_str(), &call[..])).collect();
            reply += &block(&named);
        }
        let mut cuts = self.cuts.iter().cycle();
        Server::over(Box::new(Spoken::new(cut(&reply, || *cuts.next().unwrap()))), config())
    }

    /// However it was cut, a whole turn meets its state when it comes back.
    async fn resend(&self, body: &Value) {
        let server = self.server();
        let message = server.ask("/v1/messages", body).await;
        let mut next = continued(body.clone(), &message, |_| {});
        match message["stop_reason"].as_str().unwrap() {
            "tool_use" => {}
            "end_turn" => next["messages"][2] = json!({"role": "user", "content": "go on"}),
            _ => return,
        }
        next["max_tokens"] = 1.into();
        assert_met(&server.ask("/v1/messages", &next).await, &message.to_string());
    }

    async fn check(&self) {
        let parameters = json!({"type": "object"});
        let user = json!([{"role": "user", "content": "x"}]);
        let body = json!({"messages": user, "max_tokens": self.limit, "reply_reserve": 0, "stop_sequences": ["é<"],
            "tools": [{"name": "weather", "input_schema": parameters}]});
        let whole = self.server().ask("/v1/messages", &body).await;
        let stream = self.server().stream("/v1/messages", &body).await;
        assert_eq!(messages::comparable(&messages::accumulated(&stream.events())), messages::comparable(&whole));
        self.resend(&body).await;
        let body = json!({"input": user, "max_output_tokens": self.limit, "reply_reserve": 0,
            "reasoning": {"summary": "auto"}, "tools": [{"type": "function", "name": "weather", "parameters": parameters}]});
        let whole = self.server().ask("/v1/responses", &body).await;
        let stream = self.server().stream("/v1/responses", &body).await;
        assert_eq!(responses::comparable(&responses::accumulated(&stream.events())), responses::comparable(&whole));
        let tool = json!({"type": "function", "function": {"name": "weather", "parameters": parameters}});
        let body = json!({"messages": user, "max_tokens": self.limit, "reply_reserve": 0, "tools": [tool]});
        let whole = self.server().ask("/v1/chat/completions", &body).await;
        let stream = self.server().stream("/v1/chat/completions", &body).await;
        assert_eq!(chat(&stream.events()), comparable_chat(&whole["choices"][0]));
    }
}

/// Text, reasoning, calls and reason of a stream of chunks.
fn chat(events: &[(String, Value)]) -> Value {
    let (mut text, mut thinking) = (String::new(), String::new());
    let mut calls: Vec<(Value, String)> = Vec::new();
    let mut reason = Value::Null;
    for (i, (name, chunk)) in events.iter().enumerate() {
        assert_eq!(name, "");
        if chunk == "[DONE]" {
            assert_eq!(i + 1, events.len());
            break;
        }
        let choice = &chunk["choices"][0];
        assert!(reason.is_null(), "nothing follows the reason");
        reason = choice["finish_reason"].clone();
        let delta = &choice["delta"];
        text += delta["content"].as_str().unwrap_or_default();
        thinking += delta["reasoning_content"].as_str().unwrap_or_default();
        if let Some(call) = delta["tool_calls"].get(0) {
            if call["id"].is_string() {
                assert_eq!(call["index"], calls.len());
                calls.push((call["function"]["name"].clone(), String::new()));
            }
            calls.last_mut().unwrap().1 += call["function"]["arguments"].as_str().unwrap();
        }
    }
    json!([text, thinking, calls, reason])
}

fn comparable_chat(choice: &Value) -> Value {
    let message = &choice["message"];
    let calls: Vec<(Value, String)> = message["tool_calls"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|call| (call["function"]["name"].clone(), call["function"]["arguments"].as_str().unwrap().to_owned()))
        .collect();
    let text = message["content"].as_str().unwrap_or_default();
    let thinking = message["reasoning_content"].as_str().unwrap_or_default();
    json!([text, thinking, calls, choice["finish_reason"]])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn streams_say_what_whole_answers_say(said in said()) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(said.check());
    }
}
