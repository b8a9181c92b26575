//! Whether a run may go on with another recipe, key by key.

use super::whole::Recipe;
use toml::{Table, Value};

/// Sections that change no step, or whose contents are compared elsewhere.
const FREE_SECTIONS: [&str; 3] = ["data", "validation", "checkpoint"];

/// A key with another value than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    /// The key, with its section.
    pub(crate) key: String,
    /// Its value now.
    pub(crate) now: String,
    /// Its value before.
    pub(crate) before: String,
}

impl Recipe {
    /// The first key that forbids the run of `before` to go on as `self`. Free to change are when a run is
    /// measured and saved, a larger number of steps, and paths: data are compared by their contents, and the
    /// run has kept the sizes that it began with.
    pub(crate) fn difference(&self, before: &Self) -> Option<Difference> {
        let mut like_now = before.clone();
        if self.training.steps > before.training.steps {
            like_now.training.steps = self.training.steps;
        }
        if self.start.checkpoint.is_some() && before.start.checkpoint.is_some() {
            like_now.start.checkpoint.clone_from(&self.start.checkpoint);
        }
        let (now, before) = (table(self), table(&like_now));
        let sections = now.iter().filter(|(name, _)| !FREE_SECTIONS.contains(&name.as_str()));
        sections.flat_map(|(section, keys)| differing(section, keys.as_table(), before.get(section))).next()
    }
}

fn table(recipe: &Recipe) -> Table {
    Table::try_from(recipe).expect("a recipe is made of strings, numbers and lists")
}

fn differing(section: &str, now: Option<&Table>, before: Option<&Value>) -> Option<Difference> {
    let (now, before) = (now?, before?.as_table()?);
    // A key that is left out stands in neither table.
    let keys = now.keys().chain(before.keys().filter(|key| !now.contains_key(*key)));
    let show = |value: Option<&Value>| value.map_or_else(|| "left out".to_owned(), Value::to_string);
    let mut differing = keys.filter(|key| now.get(*key) != before.get(*key));
    differing.next().map(|key| Difference {
        key: format!("{section}.{key}"),
        now: show(now.get(key)),
        before: show(before.get(key)),
    })
}
