//! From TOML to a recipe, and from the parser's complaint to one line that helps.

use super::Recipe;
use crate::error::{Error, Result};
use offramp_model::legible;
use std::path::Path;

pub(super) fn parse(text: &str, origin: &Path) -> Result<Recipe> {
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

/// Serde's words for a wrong value in the words of recipes, with the nearest word that is one.
fn plain(message: &str) -> String {
    let Some(found) = unknown_name(message, "variant") else { return legible(message) };
    let words: Vec<&str> = message.split('`').skip(3).step_by(2).collect();
    let quoted: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
    let hint = nearest(found, words).map(|word| format!(": did you mean \"{word}\"?")).unwrap_or_default();
    format!("\"{}\" is not one of {}{hint}", legible(found), quoted.join(", "))
}

/// The section that `line` stands in, or nothing before the first.
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
    let sections: Vec<&str> = all.iter().map(|(section, _)| section.as_str()).collect();
    let Some((_, here)) = all.iter().find(|(known, _)| known == section) else {
        return match nearest(name, sections.iter().copied()) {
            Some(near) => format!("there is no section [{shown}]: did you mean [{near}]?"),
            None => format!("there is no section [{shown}]: the sections are {}", sections.join(", ")),
        };
    };
    let known = here.iter().map(String::as_str);
    let elsewhere = all.iter().find(|(_, keys)| keys.iter().any(|key| key == name));
    match (elsewhere, nearest(name, known)) {
        (Some((right, _)), _) => format!("[{section}] has no key {shown}: it belongs in [{right}]"),
        (None, Some(near)) => format!("[{section}] has no key {shown}: did you mean {near}?"),
        (None, None) => format!("[{section}] has no key {shown}: its keys are {}", here.join(", ")),
    }
}

/// What is spelled most alike, if anything is.
fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let alike = |known: &&str| strsim::jaro_winkler(&name.to_lowercase(), known);
    let best = known.into_iter().max_by(|a, b| alike(a).total_cmp(&alike(b)))?;
    (alike(&best) > 0.75).then_some(best)
}

/// Every section of a recipe and its keys, as serde knows them.
fn keys() -> Vec<(String, Vec<String>)> {
    // A section with one key that cannot be makes serde list those that can.
    let listed = |text: &str| -> Vec<String> {
        let message = match toml::from_str::<Recipe>(text) {
            Ok(_) => String::new(),
            Err(error) => error.message().to_owned(),
        };
        message.split('`').skip(3).step_by(2).map(str::to_owned).collect()
    };
    let sections = listed("[\"?\"]");
    sections.into_iter().map(|name| (name.clone(), listed(&format!("[{name}]\n\"?\" = 0")))).collect()
}
