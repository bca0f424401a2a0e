//! The miniature under constraints, through the engine's door.

use std::sync::{Arc, LazyLock, mpsc};

use ds4_cpu::{Options, load};
use ds4_engine::{Delta, EngineConfig, EngineHandle, Event, Request, SamplingParams, StopReason};
use ds4_model::Limits;
use ds4_server::grammar::{Arguments, Format, Spec, ToolChoice};
use ds4_text::{ChatRequest, Message, Role, Thinking, ToolCallKind, render};
use serde_json::{Value, json};

use crate::grammar::walk::{TOKENIZER, calling, compile, miniature, schema, tool};

static ENGINE: LazyLock<EngineHandle> = LazyLock::new(|| {
    let limits = Limits { context: 2048, slots: 2, max_rows: 256, rewind: 8 };
    let model = load(&miniature(), limits, Options::default()).unwrap();
    EngineHandle::start(model, Arc::clone(&TOKENIZER), EngineConfig::default()).unwrap()
});

#[derive(Debug, Default)]
struct Said {
    thinking: String,
    text: String,
    calls: Vec<(String, String)>,
    end: Option<Result<StopReason, ds4_engine::Error>>,
}

fn weather() -> Value {
    json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]})
}

fn ask(text: &str, thinking: Thinking, spec: &Spec, seed: u64) -> Said {
    let mut chat = ChatRequest::new(vec![Message::new(Role::User, text)]);
    chat.thinking = thinking;
    chat.tools = spec.tools.iter().map(|tool| {
        json!({"type": "function", "function": {"name": tool.name, "description": "The weather of a city", "parameters": weather()}})
    }).collect();
    let prompt = TOKENIZER.encode_prompt(&render(&chat).unwrap());
    let (events, received) = mpsc::channel();
    ENGINE
        .submit(Request {
            sampling: SamplingParams { seed, ..SamplingParams::default() },
            max_tokens: 300,
            thinking: thinking.is_on(),
            think_budget_tokens: 60,
            tools_offered: !spec.tools.is_empty(),
            constraint: compile(spec).unwrap().constraint,
            ..Request::new(prompt, events)
        })
        .unwrap();
    let mut said = Said::default();
    for event in received {
        match event {
            Event::Delta(Delta::Thinking(text)) => said.thinking += &text,
            Event::Delta(Delta::Text(text)) => said.text += &text,
            Event::Delta(Delta::ToolCall(call)) => match call.kind {
                ToolCallKind::Start { name } => said.calls.push((name, String::new())),
                ToolCallKind::Arguments(piece) => said.calls.last_mut().unwrap().1 += &piece,
                ToolCallKind::End => {}
            },
            Event::Done { reason, .. } => said.end = Some(Ok(reason)),
            Event::Failed(error) => said.end = Some(Err(error)),
            _ => {}
        }
    }
    said
}

#[test]
fn an_answer_keeps_to_its_schema_with_and_without_reasoning() {
    let demanded = json!({"type": "object", "properties": {"colour": {"enum": ["red", "green"]}, "count": {"type": "integer",
        "minimum": 0, "maximum": 99}}, "required": ["colour", "count"], "additionalProperties": false});
    let validator = jsonschema::validator_for(&demanded).unwrap();
    for (seed, thinking) in [(1, Thinking::None), (2, Thinking::High), (3, Thinking::High)] {
        let said = ask("What is 3 + 4?", thinking, &schema(demanded.clone()), seed);
        assert_eq!(said.end, Some(Ok(StopReason::EndOfTurn)), "{said:?}");
        assert_eq!(said.thinking.is_empty(), !thinking.is_on(), "{said:?}");
        assert!(validator.is_valid(&serde_json::from_str(&said.text).unwrap()), "{said:?}");
    }
}

#[test]
fn a_call_is_forced_behind_the_reasoning() {
    let tools = vec![tool("get_weather", Arguments::Strict(weather())), tool("other", Arguments::Free)];
    let spec = calling(tools, ToolChoice::Named("get_weather".to_owned()));
    let spec = Spec { single_call: true, ..spec };
    for (seed, thinking) in [(1, Thinking::None), (2, Thinking::High)] {
        let said = ask("Hello!", thinking, &spec, seed);
        assert_eq!(said.end, Some(Ok(StopReason::ToolCalls)), "{said:?}");
        assert_eq!((said.calls.len(), said.text.as_str()), (1, ""), "{said:?}");
        assert_eq!(said.calls[0].0, "get_weather");
        let arguments: Value = serde_json::from_str(&said.calls[0].1).unwrap();
        assert!(arguments["city"].is_string(), "{said:?}");
    }
}

#[test]
fn with_choice_none_the_model_talks() {
    let spec = calling(vec![tool("get_weather", Arguments::Free)], ToolChoice::None);
    let said = ask("What is the weather in Paris?", Thinking::None, &spec, 1);
    assert!(matches!(said.end, Some(Ok(StopReason::EndOfTurn | StopReason::Length))), "{said:?}");
    assert!(said.calls.is_empty() && !said.text.contains("｜DSML｜"), "{said:?}");
}

#[test]
fn a_format_beside_tools_gives_an_object_or_a_call() {
    let tools = vec![tool("get_weather", Arguments::Strict(weather()))];
    let spec = Spec { format: Format::JsonObject, ..calling(tools, ToolChoice::Auto) };
    let said = ask("What is the weather in Paris?", Thinking::None, &spec, 1);
    match said.end {
        Some(Ok(StopReason::ToolCalls)) => assert!(!said.calls.is_empty()),
        Some(Ok(StopReason::EndOfTurn)) => assert!(serde_json::from_str::<Value>(&said.text).unwrap().is_object()),
        end => assert_eq!(end, Some(Ok(StopReason::Length)), "{:?}", said.text),
    }
}
