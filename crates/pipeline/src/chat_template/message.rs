//! What a template is given: messages, and values as JSON has them, their keys in the order in which they came.

use minijinja::Value;
use serde::de::{self, Deserialize, Deserializer};

/// Names of a message's reasoning; the first is the one that templates read.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// Any JSON value. Unlike `serde_json`'s, an object keeps its keys in order: templates print them.
#[derive(Debug, Clone)]
pub struct Json(pub(super) Value);

impl Json {
    /// Reads JSON text.
    ///
    /// # Errors
    ///
    /// Where it is none.
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

/// One message of a conversation: `role` and `content`, and whatever else the template reads (`tool_calls`, …).
#[derive(Debug, Clone)]
pub struct Message(Vec<(Value, Value)>);

impl Message {
    /// A message of text.
    #[must_use]
    pub fn new(role: &str, content: &str) -> Self {
        Self(vec![(Value::from("role"), Value::from(role)), (Value::from("content"), Value::from(content))])
    }

    /// What `key` holds; keys that hold null are none.
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.0.iter().find(|(name, _)| name.as_str() == Some(key)).map(|(_, value)| value)
    }

    pub(super) fn set(&mut self, key: &str, value: Value) {
        match self.0.iter_mut().find(|(name, _)| name.as_str() == Some(key)) {
            Some((_, old)) => *old = value,
            None => self.0.push((Value::from(key), value)),
        }
    }

    /// The message as `transformers` hands it to a template: reasoning stands under each name that templates use.
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

    /// About how many bytes a template reads here.
    pub(super) fn size(&self) -> u64 {
        self.0.iter().map(|(_, value)| size(value)).sum()
    }
}

/// About how many bytes a value has.
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
