//! The header of a safetensors file, checked against the length of the file.

use crate::error::{Error, Result};
use offramp_files::legible;
use safetensors::SafeTensorError;
use safetensors::tensor::{Metadata, SafeTensors};
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

/// Bytes of the number at the start of the file, which is the length of its header.
const LENGTH: usize = 8;

/// Parses the header of a file's `bytes`; also returns where the values begin.
pub(super) fn parse(bytes: &[u8], path: &Path) -> Result<(usize, Metadata)> {
    let header = header(bytes).map_err(|reason| Error::safetensors(path, reason))?;
    if let Some(tensor) = first_duplicate(header) {
        return Err(Error::DuplicateTensor { path: path.to_owned(), tensor });
    }
    let parsed = SafeTensors::read_metadata(bytes);
    let (length, metadata) = parsed.map_err(|error| Error::safetensors(path, reason(&error, bytes.len())))?;
    Ok((LENGTH + length, metadata))
}

/// The header's text, if the file is long enough for it.
fn header(bytes: &[u8]) -> std::result::Result<&[u8], String> {
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH>() else {
        return Err(format!("{} bytes are too few for a header", bytes.len()));
    };
    let length = u64::from_le_bytes(*length);
    let header = usize::try_from(length).ok().and_then(|length| rest.get(..length));
    header.ok_or_else(|| {
        format!("the header should be {length} bytes long, but only {} follow its length", rest.len())
    })
}

fn reason(error: &SafeTensorError, length: usize) -> String {
    match error {
        SafeTensorError::MetadataIncompleteBuffer => {
            format!("its tensors do not end where the file does, at {length} bytes")
        }
        SafeTensorError::InvalidOffset(tensor) => {
            format!("tensor {} does not begin where the one before it ends", legible(tensor))
        }
        SafeTensorError::TensorInvalidInfo => {
            "a tensor's bytes are not as many as its shape asks for".to_owned()
        }
        other => other.to_string(),
    }
}

/// The first name that stands in the header twice. A map would silently keep the last.
fn first_duplicate(header: &[u8]) -> Option<String> {
    struct Names;
    impl<'de> Visitor<'de> for Names {
        type Value = Option<String>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a map of tensors")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
            let (mut seen, mut duplicate) = (BTreeSet::new(), None);
            while let Some((name, IgnoredAny)) = map.next_entry::<String, IgnoredAny>()? {
                if duplicate.is_none() && seen.contains(&name) {
                    duplicate = Some(name);
                } else {
                    seen.insert(name);
                }
            }
            Ok(duplicate)
        }
    }
    // The real parser reports what is not JSON.
    serde_json::Deserializer::from_slice(header).deserialize_map(Names).unwrap_or_default()
}
