//! Reads little-endian numbers and texts from bytes, never past their end.

use crate::value::Value;
use crate::{Error, Result};

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
    pub(crate) fn value(&mut self, kind: u32) -> Result<Value> {
        Ok(match kind {
            8 => Value::Text(self.text()?),
            9 => return self.list(),
            10 => Value::Unsigned(self.u64()?),
            11 => Value::Signed(i64::from_le_bytes(self.array()?)),
            _ => self.small(kind)?,
        })
    }

    /// A list. In memory it takes at most eight times as much as in the file.
    fn list(&mut self) -> Result<Value> {
        let kind = self.u32()?;
        let count = self.count(least_bytes(kind))?;
        match kind {
            8 => Ok(Value::Texts((0..count).map(|_| self.text()).collect::<Result<_>>()?)),
            9 => Err(Error::Malformed(format!("{} is a list of lists, which no file needs", self.what))),
            _ => {
                let mut numbers = Vec::with_capacity(count);
                for _ in 0..count {
                    numbers.push(match self.value(kind)? {
                        Value::Bool(value) => f64::from(u8::from(value)),
                        value => value.as_f64().unwrap_or(f64::NAN),
                    });
                }
                Ok(Value::Numbers(numbers))
            }
        }
    }

    /// A value of a type of which several fit 64 bits, or a wide float.
    fn small(&mut self, kind: u32) -> Result<Value> {
        Ok(match kind {
            0 => Value::Unsigned(self.array::<1>()?[0].into()),
            1 => Value::Signed((self.array::<1>()?[0] as i8).into()),
            2 => Value::Unsigned(u16::from_le_bytes(self.array()?).into()),
            3 => Value::Signed(i16::from_le_bytes(self.array()?).into()),
            4 => Value::Unsigned(self.u32()?.into()),
            5 => Value::Signed(i32::from_le_bytes(self.array()?).into()),
            6 => Value::Float(f32::from_le_bytes(self.array()?).into()),
            7 => Value::Bool(self.array::<1>()?[0] != 0),
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
        _ => 1,
    }
}
