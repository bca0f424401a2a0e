//! Texts that are not quoted: regular expressions as users write them, and the strings of a schema as raw text. Owns the
//! terminals of the grammar language.

use llguidance::regex_to_lark;
use regex_syntax::hir::{Hir, HirKind, Look};
use serde_json::Value;

use super::schema::Schema;

macro_rules! date {
    () => {
        "([0-9]{4}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|\
        02-(0[1-9]|1[0-9]|2[0-8])))"
    };
}
macro_rules! time {
    () => {
        "(([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]+)?([zZ]|[+-]([01][0-9]|2[0-3]):[0-5][0-9]))"
    };
}
macro_rules! octet {
    () => {
        "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
    };
}
/// What the formats of schemas mean, or a part of it that every reader takes.
pub(super) const FORMATS: [(&str, &str); 7] = [
    ("date-time", concat!(date!(), "[tT]", time!())),
    ("date", date!()),
    ("time", time!()),
    ("uuid", "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"),
    (
        "email",
        "[a-zA-Z0-9_+-]{1,32}([.][a-zA-Z0-9_+-]{1,15}){0,2}@[a-zA-Z]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?\
        ([.][a-zA-Z]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?){0,2}",
    ),
    ("ipv4", concat!("(", octet!(), "[.]){3}", octet!())),
    (
        "ipv6",
        "([0-9a-fA-F]{1,4}:){7}[0-9a-fA-F]{1,4}|::([0-9a-fA-F]{1,4}:){0,5}[0-9a-fA-F]{1,4}|\
        ([0-9a-fA-F]{1,4}:){1,6}:|::",
    ),
];

/// A terminal for exactly this text.
pub(super) fn literal(text: &str) -> String {
    // The grammar language takes no bare DEL.
    serde_json::to_string(text).expect("a string is JSON").replace('\u{7f}', "\\u007f")
}

/// A terminal for an expression without anchors.
pub(super) fn regex(expression: &str) -> String {
    format!("/{}/", regex_to_lark(expression, ""))
}

/// A terminal for the texts that match `pattern` as a whole; anchors at its ends say nothing new then.
pub(super) fn whole(pattern: &str) -> Result<String, String> {
    Ok(regex(&anchored(&hir(pattern)?, "")?))
}

/// A terminal for the texts in which `pattern` is found, as schemas mean it.
fn search(pattern: &str) -> Result<String, String> {
    Ok(regex(&anchored(&hir(pattern)?, "(?s:.*)")?))
}

/// Reads a pattern with the classes of ECMAScript.
pub(super) fn hir(pattern: &str) -> Result<Hir, String> {
    let ascii = regex_to_lark(pattern, "dw");
    let hir = regex_syntax::parse(&ascii).map_err(|e| {
        let reason = e.to_string();
        let last = reason.lines().last().unwrap_or_default();
        format!("the pattern ({})", last.trim_start_matches("error: "))
    })?;
    anchored(&hir, "").map(|_| hir)
}

/// The expression with anchors at the ends of its alternatives taken off, and `open` in their place where there are none.
fn anchored(hir: &Hir, open: &str) -> Result<String, String> {
    let alternatives = match hir.kind() {
        HirKind::Alternation(alternatives) => alternatives.as_slice(),
        HirKind::Capture(group) if !group.sub.properties().look_set().is_empty() => return anchored(&group.sub, open),
        _ => std::slice::from_ref(hir),
    };
    let mut out = Vec::new();
    for alternative in alternatives {
        let mut parts = match alternative.kind() {
            HirKind::Concat(parts) => parts.as_slice(),
            _ => std::slice::from_ref(alternative),
        };
        let is = |part: Option<&Hir>, look| part.is_some_and(|p| *p.kind() == HirKind::Look(look));
        let (start, end) = (is(parts.first(), Look::Start), is(parts.last(), Look::End));
        parts = &parts[usize::from(start).min(parts.len())..];
        parts = &parts[..parts.len() - usize::from(end).min(parts.len())];
        if parts.iter().any(|part| !part.properties().look_set().is_empty()) {
            return Err("the pattern (anchors and boundaries inside it)".to_owned());
        }
        let body = Hir::concat(parts.to_vec());
        out.push(format!("{}(?:{body}){}", if start { "" } else { open }, if end { "" } else { open }));
    }
    Ok(format!("(?:{})", out.join("|")))
}

/// Which values a schema admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kinds {
    pub(super) strings: bool,
    pub(super) others: bool,
}

const ALL: Kinds = Kinds { strings: true, others: true };
/// Far enough for any schema that is not made to be deep.
const MAX_REFERENCES: usize = 16;

/// Whether strings and other values may be valid. May say yes too often, never no.
pub(super) fn kinds(schema: &Schema, part: &Value, depth: usize) -> Kinds {
    let Value::Object(keywords) = part else {
        let any = *part == Value::Bool(true);
        return Kinds { strings: any, others: any };
    };
    let union = |kinds: &mut dyn Iterator<Item = Kinds>| {
        kinds.fold(Kinds { strings: false, others: false }, |a, b| Kinds {
            strings: a.strings || b.strings,
            others: a.others || b.others,
        })
    };
    let of = |string: bool| Kinds { strings: string, others: !string };
    let mut found = ALL;
    for (keyword, value) in keywords {
        let list = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        let admitted = match keyword.as_str() {
            "type" => union(&mut list.iter().map(|name| of(name == "string"))),
            "const" => of(value.is_string()),
            "enum" => union(&mut list.iter().map(|value| of(value.is_string()))),
            "anyOf" => union(&mut list.iter().map(|option| kinds(schema, option, depth))),
            "allOf" => list.iter().map(|part| kinds(schema, part, depth)).fold(ALL, both),
            "$ref" if depth < MAX_REFERENCES => {
                let target = value.as_str().and_then(|reference| schema.definition(reference));
                target.map_or(ALL, |target| kinds(schema, target, depth + 1))
            }
            _ => ALL,
        };
        found = both(found, admitted);
    }
    found
}

fn both(a: Kinds, b: Kinds) -> Kinds {
    Kinds { strings: a.strings && b.strings, others: a.others && b.others }
}

/// A terminal for the strings that a schema admits, as they are.
pub(super) fn raw(schema: &Schema, part: &Value, depth: usize) -> String {
    let mut rules = Vec::new();
    let none = serde_json::Map::new();
    let keywords = part.as_object().unwrap_or(&none);
    for (keyword, value) in keywords {
        let list = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        let texts = || list.iter().filter_map(Value::as_str);
        match keyword.as_str() {
            "const" | "enum" => rules.push(alternatives(texts().map(literal))),
            "pattern" => rules.extend(texts().filter_map(|pattern| search(pattern).ok())),
            "anyOf" => {
                let options = list.iter().filter(|option| kinds(schema, option, depth).strings);
                rules.push(alternatives(options.map(|option| raw(schema, option, depth))));
            }
            "allOf" => rules.extend(list.iter().map(|part| raw(schema, part, depth))),
            "$ref" if depth < MAX_REFERENCES => {
                let target = value.as_str().and_then(|reference| schema.definition(reference));
                rules.extend(target.map(|target| raw(schema, target, depth + 1)));
            }
            _ => {}
        }
    }
    let length = |name: &str| keywords.get(name).and_then(Value::as_u64);
    if let (Some(_), _) | (_, Some(_)) = (length("minLength"), length("maxLength")) {
        let most = length("maxLength").map_or(String::new(), |n| n.to_string());
        rules.push(regex(&format!("(?s:.{{{},{most}}})", length("minLength").unwrap_or(0))));
    }
    if rules.is_empty() { regex("(?s:.*)") } else { format!("({})", rules.join(" & ")) }
}

pub(super) fn alternatives(terminals: impl Iterator<Item = String>) -> String {
    format!("({})", terminals.collect::<Vec<_>>().join(" | "))
}
