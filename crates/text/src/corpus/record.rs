//! The text of one JSON record: the string under the text column of an object.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

/// What a record of any format holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record {
    Text(String),
    /// Null, missing or empty.
    Missing {
        /// Whether there is a column of that name at all.
        named: bool,
    },
}

impl Record {
    pub(super) fn of(text: Option<String>) -> Self {
        match text {
            Some(text) if !text.is_empty() => Self::Text(text),
            _ => Self::Missing { named: true },
        }
    }
}

/// Reads a record out of JSON.
pub(super) struct Reader<'c> {
    /// The key under which the text stands.
    pub(super) column: &'c str,
    /// Whether a string by itself is a record too.
    pub(super) bare: bool,
}

impl Reader<'_> {
    pub(super) fn read(&self, json: &[u8]) -> serde_json::Result<Record> {
        let mut json = serde_json::Deserializer::from_slice(json);
        let record = self.deserialize(&mut json)?;
        json.end()?;
        Ok(record)
    }
}

impl<'de> DeserializeSeed<'de> for &Reader<'_> {
    type Value = Record;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Record, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &Reader<'_> {
    type Value = Record;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object with a string under {:?}", self.column)
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Record, M::Error> {
        let mut record = Record::Missing { named: false };
        while let Some(key) = map.next_key::<String>()? {
            if key == self.column {
                record = Record::of(map.next_value()?); // of two, the last, as in Python
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(record)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Record, E> {
        match self.bare {
            true => Ok(Record::of(Some(text.to_owned()))),
            false => Err(E::invalid_type(serde::de::Unexpected::Str(""), &self)),
        }
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Record, E> {
        Ok(Record::of(None))
    }
}

/// The keys of an object, for an error.
pub(super) fn keys(json: &[u8]) -> Vec<String> {
    let object = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(json);
    object.map(|object| object.into_iter().map(|(key, _)| key).collect()).unwrap_or_default()
}
