//! `GET /v1/models` and one of them, in a form that both families of clients read (server.md 4).

use serde_json::{Value, json};

use crate::app::App;
use crate::error::{ApiError, Result};

/// Request fields that are honoured.
const PARAMETERS: &[&str] = &[
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "frequency_penalty",
    "presence_penalty",
    "seed",
    "stop",
    "max_tokens",
    "max_completion_tokens",
    "n",
    "logprobs",
    "top_logprobs",
    "stream",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "response_format",
    "reasoning_effort",
    "thinking",
    "thinking_budget",
]; // in the order of the specification

/// All models.
pub(crate) fn list(app: &App) -> Value {
    let names = app.config.names();
    let data: Vec<Value> = names.iter().map(|name| entry(app, name)).collect();
    json!({"object": "list", "data": data, "has_more": false, "first_id": names.first(), "last_id": names.last()})
}

/// One model by its name.
pub(crate) fn get(app: &App, name: &str) -> Result<Value> {
    if app.config.serves(name) {
        return Ok(entry(app, app.config.bare(name)));
    }
    Err(ApiError::not_found("model_not_found", format!("The model `{name}` does not exist")))
}

fn entry(app: &App, name: &str) -> Value {
    let (context, info) = (app.config.context, &app.model);
    let output = app.config.max_tokens.min(context);
    json!({
        "id": name, "object": "model", "created": app.created, "owned_by": "ds4", "type": "model",
        "display_name": name, "created_at": rfc3339(app.created), "name": name,
        "context_length": context, "max_model_len": context, "max_input_tokens": context - 1, "max_tokens": output,
        "top_provider": {"context_length": context, "max_completion_tokens": output, "is_moderated": false},
        "supported_parameters": PARAMETERS,
        "capabilities": {"completion": true, "tools": true, "thinking": true, "structured_output": true, "vision": false},
        "meta": {"n_ctx_train": info.trained_context, "n_vocab": app.engine.n_vocab(), "n_params": info.parameters,
                 "size": info.size, "quant": info.quant},
    })
}

/// Seconds since 1970 as `2026-01-31T12:00:00Z`.
pub(crate) fn rfc3339(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days to a civil date: eras of 400 years that begin in March.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let date = of_year - (153 * month + 2) / 5 + 1;
    let (month, year) = if month < 10 { (month + 3, year + era * 400) } else { (month - 9, year + era * 400 + 1) };
    format!("{year:04}-{month:02}-{date:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::rfc3339;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_735_689_600, "2025-01-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds), text);
        }
    }
}
