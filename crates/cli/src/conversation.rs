//! A conversation as exact ids: what the model was given and what it drew, so that the next turn continues the live state.
//! Owns the seams between turns and the JSON form; how a message is written is `ds4_text`'s.

use anyhow::{Context, anyhow, bail};
use ds4_text::{ChatRequest, Content, Message, Role, Thinking, Tokenizer, render};
use serde_json::{Value, json};

use crate::flags::ThinkFlag;
use crate::terminal;

/// Smallest context in which the model may think at length (prompt.md section 9).
const MAX_THINKING_CTX: u32 = 393_216;

/// The mode that a context allows; says so when it is not the one asked for.
pub(crate) fn effective(think: ThinkFlag, ctx: u32) -> Thinking {
    match think {
        ThinkFlag::None => Thinking::None,
        ThinkFlag::Max if ctx >= MAX_THINKING_CTX => Thinking::Max,
        ThinkFlag::Max => {
            terminal::warn(format_args!(
                "--think-max needs a context of at least {MAX_THINKING_CTX}, got {ctx}: using normal thinking"
            ));
            Thinking::High
        }
        ThinkFlag::Think => Thinking::High,
    }
}

/// Ids of one prompt and whether the answer begins inside reasoning.
pub(crate) struct Encoded {
    pub(crate) ids: Vec<u32>,
    pub(crate) thinking: bool,
}

/// A prompt that stands alone. Text beginning with BOS is an already rendered conversation; all other text is only text.
pub(crate) fn encode_prompt(
    tokenizer: &Tokenizer,
    system: &str,
    thinking: Thinking,
    raw: bool,
    text: &str,
) -> anyhow::Result<Encoded> {
    let special = tokenizer.special();
    if text.as_bytes().starts_with(tokenizer.token_bytes(special.bos)) {
        let ids = tokenizer.encode(text);
        let thinking = ids.last() == Some(&special.think);
        return Ok(Encoded { ids, thinking });
    }
    if raw {
        let mut ids = vec![special.bos];
        ids.extend(tokenizer.encode_plain(text));
        return Ok(Encoded { ids, thinking: false });
    }
    let mut conversation = Conversation::new(system, thinking);
    conversation.push_user(tokenizer, text)?;
    Ok(Encoded { ids: conversation.ids(tokenizer)?, thinking: thinking.is_on() })
}

/// Head and turns. The ids of a turn never change once they are made; the head is written anew when it changes.
#[derive(Clone)]
pub(crate) struct Conversation {
    system: String,
    thinking: Thinking,
    turns: Vec<Turn>,
}

/// A user message and, once there is one, its answer.
#[derive(Clone)]
pub(crate) struct Turn {
    pub(crate) user: String,
    pub(crate) answer: Option<Said>,
    /// From the token that opens the user turn to the one that opens the answer.
    opening: Vec<u32>,
    /// The answer with the end of the turn.
    closing: Vec<u32>,
}

/// An answer as text.
#[derive(Clone, Default)]
pub(crate) struct Said {
    pub(crate) reasoning: String,
    pub(crate) content: String,
}

impl Conversation {
    pub(crate) fn new(system: &str, thinking: Thinking) -> Self {
        Self { system: system.to_owned(), thinking, turns: Vec::new() }
    }

    pub(crate) fn turns(&self) -> &[Turn] {
        &self.turns
    }

    pub(crate) fn thinking(&self) -> Thinking {
        self.thinking
    }

    /// Sets the mode of the turns that follow. Whether the head changed, so that everything is computed again.
    pub(crate) fn set_thinking(&mut self, thinking: Thinking) -> bool {
        let before = std::mem::replace(&mut self.thinking, thinking);
        (before == Thinking::Max) != (thinking == Thinking::Max)
    }

    pub(crate) fn set_system(&mut self, system: &str) {
        system.clone_into(&mut self.system);
    }

    pub(crate) fn clear(&mut self) {
        self.turns.clear();
    }

    /// Opens a turn that waits for its answer.
    pub(crate) fn push_user(&mut self, tokenizer: &Tokenizer, text: &str) -> anyhow::Result<()> {
        let (_, opening) = self.render(tokenizer, Message::new(Role::User, text), None)?;
        self.turns.push(Turn { user: text.to_owned(), answer: None, opening, closing: Vec::new() });
        Ok(())
    }

    /// Ends the open turn with what the model drew, closing what it left open.
    pub(crate) fn push_answer(&mut self, tokenizer: &Tokenizer, drawn: &[u32], said: Said) {
        let special = tokenizer.special();
        let Some(turn) = self.turns.last_mut() else { return };
        let mut ids = drawn.to_vec();
        if turn.opening.last() == Some(&special.think) && !ids.contains(&special.think_end) {
            ids.push(special.think_end);
        }
        if ids.last() != Some(&special.eos) {
            ids.push(special.eos);
        }
        turn.closing = ids;
        turn.answer = Some(said);
    }

    /// Drops the last turn and gives its user message back.
    pub(crate) fn pop(&mut self) -> Option<String> {
        self.turns.pop().map(|turn| turn.user)
    }

    /// The whole conversation; ends ready for an answer when the last turn waits for one.
    pub(crate) fn ids(&self, tokenizer: &Tokenizer) -> anyhow::Result<Vec<u32>> {
        let (mut ids, _) = self.render(tokenizer, Message::new(Role::User, ""), None)?;
        for turn in &self.turns {
            ids.extend_from_slice(&turn.opening);
            ids.extend_from_slice(&turn.closing);
        }
        Ok(ids)
    }

    /// Head ids and the ids of one turn. The cut is at a control token, where no merge can cross.
    fn render(
        &self,
        tokenizer: &Tokenizer,
        user: Message,
        answer: Option<Message>,
    ) -> anyhow::Result<(Vec<u32>, Vec<u32>)> {
        let mut messages = Vec::new();
        if !self.system.is_empty() {
            messages.push(Message::new(Role::System, self.system.as_str()));
        }
        messages.push(user);
        messages.extend(answer);
        let request = ChatRequest { thinking: self.thinking, ..ChatRequest::new(messages) };
        let mut ids = tokenizer.encode_prompt(&render(&request)?);
        let opens = tokenizer.special().user;
        let cut = ids.iter().position(|&id| id == opens).context("the rendered prompt has no user turn")?;
        let turn = ids.split_off(cut);
        Ok((ids, turn))
    }

    /// `[{role, content, reasoning_content?}]`
    pub(crate) fn to_json(&self) -> Value {
        let mut messages = Vec::new();
        if !self.system.is_empty() {
            messages.push(json!({"role": "system", "content": self.system}));
        }
        for turn in &self.turns {
            messages.push(json!({"role": "user", "content": turn.user}));
            match &turn.answer {
                Some(said) if said.reasoning.is_empty() => {
                    messages.push(json!({"role": "assistant", "content": said.content}));
                }
                Some(said) => messages
                    .push(json!({"role": "assistant", "reasoning_content": said.reasoning, "content": said.content})),
                None => {}
            }
        }
        Value::Array(messages)
    }

    /// The inverse of `to_json`: an optional system message, then user and assistant in turn.
    pub(crate) fn from_json(tokenizer: &Tokenizer, thinking: Thinking, value: &Value) -> anyhow::Result<Self> {
        let list = value.as_array().context("expected a list of messages")?;
        let mut messages = list.iter().map(Message::from_json).collect::<Result<Vec<_>, _>>()?.into_iter().peekable();
        let mut conversation = Self::new("", thinking);
        if let Some(system) = messages.next_if(|m| m.role == Role::System) {
            conversation.system = text_of(&system)?;
        }
        while let Some(user) = messages.next() {
            let answer = messages.next().context("the last message is not the assistant's")?;
            if user.role != Role::User || answer.role != Role::Assistant || !answer.tool_calls.is_empty() {
                bail!("expected user and assistant messages in turn, without tool calls");
            }
            conversation.push_pair(tokenizer, user, answer)?;
        }
        Ok(conversation)
    }

    fn push_pair(&mut self, tokenizer: &Tokenizer, user: Message, answer: Message) -> anyhow::Result<()> {
        let text = text_of(&user)?;
        let said = Said { reasoning: answer.reasoning.clone(), content: text_of(&answer)? };
        let mode = self.thinking;
        if !said.reasoning.is_empty() && mode == Thinking::None {
            self.thinking = Thinking::High;
        }
        let rendered = self.render(tokenizer, user, Some(answer));
        self.thinking = mode;
        let (_, opening) = rendered?;
        self.turns.push(Turn { user: text, answer: Some(said), opening, closing: Vec::new() });
        Ok(())
    }
}

fn text_of(message: &Message) -> anyhow::Result<String> {
    match &message.content {
        Content::Text(text) => Ok(text.clone()),
        _ => Err(anyhow!("expected the content of every message to be a string")),
    }
}
