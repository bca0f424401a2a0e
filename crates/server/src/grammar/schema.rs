//! JSON schemas on their way in: what is supported, under which path something is not, and references that a compiler of
//! plain pointers understands. Owns the list of keywords.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::strings::{FORMATS, hir};
use super::{GrammarError, check_size};

/// A schema of supported keywords only, its references resolved to `#/$defs/<name>`.
#[derive(Clone, Debug)]
pub(super) struct Schema {
    pub(super) root: Value,
    pub(super) defs: Map<String, Value>,
}

impl Schema {
    /// A part of it, for itself: `part` with the definitions that it may refer to.
    pub(super) fn document(&self, part: Value) -> Value {
        if self.defs.is_empty() {
            return part;
        }
        match part {
            Value::Object(mut keywords) => {
                keywords.insert("$defs".to_owned(), Value::Object(self.defs.clone()));
                Value::Object(keywords)
            }
            other => other,
        }
    }

    /// The definition that a reference made by this module names.
    pub(super) fn definition(&self, reference: &str) -> Option<&Value> {
        self.defs.get(reference.strip_prefix(DEFS)?)
    }
}

/// Reads a schema. What is not supported is an error if `strict`, else a warning. `path` names the schema in messages.
pub(super) fn read(
    schema: &Value,
    path: &str,
    strict: bool,
    warnings: &mut Vec<String>,
) -> Result<Schema, GrammarError> {
    check_size(schema.to_string().len(), path)?;
    let mut reader = Reader { document: schema, path, strict, warnings, names: HashMap::new(), pending: Vec::new() };
    let root = reader.schema(schema, path, 0)?;
    let mut defs = Map::new();
    while let Some((name, pointer)) = reader.pending.pop() {
        let target = reader.document.pointer(&pointer).expect("it was looked up before it got a name");
        let at = format!("{path}{}", pointer.replace('/', "."));
        defs.insert(name, reader.schema(target, &at, 0)?);
    }
    Ok(Schema { root, defs })
}

const DEFS: &str = "#/$defs/";
const MAX_DEPTH: usize = 64;
const MAX_PROPERTIES: usize = 4096;
const TYPES: [&str; 7] = ["object", "array", "string", "number", "integer", "boolean", "null"];
/// They say nothing about values.
const ANNOTATIONS: [&str; 14] = [
    "$schema",
    "$id",
    "$comment",
    "$anchor",
    "$defs",
    "definitions",
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "contentMediaType",
];

struct Reader<'a> {
    document: &'a Value,
    path: &'a str,
    strict: bool,
    warnings: &'a mut Vec<String>,
    /// Names given to the targets of references, by pointer.
    names: HashMap<String, String>,
    /// Targets that have a name, but have not been read.
    pending: Vec<(String, String)>,
}

impl Reader<'_> {
    fn schema(&mut self, schema: &Value, path: &str, depth: usize) -> Result<Value, GrammarError> {
        if depth > MAX_DEPTH {
            return Err(invalid(path, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        let keywords = match schema {
            Value::Bool(_) => return Ok(schema.clone()),
            Value::Object(keywords) => keywords,
            _ => return Err(invalid(path, "expected an object, true or false")),
        };
        let mut out = Map::new();
        // What is said in other keywords than the client's.
        let mut said = Vec::new();
        for (keyword, value) in keywords {
            let at = format!("{path}.{keyword}");
            match keyword.as_str() {
                "anyOf" | "oneOf" => said.push(("anyOf", self.list(value, &at, depth)?)),
                "format" => match FORMATS.iter().find(|(name, _)| value == name) {
                    Some((_, expression)) => said.push(("pattern", json!(format!("^(?:{expression})$")))),
                    None => self.unsupported(&at, &format!("format {value}")).map(drop)?,
                },
                "items" if value.is_array() => {
                    out.insert("prefixItems".to_owned(), self.list(value, &at, depth)?);
                }
                name => {
                    if let Some(read) = self.keyword(name, value, &at, depth)? {
                        out.insert(keyword.clone(), read);
                    }
                }
            }
        }
        for (keyword, value) in said {
            if out.contains_key(keyword) {
                let all = out.entry("allOf").or_insert_with(|| json!([]));
                all.as_array_mut().expect("it was read as a list").push(json!({ keyword: value }));
            } else {
                out.insert(keyword.to_owned(), value);
            }
        }
        Ok(Value::Object(out))
    }

    /// The keyword as the compiler is to see it; nothing if it is to be left out.
    fn keyword(&mut self, name: &str, value: &Value, at: &str, depth: usize) -> Result<Option<Value>, GrammarError> {
        let read = match name {
            "type" => types(value, at)?,
            "properties" | "patternProperties" => self.properties(value, at, depth)?,
            "additionalProperties" | "items" => self.schema(value, at, depth + 1)?,
            "prefixItems" | "allOf" => self.list(value, at, depth)?,
            "required" => names(value, at)?,
            "enum" => match value {
                Value::Array(values) if !values.is_empty() => value.clone(),
                _ => return Err(invalid(at, "expected a list of at least one value")),
            },
            "const" => value.clone(),
            "minItems" | "maxItems" | "minLength" | "maxLength" => match value.as_u64().map(u32::try_from) {
                Some(Ok(_)) => value.clone(),
                _ => return Err(invalid(at, "expected a whole number from 0")),
            },
            "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" | "multipleOf" => match value.as_f64() {
                Some(n) if n.is_finite() => value.clone(),
                _ => return Err(invalid(at, "expected a number")),
            },
            "pattern" => match value.as_str().map(hir) {
                Some(Ok(_)) => value.clone(),
                Some(Err(reason)) => return self.unsupported(at, &reason),
                None => return Err(invalid(at, "expected a string")),
            },
            "$ref" => return self.reference(value, at),
            _ if ANNOTATIONS.contains(&name) => return Ok(None),
            _ => return self.unsupported(at, "this keyword"),
        };
        Ok(Some(read))
    }

    fn unsupported(&mut self, at: &str, what: &str) -> Result<Option<Value>, GrammarError> {
        if self.strict {
            return Err(GrammarError::Unsupported { path: at.to_owned(), what: what.to_owned() });
        }
        self.warnings.push(format!("{at}: {what} is not supported and was ignored"));
        Ok(None)
    }

    fn list(&mut self, value: &Value, at: &str, depth: usize) -> Result<Value, GrammarError> {
        let items = value.as_array().filter(|items| !items.is_empty());
        let items = items.ok_or_else(|| invalid(at, "expected a list of at least one schema"))?;
        let read = |(i, item)| self.schema(item, &format!("{at}[{i}]"), depth + 1);
        items.iter().enumerate().map(read).collect()
    }

    fn properties(&mut self, value: &Value, at: &str, depth: usize) -> Result<Value, GrammarError> {
        let members = value.as_object().ok_or_else(|| invalid(at, "expected an object of schemas"))?;
        if members.len() > MAX_PROPERTIES {
            return Err(invalid(at, format!("{} properties, expected at most {MAX_PROPERTIES}", members.len())));
        }
        let read = members.iter().map(|(name, member)| {
            let read = self.schema(member, &format!("{at}.{name}"), depth + 1)?;
            Ok((name.clone(), read))
        });
        read.collect()
    }

    fn reference(&mut self, value: &Value, at: &str) -> Result<Option<Value>, GrammarError> {
        let reference = value.as_str().ok_or_else(|| invalid(at, "expected a string"))?;
        let Some(pointer) = reference.strip_prefix('#').filter(|p| p.is_empty() || p.starts_with('/')) else {
            return self.unsupported(at, "a reference that does not start with `#/`");
        };
        let pointer = pointer.replace("%25", "%").replace("%22", "\"").replace("%7C", "|");
        if self.document.pointer(&pointer).is_none() {
            return Err(invalid(at, format!("{reference} is not in {}", self.path)));
        }
        let fresh = format!("d{}", self.names.len());
        let name = self.names.entry(pointer.clone()).or_insert_with(|| {
            self.pending.push((fresh.clone(), pointer));
            fresh
        });
        Ok(Some(Value::String(format!("{DEFS}{name}"))))
    }
}

fn types(value: &Value, at: &str) -> Result<Value, GrammarError> {
    let known = |name: &Value| name.as_str().is_some_and(|name| TYPES.contains(&name));
    let fits = match value {
        Value::Array(list) => !list.is_empty() && list.iter().all(known),
        name => known(name),
    };
    if fits { Ok(value.clone()) } else { Err(invalid(at, format!("{value}, expected one or some of {TYPES:?}"))) }
}

fn names(value: &Value, at: &str) -> Result<Value, GrammarError> {
    let fits = value.as_array().is_some_and(|list| list.iter().all(Value::is_string));
    if fits { Ok(value.clone()) } else { Err(invalid(at, "expected a list of names")) }
}

pub(super) fn invalid(path: &str, reason: impl Into<String>) -> GrammarError {
    GrammarError::Invalid { path: path.to_owned(), reason: reason.into() }
}
