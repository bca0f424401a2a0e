//! Call blocks that the model gets wrong, over a model that would say the same again.

use serde_json::{Value, json};

use crate::support::Server;

const OPENER: &str = "Let me see.\n\n<｜DSML｜tool_calls>\n";

fn body() -> Value {
    let city = json!({"type": "object", "properties": {"city": {"type": "string"}}});
    json!({
        "messages": [{"role": "user", "content": "What is the weather?"}], "thinking": false, "temperature": 0,
        "max_tokens": 300, "tools": [{"type": "function", "function": {"name": "weather", "parameters": city}}],
    })
}

fn saying(block: &str) -> Server {
    Server::saying(&format!("{OPENER}{block}"))
}

/// A block whose call is not in quotes, and would be well-formed otherwise.
const UNQUOTED: &str = "<｜DSML｜invoke name=weather>\n<｜DSML｜parameter name=\"city\" string=\"true\">Rome</｜DSML｜parameter>\n\
    </｜DSML｜invoke>\n</｜DSML｜tool_calls>";

#[tokio::test]
async fn a_call_that_cannot_be_read_is_written_again_as_the_tools_say() {
    let server = saying(UNQUOTED);
    let answer = server.ask("/v1/chat/completions", &body()).await;
    let choice = &answer["choices"][0];
    assert_eq!(
        (&choice["finish_reason"], &choice["message"]["content"]),
        (&json!("tool_calls"), &json!("Let me see."))
    );
    let call = &choice["message"]["tool_calls"][0]["function"];
    assert_eq!(call["name"], "weather", "{choice}");
    let arguments: Value = serde_json::from_str(call["arguments"].as_str().unwrap()).expect("an object");
    assert!(arguments.is_object());
    let metrics = server.send("GET", "/metrics", String::new()).await.text;
    assert!(metrics.contains("tool_parse_total{") && metrics.contains("result=\"retried\"} 1"), "{metrics}");
}

#[tokio::test]
async fn a_stream_shows_nothing_of_the_block_that_was_taken_back() {
    let server = saying(UNQUOTED);
    let whole = server.ask("/v1/chat/completions", &body()).await;
    let events = server.stream("/v1/chat/completions", &body()).await.events();
    let deltas: Vec<&Value> = events.iter().map(|(_, data)| &data["choices"][0]["delta"]).collect();
    let joined =
        |read: fn(&Value) -> &Value| deltas.iter().filter_map(|delta| read(delta).as_str()).collect::<String>();
    assert_eq!(joined(|delta| &delta["content"]), "Let me see.");
    let function = &whole["choices"][0]["message"]["tool_calls"][0]["function"];
    assert_eq!(joined(|delta| &delta["tool_calls"][0]["function"]["name"]), function["name"].as_str().unwrap());
    let arguments = joined(|delta| &delta["tool_calls"][0]["function"]["arguments"]);
    assert_eq!(arguments, function["arguments"].as_str().unwrap());
}

#[tokio::test]
async fn the_turn_that_is_remembered_is_the_one_that_was_delivered() {
    let server = saying(UNQUOTED);
    let mut body = body();
    let answer = server.ask("/v1/chat/completions", &body).await;
    let (message, usage) = (&answer["choices"][0]["message"], &answer["usage"]);
    let messages = body["messages"].as_array_mut().unwrap();
    messages.push(message.clone());
    messages.push(json!({"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "sunny"}));
    let prompt = usage["prompt_tokens"].as_u64().unwrap();
    let next = server.ask("/v1/chat/completions", &body).await;
    let cached = next["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
    // Behind the prompt there are the text, the marker and more of the block.
    assert!(cached > prompt + 10, "{cached} of the first turn's {prompt} and its answer: {usage}");
}

#[tokio::test]
async fn log_probabilities_are_those_of_the_text_that_stays() {
    let mut body = body();
    (body["logprobs"], body["top_logprobs"]) = (json!(true), json!(0));
    let answer = saying(UNQUOTED).ask("/v1/chat/completions", &body).await;
    let tokens = answer["choices"][0]["logprobs"]["content"].as_array().unwrap();
    let text: String = tokens.iter().map(|token| token["token"].as_str().unwrap()).collect();
    assert_eq!(text.trim_end(), "Let me see.", "the last token has the white space, too");
}

#[tokio::test]
async fn a_block_without_tools_to_write_it_for_is_text() {
    let mut body = body();
    body.as_object_mut().unwrap().remove("tools");
    let answer = saying(UNQUOTED).ask("/v1/chat/completions", &body).await;
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert!(answer["choices"][0]["message"]["content"].as_str().unwrap().contains("name=weather"));
}
