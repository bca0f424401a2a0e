//! Metadata values. Owns the thirteen value types of the format, read as spans of the mapping and written from owned data.
//! Does not know which key wants which type.

use std::fmt;

use bytes::Bytes;

use crate::{
    cursor::{Cursor, split_str},
    error::Fault,
};

/// A value's type; the discriminant is the GGUF value type id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ValueType {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    Str = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

/// One metadata value as it lies in the file.
#[derive(Clone, Debug)]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    Str(Text),
    Array(Array),
    U64(u64),
    I64(i64),
    F64(f64),
}

/// A string of the file, checked to be UTF-8 when the file was opened.
#[derive(Clone)]
pub struct Text(Bytes);

/// An array of the file: `len` elements of one type. Nested arrays are kept but have no typed view.
#[derive(Clone)]
pub struct Array {
    element: ValueType,
    len: usize,
    data: Bytes,
}

/// The strings of an array, in order.
#[derive(Clone, Debug)]
pub struct Strings<'a> {
    left: usize,
    data: &'a [u8],
}

/// A value to write.
#[derive(Clone, Debug, PartialEq)]
pub enum OwnedValue {
    U32(u32),
    I32(i32),
    U64(u64),
    F32(f32),
    F64(f64),
    Bool(bool),
    Str(String),
    U32s(Vec<u32>),
    I32s(Vec<i32>),
    F32s(Vec<f32>),
    Strs(Vec<String>),
}

/// How deep arrays of arrays may go. These files have none; the format allows them.
const MAX_DEPTH: u32 = 8;

impl ValueType {
    const ALL: [Self; 13] = [
        Self::U8,
        Self::I8,
        Self::U16,
        Self::I16,
        Self::U32,
        Self::I32,
        Self::F32,
        Self::Bool,
        Self::Str,
        Self::Array,
        Self::U64,
        Self::I64,
        Self::F64,
    ];

    fn read(from: &mut Cursor<'_>) -> Result<Self, Fault> {
        let id = from.u32()?;
        let known = Self::ALL.get(id as usize).copied();
        known.ok_or_else(|| Fault::new(format!("value type {id}"), "a value type from 0 to 12"))
    }

    /// Fewest bytes one element takes.
    const fn smallest(self) -> u64 {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::Str | Self::U64 | Self::I64 | Self::F64 => 8,
            Self::Array => 12,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::U8 => "u8",
            Self::I8 => "i8",
            Self::U16 => "u16",
            Self::I16 => "i16",
            Self::U32 => "u32",
            Self::I32 => "i32",
            Self::F32 => "f32",
            Self::Bool => "bool",
            Self::Str => "string",
            Self::Array => "array",
            Self::U64 => "u64",
            Self::I64 => "i64",
            Self::F64 => "f64",
        }
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Value {
    /// A type id and the value of that type.
    pub(crate) fn read(from: &mut Cursor<'_>) -> Result<Self, Fault> {
        Ok(match ValueType::read(from)? {
            ValueType::U8 => Self::U8(from.u8()?),
            ValueType::I8 => Self::I8(from.u8()? as i8),
            ValueType::U16 => Self::U16(from.u16()?),
            ValueType::I16 => Self::I16(from.u16()? as i16),
            ValueType::U32 => Self::U32(from.u32()?),
            ValueType::I32 => Self::I32(from.u32()? as i32),
            ValueType::F32 => Self::F32(f32::from_bits(from.u32()?)),
            ValueType::Bool => Self::Bool(truth(from.u8()?)?),
            ValueType::Str => {
                let n = from.str()?.len();
                Self::Str(Text(from.since(from.at() - n)))
            }
            ValueType::Array => Self::Array(Array::read(from)?),
            ValueType::U64 => Self::U64(from.u64()?),
            ValueType::I64 => Self::I64(from.u64()? as i64),
            ValueType::F64 => Self::F64(f64::from_bits(from.u64()?)),
        })
    }

    /// What it is, for messages: `u32`, `array of 43 f32`.
    pub fn kind(&self) -> String {
        match self {
            Self::Str(_) => ValueType::Str.to_string(),
            Self::Array(a) => format!("array of {} {}", a.len, a.element),
            Self::U8(_) => ValueType::U8.to_string(),
            Self::I8(_) => ValueType::I8.to_string(),
            Self::U16(_) => ValueType::U16.to_string(),
            Self::I16(_) => ValueType::I16.to_string(),
            Self::U32(_) => ValueType::U32.to_string(),
            Self::I32(_) => ValueType::I32.to_string(),
            Self::F32(_) => ValueType::F32.to_string(),
            Self::Bool(_) => ValueType::Bool.to_string(),
            Self::U64(_) => ValueType::U64.to_string(),
            Self::I64(_) => ValueType::I64.to_string(),
            Self::F64(_) => ValueType::F64.to_string(),
        }
    }
}

fn truth(byte: u8) -> Result<bool, Fault> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(Fault::new(format!("a bool of {other}"), "0 or 1")),
    }
}

impl Text {
    /// The string. Empty if the file was changed under the mapping so that it no longer is one.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl Array {
    fn read(from: &mut Cursor<'_>) -> Result<Self, Fault> {
        let (element, len, start) = skip_array(from, 1)?;
        Ok(Self { element, len, data: from.since(start) })
    }

    /// Type of the elements.
    pub fn element(&self) -> ValueType {
        self.element
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True for an array without elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements' bytes as the file holds them.
    pub fn bytes(&self) -> &[u8] {
        &self.data
    }

    /// The elements, if they are strings.
    pub fn strings(&self) -> Option<Strings<'_>> {
        (self.element == ValueType::Str).then_some(Strings { left: self.len, data: &self.data })
    }

    pub(crate) fn words(&self) -> impl Iterator<Item = u32> + '_ {
        self.data.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b))
    }

    pub(crate) fn doubles(&self) -> impl Iterator<Item = f64> + '_ {
        self.data.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b))
    }
}

impl fmt::Debug for Array {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}; {}]", self.element, self.len)
    }
}

/// Walks over an array and checks it: its element type, length and where its elements begin.
fn skip_array(from: &mut Cursor<'_>, depth: u32) -> Result<(ValueType, usize, usize), Fault> {
    let element = ValueType::read(from)?;
    let len = from.count(element.smallest())?;
    let start = from.at();
    match element {
        ValueType::Str => from.skip_strs(len)?,
        ValueType::Array if depth == MAX_DEPTH => {
            return Err(Fault::new("an array nested deeper", format!("at most {MAX_DEPTH} levels")));
        }
        ValueType::Array => {
            for _ in 0..len {
                skip_array(from, depth + 1)?;
            }
        }
        ValueType::Bool => {
            for &byte in from.take(len)? {
                truth(byte)?;
            }
        }
        // `count` has shown that so many elements are left, so neither the product nor the conversion can overflow.
        _ => drop(from.take(len * element.smallest())?),
    }
    Ok((element, len as usize, start))
}

impl<'a> Iterator for Strings<'a> {
    type Item = &'a str;

    /// The lengths were checked when the file was opened; should it have been changed under the mapping since, the rest are empty.
    fn next(&mut self) -> Option<&'a str> {
        self.left = self.left.checked_sub(1)?;
        let (text, rest) = split_str(self.data).unwrap_or_default();
        self.data = rest;
        Some(std::str::from_utf8(text).unwrap_or_default())
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Strings<'_> {}

impl OwnedValue {
    /// Appends the type id and the value.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::U32(v) => scalar(out, ValueType::U32, &v.to_le_bytes()),
            Self::I32(v) => scalar(out, ValueType::I32, &v.to_le_bytes()),
            Self::U64(v) => scalar(out, ValueType::U64, &v.to_le_bytes()),
            Self::F32(v) => scalar(out, ValueType::F32, &v.to_le_bytes()),
            Self::F64(v) => scalar(out, ValueType::F64, &v.to_le_bytes()),
            Self::Bool(v) => scalar(out, ValueType::Bool, &[u8::from(*v)]),
            Self::Str(v) => {
                scalar(out, ValueType::Str, &[]);
                write_str(out, v);
            }
            Self::U32s(v) => array(out, ValueType::U32, v, |out, x| out.extend(x.to_le_bytes())),
            Self::I32s(v) => array(out, ValueType::I32, v, |out, x| out.extend(x.to_le_bytes())),
            Self::F32s(v) => array(out, ValueType::F32, v, |out, x| out.extend(x.to_le_bytes())),
            Self::Strs(v) => array(out, ValueType::Str, v, |out, x| write_str(out, x)),
        }
    }
}

fn scalar(out: &mut Vec<u8>, kind: ValueType, bytes: &[u8]) {
    out.extend((kind as u32).to_le_bytes());
    out.extend(bytes);
}

fn array<T>(out: &mut Vec<u8>, element: ValueType, values: &[T], mut each: impl FnMut(&mut Vec<u8>, &T)) {
    scalar(out, ValueType::Array, &(element as u32).to_le_bytes());
    out.extend((values.len() as u64).to_le_bytes());
    for v in values {
        each(out, v);
    }
}

pub(crate) fn write_str(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

macro_rules! owned_from {
    ($($from:ty => $variant:ident),* $(,)?) => {
        $(impl From<$from> for OwnedValue {
            fn from(v: $from) -> Self {
                Self::$variant(v.into())
            }
        })*
    };
}
owned_from! {
    u32 => U32, i32 => I32, u64 => U64, f32 => F32, f64 => F64, bool => Bool, &str => Str, String => Str,
    Vec<u32> => U32s, Vec<i32> => I32s, Vec<f32> => F32s, Vec<String> => Strs,
}
