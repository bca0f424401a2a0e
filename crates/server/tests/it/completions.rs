//! `/v1/completions`: prompts that are repeated and judged.

use serde_json::{Value, json};

use crate::support::{Server, TOKENIZER, config};

const PATH: &str = "/v1/completions";
const PROMPT: &str = "Grüße, and once more: hello hello";

/// What the lists say must fit the text, token by token.
fn check(choice: &Value, prompt: usize, all: usize) {
    let text: Vec<char> = choice["text"].as_str().unwrap().chars().collect();
    let list = |name: &str| choice["logprobs"][name].as_array().unwrap().clone();
    let (tokens, logprobs, top, offsets) =
        (list("tokens"), list("token_logprobs"), list("top_logprobs"), list("text_offset"));
    assert_eq!([tokens.len(), logprobs.len(), top.len(), offsets.len()], [all; 4]);
    for i in 0..all {
        let (token, at) = (tokens[i].as_str().unwrap(), offsets[i].as_u64().unwrap() as usize);
        if token.contains('\u{fffd}') {
            continue;
        }
        let found: String = text[at..at + token.chars().count()].iter().collect();
        assert_eq!(found, token, "token {i} of {all}");
    }
    assert!(logprobs[0].is_null() || prompt == 0, "nothing stands before the first token");
    assert_eq!(top[0].is_null(), prompt > 0);
    assert!(logprobs.iter().skip(1).all(|p| p.as_f64().is_some_and(|p| p <= 0.0)), "{logprobs:?}");
    assert!(top.iter().skip(1).all(|t| t.as_object().is_some_and(|t| t.len() <= 2 && !t.is_empty())), "{top:?}");
}

#[tokio::test]
async fn a_prompt_is_repeated_with_what_the_model_says_of_it() {
    let server = Server::miniature(config());
    let ids = TOKENIZER.encode_plain(PROMPT);
    let body = json!({"prompt": PROMPT, "echo": true, "logprobs": 2, "max_tokens": 3, "temperature": 0});
    let whole = server.ask(PATH, &body).await;
    let choice = &whole["choices"][0];
    assert!(choice["text"].as_str().unwrap().starts_with(PROMPT));
    check(choice, ids.len(), ids.len() + whole["usage"]["completion_tokens"].as_u64().unwrap() as usize);
    // The first token is judged by nothing, the second by the first: as if the prompt had been an answer so far.
    let alone = server.ask(PATH, &json!({"prompt": PROMPT, "logprobs": 2, "max_tokens": 3, "temperature": 0})).await;
    let (answer, n) = (&alone["choices"][0]["logprobs"], ids.len());
    assert_eq!(answer["token_logprobs"][0], choice["logprobs"]["token_logprobs"][n]);
    assert_eq!(answer["text_offset"][0], 0);

    // Ids of the client's are repeated as they are, and so is a beginning that is among them.
    let mut own = vec![TOKENIZER.special().bos];
    own.extend(&ids);
    let body = json!({"prompt": own, "echo": true, "logprobs": 2, "max_tokens": 0});
    let scored = server.ask(PATH, &body).await;
    let list = scored["choices"][0]["logprobs"]["token_logprobs"].as_array().unwrap().clone();
    assert_eq!(list.len(), own.len());
    let expected = choice["logprobs"]["token_logprobs"].as_array().unwrap();
    assert_eq!(list[2..], expected[1..n], "the same tokens after the same beginning");
}

#[tokio::test]
async fn nothing_to_say_scores_the_prompt_alone() {
    let server = Server::saying("never said");
    let ids = TOKENIZER.encode_plain(PROMPT);
    let body = json!({"prompt": [PROMPT, "another"], "echo": true, "logprobs": 1, "max_tokens": 0});
    let whole = server.ask(PATH, &body).await;
    assert_eq!((&whole["choices"][0]["text"], &whole["choices"][1]["text"]), (&json!(PROMPT), &json!("another")));
    assert_eq!(whole["choices"][0]["finish_reason"], "length");
    check(&whole["choices"][0], ids.len(), ids.len());
    assert_eq!(whole["usage"]["completion_tokens"], 0);
    // Without an echo nothing would come of it.
    let refused = server.post(PATH, &json!({"prompt": PROMPT, "max_tokens": 0})).await;
    assert_eq!((refused.status.as_u16(), &refused.json()["error"]["param"]), (400, &json!("max_tokens")));
    // One token has nothing before it.
    let one = server.ask(PATH, &json!({"prompt": [ids[0]], "echo": true, "logprobs": 1, "max_tokens": 0})).await;
    assert_eq!(one["choices"][0]["logprobs"]["token_logprobs"], json!([null]));
}

#[tokio::test]
async fn a_stream_repeats_the_prompt_first() {
    let server = Server::miniature(config());
    let ids = TOKENIZER.encode_plain(PROMPT);
    let body = json!({"prompt": PROMPT, "echo": true, "logprobs": 1, "n": 2, "max_tokens": 4, "temperature": 0});
    let whole = server.ask(PATH, &body).await;
    let events = server.stream(PATH, &body).await.events();
    assert_eq!(events.last().unwrap().1, "[DONE]");
    for index in 0..2 {
        let mine: Vec<&Value> =
            events.iter().map(|(_, data)| &data["choices"][0]).filter(|choice| choice["index"] == index).collect();
        let text: String = mine.iter().map(|choice| choice["text"].as_str().unwrap()).collect();
        assert_eq!(whole["choices"][index]["text"], text);
        assert_eq!(mine[0]["text"], PROMPT);
        assert_eq!(mine[0]["logprobs"]["tokens"].as_array().unwrap().len(), ids.len());
        for name in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
            let joined: Vec<&Value> =
                mine.iter().filter_map(|choice| choice["logprobs"][name].as_array()).flatten().collect();
            let expected: Vec<&Value> = whole["choices"][index]["logprobs"][name].as_array().unwrap().iter().collect();
            assert_eq!(joined, expected, "{name}");
        }
    }
}

#[tokio::test]
async fn a_greedy_answer_is_the_same_with_and_without_log_probabilities() {
    for server in [Server::saying("some words, and some more of them"), Server::miniature(config())] {
        let body = json!({"prompt": PROMPT, "max_tokens": 24, "temperature": 0});
        let plain = server.ask(PATH, &body).await;
        let judged =
            server.ask(PATH, &json!({"prompt": PROMPT, "max_tokens": 24, "temperature": 0, "logprobs": 1})).await;
        assert_eq!(judged["choices"][0]["text"], plain["choices"][0]["text"]);
        assert_eq!(judged["choices"][0]["finish_reason"], plain["choices"][0]["finish_reason"]);
        assert_eq!(judged["usage"]["completion_tokens"], plain["usage"]["completion_tokens"]);
        assert!(plain["usage"]["completion_tokens"].as_u64().unwrap() > 1);
    }
}
