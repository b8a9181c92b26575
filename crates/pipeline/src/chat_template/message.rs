//! The messages and JSON values that a template gets. Objects keep the order of their keys.

use minijinja::Value;
use serde::de::{self, Deserialize, Deserializer};

/// The names of a message's reasoning. Templates read the first.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// Any JSON value. Objects keep the order of their keys, unlike `serde_json`'s, because templates print them.
#[derive(Debug, Clone)]
pub struct Json(pub(super) Value);

impl Json {
    /// Parses JSON text.
    ///
    /// # Errors
    ///
    /// If the text is not JSON.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(Self)
    }
}

impl From<bool> for Json {
    fn from(value: bool) -> Self {
        Self(Value::from(value))
    }
}

impl From<&str> for Json {
    fn from(value: &str) -> Self {
        Self(Value::from(value))
    }
}

/// One message of a conversation: `role`, `content`, and other keys that templates read (`tool_calls`, …).
#[derive(Debug, Clone)]
pub struct Message(Vec<(Value, Value)>);

impl Message {
    /// A message of text.
    #[must_use]
    pub fn new(role: &str, content: &str) -> Self {
        Self(vec![(Value::from("role"), Value::from(role)), (Value::from("content"), Value::from(content))])
    }

    /// The value of `key`; `None` if it is missing or null.
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.0.iter().find(|(name, _)| name.as_str() == Some(key)).map(|(_, value)| value)
    }

    pub(super) fn set(&mut self, key: &str, value: Value) {
        match self.0.iter_mut().find(|(name, _)| name.as_str() == Some(key)) {
            Some((_, old)) => *old = value,
            None => self.0.push((Value::from(key), value)),
        }
    }

    /// The message as `transformers` gives it to a template: the reasoning has every name that templates use.
    pub(super) fn for_template(&self) -> Self {
        let Some(reasoning) = REASONING.iter().find_map(|name| self.get(name)).cloned() else {
            return self.clone();
        };
        let mut message = self.clone();
        if self.get("thinking").is_none() {
            message.0.insert(0, (Value::from("thinking"), reasoning.clone()));
        }
        message.set("reasoning_content", reasoning);
        message
    }

    pub(super) fn value(&self) -> Value {
        Value::from_pairs(self.0.iter().cloned())
    }

    /// The approximate number of bytes that a template reads.
    pub(super) fn size(&self) -> u64 {
        self.0.iter().map(|(_, value)| size(value)).sum()
    }
}

/// The approximate size of a value in bytes.
pub(super) fn size(value: &Value) -> u64 {
    const SMALL: u64 = 32;
    if let Some(text) = value.as_str() {
        return SMALL + text.len() as u64;
    }
    let Some(object) = value.as_object() else { return SMALL };
    SMALL + object.try_iter_pairs().into_iter().flatten().map(|(_, item)| SMALL + size(&item)).sum::<u64>()
}

impl<'de> Deserialize<'de> for Message {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let pairs = match (value.kind(), value.as_object()) {
            (minijinja::value::ValueKind::Map, Some(object)) => object.try_iter_pairs(),
            _ => None,
        };
        let pairs =
            pairs.ok_or_else(|| de::Error::custom("a message is an object with \"role\" and \"content\""))?;
        Ok(Self(pairs.filter(|(_, value)| !value.is_none()).collect()))
    }
}
