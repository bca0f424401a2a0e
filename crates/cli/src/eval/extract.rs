//! What a reply answers: letters, integers and lines found in free text, words contained in it, JSON values compared. Pure
//! functions of text; what counts as right is `grade`'s.

use std::ops::RangeInclusive;

use serde_json::Value;

/// Letters that a choice may have.
pub(super) const MOST_CHOICES: usize = 26;
/// A letter this many characters behind the word `answer` still belongs to it (cli.md 7).
const NEAR_ANSWER: usize = 96;

/// The chosen letter of `A` and the `choices - 1` after it: of the last line that says `answer` and then such a letter,
/// else the last such letter of all.
pub(super) fn choice(text: &str, choices: usize) -> Option<char> {
    let said = text.lines().rev().find_map(|line| {
        let at = places(line, "answer").last()?;
        let near: String = line[at + "answer".len()..].chars().take(NEAR_ANSWER).collect();
        letters(&near, choices).next().or_else(|| lower_letter(&near, choices))
    });
    said.or_else(|| letters(text, choices).last())
}

/// Letters that stand alone: no letter, digit or apostrophe beside them.
fn letters(text: &str, choices: usize) -> impl Iterator<Item = char> {
    let last = (b'A' + choices.clamp(1, MOST_CHOICES) as u8 - 1) as char;
    let beside = |c: char| c.is_alphanumeric() || matches!(c, '\'' | '’' | '_');
    let mut before = None;
    let mut chars = text.chars().peekable();
    std::iter::from_fn(move || {
        loop {
            let c = chars.next()?;
            let alone = !before.is_some_and(beside) && !chars.peek().copied().is_some_and(beside);
            before = Some(c);
            if alone && ('A'..=last).contains(&c) {
                return Some(c);
            }
        }
    })
}

/// A small letter counts right behind the colon only: elsewhere `a` is an article.
fn lower_letter(behind: &str, choices: usize) -> Option<char> {
    let word = behind.trim_matches(|c: char| !c.is_alphanumeric());
    let mut chars = word.chars();
    match (chars.next(), chars.next()) {
        (Some(c), None) => letters(&c.to_ascii_uppercase().to_string(), choices).next(),
        _ => None,
    }
}

/// What follows the last `Answer:`, to the end of the text.
pub(super) fn after_answer(text: &str) -> Option<&str> {
    places(text, "answer")
        .filter_map(|at| {
            let rest = text[at + "answer".len()..].trim_start_matches(['*', '_', '`', ' ']);
            rest.strip_prefix([':', '：'])
        })
        .last()
}

/// What follows the last `Answer:` on its line, or on the next line that is not empty; without marks of emphasis.
pub(super) fn answer_line(text: &str) -> Option<&str> {
    let line = after_answer(text)?.lines().map(str::trim).find(|line| !line.trim_matches(EMPHASIS).is_empty())?;
    Some(line.trim_matches(EMPHASIS).trim())
}

const EMPHASIS: [char; 3] = ['*', '`', '_'];

/// Byte offsets of an ASCII word in any case.
fn places<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let (bytes, word) = (text.as_bytes(), word.as_bytes());
    (0..(bytes.len() + 1).saturating_sub(word.len()))
        .filter(move |&at| bytes[at..at + word.len()].eq_ignore_ascii_case(word))
}

/// The first integer behind the last `Answer:`, else the last integer of all, in its normal form.
pub(super) fn integer(text: &str) -> Option<String> {
    let said = after_answer(text).and_then(|rest| numbers(rest).next());
    said.or_else(|| numbers(text).last())
}

/// Numbers in their normal form: no thousands separators, no leading zeros, a minus sign only, a fraction only if it is not
/// zero. So `3.5` is a number that equals no integer.
pub(super) fn numbers(text: &str) -> impl Iterator<Item = String> {
    let chars: Vec<char> = text.chars().collect();
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < chars.len() {
            let start = at;
            if !chars[at].is_ascii_digit() {
                at += 1;
                continue;
            }
            let (number, end) = number(&chars, start);
            at = end;
            if start == 0 || !(chars[start - 1].is_alphabetic() || chars[start - 1] == '_') {
                return Some(number);
            }
        }
        None
    })
}

/// The number whose digits begin at `start`, and where it ends.
fn number(chars: &[char], start: usize) -> (String, usize) {
    let digits = |from: usize| chars[from.min(chars.len())..].iter().take_while(|c| c.is_ascii_digit()).count();
    let mut end = start + digits(start);
    let mut whole: String = chars[start..end].iter().collect();
    while whole.len() <= 3 || end > start + whole.len() {
        if chars.get(end) != Some(&',') || digits(end + 1) != 3 {
            break;
        }
        whole.extend(&chars[end + 1..end + 4]);
        end += 4;
    }
    let mut fraction = String::new();
    if chars.get(end) == Some(&'.') && digits(end + 1) > 0 {
        let count = digits(end + 1);
        fraction.extend(&chars[end + 1..=end + count]);
        fraction.truncate(fraction.trim_end_matches('0').len());
        end += 1 + count;
    }
    let whole = whole.trim_start_matches('0');
    let mut out = String::new();
    if is_negative(chars, start) && !(whole.is_empty() && fraction.is_empty()) {
        out.push('-');
    }
    out.push_str(if whole.is_empty() { "0" } else { whole });
    if !fraction.is_empty() {
        out.push('.');
        out.push_str(&fraction);
    }
    (out, end)
}

/// A minus before the digits is a sign unless it joins them to a word, a number or a bracket.
fn is_negative(chars: &[char], start: usize) -> bool {
    let before = |n: usize| start.checked_sub(n).map(|at| chars[at]);
    let joins = |c: char| c.is_alphanumeric() || matches!(c, ')' | ']');
    matches!(before(1), Some('-' | '−')) && !before(2).is_some_and(joins)
}

/// Line numbers and ranges behind the last `Answer:`. What follows them on the line is not read.
pub(super) fn lines(text: &str) -> Vec<RangeInclusive<u64>> {
    answer_line(text).map(line_list).unwrap_or_default()
}

/// `3, 5-7 and 9` as ranges.
pub(super) fn line_list(text: &str) -> Vec<RangeInclusive<u64>> {
    let mut out = Vec::new();
    for word in text.split([',', ';', '&', ' ', '\t']).filter(|word| !word.is_empty()) {
        let lower = word.to_ascii_lowercase();
        if matches!(lower.as_str(), "and" | "line" | "lines") {
            continue;
        }
        let plain = lower.trim_start_matches('l').trim_end_matches('.');
        let ends = plain.split_once(['-', '–', '—']).unwrap_or((plain, plain));
        match (ends.0.parse(), ends.1.trim_start_matches('l').parse()) {
            (Ok(first), Ok(last)) if first <= last => out.push(first..=last),
            _ => break,
        }
    }
    out
}

/// Whether `words` occurs in any case as whole words and whole numbers: `12` is not in `3.12`, `1,012`, `120` or `-12`.
pub(super) fn contains(text: &str, words: &str) -> bool {
    let (text, words) = (fold(text), fold(words));
    let (Some(first), Some(last)) = (words.chars().next(), words.chars().last()) else { return false };
    text.match_indices(&words).any(|(at, _)| {
        let (mut before, mut after) = (text[..at].chars().rev(), text[at + words.len()..].chars());
        let (left, further_left) = (before.next(), before.next());
        let (right, further_right) = (after.next(), after.next());
        let digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
        let word = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        let point = |c: Option<char>| matches!(c, Some('.' | ','));
        let inside_left = first.is_alphanumeric() && word(left);
        let inside_right = last.is_alphanumeric() && word(right);
        let number_left = first.is_ascii_digit()
            && ((point(left) && digit(further_left)) || (matches!(left, Some('-' | '−')) && !word(further_left)));
        let number_right = last.is_ascii_digit() && point(right) && digit(further_right);
        !(inside_left || inside_right || number_left || number_right)
    })
}

/// Lower case, with every run of white space as one space.
fn fold(text: &str) -> String {
    text.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The JSON value that a text is, also within code fences.
pub(super) fn json(text: &str) -> Option<Value> {
    let text = text.trim();
    let fenced = text.strip_prefix("```").and_then(|rest| rest.strip_suffix("```"));
    let inner = fenced.map_or(text, |inner| inner.strip_prefix("json").unwrap_or(inner));
    serde_json::from_str(inner.trim()).ok()
}

/// Equal as JSON: members in any order, numbers by value.
pub(super) fn json_equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            a == b
                || match (a.as_i64(), b.as_i64()) {
                    (Some(a), Some(b)) => a == b,
                    _ => matches!((a.as_f64(), b.as_f64()), (Some(a), Some(b)) if a == b),
                }
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| json_equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| json_equal(a, b)))
        }
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_one_form() {
        let found: Vec<String> = numbers("007, -1,234,567 and 10-3; 3.50 4.00 H2O 1,2 −5 12345,678").collect();
        assert_eq!(found, ["7", "-1234567", "10", "3", "3.5", "4", "1", "2", "-5", "12345", "678"]);
    }

    #[test]
    fn words_and_numbers_are_contained_whole() {
        for (text, words, inside) in [
            ("The code is 12.", "12", true),
            ("3.12", "12", false),
            ("12.5", "12", false),
            ("1,012", "012", false),
            ("-12", "12", false),
            ("7-12", "12", true),
            ("Cats and  dogs", "CATS AND DOGS", true),
            ("concatenate", "cat", false),
            ("", "", false),
        ] {
            assert_eq!(contains(text, words), inside, "{text:?} {words:?}");
        }
    }

    #[test]
    fn json_values_are_equal_by_value() {
        let equal = |a: &str, b: &str| json_equal(&json(a).expect("JSON"), &json(b).expect("JSON"));
        assert!(equal("{\"a\": 1, \"b\": [2.50]}", "```json\n{\"b\":[2.5],\"a\":1.0}\n```"));
        assert!(!equal("{\"a\": 1}", "{\"a\": \"1\"}") && !equal("[1, 2]", "[2, 1]") && !equal("{}", "{\"a\": null}"));
        assert!(!equal("9007199254740993", "9007199254740992"));
        assert!(json("{} {}").is_none() && json("text {}").is_none());
    }
}
