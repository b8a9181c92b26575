//! A prepared corpus and a small model's recipe, for tests that train.

use offramp_text::{PrepareOptions, TokenizerChoice, prepare};
use offramp_train::Recipe;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// This repository's stories, prepared in a temporary folder.
#[derive(Debug)]
pub struct Corpus(TempDir);

impl Corpus {
    /// Prepares them with a BPE of 512 tokens.
    ///
    /// # Panics
    /// If that fails.
    #[expect(clippy::new_without_default, reason = "it writes files")]
    pub fn new() -> Self {
        let place = Self(tempfile::tempdir().expect("a folder"));
        let stories = |name: &str| crate::repository::root().join("stories").join(name);
        let options = PrepareOptions {
            train: vec![stories("train.txt")],
            valid: vec![stories("valid.txt")],
            reading: Default::default(),
            out: place.path("corpus"),
            tokenizer: TokenizerChoice::Train { vocab_size: 512 },
            shard_tokens: 1 << 20,
        };
        prepare(&options, &mut |_| ()).expect("stories");
        place
    }

    /// A path beside the corpus, which is at `corpus`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// A model of 4 layers and this many steps, without validations and checkpoints on the way, and with more
/// keys.
///
/// # Panics
/// If the recipe does not parse.
pub fn small_recipe(precision: &str, steps: u64, keys: &str) -> Recipe {
    let text = format!(
        "[data]\ncorpus = \"corpus\"\n[model]\nhidden_size = 64\nintermediate_size = 128\nnum_hidden_layers = 4\n\
         num_attention_heads = 4\nnum_key_value_heads = 2\nmax_position_embeddings = 64\n\
         [training]\nprecision = \"{precision}\"\nsteps = {steps}\nbatch_size = 4\naccumulation = 1\n\
         sequence_length = 64\nseed = 5\n[optimizer]\nlearning_rate = 3e-3\n[schedule]\nwarmup_steps = 10\n\
         [validation]\nevery = 0\n[checkpoint]\nevery = 0\n{keys}"
    );
    Recipe::from_toml(&text, Path::new("small.toml")).expect("a recipe")
}
