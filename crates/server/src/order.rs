//! What every API's request becomes, and the fields that all of them share (server.md 5). The three API modules fill in the
//! messages; nothing behind this type knows which API was called.

use ds4_engine::{BLOCK_TOKENS, Constraint, ReplyBudget, SamplingParams};
use ds4_text::{Message, Thinking};
use serde_json::Value;

use crate::call::{self, Call};
use crate::config::ServerConfig;
use crate::error::{ApiError, Result};
use crate::fields::Fields;

/// One request, free of its API.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub(crate) struct Order {
    /// The model's name as the client wrote it, or the canonical one.
    pub(crate) model: String,
    pub(crate) source: Source,
    pub(crate) tools: Vec<Tool>,
    pub(crate) choice: Choice,
    /// More than one call in a turn.
    pub(crate) parallel: bool,
    pub(crate) format: Format,
    pub(crate) thinking: Thinking,
    pub(crate) sampling: SamplingParams,
    /// None: the server's default.
    pub(crate) max_tokens: Option<u32>,
    /// Reasoning tokens, 0 for no limit.
    pub(crate) think_budget: u32,
    pub(crate) reply_budget: ReplyBudget,
    pub(crate) stop: Vec<String>,
    pub(crate) include_stop: bool,
    /// Added to the logits of these ids.
    pub(crate) logit_bias: Vec<(u32, f32)>,
    pub(crate) ignore_eos: bool,
    /// Alternatives reported a token.
    pub(crate) logprobs: Option<usize>,
    /// Of the reasoning, too.
    pub(crate) reasoning_logprobs: bool,
    /// Answers to the same prompt.
    pub(crate) n: u32,
    pub(crate) stream: bool,
    /// The client asked for its timings.
    pub(crate) timings: bool,
    /// Higher ones come first.
    pub(crate) priority: i8,
    /// The slot that the client would like.
    pub(crate) slot: Option<u32>,
    /// The conversation that the client says it is.
    pub(crate) session: Option<u64>,
    /// Whose request it is: what one tenant said is not known to another.
    pub(crate) tenant: String,
    /// What was accepted but is not honoured, for the header `x-ds4-warning`.
    pub(crate) warnings: Vec<String>,
    /// The compiled form of `format`, `tools` and `choice`, once it is known.
    pub(crate) constraint: Option<Box<dyn Constraint>>,
    /// And that of a call block that has to be written again.
    pub(crate) block: Option<Box<dyn Constraint>>,
}

/// Where the prompt comes from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    Chat {
        messages: Vec<Message>,
        /// The last message is an assistant's and is continued.
        continued: bool,
    },
    /// Ids as they are.
    Raw(Vec<u32>),
}

/// A tool that the model is shown.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a property of its own")]
pub(crate) struct Tool {
    /// As the model sees it.
    pub(crate) name: String,
    /// Of a tool in a namespace: the namespace and the name in it.
    pub(crate) namespace: Option<(String, String)>,
    /// The client takes free text instead of arguments.
    pub(crate) custom: bool,
    /// Of the Responses API: the client searches tools with it.
    pub(crate) search: bool,
    pub(crate) strict: bool,
    /// Not shown at the head of the prompt: the history shows it where a search found it.
    pub(crate) found: bool,
    /// The object `function` of the prompt: name, description, parameters in the client's order.
    pub(crate) function: Value,
}

/// Whether tools may or must be called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Choice {
    #[default]
    Auto,
    None,
    Required,
    Named(String),
    Allowed {
        names: Vec<String>,
        required: bool,
    },
}

/// The form of the answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Format {
    #[default]
    Text,
    JsonObject,
    JsonSchema {
        schema: Value,
        strict: bool,
    },
    Regex(String),
    Choice(Vec<String>),
    Grammar(String),
}

impl Order {
    /// The fields that all APIs spell alike; the rest is at its default.
    pub(crate) fn read(body: &Fields<'_>, config: &ServerConfig, limit: Option<u32>) -> Result<Order> {
        let model = body.text("model")?.unwrap_or(config.canonical_name()).to_owned();
        if config.strict_model && !config.serves(&model) {
            let message = format!("The model `{model}` does not exist. Served: {}", config.names().join(", "));
            return Err(ApiError { param: Some("model".into()), ..ApiError::not_found("model_not_found", message) });
        }
        let thinking = thinking(body, config, &model)?;
        let (stop, n) = (stop(body, "stop")?, body.integer("n", 1, 8)?.unwrap_or(1) as u32);
        let reserve = body.integer("reply_reserve", 0, i64::from(u32::MAX))? != Some(0);
        let reply_budget = match limit {
            Some(limit) if limit >= 1024 && reserve => ReplyBudget { soft: 1024, rank: 3, hard: 512 },
            _ => ReplyBudget::default(),
        };
        let mut sampling = sampling(body)?;
        if thinking.is_on() && config.fixed_thinking_sampling {
            sampling = sampling.fixed_for_thinking();
        }
        Ok(Order {
            model,
            source: Source::Raw(Vec::new()),
            tools: Vec::new(),
            choice: Choice::Auto,
            parallel: true,
            format: Format::Text,
            thinking,
            sampling,
            max_tokens: limit,
            think_budget: think_budget(body, config)?,
            reply_budget,
            stop,
            include_stop: body.flag("include_stop_str_in_output")?.unwrap_or(false),
            logit_bias: logit_bias(body)?,
            ignore_eos: body.flag("ignore_eos")?.unwrap_or(false),
            logprobs: None,
            reasoning_logprobs: false,
            n,
            stream: body.flag("stream")?.unwrap_or(false),
            timings: body.flag("timings")?.unwrap_or(false),
            priority: body.integer("priority", -10, 10)?.unwrap_or(0) as i8,
            // Negative: any.
            slot: body.integer("id_slot", -1, i64::from(u32::MAX))?.and_then(|slot| u32::try_from(slot).ok()),
            session: session(body),
            tenant: call::tenant(config),
            warnings: Vec::new(),
            constraint: None,
            block: None,
        })
    }

    /// Tokens that a call block may have before it is asked whether it repeats itself.
    pub(crate) fn block_tokens(&self) -> u32 {
        let declared = self.tools.iter().filter_map(|tool| tool.function.get("parameters")).map(longest).max();
        u32::try_from(declared.unwrap_or(0).saturating_mul(4)).unwrap_or(u32::MAX).max(BLOCK_TOKENS)
    }

    /// The tools in the form the prompt takes them. Those that a search found stay where it found them, so that the prompt
    /// keeps its beginning; but some tool has to be at the head, as the syntax of calls is explained there.
    pub(crate) fn shown_tools(&self) -> Vec<Value> {
        let all = self.tools.iter().all(|tool| tool.found);
        self.tools
            .iter()
            .filter(|tool| all || !tool.found)
            .map(|tool| serde_json::json!({"type": "function", "function": tool.function}))
            .collect()
    }
}

/// The longest text that a part of a schema asks for, in characters.
fn longest(schema: &Value) -> u64 {
    match schema {
        Value::Object(members) => {
            let own = members.get("maxLength").and_then(Value::as_u64).unwrap_or(0);
            members.values().map(longest).fold(own, u64::max)
        }
        Value::Array(items) => items.iter().map(longest).max().unwrap_or(0),
        _ => 0,
    }
}

/// The first of several names for the output limit.
pub(crate) fn output_limit(body: &Fields<'_>, names: &[&str]) -> Result<Option<u32>> {
    for name in names {
        if let Some(limit) = body.integer(name, 1, i64::from(u32::MAX))? {
            return Ok(Some(limit as u32));
        }
    }
    Ok(None)
}

fn sampling(body: &Fields<'_>) -> Result<SamplingParams> {
    let default = SamplingParams::default();
    let top_p = body.number("top_p", 0.0, 1.0)?.unwrap_or(default.top_p);
    let top_k = body.integer("top_k", -1, i64::from(u32::MAX))?.unwrap_or(0).max(0) as u32;
    let seed = match body.get("seed") {
        None => fresh_seed(),
        Some(value) => value
            .as_i64()
            .map(|n| n as u64)
            .or_else(|| value.as_u64())
            .ok_or_else(|| body.wrong("seed", "an integer of at most 64 bits"))?,
    };
    Ok(SamplingParams {
        temperature: body.number("temperature", 0.0, 100.0)?.unwrap_or(default.temperature),
        top_p,
        top_k,
        min_p: body.number("min_p", 0.0, 1.0)?.unwrap_or(default.min_p),
        presence_penalty: body.number("presence_penalty", -2.0, 2.0)?.unwrap_or(0.0),
        frequency_penalty: body.number("frequency_penalty", -2.0, 2.0)?.unwrap_or(0.0),
        repetition_penalty: body.number("repetition_penalty", f64::from(f32::MIN_POSITIVE), 2.0)?.unwrap_or(1.0),
        seed,
    })
}

/// The conversation by its headers, else by the fields that clients put its name into. These are otherwise not looked at, so
/// nothing in them is wrong.
fn session(body: &Fields<'_>) -> Option<u64> {
    let metadata = body.get("metadata").and_then(|metadata| metadata.get("user_id"));
    let named = body.get("prompt_cache_key").or(metadata).and_then(Value::as_str).filter(|name| !name.is_empty());
    let said = Call::current().and_then(|call| call.session);
    said.or_else(|| named.map(|name| call::conversation(name.as_bytes())))
}

/// `{"token id": number}`, at most 1024.
fn logit_bias(body: &Fields<'_>) -> Result<Vec<(u32, f32)>> {
    let Some(bias) = body.object("logit_bias")? else { return Ok(Vec::new()) };
    if bias.map.len() > 1024 {
        return Err(body.wrong("logit_bias", "an object of at most 1024 members"));
    }
    let one = |id: &String| {
        let number = bias.number(id, -100.0, 100.0)?.unwrap_or(0.0);
        let id = id.parse().map_err(|_| bias.wrong(id, "under a token id"))?;
        Ok((id, number))
    };
    bias.map.keys().map(one).collect()
}

fn fresh_seed() -> u64 {
    let mut bytes = [0; 8];
    // Without a random source the seed is merely fixed.
    let _ = getrandom::fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// Strings that end the answer: one or up to sixteen of at most 1 KiB.
pub(crate) fn stop(body: &Fields<'_>, name: &str) -> Result<Vec<String>> {
    let expected = "a string or an array of at most 16 strings of at most 1024 bytes";
    let items: Vec<&str> = match body.get(name) {
        None => Vec::new(),
        Some(Value::String(text)) => vec![text],
        Some(Value::Array(items)) => {
            let texts: Option<Vec<&str>> = items.iter().map(Value::as_str).collect();
            texts.ok_or_else(|| body.wrong(name, expected))?
        }
        Some(_) => return Err(body.wrong(name, expected)),
    };
    if items.len() > 16 || items.iter().any(|text| text.len() > 1024) {
        return Err(body.wrong(name, expected));
    }
    Ok(items.into_iter().filter(|text| !text.is_empty()).map(str::to_owned).collect())
}

/// The mode, by the order of server.md 5.4: switch, effort, model name, server.
fn thinking(body: &Fields<'_>, config: &ServerConfig, model: &str) -> Result<Thinking> {
    let switch = switch(body)?;
    let effort = effort(body)?;
    let on = match (switch, effort) {
        (Some(false), _) | (None, Some(Thinking::None)) => return Ok(Thinking::None),
        (Some(true), Some(Thinking::None) | None) => Some(Thinking::High),
        (_, effort) => effort,
    };
    let chosen = on.unwrap_or(match config.bare(model) {
        "deepseek-chat" => Thinking::None,
        "deepseek-reasoner" => Thinking::High,
        _ => config.thinking,
    });
    Ok(if chosen == Thinking::Max && config.context < MAX_THINKING_CONTEXT { Thinking::High } else { chosen })
}

/// Context that mode `max` needs.
const MAX_THINKING_CONTEXT: u32 = 393_216;

fn switch(body: &Fields<'_>) -> Result<Option<bool>> {
    let thinking = match body.get("thinking") {
        None => None,
        Some(Value::Bool(on)) => Some(*on),
        Some(Value::Object(_)) => match body.object("thinking")?.expect("it is one").text("type")? {
            None => None,
            Some("disabled") => Some(false),
            Some("enabled" | "adaptive" | "between_tools") => Some(true),
            Some(_) => {
                let inner = body.object("thinking")?.expect("it is one");
                return Err(inner.wrong("type", "\"enabled\", \"disabled\" or \"adaptive\""));
            }
        },
        Some(_) => return Err(body.wrong("thinking", "an object or a boolean")),
    };
    let think = body.flag("think")?;
    if let (Some(a), Some(b)) = (thinking, think)
        && a != b
    {
        return Err(ApiError::invalid("think", "thinking and think disagree: send one of them"));
    }
    let template = match body.object("chat_template_kwargs")? {
        Some(kwargs) => kwargs.flag("enable_thinking")?.or(kwargs.flag("thinking")?),
        None => None,
    };
    Ok(thinking.or(think).or(template))
}

/// The effort, wherever the API puts it.
fn effort(body: &Fields<'_>) -> Result<Option<Thinking>> {
    let read = |place: &Fields<'_>, name: &str| -> Result<Option<Thinking>> {
        match place.text(name)? {
            None => Ok(None),
            Some("none") => Ok(Some(Thinking::None)),
            Some("minimal" | "low" | "medium" | "high" | "xhigh") => Ok(Some(Thinking::High)),
            Some("max" | "ultra") => Ok(Some(Thinking::Max)),
            Some(_) => Err(place.wrong(name, "one of none, minimal, low, medium, high, xhigh, max")),
        }
    };
    if let Some(effort) = read(body, "reasoning_effort")? {
        return Ok(Some(effort));
    }
    for place in ["reasoning", "output_config"] {
        if let Some(inner) = body.object(place)?
            && let Some(effort) = read(&inner, "effort")?
        {
            return Ok(Some(effort));
        }
    }
    Ok(None)
}

fn think_budget(body: &Fields<'_>, config: &ServerConfig) -> Result<u32> {
    let most = i64::from(u32::MAX);
    for name in ["thinking_budget", "thinking_token_budget"] {
        if let Some(n) = body.integer(name, 1, most)? {
            return Ok(n as u32);
        }
    }
    for (place, name) in [("thinking", "budget_tokens"), ("reasoning", "max_tokens")] {
        if let Some(Value::Object(_)) = body.get(place)
            && let Some(n) = body.object(place)?.expect("it is one").integer(name, 1, most)?
        {
            return Ok(n as u32);
        }
    }
    Ok(config.think_budget)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::longest;

    #[test]
    fn the_longest_declared_text_counts_wherever_it_stands() {
        let text = |most: u64| json!({"type": "string", "maxLength": most});
        let nested = json!({"properties": {"a": text(7), "b": {"items": {"anyOf": [text(90_000), {"type": "null"}]}}}});
        assert_eq!(longest(&nested), 90_000);
        assert_eq!((longest(&json!({"maxLength": "9"})), longest(&json!(null))), (0, 0));
    }
}
