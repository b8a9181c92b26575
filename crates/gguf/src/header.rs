//! The metadata of a file and the list of its tensors.

use crate::reader::Reader;
use crate::tensor::TensorType;
use crate::value::Value;
use crate::{ALIGNMENT, Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// A tensor has at most so many sizes.
const MOST_SIZES: u32 = 4;
/// The largest alignment that anybody can want: a page of 2 MiB.
const MOST_ALIGNMENT: u64 = 2 << 20;

/// What stands before the values.
#[derive(Clone, Debug)]
pub struct Header {
    /// The version of the container, 2 or 3.
    pub version: u32,
    /// Every key, in no order.
    pub metadata: BTreeMap<String, Value>,
    /// Every tensor, in the order of the file.
    pub tensors: Vec<TensorInfo>,
}

/// A tensor of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// Its shape as Python has it, `[out_features, in_features]`: the file lists sizes the other way round.
    pub shape: Vec<usize>,
    /// Its number format.
    pub kind: TensorType,
    /// Where its bytes are in the file.
    pub bytes: Range<usize>,
}

impl Header {
    /// Reads the header of a file, whose bytes these are, and checks that each tensor's bytes are there.
    ///
    /// # Errors
    /// If it is no such file, ends too early, has a key or a tensor twice, or a tensor of a format that is
    /// not decoded.
    pub fn parse(file: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(file);
        if reader.take(4).ok() != Some(b"GGUF") {
            return Err(Error::Magic);
        }
        let version = reader.u32()?;
        match version {
            2 | 3 => (),
            version if (2..=3).contains(&version.swap_bytes()) => return Err(Error::BigEndian),
            version => return Err(Error::Version(version)),
        }
        // The least tensor: an empty name, no size, a type, an offset; the least key: a name, a type, a byte.
        let tensors = reader.count(24)?;
        let keys = reader.count(13)?;
        let mut metadata = BTreeMap::new();
        for _ in 0..keys {
            reader.reads("its metadata");
            let key = reader.text()?;
            reader.reads(format!("the key {key:?}"));
            let kind = reader.u32()?;
            let value = reader.value(kind)?;
            if metadata.insert(key.clone(), value).is_some() {
                return Err(Error::Malformed(format!("it has the key {key:?} twice")));
            }
        }
        let mut found = Vec::new();
        for _ in 0..tensors {
            found.push(Unplaced::read(&mut reader)?);
        }
        let start = (reader.at() as u64).next_multiple_of(alignment(&metadata)?);
        let mut names = BTreeSet::new();
        let placed = found.into_iter().map(|tensor| {
            if !names.insert(tensor.name.clone()) {
                return Err(Error::Malformed(format!("it has the tensor {:?} twice", tensor.name)));
            }
            tensor.place(start, file.len())
        });
        Ok(Self { version, tensors: placed.collect::<Result<_>>()?, metadata })
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.metadata.get(key)
    }
}

fn alignment(metadata: &BTreeMap<String, Value>) -> Result<u64> {
    let Some(value) = metadata.get("general.alignment") else { return Ok(ALIGNMENT) };
    let alignment = value.as_u64().filter(|&bytes| bytes.is_power_of_two() && bytes <= MOST_ALIGNMENT);
    alignment.ok_or_else(|| Error::Malformed(format!("general.alignment is {value:?}: no power of two")))
}

/// A tensor as its list has it.
struct Unplaced {
    name: String,
    shape: Vec<usize>,
    kind: TensorType,
    offset: u64,
}

impl Unplaced {
    fn read(reader: &mut Reader<'_>) -> Result<Self> {
        reader.reads("its list of tensors");
        let name = reader.text()?;
        reader.reads(format!("the tensor {name:?}"));
        let sizes = reader.u32()?;
        if sizes > MOST_SIZES {
            return Err(Error::Malformed(format!("tensor {name:?} has {sizes} sizes: at most {MOST_SIZES}")));
        }
        let mut shape = Vec::new();
        for _ in 0..sizes {
            let size = reader.u64()?;
            let fault = || Error::Malformed(format!("tensor {name:?} has a size of {size}"));
            shape.push(usize::try_from(size).map_err(|_| fault())?);
        }
        shape.reverse();
        let kind = reader.u32()?;
        let offset = reader.u64()?;
        match TensorType::from_number(kind) {
            Ok(kind) => Ok(Self { name, shape, kind, offset }),
            Err(kind) => Err(Error::Type { tensor: name, name: kind }),
        }
    }

    /// Finds its bytes in a file whose values begin at `start`.
    fn place(self, start: u64, end: usize) -> Result<TensorInfo> {
        let Self { name, shape, kind, offset } = self;
        let malformed = |reason: String| Error::Malformed(format!("tensor {name:?} {reason}"));
        let row = shape.last().copied().unwrap_or(1);
        if row % kind.block() != 0 {
            let block = kind.block();
            return Err(malformed(format!("has rows of {row} values in blocks of {block}")));
        }
        let values = shape.iter().try_fold(1usize, |all, &size| all.checked_mul(size));
        let bytes = values.and_then(|values| (values / kind.block()).checked_mul(kind.block_bytes()));
        let bytes = bytes.ok_or_else(|| malformed(format!("is of shape {shape:?}")))?;
        let first = start.checked_add(offset).and_then(|first| usize::try_from(first).ok());
        let place = first.and_then(|first| Some(first..first.checked_add(bytes)?));
        match place.filter(|place| place.end <= end) {
            Some(bytes) => Ok(TensorInfo { name, shape, kind, bytes }),
            None => Err(Error::Truncated(format!("the tensor {name:?}"))),
        }
    }
}
