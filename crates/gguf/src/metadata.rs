//! The key-value part of a file with typed getters. Owns which stored types each getter accepts and the wording when a value
//! is missing or of another kind; the strings and arrays themselves stay in the mapping.

use std::{collections::HashMap, sync::Arc};

use crate::{
    error::{Error, Fault, Result, shown},
    value::{Array, Strings, Value, ValueType},
};

/// All records of a file in file order. Every getter's error names the file, the key, what was found and what was expected.
#[derive(Clone, Debug)]
pub struct Metadata {
    file: Arc<str>,
    records: Vec<(Arc<str>, Value)>,
    index: HashMap<Arc<str>, usize>,
}

impl Metadata {
    pub(crate) fn new(file: Arc<str>) -> Self {
        Self { file, records: Vec::new(), index: HashMap::new() }
    }

    /// False if the key was there already.
    pub(crate) fn insert(&mut self, key: &str, value: Value) -> bool {
        let key: Arc<str> = key.into();
        let fresh = self.index.insert(key.clone(), self.records.len()).is_none();
        self.records.push((key, value));
        fresh
    }

    /// The file these records come from, as messages name it.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The raw value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.index.get(key).map(|&i| &self.records[i].1)
    }

    /// Whether the key is there.
    pub fn contains(&self, key: &str) -> bool {
        self.index.contains_key(key)
    }

    /// All records in file order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.records.iter().map(|(k, v)| (&**k, v))
    }

    /// A `u32`.
    pub fn u32(&self, key: &str) -> Result<u32> {
        self.typed(key, "u32", |v| match v {
            Value::U32(v) => Some(*v),
            _ => None,
        })
    }

    /// A `u64` or `u32`.
    pub fn u64(&self, key: &str) -> Result<u64> {
        self.typed(key, "u64 or u32", |v| match v {
            Value::U64(v) => Some(*v),
            Value::U32(v) => Some(u64::from(*v)),
            _ => None,
        })
    }

    /// A number stored as `f32`, `f64`, `u32` or `i32`.
    pub fn f32(&self, key: &str) -> Result<f32> {
        self.typed(key, "f32, f64, u32 or i32", |v| match v {
            Value::F32(v) => Some(*v),
            Value::F64(v) => Some(*v as f32),
            Value::U32(v) => Some(*v as f32),
            Value::I32(v) => Some(*v as f32),
            _ => None,
        })
    }

    /// A `bool`.
    pub fn bool(&self, key: &str) -> Result<bool> {
        self.typed(key, "bool", |v| match v {
            Value::Bool(v) => Some(*v),
            _ => None,
        })
    }

    /// A string.
    pub fn str(&self, key: &str) -> Result<&str> {
        self.typed(key, "string", |v| match v {
            Value::Str(v) => Some(v.as_str()),
            _ => None,
        })
    }

    /// An array of `u32`, or of `i32` none of which is negative.
    pub fn u32s(&self, key: &str) -> Result<Vec<u32>> {
        let array = self.array(key, &[ValueType::U32, ValueType::I32], "array of u32 or of i32")?;
        let values: Vec<u32> = array.words().collect();
        let negative = |v: &&u32| array.element() == ValueType::I32 && **v > i32::MAX as u32;
        match values.iter().find(negative) {
            Some(&v) => Err(self.invalid(key, Fault::new(format!("{} in an array", v as i32), "no negative number"))),
            None => Ok(values),
        }
    }

    /// An array of `i32`, or of `u32` all below 2^31.
    pub fn i32s(&self, key: &str) -> Result<Vec<i32>> {
        let array = self.array(key, &[ValueType::I32, ValueType::U32], "array of i32 or of u32")?;
        let large = |v: &u32| array.element() == ValueType::U32 && *v > i32::MAX as u32;
        match array.words().find(large) {
            Some(v) => Err(self.invalid(key, Fault::new(format!("{v} in an array"), "numbers below 2147483648"))),
            None => Ok(array.words().map(|v| v as i32).collect()),
        }
    }

    /// An array of `f32` or `f64`.
    pub fn f32s(&self, key: &str) -> Result<Vec<f32>> {
        let array = self.array(key, &[ValueType::F32, ValueType::F64], "array of f32 or of f64")?;
        Ok(match array.element() {
            ValueType::F32 => array.words().map(f32::from_bits).collect(),
            _ => array.doubles().map(|v| v as f32).collect(),
        })
    }

    /// An array of strings, read where they lie.
    pub fn strings(&self, key: &str) -> Result<Strings<'_>> {
        self.typed(key, "array of string", |v| match v {
            Value::Array(a) => a.strings(),
            _ => None,
        })
    }

    fn array(&self, key: &str, elements: &[ValueType], expected: &'static str) -> Result<&Array> {
        self.typed(key, expected, |v| match v {
            Value::Array(a) if elements.contains(&a.element()) => Some(a),
            _ => None,
        })
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<T> {
        let value = self.get(key).ok_or_else(|| Error::MissingKey {
            file: self.file.to_string(),
            key: shown(key),
            expected,
        })?;
        read(value).ok_or_else(|| self.invalid(key, Fault::new(value.kind(), expected)))
    }

    fn invalid(&self, key: &str, fault: Fault) -> Error {
        fault.at(&self.file, format!("key {}", shown(key)))
    }
}
