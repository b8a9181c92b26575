//! The corpus of a run: the prepared folder that its recipe names, or one that is made of the stories that it
//! names.

use crate::error::{Error, Result};
use crate::prepare::prepare;
use crate::recipe::Recipe;
use crate::run::{check_recipes, find_corpus, of_first};
use crate::start::{tokenizer_at, tokenizer_file, tokenizer_named};
use crate::{check_tokenizer, memory};
use offramp_model::run_folder;
use offramp_ranks::Ranks;
use offramp_text::{
    PrepareOptions, PrepareProgress, PrepareSummary, SHARD_TOKENS, Tokenizer, TokenizerChoice,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The corpus of a run.
#[derive(Debug)]
pub struct RunCorpus {
    /// Its folder.
    pub folder: PathBuf,
    /// Where the recipe says that it is, if it was found elsewhere.
    pub moved_from: Option<PathBuf>,
    /// What was prepared just now.
    pub prepared: Option<PrepareSummary>,
}

/// Finds the corpus of the run in the folder `run`, and prepares it if the recipe names stories. That may
/// take hours, so it checks first whatever can be checked. `progress` is called while it prepares.
///
/// # Errors
/// If there is none, or it cannot be prepared; if its tokenizer or its size does not fit the recipe.
pub fn corpus(
    recipe: &Recipe,
    run: &Path,
    resume: bool,
    progress: &mut dyn FnMut(PrepareProgress),
) -> Result<RunCorpus> {
    corpus_on(recipe, run, resume, &mut Ranks::alone(), progress)
}

/// The same on all ranks, which prepare it together. The first decides, returns what was prepared, and calls
/// `progress`.
///
/// # Errors
/// As [`corpus`]; if the ranks have different recipes or see different files. After an error of one rank the
/// others wait for it: [`Ranks::abort`] ends them.
pub fn corpus_on(
    recipe: &Recipe,
    run: &Path,
    resume: bool,
    ranks: &mut Ranks,
    progress: &mut dyn FnMut(PrepareProgress),
) -> Result<RunCorpus> {
    let mut found = None;
    let mut tokenizer = TokenizerChoice::Gpt2; // of the others: the first gives them its own
    if ranks.is_first() {
        found = find(recipe, run, resume)?;
        if found.is_none() {
            tokenizer = choose(recipe)?;
            check(recipe, &tokenizer, resume)?;
        }
    }
    check_recipes(recipe, ranks)?;
    if !of_first(ranks, found.is_none()) {
        return match found {
            Some(found) => Ok(found),
            None => find(recipe, run, resume)?.ok_or_else(|| no_corpus(recipe, run)),
        };
    }
    let folder = run.join(run_folder::CORPUS);
    let options = PrepareOptions {
        train: recipe.data.train.iter().flat_map(|train| train.0.clone()).collect(),
        valid: recipe.data.valid.iter().cloned().collect(),
        reading: Default::default(),
        out: folder.clone(),
        tokenizer,
        shard_tokens: SHARD_TOKENS,
    };
    let prepared = prepare(&options, ranks, None, progress)?;
    Ok(RunCorpus { folder, moved_from: None, prepared })
}

/// The corpus that is there; none if it is still to be prepared.
fn find(recipe: &Recipe, run: &Path, resume: bool) -> Result<Option<RunCorpus>> {
    let data = &recipe.data;
    let of = |folder: PathBuf| RunCorpus { folder, moved_from: None, prepared: None };
    if data.train.is_some() {
        let folder = run.join(run_folder::CORPUS);
        return Ok((resume && PrepareSummary::read(&folder).is_ok()).then(|| of(folder)));
    }
    let named = data.corpus.clone().ok_or_else(|| Error::NoData { path: recipe.path().to_owned() })?;
    if !resume {
        return Ok(Some(of(named)));
    }
    let found = find_corpus(&named, recipe.path(), run)?;
    let moved_from = (found != named).then_some(named);
    Ok(Some(RunCorpus { moved_from, ..of(found) }))
}

fn no_corpus(recipe: &Recipe, run: &Path) -> Error {
    Error::NoCorpus { named: run.join(run_folder::CORPUS), recipe: recipe.path().to_owned() }
}

/// The tokenizer of the corpus. A model that the run begins from brings its own.
fn choose(recipe: &Recipe) -> Result<TokenizerChoice> {
    let own = || recipe.start.checkpoint.as_deref().and_then(tokenizer_file);
    match (recipe.data.tokenizer.as_deref(), recipe.data.vocab_size) {
        (Some("bpe"), Some(vocab_size)) => Ok(TokenizerChoice::Train { vocab_size }),
        (Some(name), _) => tokenizer_named(name),
        (None, _) => match own() {
            Some(file) => tokenizer_at(&file),
            None => Err(recipe.fault("data.tokenizer", "left out", "given: start.checkpoint has none")),
        },
    }
}

/// Checks what can be known before the corpus is prepared.
fn check(recipe: &Recipe, choice: &TokenizerChoice, resume: bool) -> Result<()> {
    let tokenizer = match choice {
        TokenizerChoice::Gpt2 => Some(Arc::new(Tokenizer::gpt2()?)),
        TokenizerChoice::File(path) => Some(Arc::new(Tokenizer::from_file(path)?)),
        TokenizerChoice::Given(tokenizer) => Some(Arc::clone(tokenizer)),
        TokenizerChoice::Train { .. } => None, // only its maximum size is known
    };
    if let Some(tokenizer) = tokenizer.as_deref().filter(|_| !resume) {
        check_tokenizer(recipe, tokenizer)?;
    }
    let vocabulary = tokenizer.map_or(1, |tokenizer| tokenizer.vocab_size());
    let config = recipe.config(vocabulary.max(recipe.model.vocab_size), None)?;
    memory::check(recipe, &config, recipe.training.accumulation) // as many processes as can share a step
}
