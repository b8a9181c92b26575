//! A card in its folder: what is checked before anything is measured, and the files that are written. A GGUF
//! file is no folder: its card gets one.

use super::{Card, EXITS_PLOT, Facts, GgufWords, Measured, SpeedFigures};
use crate::{Error, Result, SpeedOptions, TrainingReport, plot, speed};
use offramp_model::run_folder::{CONFIG, JOURNAL, MODEL, RECIPE, STATE, TOKENIZER, TOKENIZER_CONFIG};
use offramp_model::{Config, Formats, Gguf, checkpoint, hub};
use offramp_pipeline::ModelSource;
use offramp_text::Tokenizer;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The card, and beside it the file of its measurements.
const CARD: &str = "README.md";
const MEASURED: &str = "card.json";
/// Every card of ours contains these words. A `README.md` without them belongs to somebody else.
const OURS: &str = "`offramp card`";
/// The Python module that adds `set_exit_layer`.
const MODULE: &str = "modeling_early_exit";

/// A folder that is to have a model's card: the model's own, or one for the card of a GGUF file.
#[derive(Debug)]
pub struct CardFolder {
    source: ModelSource,
    folder: PathBuf,
    config: Config,
    run: Option<PathBuf>,
}

/// What a card says beside its numbers.
#[derive(Clone, Debug, Default)]
pub struct CardWords {
    /// The model's name; by default its folder's.
    pub name: Option<String>,
    /// Where the card's examples find the model; by default its folder.
    pub place: Option<String>,
    /// Facts that cannot be measured.
    pub facts: Facts,
    /// The exit layers of the card's table; by default each quarter of the depth.
    pub exits: Vec<usize>,
}

impl CardFolder {
    /// A model, and the folder of its card: its own, or `out` for a GGUF file. The run's
    /// journal and recipe come from the folder `run`; by default from the model's own folder, or the one
    /// around it.
    ///
    /// # Errors
    /// If a GGUF file has no `out` or a folder has one, the `README.md` there is not ours
    /// (unless `overwrite` is set), or the folder belongs to another model or to a run that goes on from it.
    pub fn open(
        source: ModelSource,
        run: Option<&Path>,
        out: Option<&Path>,
        overwrite: bool,
    ) -> Result<Self> {
        refuse_shared(&source)?;
        let folder = match (&source, out) {
            (ModelSource::Gguf(_), Some(out)) => out.to_owned(),
            (ModelSource::Gguf(file), None) => {
                let file = file.display();
                return Err(Error::Options(format!(
                    "{file} is a file and has no folder for its card: name one with --out, which may be new"
                )));
            }
            (other, None) => other.path().to_owned(),
            (other, Some(_)) => {
                let folder = other.path().display();
                return Err(Error::Options(format!(
                    "the card of {folder} stands in that folder: --out is for a GGUF file, which has none"
                )));
            }
        };
        if !overwrite {
            refuse_another_s(&folder.join(CARD))?;
        }
        if folder.join(STATE).exists() {
            return Err(Error::Options(format!(
                "{} is a checkpoint that a run goes on from, and a card would change it: finish the run and give its \
                 model/, which `offramp train RECIPE --resume --best` makes the best checkpoint",
                folder.display()
            )));
        }
        let is_file = matches!(source, ModelSource::Gguf(_));
        if is_file && folder.join(CONFIG).exists() {
            return Err(Error::Options(format!(
                "{} is the folder of a model, whose card would be another's: give --out another folder",
                folder.display()
            )));
        }
        let config = source.config()?;
        let near = [Some(folder.as_path()), folder.parent()].into_iter().flatten().map(Path::to_owned);
        let near = near.into_iter().find(|place| !is_file && place.join(JOURNAL).exists());
        Ok(Self { run: run.map(Path::to_owned).or(near), source, folder, config })
    }

    /// The model.
    pub fn source(&self) -> &ModelSource {
        &self.source
    }

    /// The model's config.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Times every exit. A short context gets a shorter prompt and fewer new tokens.
    ///
    /// # Errors
    /// As [`speed`].
    pub fn time(&self, runs: usize, progress: &mut dyn FnMut(usize, usize)) -> Result<SpeedFigures> {
        let half = self.config.prompt_context() / 2;
        let usual = SpeedOptions::default();
        let options = SpeedOptions {
            exits: (1..=self.config.num_hidden_layers).collect(),
            prompt_tokens: usual.prompt_tokens.min(half).max(1),
            new_tokens: usual.new_tokens.min(half).max(1),
            verify: 0,
            runs,
        };
        let load = || Ok(self.source.load(&Formats::default())?);
        Ok(SpeedFigures::new(&speed(load, &options, progress)?))
    }

    /// Writes the card and the files that it mentions. Returns its path, and the run's report if there is a
    /// journal.
    ///
    /// # Errors
    /// If an exit does not exist, the journal cannot be read, or a file cannot be written.
    pub fn write(&self, words: &CardWords, measured: &Measured) -> Result<(PathBuf, Option<TrainingReport>)> {
        words.exits.iter().try_for_each(|&exit| self.config.check_exit_layer(exit))?;
        let exits = match words.exits.is_empty() {
            true => Config::quarters(self.config.num_hidden_layers),
            false => words.exits.clone(),
        };
        let weights = self.source.weights(&self.config)?;
        let formats: Vec<_> = weights.formats().into_keys().collect();
        let training =
            self.run.as_ref().map(|run| TrainingReport::read(&run.join(JOURNAL))).transpose()?.flatten();
        let recipe = self.run.as_ref().and_then(|run| fs::read_to_string(run.join(RECIPE)).ok());
        let (named, place) = (self.name(), self.source.path().display().to_string());
        let file = match &self.source {
            ModelSource::Gguf(path) => Some(InFile::read(path)?),
            _ => None,
        };
        let mut facts = words.facts.clone();
        facts.license = facts.license.or_else(|| file.as_ref()?.license.clone());
        let out = self.folder.display().to_string();
        let card = Card {
            name: words.name.as_deref().unwrap_or(&named),
            place: words.place.as_deref().unwrap_or(&place),
            config: &self.config,
            weights: (formats.join(", "), weights.bytes()),
            facts,
            measured: measured.clone(),
            exits: &exits,
            training: training.as_ref(),
            recipe: recipe.as_deref(),
            gguf: file.as_ref().map(|file| GgufWords { out: &out, base_model: file.base_model.as_deref() }),
        };
        self.write_files(&card)?;
        Ok((self.folder.join(CARD), training))
    }

    fn write_files(&self, card: &Card<'_>) -> Result<()> {
        if card.gguf.is_some() {
            fs::create_dir_all(&self.folder)
                .map_err(|error| Error::Options(format!("{}: {error}", self.folder.display())))?;
        }
        let write = |name: &str, text: &str| {
            checkpoint::write_atomically(&self.folder.join(name), |file| file.write_all(text.as_bytes()))
        };
        let json = serde_json::to_string_pretty(&card.measured)
            .map_err(|error| Error::Drawing(error.to_string()))?;
        write(MEASURED, &(json + "\n"))?;
        if card.measured.exits().len() > 1 {
            write(EXITS_PLOT, &plot::exits::svg(&card.measured, card.name)?)?;
        }
        if card.is_float() {
            let (class, code) = card.modeling();
            checkpoint::add_remote_code(&self.folder, MODULE, &class, &code)?;
            // Folders of earlier builds lack this file, and transformers then guesses the tokenizer's class.
            if !self.folder.join(TOKENIZER_CONFIG).exists() && self.folder.join(TOKENIZER).exists() {
                let context = card.config.max_position_embeddings;
                write(TOKENIZER_CONFIG, &Tokenizer::from_folder(&self.folder)?.transformers_json(context))?;
            }
        }
        write(CARD, &card.markdown())?;
        Ok(())
    }

    /// The folder's name, or the file's. `model/` in a run folder has the run's name.
    fn name(&self) -> String {
        if let ModelSource::Gguf(file) = &self.source {
            return file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        }
        let own = self.folder.file_name().filter(|name| *name != MODEL);
        let name = own.or_else(|| self.folder.parent().and_then(Path::file_name));
        name.map_or("model".to_owned(), |name| name.to_string_lossy().into_owned())
    }
}

/// What a GGUF file says of itself.
struct InFile {
    license: Option<String>,
    base_model: Option<String>,
}

impl InFile {
    fn read(path: &Path) -> Result<Self> {
        let gguf = Gguf::open(path)?;
        let text = |key: &str| gguf.header().get(key)?.as_str().map(str::to_owned);
        let base_model = text("general.base_model.0.repo_url")
            .and_then(|url| Some(url.strip_prefix("https://huggingface.co/")?.to_owned()));
        Ok(Self { license: text("general.license"), base_model })
    }
}

/// A folder of the hub's cache is not ours to write into.
fn refuse_shared(source: &ModelSource) -> Result<()> {
    let ModelSource::Folder(folder) = source else { return Ok(()) };
    let Some(id) = hub::of_snapshot(folder) else { return Ok(()) };
    Err(Error::Options(format!(
        "{} lies in the hub's cache, which other programs share: `hf download {} --local-dir FOLDER` makes a folder of \
         your own",
        folder.display(),
        id.repository()
    )))
}

/// Refuses to replace a `README.md` that is not a card of ours. Reads it as bytes, because it may not be
/// UTF-8.
fn refuse_another_s(path: &Path) -> Result<()> {
    let ours = match fs::read(path) {
        Ok(bytes) => bytes.windows(OURS.len()).any(|bytes| bytes == OURS.as_bytes()),
        Err(error) => error.kind() == io::ErrorKind::NotFound && !path.is_symlink(),
    };
    match ours {
        true => Ok(()),
        false => Err(Error::Options(format!(
            "{} is there and no card of offramp's: move it away, or replace it with --overwrite",
            path.display()
        ))),
    }
}
