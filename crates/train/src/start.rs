//! What a run begins from: random weights, or those of an existing model, which is a folder or a GGUF file.

use crate::error::{Error, Result};
use crate::parameters::{Layout, fill_adapter, initial};
use crate::recipe::{Adapters, Recipe};
use offramp_model::run_folder::{CONFIG, TOKENIZER};
use offramp_model::{Config, Gguf, Weights};
use offramp_text::{Tokenizer, TokenizerChoice};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where each tensor of a recipe's run stands.
pub(crate) fn layout(recipe: &Recipe, config: &Config) -> Layout {
    let layout = Layout::new(config);
    match recipe.adapters() {
        Some(Adapters { exits, rank }) => layout.with_exit_adapters(&exits, rank),
        None if recipe.early_exit.own_heads => layout.with_own_heads(),
        None => layout,
    }
}

/// The first weights of a recipe's run, laid out as `layout` says.
pub(crate) fn weights(recipe: &Recipe, config: &Config, layout: &Layout) -> Result<Vec<f32>> {
    let Some(checkpoint) = &recipe.start.checkpoint else {
        return Ok(initial(layout, recipe.model.initializer_range, recipe.training.seed));
    };
    let files = open(checkpoint, config)?;
    let mut weights = vec![0.0; layout.len()];
    let of_model = |range: &Range<usize>| range.end <= layout.model_len();
    for (spec, range) in layout.tensors().filter(|(_, range)| of_model(range)) {
        files.read(spec, &mut weights[range])?;
    }
    if let Some(adapters) = recipe.adapters() {
        first_adapters(recipe, &adapters, layout, &mut weights);
    }
    Ok(weights)
}

/// Adapters that change nothing yet: the norm is the final one, and `up_proj` is zero.
fn first_adapters(recipe: &Recipe, adapters: &Adapters, layout: &Layout, weights: &mut [f32]) {
    for &exit_layer in &adapters.exits {
        let Some([norm, down, _]) = layout.adapter(exit_layer) else { continue };
        weights.copy_within(layout.norm(), norm.start);
        let (seed, range) = (recipe.training.seed, recipe.model.initializer_range);
        fill_adapter(&mut weights[down], range, seed, exit_layer);
    }
}

fn open(checkpoint: &Path, config: &Config) -> Result<Weights> {
    Ok(match Gguf::is_one(checkpoint) {
        true => Weights::of_gguf(Gguf::open(checkpoint)?, config)?,
        false => Weights::open(checkpoint, config)?,
    })
}

/// The config of the model that a run begins from.
pub(crate) fn config(checkpoint: &Path) -> Result<Config> {
    Ok(match Gguf::is_one(checkpoint) {
        true => Gguf::open(checkpoint)?.config()?,
        false => Config::read(&checkpoint.join(CONFIG))?,
    })
}

/// The formats of a GGUF file that a recipe's run begins from in which values were rounded to codes, such as
/// `Q8_0`; none if it begins from floats. The run begins from the values of the codes.
pub(crate) fn rounded(recipe: &Recipe, config: &Config) -> Result<Vec<String>> {
    let Some(file) = recipe.start.checkpoint.as_deref().filter(|checkpoint| Gguf::is_one(checkpoint)) else {
        return Ok(Vec::new());
    };
    let formats = open(file, config)?.formats().into_keys();
    Ok(formats.filter(|format| !["F32", "F16", "BF16"].contains(&format.as_str())).collect())
}

/// Where the tokenizer of a model that a run begins from stands: a file of its folder, or the GGUF file.
pub(crate) fn tokenizer_file(checkpoint: &Path) -> Option<PathBuf> {
    if Gguf::is_one(checkpoint) {
        return Some(checkpoint.to_owned());
    }
    Some(checkpoint.join(TOKENIZER)).filter(|file| file.exists())
}

/// The tokenizer that a name means: `gpt2`, the path of a `tokenizer.json`, or that of a GGUF file.
///
/// # Errors
/// If a GGUF file cannot be read or has no tokenizer that is known here.
pub fn tokenizer_named(name: &str) -> Result<TokenizerChoice> {
    let named = TokenizerChoice::named(name);
    if let TokenizerChoice::File(path) = &named { tokenizer_at(path) } else { Ok(named) }
}

/// As [`tokenizer_named`], of a path.
pub(crate) fn tokenizer_at(path: &Path) -> Result<TokenizerChoice> {
    Ok(match Gguf::is_one(path) {
        true => TokenizerChoice::Given(Arc::new(tokenizer(path)?)),
        false => TokenizerChoice::File(path.to_owned()),
    })
}

fn tokenizer(file: &Path) -> Result<Tokenizer> {
    Ok(match Gguf::is_one(file) {
        true => Tokenizer::from_gguf(Gguf::open(file)?.header(), file)?,
        false => Tokenizer::from_file(file)?,
    })
}

/// Checks that the ids of `tokenizer` are those of the model that a recipe's run begins from. A model folder
/// without a tokenizer cannot be checked.
///
/// # Errors
/// [`Error::OtherTokenizer`] if they are not; if the model's tokenizer cannot be read.
pub fn check_tokenizer(recipe: &Recipe, found: &Tokenizer) -> Result<()> {
    let Some(file) = recipe.start.checkpoint.as_deref().and_then(tokenizer_file) else { return Ok(()) };
    if tokenizer(&file)?.fingerprint()? == found.fingerprint()? {
        return Ok(());
    }
    Err(Error::OtherTokenizer { path: recipe.path().to_owned(), tokenizer: file })
}
