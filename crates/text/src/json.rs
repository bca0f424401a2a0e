//! JSON as Python's `json` module reads and writes it (`spec/prompt.md` 14). Owns that dialect: `NaN` and infinities, doubles
//! and integers told apart, repeated keys, and its spelling of numbers and spaces. The model was trained on it.

use std::fmt::Write as _;

use serde_json::Value;

/// A value with what `json.dumps` needs to know about it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    /// Decimal digits as written, with any sign; `-0` is `0`.
    Integer(String),
    Double(f64),
    String(String),
    Array(Vec<Json>),
    /// Every key once: its first place, its last value.
    Object(Vec<(String, Json)>),
}

/// Why a text is no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Not JSON, even in this dialect.
    Syntax,
    /// JSON, but with half a surrogate pair, which no UTF-8 text can hold.
    Surrogate,
    /// Nested deeper than [`MAX_DEPTH`].
    Depth,
}

/// Arrays and objects inside one another, at most.
pub(crate) const MAX_DEPTH: usize = 500;

impl Json {
    /// The whole text as one value.
    pub(crate) fn parse(text: &str) -> Result<Self, Fault> {
        let mut reader = Reader { text, at: 0, depth: 0, half: false };
        reader.skip_space();
        let value = reader.value()?;
        reader.skip_space();
        match reader.at == text.len() {
            false => Err(Fault::Syntax),
            true if reader.half => Err(Fault::Surrogate),
            true => Ok(value),
        }
    }

    /// Bytes of the value that the text starts with, white space before it included; `None` if it starts with none.
    pub(crate) fn prefix_len(text: &str) -> Option<usize> {
        let mut reader = Reader { text, at: 0, depth: 0, half: false };
        reader.skip_space();
        reader.value().ok().map(|_| reader.at)
    }

    /// The same value, its numbers told apart by their spelling.
    pub(crate) fn from_value(value: &Value) -> Result<Self, Fault> {
        Self::from_value_at(value, 0)
    }

    fn from_value_at(value: &Value, depth: usize) -> Result<Self, Fault> {
        if depth > MAX_DEPTH {
            return Err(Fault::Depth);
        }
        Ok(match value {
            Value::Null => Self::Null,
            Value::Bool(b) => Self::Bool(*b),
            Value::Number(n) => number(&n.to_string()),
            Value::String(s) => Self::String(s.clone()),
            Value::Array(items) => {
                Self::Array(items.iter().map(|v| Self::from_value_at(v, depth + 1)).collect::<Result<_, _>>()?)
            }
            Value::Object(fields) => {
                let member = |(k, v): (&String, _)| Ok((k.clone(), Self::from_value_at(v, depth + 1)?));
                Self::Object(fields.iter().map(member).collect::<Result<_, _>>()?)
            }
        })
    }

    /// `json.dumps(value, ensure_ascii=False)`.
    pub(crate) fn dump(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
            Self::Integer(digits) => out.push_str(digits),
            Self::Double(d) => write_double(*d, out),
            Self::String(text) => write_string(text, out),
            Self::Array(items) => {
                out.push('[');
                for (i, item) in items.iter().enumerate() {
                    out.push_str(if i == 0 { "" } else { ", " });
                    item.write(out);
                }
                out.push(']');
            }
            Self::Object(members) => {
                out.push('{');
                for (i, (key, value)) in members.iter().enumerate() {
                    out.push_str(if i == 0 { "" } else { ", " });
                    write_string(key, out);
                    out.push_str(": ");
                    value.write(out);
                }
                out.push('}');
            }
        }
    }
}

/// Appends a string literal; only what must be escaped is.
pub(crate) fn write_string(text: &str, out: &mut String) {
    out.push('"');
    escape(text, out);
    out.push('"');
}

/// The inside of a string literal.
pub(crate) fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => write!(out, "\\u{:04x}", u32::from(c)).expect("a string takes all"),
            c => out.push(c),
        }
    }
}

/// The text without white space outside string literals. Of a text that is not JSON too: only the quotes count.
pub(crate) fn minify(text: &str) -> String {
    let (mut inside, mut escaped) = (false, false);
    let kept = |c: &char| {
        match c {
            _ if escaped => escaped = false,
            '\\' if inside => escaped = true,
            '"' => inside = !inside,
            ' ' | '\t' | '\n' | '\r' if !inside => return false,
            _ => {}
        }
        true
    };
    text.chars().filter(kept).collect()
}

/// Python's `repr` of a float, with JSON's names for what is not finite.
fn write_double(d: f64, out: &mut String) {
    if !d.is_finite() {
        out.push_str(if d.is_nan() {
            "NaN"
        } else if d > 0.0 {
            "Infinity"
        } else {
            "-Infinity"
        });
        return;
    }
    let shortest = format!("{d:e}");
    let (mantissa, exponent) = shortest.split_once('e').expect("`{:e}` writes an exponent");
    let exponent: i32 = exponent.parse().expect("`{:e}` writes a decimal exponent");
    if !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        write!(out, "{mantissa}e{sign}{:02}", exponent.abs()).expect("a string takes all");
        return;
    }
    let plain = format!("{d}");
    out.push_str(&plain);
    if !plain.contains('.') {
        out.push_str(".0");
    }
}

/// A number in JSON spelling.
fn number(spelling: &str) -> Json {
    if spelling.contains(['.', 'e', 'E']) {
        return Json::Double(spelling.parse().expect("a JSON number is a Rust float"));
    }
    Json::Integer(if spelling == "-0" { "0".to_owned() } else { spelling.to_owned() })
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    /// Half a surrogate pair was escaped somewhere. Only counts if the whole text is JSON.
    half: bool,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(is_space) {
            self.at += 1;
        }
    }

    fn take(&mut self, expected: &str) -> bool {
        let found = self.text[self.at..].starts_with(expected);
        self.at += if found { expected.len() } else { 0 };
        found
    }

    fn value(&mut self) -> Result<Json, Fault> {
        match self.peek() {
            Some(b'"') => self.string().map(Json::String),
            Some(b'{' | b'[') => self.nested(),
            Some(b'n') if self.take("null") => Ok(Json::Null),
            Some(b't') if self.take("true") => Ok(Json::Bool(true)),
            Some(b'f') if self.take("false") => Ok(Json::Bool(false)),
            Some(b'N') if self.take("NaN") => Ok(Json::Double(f64::NAN)),
            Some(b'I') if self.take("Infinity") => Ok(Json::Double(f64::INFINITY)),
            Some(b'-') if self.take("-Infinity") => Ok(Json::Double(f64::NEG_INFINITY)),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => Err(Fault::Syntax),
        }
    }

    fn nested(&mut self) -> Result<Json, Fault> {
        if self.depth == MAX_DEPTH {
            return Err(Fault::Depth);
        }
        self.depth += 1;
        let value = if self.take("{") { self.members() } else { self.items() };
        self.depth -= 1;
        value
    }

    fn items(&mut self) -> Result<Json, Fault> {
        self.at += 1;
        let mut items = Vec::new();
        self.skip_space();
        if self.take("]") {
            return Ok(Json::Array(items));
        }
        loop {
            self.skip_space();
            items.push(self.value()?);
            self.skip_space();
            if self.take("]") {
                return Ok(Json::Array(items));
            }
            if !self.take(",") {
                return Err(Fault::Syntax);
            }
        }
    }

    fn members(&mut self) -> Result<Json, Fault> {
        let mut members: Vec<(String, Json)> = Vec::new();
        let mut places = std::collections::HashMap::new();
        self.skip_space();
        if self.take("}") {
            return Ok(Json::Object(members));
        }
        loop {
            self.skip_space();
            let key = self.string()?;
            self.skip_space();
            if !self.take(":") {
                return Err(Fault::Syntax);
            }
            self.skip_space();
            let value = self.value()?;
            if let Some(&place) = places.get(&key) {
                members[place] = (key, value);
            } else {
                places.insert(key.clone(), members.len());
                members.push((key, value));
            }
            self.skip_space();
            if self.take("}") {
                return Ok(Json::Object(members));
            }
            if !self.take(",") {
                return Err(Fault::Syntax);
            }
        }
    }

    fn number(&mut self) -> Result<Json, Fault> {
        let start = self.at;
        self.take("-");
        if !self.take("0") && self.digits() == 0 {
            return Err(Fault::Syntax);
        }
        // A point or an exponent without digits after it is not part of the number.
        let before = self.at;
        if self.take(".") && self.digits() == 0 {
            self.at = before;
        }
        let before = self.at;
        if self.take("e") || self.take("E") {
            let _sign = self.take("+") || self.take("-");
            if self.digits() == 0 {
                self.at = before;
            }
        }
        Ok(number(&self.text[start..self.at]))
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
        self.at - start
    }

    fn string(&mut self) -> Result<String, Fault> {
        if !self.take("\"") {
            return Err(Fault::Syntax);
        }
        let mut out = String::new();
        loop {
            let rest = &self.text[self.at..];
            let plain = rest.find(|c: char| c == '"' || c == '\\' || c < ' ').ok_or(Fault::Syntax)?;
            out.push_str(&rest[..plain]);
            self.at += plain;
            if self.take("\"") {
                return Ok(out);
            }
            if !self.take("\\") {
                return Err(Fault::Syntax);
            }
            match self.escape()? {
                Some(c) => out.push(c),
                None => self.half = true,
            }
        }
    }

    /// What the escape after a backslash stands for; `None` for half a surrogate pair.
    fn escape(&mut self) -> Result<Option<char>, Fault> {
        let byte = self.peek().ok_or(Fault::Syntax)?;
        let plain = match byte {
            b'"' | b'\\' | b'/' => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unicode(),
            _ => return Err(Fault::Syntax),
        };
        self.at += 1;
        Ok(Some(plain))
    }

    fn unicode(&mut self) -> Result<Option<char>, Fault> {
        let first = self.hex()?;
        if (0xd800..0xdc00).contains(&first) && self.text[self.at..].starts_with("\\u") {
            let before = self.at;
            self.at += 1;
            let second = self.hex()?;
            if (0xdc00..0xe000).contains(&second) {
                return Ok(char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)));
            }
            self.at = before;
        }
        Ok(char::from_u32(first))
    }

    /// `u` and four digits.
    fn hex(&mut self) -> Result<u32, Fault> {
        let digits = self.text.as_bytes().get(self.at + 1..self.at + 5).ok_or(Fault::Syntax)?;
        let mut code = 0;
        for &digit in digits {
            code = code * 16 + char::from(digit).to_digit(16).ok_or(Fault::Syntax)?;
        }
        self.at += 5;
        Ok(code)
    }
}

#[cfg(test)]
mod tests;
