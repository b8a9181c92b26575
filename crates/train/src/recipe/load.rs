//! From a file to a recipe that can be run.

use super::model_keys::ModelKeys;
use super::whole::Recipe;
use super::{check, read};
use crate::error::{Error, Result};
use crate::start;
use offramp_hub::Observer;
use offramp_model::checkpoint::resolve_observed;
use offramp_model::{Config, run_folder};
use std::path::Path;

impl Recipe {
    /// Reads and checks a recipe.
    ///
    /// # Errors
    /// If the file cannot be read, or as [`Recipe::from_toml`].
    pub fn read(path: &Path) -> Result<Self> {
        Self::read_observed(path, &|_| ())
    }

    /// The same. `observer` hears of the download of a model that `start.checkpoint` names on the hub.
    ///
    /// # Errors
    /// As [`Recipe::read`].
    pub fn read_observed(path: &Path, observer: Observer<'_>) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|error| Error::read(path, error))?;
        Self::with_sizes_of(&text, path, None, observer)
    }

    /// Reads and checks the text of a recipe; `origin` names it in errors.
    ///
    /// # Errors
    /// If it is not TOML, has a key that no recipe has, or a value of the wrong type or an impossible one.
    pub fn from_toml(text: &str, origin: &Path) -> Result<Self> {
        Self::with_sizes_of(text, origin, None, &|_| ())
    }

    /// As [`Recipe::read`], for the run in a folder. The run has kept the sizes that it began with, so the
    /// model of `start.checkpoint` may be gone.
    ///
    /// # Errors
    /// As [`Recipe::read`].
    pub fn read_for_run(path: &Path, run: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|error| Error::read(path, error))?;
        Self::with_sizes_of(&text, path, Some(run), &|_| ())
    }

    fn with_sizes_of(text: &str, origin: &Path, run: Option<&Path>, observer: Observer<'_>) -> Result<Self> {
        let parsed = read::parse(text, origin)?;
        let (path, text, resumes) = (origin.to_owned(), text.to_owned(), run.is_some());
        let mut recipe = Self { path, text, resumes, ..parsed };
        recipe.take_sizes(run, observer)?;
        check::check(&recipe)?;
        Ok(recipe)
    }

    /// Finds the checkpoint to begin from, a folder or a GGUF file, if there is one, and fills `[model]` with
    /// its sizes. Sizes that `run` has kept come first; then nothing is downloaded.
    fn take_sizes(&mut self, run: Option<&Path>, observer: Observer<'_>) -> Result<()> {
        let Some(checkpoint) = self.start.checkpoint.clone() else { return Ok(()) };
        if self.model != ModelKeys::default() {
            let expected = "left out where start.checkpoint brings its own sizes";
            return Err(self.fault("[model]", "given", expected));
        }
        let kept = run.map(|run| run.join(run_folder::START)).filter(|kept| kept.is_file());
        let found = match kept.is_some() && !checkpoint.exists() {
            true => Ok(checkpoint),
            false => resolve_observed(&checkpoint, observer),
        };
        if let Ok(found) = &found {
            self.start.checkpoint = Some(found.clone());
        }
        let config = match kept {
            Some(kept) => Config::read(&kept)?,
            None => found
                .map_err(Error::from)
                .and_then(|found| start::config(&found))
                .or_else(|error| run.and_then(sizes_of_newest).ok_or(error))?,
        };
        self.model = ModelKeys::from(&config);
        self.begins_as = Some(config);
        Ok(())
    }
}

/// The sizes of a run that was begun before runs kept them: those of its newest checkpoint, unless that does
/// not say which low-bit model it is.
fn sizes_of_newest(run: &Path) -> Option<Config> {
    let (_, newest) = run_folder::steps(run).ok()?.pop()?;
    let config = Config::read(&newest.join(run_folder::CONFIG)).ok()?;
    // A model whose activations get 4 bits later has 8 bits until then.
    config.bit_linear.is_none_or(|bit_linear| !bit_linear.hadamard).then_some(config)
}
