//! Reading a JSON body: bytes to one object within limits, and typed access that knows the path for its errors. Null means
//! absent everywhere (server.md 5.1).

use serde_json::{Map, Value};

use crate::error::{ApiError, Result};

/// Arrays and objects inside one another.
const MAX_DEPTH: u32 = 64;

/// The one JSON object of a body.
pub(crate) fn parse(body: &[u8]) -> Result<Map<String, Value>> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let text = std::str::from_utf8(body)
        .map_err(|e| ApiError::malformed(format!("body is not UTF-8: invalid byte at {}", e.valid_up_to())))?;
    if depth(text) > MAX_DEPTH {
        return Err(ApiError::malformed(format!("body is nested more than {MAX_DEPTH} levels deep")));
    }
    match serde_json::from_str(text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(other) => Err(ApiError::malformed(format!("body must be a JSON object, got {}", kind(&other)))),
        Err(e) => Err(ApiError::malformed(format!("body is not valid JSON: {e}"))),
    }
}

/// Deepest nesting, counted before anything is built.
fn depth(text: &str) -> u32 {
    let (mut now, mut most, mut quoted, mut escaped) = (0_u32, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => {
                now += 1;
                most = most.max(now);
            }
            b'}' | b']' if !quoted => now = now.saturating_sub(1),
            _ => {}
        }
    }
    most
}

/// What a value is, for error messages.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// An object of the body and where it lies in it.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a> {
    pub(crate) map: &'a Map<String, Value>,
    place: Place<'a>,
}

/// A path, spelt only when an error needs it.
#[derive(Clone, Copy)]
enum Place<'a> {
    Root,
    Member(&'a Fields<'a>, &'a str),
    Item(&'a Fields<'a>, &'a str, usize),
}

impl<'a> Fields<'a> {
    pub(crate) fn root(map: &'a Map<String, Value>) -> Self {
        Self { map, place: Place::Root }
    }

    /// The path of a member.
    pub(crate) fn path(&self, name: &str) -> String {
        let mut out = match self.place {
            Place::Root => String::new(),
            Place::Member(parent, member) => parent.path(member),
            Place::Item(parent, list, i) => format!("{}[{i}]", parent.path(list)),
        };
        if !out.is_empty() && !name.is_empty() {
            out.push('.');
        }
        out + name
    }

    /// A member that is there and not null.
    pub(crate) fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|v| !v.is_null())
    }

    /// The error for a member of the wrong type or value.
    pub(crate) fn wrong(&self, name: &str, expected: &str) -> ApiError {
        let path = self.path(name);
        let found = self.map.get(name).map_or("nothing".to_owned(), shown);
        ApiError::invalid(path.clone(), format!("{path} must be {expected}, got {found}"))
    }

    /// The error for a member that has to be there.
    pub(crate) fn missing(&self, name: &str) -> ApiError {
        let path = self.path(name);
        ApiError::invalid(path.clone(), format!("missing required field: {path}"))
    }

    pub(crate) fn text(&self, name: &str) -> Result<Option<&'a str>> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(name, "a string")),
        }
    }

    pub(crate) fn flag(&self, name: &str) -> Result<Option<bool>> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(self.wrong(name, "a boolean")),
        }
    }

    /// A whole number within a range; 3.0 counts as one.
    pub(crate) fn integer(&self, name: &str, least: i64, most: i64) -> Result<Option<i64>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let whole = value
            .as_i64()
            .or_else(|| value.as_f64().filter(|f| f.fract() == 0.0 && f.abs() < 9.0e15).map(|f| f as i64));
        match (whole, value.is_number()) {
            (Some(n), _) if (least..=most).contains(&n) => Ok(Some(n)),
            (_, true) if most == i64::MAX => Err(self.wrong(name, &format!("an integer of at least {least}"))),
            (_, true) => Err(self.wrong(name, &format!("an integer between {least} and {most}"))),
            _ => Err(self.wrong(name, "an integer")),
        }
    }

    /// A finite number within a range.
    pub(crate) fn number(&self, name: &str, least: f64, most: f64) -> Result<Option<f32>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value.as_f64() {
            Some(x) if x.is_finite() && (least..=most).contains(&x) => Ok(Some(x as f32)),
            _ if value.is_number() => {
                let found = shown(value);
                let path = self.path(name);
                Err(ApiError::invalid(path.clone(), format!("{path} must be between {least} and {most}, got {found}")))
            }
            _ => Err(self.wrong(name, "a number")),
        }
    }

    pub(crate) fn list(&self, name: &str) -> Result<Option<&'a [Value]>> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Array(items)) => Ok(Some(items)),
            Some(_) => Err(self.wrong(name, "an array")),
        }
    }

    pub(crate) fn object(&'a self, name: &'a str) -> Result<Option<Fields<'a>>> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Fields { map, place: Place::Member(self, name) })),
            Some(_) => Err(self.wrong(name, "an object")),
        }
    }

    /// The objects of a list.
    pub(crate) fn objects(&'a self, name: &'a str) -> Result<Vec<Fields<'a>>> {
        let items = self.list(name)?.unwrap_or_default();
        items.iter().enumerate().map(|(i, item)| self.item(name, i, item)).collect()
    }

    /// Item `i` of the list `name`, which has to be an object.
    pub(crate) fn item(&'a self, name: &'a str, i: usize, item: &'a Value) -> Result<Fields<'a>> {
        match item {
            Value::Object(map) => Ok(Fields { map, place: Place::Item(self, name, i) }),
            other => {
                let path = format!("{}[{i}]", self.path(name));
                Err(ApiError::invalid(path.clone(), format!("{path} must be an object, got {}", shown(other))))
            }
        }
    }
}

/// A short form of a value for messages.
fn shown(value: &Value) -> String {
    match value {
        Value::Number(n) => n.to_string(),
        Value::Bool(b) => b.to_string(),
        Value::String(s) if s.len() <= 40 => format!("{s:?}"),
        other => kind(other).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_one_object_within_limits() {
        assert!(parse(b"\xef\xbb\xbf {\"a\": [1]} \n").is_ok());
        for (body, said) in [
            (&b"[1]"[..], "body must be a JSON object, got an array"),
            (b"{} x", "trailing characters"),
            (b"{\"a\": \"\xff\"}", "body is not UTF-8: invalid byte at 7"),
            (b"", "body is not valid JSON"),
        ] {
            let error = parse(body).expect_err("refused");
            assert!(error.message.contains(said), "{}", error.message);
        }
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(64), "]".repeat(64));
        assert!(parse(deep.as_bytes()).expect_err("too deep").message.contains("64 levels"));
        let quoted = format!("{{\"a\":\"{}\\\"\"}}", "[".repeat(100));
        assert!(parse(quoted.as_bytes()).is_ok());
    }

    #[test]
    fn errors_name_the_path_and_the_value() {
        let body = parse(br#"{"messages": [{"content": [{"n": 3.5}]}], "t": 3.5, "z": null}"#).expect("valid");
        let root = Fields::root(&body);
        let messages = root.objects("messages").expect("objects");
        let parts = messages[0].objects("content").expect("objects");
        let error = parts[0].integer("n", 0, 9).expect_err("a fraction");
        assert_eq!(error.param.as_deref(), Some("messages[0].content[0].n"));
        assert_eq!(error.message, "messages[0].content[0].n must be an integer between 0 and 9, got 3.5");
        assert_eq!(root.number("t", 0.0, 2.0).expect_err("large").message, "t must be between 0 and 2, got 3.5");
        assert!(root.text("z").expect("null is absent").is_none());
    }
}
