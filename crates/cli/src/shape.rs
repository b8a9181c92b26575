//! A model's config without its weights: that of a recipe, or of a `config.json`.

use anyhow::Result;
use offramp_model::Config;
use offramp_text::{PrepareSummary, Tokenizer};
use offramp_train::Recipe;
use std::path::Path;

/// Whether the path names a recipe.
pub(crate) fn is_recipe(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "toml")
}

/// The model that a recipe (`.toml`) makes, or that a `config.json` describes.
pub(crate) fn read(path: &Path) -> Result<Config> {
    match is_recipe(path) {
        true => Ok(of_recipe(path)?.1),
        false => Ok(Config::read(path)?),
    }
}

/// A recipe and the model that it makes.
pub(crate) fn of_recipe(path: &Path) -> Result<(Recipe, Config)> {
    let recipe = Recipe::read(path)?;
    let data = &recipe.data;
    let prepared = data.corpus.as_deref().and_then(|folder| PrepareSummary::read(folder).ok());
    let vocabulary = match (recipe.model.vocab_size, data.vocab_size, prepared) {
        (0, Some(size), _) => size,
        (0, None, Some(corpus)) => corpus.vocab_size,
        (0, None, None) if data.tokenizer.as_deref() == Some("gpt2") => Tokenizer::gpt2()?.vocab_size(),
        (0, None, None) => anyhow::bail!(
            "{}: the vocabulary is not known yet: prepare the corpus first, or set model.vocab_size",
            path.display()
        ),
        (size, ..) => size,
    };
    let config = recipe.config(vocabulary, None)?;
    Ok((recipe, config))
}
