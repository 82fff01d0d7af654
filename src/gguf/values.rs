//! The values in a file's head, kept as they are so that they can be written again.

use std::borrow::Cow;
use std::fmt;

/// Types of values.
const U16: u32 = 2;
const U32: u32 = 4;
pub(super) const TEXT: u32 = 8;
pub(super) const LIST: u32 = 9;
const U64: u32 = 10;

/// Bytes of a value of a type that always takes as many.
pub(super) fn fixed_bytes(ty: u32) -> Option<u64> {
    match ty {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

/// A value, as the file has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// The number of its type.
    pub(super) ty: u32,
    /// What follows the type: of a text and of a list its length is the first of it.
    pub(super) bytes: Vec<u8>,
}

impl Value {
    /// A text.
    pub fn text(text: &str) -> Self {
        let n_bytes = (text.len() as u64).to_le_bytes();
        Self {
            ty: TEXT,
            bytes: [&n_bytes, text.as_bytes()].concat(),
        }
    }

    /// A number.
    pub fn u32(number: u32) -> Self {
        Self {
            ty: U32,
            bytes: number.to_le_bytes().to_vec(),
        }
    }

    /// If it is a text.
    pub fn as_text(&self) -> Option<Cow<'_, str>> {
        (self.ty == TEXT).then(|| String::from_utf8_lossy(&self.bytes[8..]))
    }

    /// If it is a whole number without a sign.
    pub fn as_number(&self) -> Option<u64> {
        let mut bytes = [0; 8];
        let is_number = matches!(self.ty, U16 | U32 | U64);
        is_number.then(|| {
            bytes[..self.bytes.len()].copy_from_slice(&self.bytes);
            u64::from_le_bytes(bytes)
        })
    }

    /// If it is a number of 32 bits.
    pub fn as_u32(&self) -> Option<u32> {
        let number = self.as_number().filter(|_| self.ty == U32);
        number.map(|number| number as u32)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match (self.as_text(), self.as_number(), self.ty) {
            (Some(text), ..) => write!(f, "{text:?}"),
            (_, Some(number), _) => write!(f, "{number}"),
            (.., LIST) => f.write_str("a list"),
            (.., ty) => write!(f, "of type {ty}"),
        }
    }
}

/// The values of a file by their keys, in its order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Values(pub(super) Vec<(Vec<u8>, Value)>);

impl Values {
    /// The value of `key`, if it is there.
    pub fn get(&self, key: &str) -> Option<&Value> {
        let found = self.0.iter().find(|(name, _)| name == key.as_bytes());
        found.map(|(_, value)| value)
    }

    /// The same if it is a text.
    pub fn text(&self, key: &str) -> Option<Cow<'_, str>> {
        self.get(key).and_then(Value::as_text)
    }

    /// The same if it is a whole number without a sign.
    pub fn number(&self, key: &str) -> Option<u64> {
        self.get(key).and_then(Value::as_number)
    }

    /// Takes a value out.
    pub fn remove(&mut self, key: &str) {
        self.0.retain(|(name, _)| name != key.as_bytes());
    }

    /// Sets a value, which becomes the last one, as with ggml's own writer.
    pub fn set(&mut self, key: &str, value: Value) {
        self.remove(key);
        self.0.push((key.as_bytes().to_vec(), value));
    }
}
