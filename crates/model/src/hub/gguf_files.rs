//! Which of a model's GGUF files a name means.

use crate::error::Result;
use offramp_hub::{Error, Id};
use std::collections::BTreeMap;

/// What is taken where several files are there and none is named, as llama.cpp does; then what is nearest.
const PREFERRED: [&str; 4] = ["Q4_K_M", "Q8_0", "Q4_0", "BF16"];
/// Files beside a model that are none.
const OTHERS: [&str; 2] = ["mmproj", "imatrix"];

/// The file that is meant, or all parts of it in their order, first to last.
///
/// # Errors
/// If there is none, or it could be one of several.
pub(super) fn choose(id: &Id, names: &[String]) -> Result<Vec<String>> {
    let models = models(names);
    let missing = |file: &str| {
        let mut known: Vec<_> = models.keys().map(|stem| label(stem).to_owned()).collect();
        known.sort();
        Error::NoFile { id: id.repository(), file: file.to_owned(), known }
    };
    let chosen = match &id.file {
        Some(wanted) => meant(&models, wanted),
        None if models.len() == 1 => models.keys().next(),
        None => PREFERRED.iter().find_map(|wanted| meant(&models, wanted)),
    };
    let wanted = id.file.as_deref().unwrap_or("of one kind");
    let parts = &models[chosen.ok_or_else(|| missing(wanted))?];
    let lost = parts.iter().position(Option::is_none);
    if let Some(lost) = lost {
        return Err(missing(&format!("{wanted} (part {})", lost + 1)).into());
    }
    Ok(parts.iter().flatten().cloned().collect())
}

/// The whole models among the files: what to call each behind the colon, and its parts in their order.
pub(super) fn labelled(names: &[String]) -> Vec<(String, Vec<String>)> {
    let models = models(names);
    let whole = |parts: &Vec<Option<String>>| parts.iter().cloned().collect::<Option<Vec<String>>>();
    let found = models.iter().filter_map(|(stem, parts)| Some((stem, whole(parts)?)));
    // A short word where it means this one alone, else the file's name.
    let called = found.map(|(stem, parts)| match meant(&models, label(stem)) {
        Some(_) => (label(stem).to_owned(), parts),
        None => (parts[0].clone(), parts),
    });
    called.collect()
}

/// The models among the files, by their names without the ending, and their parts.
fn models(names: &[String]) -> BTreeMap<String, Vec<Option<String>>> {
    let mut models: BTreeMap<String, Vec<Option<String>>> = BTreeMap::new();
    for name in names.iter().filter(|name| super::is_gguf(name)) {
        let base = name.rsplit('/').next().unwrap_or(name).to_lowercase();
        if OTHERS.iter().any(|other| base.contains(other)) {
            continue;
        }
        let stem = &name[..name.len() - ".gguf".len()];
        let (stem, part, count) = split(stem).unwrap_or((stem, 1, 1));
        let parts = models.entry(stem.to_owned()).or_default();
        parts.resize(parts.len().max(count), None);
        parts[part - 1] = Some(name.clone());
    }
    models
}

/// Of `NAME-00002-of-00003` the name, 2 and 3.
fn split(stem: &str) -> Option<(&str, usize, usize)> {
    let (rest, count) = stem.rsplit_once("-of-")?;
    let (name, part) = rest.rsplit_once('-')?;
    let number = |text: &str| text.parse().ok().filter(|_| text.len() == 5);
    let (part, count): (usize, usize) = (number(part)?, number(count)?);
    (1..=count).contains(&part).then_some((name, part, count))
}

/// The one model that a word means: a file's name, or how a name ends.
fn meant<'a>(models: &'a BTreeMap<String, Vec<Option<String>>>, wanted: &str) -> Option<&'a String> {
    let named = |parts: &[Option<String>]| parts.iter().flatten().any(|name| name == wanted);
    if let Some((stem, _)) = models.iter().find(|(_, parts)| named(parts)) {
        return Some(stem);
    }
    let wanted = wanted.to_lowercase();
    let ends = |stem: &&String| {
        let stem = stem.to_lowercase();
        let before = stem.strip_suffix(&wanted).map(|before| before.chars().next_back());
        before.is_some_and(|before| before.is_none_or(|before| !before.is_alphanumeric()))
    };
    let mut fitting = models.keys().filter(ends);
    fitting.next().filter(|_| fitting.next().is_none())
}

/// The end of a name, which says the quantization.
fn label(stem: &str) -> &str {
    stem.rsplit(['-', '.', '/']).next().unwrap_or(stem)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(names: &[&str], file: Option<&str>) -> std::result::Result<Vec<String>, String> {
        let id = Id { file: file.map(str::to_owned), ..Id::parse("org/name").unwrap() };
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        choose(&id, &names).map_err(|error| error.to_string())
    }

    #[test]
    fn a_quantization_means_the_file_that_ends_with_it() {
        let names = [
            "README.md",
            "Llama-3-8B.Q4_K_M.gguf",
            "Llama-3-8B.IQ4_K_M.gguf",
            "Llama-3-8B-q8_0.gguf",
            "mmproj-f16.gguf",
            "big/Llama-3-8B-BF16-00001-of-00002.gguf",
            "big/Llama-3-8B-BF16-00002-of-00002.gguf",
        ];
        for (file, found) in [
            (None, "Llama-3-8B.Q4_K_M.gguf"),
            (Some("q4_k_m"), "Llama-3-8B.Q4_K_M.gguf"),
            (Some("Q8_0"), "Llama-3-8B-q8_0.gguf"),
            (Some("Llama-3-8B-q8_0.gguf"), "Llama-3-8B-q8_0.gguf"),
            (Some("bf16"), "big/Llama-3-8B-BF16-00001-of-00002.gguf"),
            (Some("big/Llama-3-8B-BF16-00002-of-00002.gguf"), "big/Llama-3-8B-BF16-00001-of-00002.gguf"),
        ] {
            let files = chosen(&names, file).unwrap();
            assert_eq!(files[0], found, "{file:?}");
            assert_eq!(files.len(), if found.contains("BF16") { 2 } else { 1 });
        }
        for file in ["Q4_K", "K_M", "f16", "x.gguf"] {
            let message = chosen(&names, Some(file)).unwrap_err();
            assert!(message.contains("it has BF16, IQ4_K_M, Q4_K_M, q8_0"), "{file}: {message}");
        }
    }

    #[test]
    fn what_is_not_clear_is_not_guessed() {
        assert_eq!(chosen(&["a.gguf"], None).unwrap(), ["a.gguf"]);
        assert!(chosen(&["a-Q5_0.gguf", "a-Q6_K.gguf"], None).unwrap_err().contains("it has Q5_0, Q6_K"));
        assert!(chosen(&["x/a-Q8_0.gguf", "y/a-Q8_0.gguf"], Some("Q8_0")).is_err(), "two of a kind");
        assert!(chosen(&["a-00001-of-00002.gguf"], None).unwrap_err().contains("part 2"));
        assert!(chosen(&["model.bin"], None).unwrap_err().contains("no GGUF file"));
        assert!(chosen(&["a-00000-of-00002.gguf", "a-99999-of-00002.gguf"], Some("x")).is_err());
    }
}
