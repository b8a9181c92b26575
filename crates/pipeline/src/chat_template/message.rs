//! The messages and JSON values that a template gets. Objects keep the order of their keys.

use minijinja::Value;
use minijinja::value::ValueKind;
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

impl Json {
    /// Whether it is a list or an object without items.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.len() == Some(0)
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

    /// The message as templates expect it, from the forms that OpenAI's clients send: a content of text parts
    /// becomes one text, the role `developer` is `system`, and the arguments of calls are objects.
    ///
    /// # Errors
    ///
    /// If a part of the content is no text; the error says which.
    pub fn normalized(mut self) -> Result<Self, String> {
        if self.get("role").is_some_and(|role| role.as_str() == Some("developer")) {
            self.set("role", Value::from("system"));
        }
        let content = self.get("content").filter(|content| content.kind() == ValueKind::Seq).cloned();
        if let Some(parts) = content {
            let texts = parts.try_iter().map_err(|error| error.to_string())?.map(|part| text_of(&part));
            let texts = texts.collect::<Result<Vec<_>, _>>()?;
            self.set("content", Value::from(texts.join("\n")));
        }
        let calls = self.get("tool_calls").filter(|calls| calls.kind() == ValueKind::Seq).cloned();
        if let Some(calls) = calls.and_then(|calls| calls.try_iter().ok()) {
            let calls: Vec<Value> = calls.map(|call| with_objects(&call)).collect();
            self.set("tool_calls", Value::from(calls));
        }
        Ok(self)
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

/// The text of a part of a content.
fn text_of(part: &Value) -> Result<String, String> {
    let kind = part.get_attr("type").ok();
    match kind.as_ref().and_then(|kind| kind.as_str()) {
        Some("text" | "input_text" | "output_text") => {
            let text = part.get_attr("text").ok();
            text.and_then(|text| text.as_str().map(str::to_owned))
                .ok_or_else(|| "a text part has no text".to_owned())
        }
        Some(other) => Err(format!("a part of type {other:?} is not supported: send text")),
        None => Err("a part of a content has no type: send {\"type\": \"text\", \"text\": …}".to_owned()),
    }
}

/// A call whose arguments are an object, not its JSON text.
fn with_objects(call: &Value) -> Value {
    let pairs = |value: &Value| -> Vec<(Value, Value)> {
        value.as_object().and_then(|object| object.try_iter_pairs()).into_iter().flatten().collect()
    };
    let replaced = |value: &Value, name: &str, by: &dyn Fn(&Value) -> Value| {
        let replace = |(key, old): (Value, Value)| {
            let new = if key.as_str() == Some(name) { by(&old) } else { old };
            (key, new)
        };
        Value::from_pairs(pairs(value).into_iter().map(replace))
    };
    let parsed = |arguments: &Value| {
        let parsed = arguments.as_str().and_then(|text| Json::parse(text).ok()).map(|json| json.0);
        parsed.filter(|value| value.kind() == ValueKind::Map).unwrap_or_else(|| arguments.clone())
    };
    replaced(call, "function", &|function| replaced(function, "arguments", &parsed))
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
            (ValueKind::Map, Some(object)) => object.try_iter_pairs(),
            _ => None,
        };
        let pairs =
            pairs.ok_or_else(|| de::Error::custom("a message is an object with \"role\" and \"content\""))?;
        Ok(Self(pairs.filter(|(_, value)| !value.is_none()).collect()))
    }
}
