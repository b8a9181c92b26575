//! Whether a run may go on with another recipe, key by key.

use super::Recipe;
use toml::{Table, Value};

/// What changes no step, or is compared by its contents.
const FREE_SECTIONS: [&str; 3] = ["data", "validation", "checkpoint"];

/// See [`Recipe::difference`].
pub(super) fn first(now: &Recipe, before: &Recipe) -> Option<(String, String, String)> {
    let mut like_now = before.clone();
    if now.training.steps > before.training.steps {
        like_now.training.steps = now.training.steps;
    }
    if now.start.checkpoint.is_some() && before.start.checkpoint.is_some() {
        like_now.start.checkpoint.clone_from(&now.start.checkpoint);
    }
    let (now, before) = (table(now), table(&like_now));
    let sections = now.iter().filter(|(name, _)| !FREE_SECTIONS.contains(&name.as_str()));
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
