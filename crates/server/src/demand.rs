//! What an order demands of its answer, in the words of the grammars.

use serde_json::Value;

use crate::app::App;
use crate::error::{ApiError, Result};
use crate::grammar::{self, Arguments, GrammarError, Spec, ToolChoice, ToolSpec};
use crate::job::Trade;
use crate::order::{Choice, Format, Order, Tool};

impl App {
    /// Compiles what an order demands.
    pub(crate) fn constrain(&self, order: &mut Order, trade: Trade) -> Result<()> {
        let grammars = self.grammars.as_ref().map_err(|e| ApiError::engine(e.to_string()))?;
        let compiled = grammars.compile(&spec(order)).map_err(|e| refusal(&e, trade))?;
        order.warnings.extend(compiled.warnings);
        (order.constraint, order.block) = (compiled.constraint, compiled.block);
        Ok(())
    }
}

fn refusal(error: &GrammarError, trade: Trade) -> ApiError {
    let path = match error {
        GrammarError::Unsupported { path, .. }
        | GrammarError::Invalid { path, .. }
        | GrammarError::TooLarge { path, .. }
        | GrammarError::TooSlow { path, .. } => path,
    };
    // Where the API has what the grammars call the response format.
    let place = match (path.strip_prefix("response_format"), trade) {
        (Some(rest), Trade::Responses) => format!("text.format{rest}"),
        (Some(rest), Trade::Messages) => format!("output_config.format{rest}"),
        (Some(rest), _) if rest.starts_with(".schema") => format!("response_format.json_schema{rest}"),
        _ => path.clone(),
    };
    let message = error.to_string().replacen(path, &place, 1);
    match error {
        GrammarError::Unsupported { .. } => ApiError::unsupported(place, message),
        _ => ApiError::invalid(place, message),
    }
}

fn spec(order: &Order) -> Spec {
    let format = match &order.format {
        Format::Text => grammar::Format::Text,
        Format::JsonObject => grammar::Format::JsonObject,
        Format::JsonSchema { schema, strict } => {
            grammar::Format::JsonSchema { schema: schema.clone(), strict: *strict }
        }
        Format::Regex(pattern) => grammar::Format::Regex(pattern.clone()),
        Format::Choice(texts) => grammar::Format::Choice(texts.clone()),
        Format::Grammar(text) => grammar::Format::Lark(text.clone()),
    };
    let choice = match &order.choice {
        Choice::Auto => ToolChoice::Auto,
        Choice::None => ToolChoice::None,
        Choice::Required => ToolChoice::Required,
        Choice::Named(name) => ToolChoice::Named(name.clone()),
        Choice::Allowed { names, required } => ToolChoice::Allowed { names: names.clone(), required: *required },
    };
    Spec { format, tools: order.tools.iter().map(tool).collect(), choice, single_call: !order.parallel }
}

fn tool(tool: &Tool) -> ToolSpec {
    let arguments = match (tool.custom, tool.strict, tool.function.get("parameters")) {
        (true, ..) => Arguments::Custom { parameter: "input".to_owned(), grammar: None },
        (false, true, Some(schema @ Value::Object(_))) => Arguments::Strict(schema.clone()),
        _ => Arguments::Free,
    };
    ToolSpec { name: tool.name.clone(), arguments }
}
