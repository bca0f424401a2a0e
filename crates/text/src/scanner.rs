//! Cuts text into the pieces that byte-pair merging never crosses (`spec/prompt.md` 2). Owns the character classes and the
//! order of the rules; knows no vocabulary. Classes are those of Unicode 16.0.

use unicode_general_category::{GeneralCategory as G, get_general_category};

/// Calls `piece` with each piece of `text` in order. The pieces joined are the text.
pub(crate) fn scan<'a>(text: &'a str, mut piece: impl FnMut(&'a str)) {
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let end = match class(c) {
            Class::Number => end_of(rest, 3, |k| k == Class::Number),
            Class::Cjk => end_of(rest, usize::MAX, |k| k == Class::Cjk),
            _ => {
                let end = end_of(rest, usize::MAX, |k| !matches!(k, Class::Number | Class::Cjk));
                scan_stretch(&rest[..end], &mut piece);
                rest = &rest[end..];
                continue;
            }
        };
        piece(&rest[..end]);
        rest = &rest[end..];
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Number,
    /// The kana and ideographs of the second pass, by code point.
    Cjk,
    /// Letters and marks.
    Letter,
    /// Punctuation and symbols.
    Symbol,
    /// CR and LF.
    Newline,
    /// White_Space other than CR and LF.
    Space,
    Other,
}

const ASCII: [Class; 128] = {
    let mut table = [Class::Other; 128];
    let mut i = 0;
    while i < 128 {
        let byte = i as u8;
        table[i] = match byte {
            b'\r' | b'\n' => Class::Newline,
            b'0'..=b'9' => Class::Number,
            b'\t' | 0x0b | 0x0c | b' ' => Class::Space,
            _ if byte.is_ascii_alphabetic() => Class::Letter,
            _ if byte.is_ascii_punctuation() => Class::Symbol,
            _ => Class::Other,
        };
        i += 1;
    }
    table
};

fn class(c: char) -> Class {
    if c.is_ascii() {
        return ASCII[c as usize];
    }
    match c {
        '\u{4e00}'..='\u{9fa5}' | '\u{3040}'..='\u{309f}' | '\u{30a0}'..='\u{30ff}' => return Class::Cjk,
        _ if c.is_whitespace() => return Class::Space,
        _ => {}
    }
    match get_general_category(c) {
        G::UppercaseLetter | G::LowercaseLetter | G::TitlecaseLetter | G::ModifierLetter | G::OtherLetter => {
            Class::Letter
        }
        G::NonspacingMark | G::SpacingMark | G::EnclosingMark => Class::Letter,
        G::DecimalNumber | G::LetterNumber | G::OtherNumber => Class::Number,
        G::ConnectorPunctuation
        | G::DashPunctuation
        | G::OpenPunctuation
        | G::ClosePunctuation
        | G::InitialPunctuation
        | G::FinalPunctuation
        | G::OtherPunctuation
        | G::MathSymbol
        | G::CurrencySymbol
        | G::ModifierSymbol
        | G::OtherSymbol => Class::Symbol,
        _ => Class::Other,
    }
}

/// Bytes of the longest start of `text` whose classes all pass, at most `most` characters.
fn end_of(text: &str, most: usize, pass: impl Fn(Class) -> bool) -> usize {
    text.char_indices()
        .take(most)
        .find(|&(_, c)| !pass(class(c)))
        .map_or_else(|| text.char_indices().nth(most).map_or(text.len(), |(i, _)| i), |(i, _)| i)
}

/// A stretch without numbers and second-pass characters; its end counts as the end of the text.
fn scan_stretch<'a>(text: &'a str, piece: &mut impl FnMut(&'a str)) {
    let mut unmatched = 0;
    let mut at = 0;
    while at < text.len() {
        match matched(&text[at..]) {
            Some(len) => {
                if unmatched < at {
                    piece(&text[unmatched..at]);
                }
                piece(&text[at..at + len]);
                at += len;
                unmatched = at;
            }
            None => at += text[at..].chars().next().map_or(1, char::len_utf8),
        }
    }
    if unmatched < at {
        piece(&text[unmatched..at]);
    }
}

/// Bytes of the piece at the start of `text`, by the rows of the table in section 2, tried in order.
fn matched(text: &str) -> Option<usize> {
    let mut chars = text.chars();
    let first = chars.next()?;
    let next = chars.next();
    let kind = class(first);
    let next_kind = next.map(class);
    if first.is_ascii_punctuation() && next.is_some_and(|c| c.is_ascii_alphabetic()) {
        let letters = text[1..].bytes().take_while(u8::is_ascii_alphabetic).count();
        return Some(1 + letters);
    }
    let leads = matches!(kind, Class::Space | Class::Other) && next_kind == Some(Class::Letter);
    if kind == Class::Letter || leads {
        let from = first.len_utf8();
        return Some(from + end_of(&text[from..], usize::MAX, |k| k == Class::Letter));
    }
    if kind == Class::Symbol || (first == ' ' && next_kind == Some(Class::Symbol)) {
        let from = first.len_utf8();
        let symbols = from + end_of(&text[from..], usize::MAX, |k| k == Class::Symbol);
        return Some(symbols + end_of(&text[symbols..], usize::MAX, |k| k == Class::Newline));
    }
    match kind {
        Class::Space | Class::Newline => Some(white_space(text)),
        _ => None,
    }
}

/// Rows d to g: through the last newline of the run, else all of it at the end, else all but its last character.
fn white_space(text: &str) -> usize {
    let end = end_of(text, usize::MAX, |k| matches!(k, Class::Space | Class::Newline));
    let run = &text[..end];
    if let Some(newline) = run.rfind(['\r', '\n']) {
        return newline + 1;
    }
    let last = run.chars().next_back().map_or(0, char::len_utf8);
    if end == text.len() || last == end { end } else { end - last }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pieces(text: &str) -> Vec<&str> {
        let mut out = Vec::new();
        scan(text, |p| out.push(p));
        out
    }

    #[test]
    fn the_consequences_listed_in_the_specification_hold() {
        assert_eq!(pieces("1234567"), ["123", "456", "7"]);
        assert_eq!(pieces("a 12"), ["a", " ", "12"]);
        assert_eq!(pieces("   中"), ["   ", "中"]);
        assert_eq!(pieces("   a"), ["  ", " a"]);
        assert_eq!(pieces("_name .py(x"), ["_name", " .", "py", "(x"]);
        assert_eq!(pieces("_é"), ["_", "é"]);
        assert_eq!(pieces("_né"), ["_n", "é"]);
        assert_eq!(pieces(">;\n\nx"), [">;\n\n", "x"]);
        assert_eq!(pieces("。\n"), ["。\n"]);
        assert_eq!(pieces("٣120"), ["٣12", "0"]);
        assert_eq!(pieces("・々"), ["・", "々"]);
        assert_eq!(pieces(" \n \n  a"), [" \n \n", " ", " a"]);
        assert_eq!(pieces("a\u{200b}\u{200b}b"), ["a", "\u{200b}", "\u{200b}b"]);
        assert_eq!(pieces("\u{1}\u{2}\u{3}"), ["\u{1}\u{2}\u{3}"]);
    }

    proptest! {
        #[test]
        fn the_pieces_joined_are_the_text(text in "\\PC{0,40}|[ \n\r\ta1.\u{3000}中é٣\u{301}\u{0}]{0,40}") {
            prop_assert_eq!(pieces(&text).concat(), text.clone());
            prop_assert!(pieces(&text).iter().all(|p| !p.is_empty()));
        }
    }
}
