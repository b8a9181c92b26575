//! What a run begins from: random weights, or those of an existing model.

use crate::error::{Error, Result};
use crate::parameters::{Layout, initial};
use crate::recipe::Recipe;
use offramp_model::run_folder::TOKENIZER;
use offramp_model::{Config, Weights};
use offramp_text::Tokenizer;

/// Where each tensor of a recipe's run stands.
pub(crate) fn layout(recipe: &Recipe, config: &Config) -> Layout {
    let layout = Layout::new(config);
    if recipe.early_exit.own_heads { layout.with_own_heads() } else { layout }
}

/// The first weights of a recipe's run, laid out as `layout` says.
pub(crate) fn weights(recipe: &Recipe, config: &Config, layout: &Layout) -> Result<Vec<f32>> {
    let Some(checkpoint) = &recipe.start.checkpoint else {
        return Ok(initial(layout, recipe.model.initializer_range, recipe.training.seed));
    };
    let files = Weights::open(checkpoint, config)?;
    let mut weights = vec![0.0; layout.len()];
    for (spec, range) in layout.tensors() {
        files.read(spec, &mut weights[range])?;
    }
    Ok(weights)
}

/// Checks that the ids of `tokenizer` are those of the model that a recipe's run begins from. A model folder
/// without a tokenizer cannot be checked.
///
/// # Errors
/// [`Error::OtherTokenizer`] if they are not; if the model's tokenizer cannot be read.
pub fn check_tokenizer(recipe: &Recipe, tokenizer: &Tokenizer) -> Result<()> {
    let Some(checkpoint) = &recipe.start.checkpoint else { return Ok(()) };
    let path = checkpoint.join(TOKENIZER);
    if !path.exists() || Tokenizer::from_file(&path)?.fingerprint()? == tokenizer.fingerprint()? {
        return Ok(());
    }
    Err(Error::OtherTokenizer { path: recipe.path().to_owned(), tokenizer: path })
}
