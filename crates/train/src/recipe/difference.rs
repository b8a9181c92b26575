//! Whether two recipes are the same run, key by key.

use super::Recipe;
use toml::{Table, Value};

/// See [`Recipe::difference`].
pub(super) fn first(now: &Recipe, before: &Recipe) -> Option<(String, String, String)> {
    let (now, before) = (table(now), table(before));
    let sections = now.iter().filter(|(name, _)| *name != "data");
    sections.flat_map(|(section, keys)| differing(section, keys.as_table(), before.get(section))).next()
}

fn table(recipe: &Recipe) -> Table {
    Table::try_from(recipe).expect("a recipe is made of strings, numbers and lists")
}

fn differing(section: &str, now: Option<&Table>, before: Option<&Value>) -> Option<(String, String, String)> {
    let (now, before) = (now?, before?.as_table()?);
    // A key that is left out stands in neither table.
    let keys = now.keys().chain(before.keys().filter(|key| !now.contains_key(*key)));
    let show = |value: Option<&Value>| value.map_or_else(|| "left out".to_owned(), Value::to_string);
    keys.filter(|key| now.get(*key) != before.get(*key))
        .map(|key| (format!("{section}.{key}"), show(now.get(key)), show(before.get(key))))
        .next()
}
