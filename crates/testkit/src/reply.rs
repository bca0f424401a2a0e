//! What comes next: the reply that was chosen, the answer so far, and the token between them. Owns what happens when the
//! answer parts from the reply because the engine closed the reasoning or a grammar forbade a token; knows no slots.

use ds4_text::{Piece, Prompt, Tokenizer};

const THINK: &str = "<think>";
const THINK_END: &str = "</think>";

/// An answer that is to be given, from the think mark of the prompt on.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    /// With reasoning, `<think>` included.
    thinking: Way,
    /// `</think>` and the answer alone, for prompts that end so.
    plain: Way,
    /// The answer alone, for prompts without an assistant's marker.
    raw: Way,
}

/// One way to say it.
#[derive(Clone, Debug)]
struct Way {
    bytes: Vec<u8>,
    ids: Vec<u32>,
}

impl Reply {
    pub(crate) fn new(reply: &Prompt, tokenizer: &Tokenizer) -> Self {
        let way = |head: &str, from: usize| Way::new(head, reply, from, tokenizer);
        let answer = answer_start(reply);
        let thinking = if answer > 0 { way("", 0) } else { way("<think></think>", 0) };
        Self { thinking, plain: way(THINK_END, answer), raw: way("", answer) }
    }

    /// The token after `answer`, whose first token is the prompt's think mark; `None` is the end.
    pub(crate) fn next(&self, answer: &[u32], marked: bool, tokenizer: &Tokenizer) -> Option<u32> {
        let way = match answer.first() {
            _ if !marked => &self.raw,
            Some(&mark) if mark == tokenizer.special().think_end => &self.plain,
            _ => &self.thinking,
        };
        if way.ids.starts_with(answer) {
            return way.ids.get(answer.len()).copied();
        }
        let rest = &way.bytes[way.resume(&tokenizer.decode(answer))..];
        match rest.first() {
            // Inside a character: only tokens of single bytes say the rest of it.
            Some(byte @ 0x80..0xC0) => (0..tokenizer.n_vocab() as u32).find(|&id| tokenizer.token_bytes(id) == [*byte]),
            _ => tokenizer.encode_bytes(rest).first().copied(),
        }
    }
}

/// Where reasoning ends and the answer begins; 0 without reasoning, which only the script's own text can open.
fn answer_start(reply: &Prompt) -> usize {
    let (mut at, mut thinks) = (0, false);
    for piece in reply.pieces() {
        if let Piece::Template(text) = piece {
            thinks |= at == 0 && text.starts_with(THINK);
            if let Some(close) = text.find(THINK_END).filter(|_| thinks) {
                return at + close + THINK_END.len();
            }
        } else if !thinks {
            return 0;
        }
        at += text_of(piece).len();
    }
    if thinks { at } else { 0 }
}

fn text_of(piece: Piece<'_>) -> &str {
    match piece {
        Piece::Template(text) | Piece::Untrusted(text) | Piece::Exact(text, _) => text,
    }
}

impl Way {
    /// The reply from byte `from` on, after `head`.
    fn new(head: &str, reply: &Prompt, from: usize, tokenizer: &Tokenizer) -> Self {
        let mut whole = Prompt::new();
        whole.push_template(head);
        let mut at = 0;
        for piece in reply.pieces() {
            let text = text_of(piece);
            let kept = &text[from.saturating_sub(at).min(text.len())..];
            at += text.len();
            match piece {
                Piece::Template(_) => whole.push_template(kept),
                Piece::Untrusted(_) | Piece::Exact(..) => whole.push_untrusted(kept),
            }
        }
        Self { ids: tokenizer.encode_prompt(&whole), bytes: whole.text().as_bytes().to_vec() }
    }

    /// Where the reply goes on after `said`: after all of it if the reply begins so, after its last words if the reply has
    /// them, at the answer if the reasoning was closed early; else nowhere.
    fn resume(&self, said: &[u8]) -> usize {
        if self.bytes.starts_with(said) {
            return said.len();
        }
        let close = THINK_END.as_bytes();
        if let (Some(said_at), Some(own_at)) = (find(said, close), find(&self.bytes, close)) {
            let (said, own) = (&said[said_at..], &self.bytes[own_at..]);
            if own.starts_with(said) {
                return own_at + said.len();
            }
        }
        let most = said.len().min(self.bytes.len()).min(MOST_OVERLAP);
        (LEAST_OVERLAP..=most)
            .rev()
            .find_map(|n| find(&self.bytes, &said[said.len() - n..]).map(|at| at + n))
            .unwrap_or(self.bytes.len())
    }
}

fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len()).position(|window| window == needle)
}

/// Bytes that have to agree before the end of an answer is taken for a place in the reply.
const LEAST_OVERLAP: usize = 8;
/// Bytes that are looked at for that.
const MOST_OVERLAP: usize = 256;
