//! Reads little-endian numbers and texts from bytes, never past their end.

use crate::value::Value;
use crate::{Error, Result};

/// The deepest list within a list: files have none, and each level is a call.
const DEEPEST: usize = 4;

/// Bytes, and how many of them are read.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    what: String, // is being read, for errors
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, what: "its first numbers".to_owned() }
    }

    /// Says what is read from here on.
    pub(crate) fn reads(&mut self, what: impl Into<String>) {
        self.what = what.into();
    }

    pub(crate) fn at(&self) -> usize {
        self.at
    }

    pub(crate) fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let bytes = self.at.checked_add(len).and_then(|end| self.bytes.get(self.at..end));
        let bytes = bytes.ok_or_else(|| Error::Truncated(self.what.clone()))?;
        self.at += len;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.take(N)?.try_into().expect("so many bytes"))
    }

    pub(crate) fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A count of things that take at least `least` bytes each: never more than are left.
    pub(crate) fn count(&mut self, least: usize) -> Result<usize> {
        let count = self.u64()?;
        let possible = usize::try_from(count).ok().filter(|&count| count <= self.left() / least);
        possible.ok_or_else(|| Error::Truncated(self.what.clone()))
    }

    pub(crate) fn text(&mut self) -> Result<String> {
        let len = self.count(1)?;
        let bytes = self.take(len)?;
        // A vocabulary may have pieces that are no text.
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }

    /// A value whose type is `kind`.
    pub(crate) fn value(&mut self, kind: u32, depth: usize) -> Result<Value> {
        Ok(match kind {
            0 => Value::Unsigned(self.array::<1>()?[0].into()),
            1 => Value::Signed((self.array::<1>()?[0] as i8).into()),
            2 => Value::Unsigned(u16::from_le_bytes(self.array()?).into()),
            3 => Value::Signed(i16::from_le_bytes(self.array()?).into()),
            4 => Value::Unsigned(self.u32()?.into()),
            5 => Value::Signed(i32::from_le_bytes(self.array()?).into()),
            6 => Value::Float(f32::from_le_bytes(self.array()?).into()),
            7 => Value::Bool(self.array::<1>()?[0] != 0),
            8 => Value::Text(self.text()?),
            9 if depth < DEEPEST => {
                let kind = self.u32()?;
                let count = self.count(least_bytes(kind))?;
                // What a list takes in memory is bounded by what it takes in the file, times a constant.
                let mut values = Vec::with_capacity(count.min(1 << 16));
                for _ in 0..count {
                    values.push(self.value(kind, depth + 1)?);
                }
                Value::List(values)
            }
            9 => return Err(Error::Malformed(format!("{} is a list in a list in a list", self.what))),
            10 => Value::Unsigned(self.u64()?),
            11 => Value::Signed(i64::from_le_bytes(self.array()?)),
            12 => Value::Float(f64::from_le_bytes(self.array()?)),
            kind => {
                return Err(Error::Malformed(format!("{} is of type {kind}, which there is not", self.what)));
            }
        })
    }
}

/// The fewest bytes that a value of a type takes.
fn least_bytes(kind: u32) -> usize {
    match kind {
        2 | 3 => 2,
        4..=6 => 4,
        8 | 10..=12 => 8,
        9 => 12,
        _ => 1,
    }
}
