//! The text of one JSON record: the string under the text column of an object.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

/// A record of any format.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum CorpusRecord {
    Text(String),
    /// Null, missing or empty.
    Missing {
        /// Whether the record has the text column at all.
        named: bool,
    },
}

impl CorpusRecord {
    pub(super) fn of(text: Option<String>) -> Self {
        match text {
            Some(text) if !text.is_empty() => Self::Text(text),
            _ => Self::Missing { named: true },
        }
    }
}

/// Parses a JSON record.
pub(super) struct RecordParser<'c> {
    /// The key of the text.
    pub(super) column: &'c str,
    /// Whether a bare string is a record too.
    pub(super) bare: bool,
}

impl RecordParser<'_> {
    pub(super) fn read(&self, json: &[u8]) -> serde_json::Result<CorpusRecord> {
        let mut json = serde_json::Deserializer::from_slice(json);
        let record = self.deserialize(&mut json)?;
        json.end()?;
        Ok(record)
    }
}

impl<'de> DeserializeSeed<'de> for &RecordParser<'_> {
    type Value = CorpusRecord;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<CorpusRecord, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &RecordParser<'_> {
    type Value = CorpusRecord;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object with a string under {:?}", self.column)
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<CorpusRecord, M::Error> {
        let mut record = CorpusRecord::Missing { named: false };
        while let Some(key) = map.next_key::<String>()? {
            if key == self.column {
                record = CorpusRecord::of(map.next_value()?); // of two equal keys the last counts, as in Python
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(record)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<CorpusRecord, E> {
        match self.bare {
            true => Ok(CorpusRecord::of(Some(text.to_owned()))),
            false => Err(E::invalid_type(serde::de::Unexpected::Str(""), &self)),
        }
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<CorpusRecord, E> {
        Ok(CorpusRecord::of(None))
    }
}

/// The keys of an object, for an error.
pub(super) fn keys(json: &[u8]) -> Vec<String> {
    let object = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(json);
    object.map(|object| object.into_iter().map(|(key, _)| key).collect()).unwrap_or_default()
}
