//! From TOML to a recipe, and from the parser's error to one line that helps.

use super::early_exit::EarlyExitKeys;
use super::layer_dropout::LayerDropoutKeys;
use super::model_keys::ModelKeys;
use super::optimizer::{OptimizerKeys, ScheduleKeys};
use super::sections::{AverageKeys, CheckpointKeys, DataKeys, StartKeys, TrainingKeys, ValidationKeys};
use super::whole::Recipe;
use crate::error::Error;
use offramp_model::legible;
use serde::Deserializer;
use serde::de::{DeserializeOwned, Visitor};
use std::path::Path;

pub(super) fn parse(text: &str, origin: &Path) -> crate::error::Result<Recipe> {
    toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start.min(text.len()));
        let line = text.as_bytes()[..at].iter().filter(|&&byte| byte == b'\n').count() + 1;
        let message = error.message().replace('\n', " ");
        let key = written_key(text, line);
        let reason = match (unknown_name(&message, "field"), key) {
            (Some(name), _) => unknown_key(name, &section(text, line)),
            (None, Some(key)) => format!("{}: {}", legible(&key), plain(&message)),
            (None, None) => plain(&message),
        };
        Error::RecipeSyntax { path: origin.to_owned(), line, reason }
    })
}

/// The name in serde's "unknown field `name`, expected …".
fn unknown_name<'a>(message: &'a str, kind: &str) -> Option<&'a str> {
    message.strip_prefix(&format!("unknown {kind} `"))?.split('`').next()
}

/// Serde's message about a wrong value, in the words of recipes and with the nearest valid word.
fn plain(message: &str) -> String {
    let Some(found) = unknown_name(message, "variant") else { return legible(message) };
    let words: Vec<&str> = message.split('`').skip(3).step_by(2).collect();
    let quoted: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
    let hint = nearest(found, words).map(|word| format!(": did you mean \"{word}\"?")).unwrap_or_default();
    format!("\"{}\" is not one of {}{hint}", legible(found), quoted.join(", "))
}

/// The section that `line` stands in, or an empty name before the first.
fn section(text: &str, line: usize) -> String {
    let headers = text.lines().take(line).filter_map(|line| {
        let name = line.trim().strip_prefix('[')?.split(']').next()?;
        Some(name.trim().to_owned())
    });
    headers.last().unwrap_or_default()
}

/// The key that is written on `line`, with its section.
fn written_key(text: &str, line: usize) -> Option<String> {
    let (key, _) = text.lines().nth(line - 1)?.split_once('=')?;
    let key = key.trim();
    let is_key = !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || "_-.".contains(c));
    match section(text, line) {
        _ if !is_key => None,
        section if section.is_empty() => Some(key.to_owned()),
        section => Some(format!("{section}.{key}")),
    }
}

fn unknown_key(name: &str, section: &str) -> String {
    let (all, shown) = (keys(), legible(name));
    let Some(here) = all.iter().find(|known| known.name == section) else {
        return match nearest(name, all.iter().map(|section| section.name)) {
            Some(near) => format!("there is no section [{shown}]: did you mean [{near}]?"),
            None => {
                let names: Vec<_> = all.iter().map(|section| section.name).collect();
                format!("there is no section [{shown}]: the sections are {}", names.join(", "))
            }
        };
    };
    let elsewhere = all.iter().find(|section| section.keys.contains(&name));
    match (elsewhere, nearest(name, here.keys.iter().copied())) {
        (Some(right), _) => format!("[{section}] has no key {shown}: it belongs in [{}]", right.name),
        (None, Some(near)) => format!("[{section}] has no key {shown}: did you mean {near}?"),
        (None, None) => format!("[{section}] has no key {shown}: its keys are {}", here.keys.join(", ")),
    }
}

/// The most similar word, if one is similar.
fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let alike = |known: &&str| strsim::jaro_winkler(&name.to_lowercase(), known);
    let best = known.into_iter().max_by(|a, b| alike(a).total_cmp(&alike(b)))?;
    (alike(&best) > 0.75).then_some(best)
}

/// Every section of a recipe and its keys.
fn keys() -> Vec<Section> {
    vec![
        Section { name: "model", keys: fields::<ModelKeys>() },
        Section { name: "start", keys: fields::<StartKeys>() },
        Section { name: "data", keys: fields::<DataKeys>() },
        Section { name: "training", keys: fields::<TrainingKeys>() },
        Section { name: "optimizer", keys: fields::<OptimizerKeys>() },
        Section { name: "schedule", keys: fields::<ScheduleKeys>() },
        Section { name: "layer_dropout", keys: fields::<LayerDropoutKeys>() },
        Section { name: "early_exit", keys: fields::<EarlyExitKeys>() },
        Section { name: "averages", keys: fields::<AverageKeys>() },
        Section { name: "validation", keys: fields::<ValidationKeys>() },
        Section { name: "checkpoint", keys: fields::<CheckpointKeys>() },
    ]
}

/// A section of a recipe and its keys.
struct Section {
    name: &'static str,
    keys: &'static [&'static str],
}

/// The names of a struct's fields, as its `Deserialize` asks for them.
fn fields<T: DeserializeOwned>() -> &'static [&'static str] {
    let mut fields: &'static [&'static str] = &[];
    let _ = T::deserialize(Fields(&mut fields));
    fields
}

/// A deserializer that notes the fields that a struct asks for, and has none.
struct Fields<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Fields<'_> {
    type Error = serde::de::value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(serde::de::Error::custom("only structs have fields"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Self::Error> {
        *self.0 = fields;
        Err(serde::de::Error::custom("there is no value"))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sections_are_those_of_a_recipe() {
        let names: Vec<_> = keys().iter().map(|section| section.name).collect();
        assert_eq!(names, fields::<Recipe>());
        assert!(keys().iter().all(|section| !section.keys.is_empty()));
    }
}
