//! Writes a file: the header, then each tensor's bytes in turn, so that only one has to be in memory.

use crate::ALIGNMENT;
use crate::tensor::TensorType;
use crate::value::Value;
use std::io::{self, Write};

/// A tensor that is to be written.
#[derive(Clone, Debug)]
pub struct NewTensor {
    /// Its name.
    pub name: String,
    /// Its shape, `[out_features, in_features]`.
    pub shape: Vec<usize>,
    /// Its number format.
    pub kind: TensorType,
}

impl NewTensor {
    fn bytes(&self) -> u64 {
        let values: usize = self.shape.iter().product();
        (values / self.kind.block() * self.kind.block_bytes()) as u64
    }
}

/// A file whose tensors are written one after another.
#[derive(Debug)]
pub struct Placed<W> {
    out: W,
    written: u64,
}

/// Writes the header: metadata in this order, and the list of the tensors that are to follow.
///
/// # Errors
/// If `out` fails.
pub fn write<W: Write>(
    mut out: W,
    metadata: &[(String, Value)],
    tensors: &[NewTensor],
) -> io::Result<Placed<W>> {
    let mut head = b"GGUF".to_vec();
    head.extend(3u32.to_le_bytes());
    head.extend((tensors.len() as u64).to_le_bytes());
    head.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata {
        text(key, &mut head);
        head.extend(kind(value).to_le_bytes());
        put(value, &mut head);
    }
    let mut offset = 0u64;
    for tensor in tensors {
        text(&tensor.name, &mut head);
        head.extend((tensor.shape.len() as u32).to_le_bytes());
        tensor.shape.iter().rev().for_each(|&size| head.extend((size as u64).to_le_bytes()));
        head.extend(tensor.kind.number().to_le_bytes());
        head.extend(offset.to_le_bytes());
        offset += tensor.bytes().next_multiple_of(ALIGNMENT);
    }
    head.resize(head.len().next_multiple_of(ALIGNMENT as usize), 0);
    out.write_all(&head)?;
    Ok(Placed { out, written: 0 })
}

impl<W: Write> Placed<W> {
    /// Writes the next part of the present tensor's bytes.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    /// Ends the present tensor.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn end(&mut self) -> io::Result<()> {
        let padding = self.written.next_multiple_of(ALIGNMENT) - self.written;
        self.written = 0;
        self.out.write_all(&[0; ALIGNMENT as usize][..padding as usize])
    }
}

/// The number of a value's type: whole numbers are of 32 bits where they fit, and so are floats.
fn kind(value: &Value) -> u32 {
    match value {
        Value::Unsigned(number) if u32::try_from(*number).is_ok() => 4,
        Value::Signed(number) if i32::try_from(*number).is_ok() => 5,
        Value::Float(number) if is_single(*number) => 6,
        Value::Bool(_) => 7,
        Value::Text(_) => 8,
        Value::Texts(_) | Value::Numbers(_) => 9,
        Value::Unsigned(_) => 10,
        Value::Signed(_) => 11,
        Value::Float(_) => 12,
    }
}

fn is_single(number: f64) -> bool {
    f64::from(number as f32) == number || number.is_nan()
}

fn put(value: &Value, out: &mut Vec<u8>) {
    match (kind(value), value) {
        (4, Value::Unsigned(number)) => out.extend((*number as u32).to_le_bytes()),
        (5, Value::Signed(number)) => out.extend((*number as i32).to_le_bytes()),
        (6, Value::Float(number)) => out.extend((*number as f32).to_le_bytes()),
        (_, Value::Unsigned(number)) => out.extend(number.to_le_bytes()),
        (_, Value::Signed(number)) => out.extend(number.to_le_bytes()),
        (_, Value::Float(number)) => out.extend(number.to_le_bytes()),
        (_, Value::Bool(value)) => out.push((*value).into()),
        (_, Value::Text(value)) => text(value, out),
        (_, Value::Texts(texts)) => {
            list(8, texts.len(), out);
            texts.iter().for_each(|one| text(one, out));
        }
        (_, Value::Numbers(numbers)) => put_numbers(numbers, out),
    }
}

/// Numbers as whole ones of 32 bits where all of them are, else as floats.
fn put_numbers(numbers: &[f64], out: &mut Vec<u8>) {
    if numbers.iter().all(|&number| f64::from(number as i32) == number) {
        list(5, numbers.len(), out);
        numbers.iter().for_each(|&number| out.extend((number as i32).to_le_bytes()));
    } else if numbers.iter().copied().all(is_single) {
        list(6, numbers.len(), out);
        numbers.iter().for_each(|&number| out.extend((number as f32).to_le_bytes()));
    } else {
        list(12, numbers.len(), out);
        numbers.iter().for_each(|number| out.extend(number.to_le_bytes()));
    }
}

fn list(kind: u32, len: usize, out: &mut Vec<u8>) {
    out.extend(kind.to_le_bytes());
    out.extend((len as u64).to_le_bytes());
}

fn text(text: &str, out: &mut Vec<u8>) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}
