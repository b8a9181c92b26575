//! Fingerprints of tokenizers and of sequences of token ids.
//!
//! A [`Fingerprint`] is a 64-bit hash (FNV-1a; Fowler, Noll and Vo), updated one value at a time. It detects
//! mistakes, not forgeries. Two sequences that differ in one value never have the same fingerprint.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::error::{Error, Result};

const START: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0100_0000_01b3;

/// Keys of a `tokenizer.json` that change no id: `trim_offsets`, and the random `dropout`, which is ignored
/// here.
const NO_ID: [&str; 2] = ["trim_offsets", "dropout"];

/// A 64-bit hash, written as 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(pub(crate) u64);

/// A hash that is being computed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FingerprintHasher(u64);

impl FingerprintHasher {
    /// The hash of an empty sequence.
    pub(crate) fn new() -> Self {
        Self(START)
    }

    pub(crate) fn add(&mut self, value: u64) {
        self.0 = (self.0 ^ value).wrapping_mul(PRIME);
    }

    pub(crate) fn add_ids(&mut self, ids: &[u32]) {
        ids.iter().for_each(|&id| self.add(u64::from(id)));
    }

    /// Adds the length first, so that two texts differ from their concatenation.
    pub(crate) fn add_text(&mut self, text: &str) {
        self.add(text.len() as u64);
        text.bytes().for_each(|byte| self.add(u64::from(byte)));
    }

    /// Gives the same result for every order of an object's keys, and whether a value is missing, `null` or
    /// empty.
    fn add_json(&mut self, value: &Value) {
        match value {
            Value::Array(items) => {
                self.add_text("[");
                self.add(items.len() as u64);
                items.iter().for_each(|item| self.add_json(item));
            }
            Value::Object(keys) => {
                let mut keys: Vec<_> = keys.iter().collect();
                keys.sort_unstable_by_key(|(key, _)| *key);
                self.add_text("{");
                for (key, value) in keys {
                    // A vocabulary's keys are tokens with any name, but its values are never empty.
                    let says_nothing = value.is_null() || value == "" || NO_ID.contains(&key.as_str());
                    if !says_nothing || value.is_u64() {
                        self.add_text(key);
                        self.add_json(value);
                    }
                }
                self.add_text("}");
            }
            scalar => self.add_text(&scalar.to_string()),
        }
    }

    pub(crate) fn fingerprint(self) -> Fingerprint {
        Fingerprint(self.0)
    }
}

impl Fingerprint {
    /// The fingerprint of a tokenizer. It covers everything that turns a text into ids, and the id of every
    /// token. It does not cover the file's layout, what is added around a prompt, truncation, padding, or how
    /// ids become text again.
    pub(crate) fn of_tokenizer(inner: &tokenizers::Tokenizer) -> Result<Self> {
        let json = inner.to_string(false).map_err(Error::tokenizer)?;
        let json: Value = serde_json::from_str(&json).map_err(Error::tokenizer)?;
        let mut sum = FingerprintHasher::new();
        for part in ["added_tokens", "normalizer", "pre_tokenizer", "model"] {
            sum.add_text(part);
            sum.add_json(&json[part]);
        }
        Ok(sum.fingerprint())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let value = u64::from_str_radix(&text, 16).ok().filter(|_| digits);
        value.map(Self).ok_or_else(|| D::Error::custom(format!("\"{text}\" is not 16 hexadecimal digits")))
    }
}

#[cfg(test)]
mod tests;
