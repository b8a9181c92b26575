//! The sections that say where a run begins, what it reads, how much, and when it is measured and saved. Each
//! key has the model card's value as its default.

use super::paths::Paths;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// `[start]`: what a run begins from, and which weights learn.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StartKeys {
    /// A model folder or a GGUF file to go on from (continual training, as LayerSkip does it); `[model]` is
    /// left out then.
    /// If this is left out, the first weights are random.
    pub checkpoint: Option<PathBuf>,
    /// What is trained.
    pub train: Trained,
}

/// What is trained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trained {
    /// Every weight.
    #[default]
    All,
    /// The final norm and the LM head, which all exits share; the layers stay as they are.
    ExitHead,
    /// A norm and an adapter for each of `early_exit.adapter_exits`; the model stays as it is, bit for bit.
    ExitAdapters,
}

/// `[data]`: a prepared corpus, or the files to prepare one from. Paths are relative to the working
/// directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataKeys {
    /// A folder that `offramp prepare` wrote.
    pub corpus: Option<PathBuf>,
    /// Instead: the training stories, `.txt`, `.jsonl` or `.parquet`, to prepare first; one file, or a list
    /// of files that are read one after the other.
    pub train: Option<Paths>,
    /// The validation stories.
    pub valid: Option<PathBuf>,
    /// With `train`: `gpt2`, `bpe` (trained on the stories), or the path of a `tokenizer.json` or of a GGUF
    /// file; may be left out where `start.checkpoint` has one.
    pub tokenizer: Option<String>,
    /// With `tokenizer = "bpe"`: how many tokens it has.
    pub vocab_size: Option<usize>,
}

/// `[training]`: the sizes of a batch, and the length of the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainingKeys {
    /// Tokens of one sample.
    pub sequence_length: usize,
    /// Samples of one micro-batch.
    pub batch_size: usize,
    /// Micro-batches of one step.
    pub accumulation: usize,
    /// Steps of the run.
    pub steps: u64,
    /// The seed of every random draw.
    pub seed: u64,
    /// What is in a new order in each epoch.
    pub shuffle: Shuffle,
    /// The format of the factors of products; weights, sums and the optimizer are `f32` always.
    pub precision: Precision,
    /// Whether the gradients of micro-batches are added by a fixed tree, so that a run has the same bits on
    /// 1, 2, 4 or 8 processes. One process then holds a further gradient for each doubling of its
    /// micro-batches.
    pub exact_ranks: bool,
}

/// `training.shuffle`. Either way an epoch's windows begin at an offset of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shuffle {
    /// The windows: a story has the same neighbours in every epoch.
    #[default]
    Windows,
    /// The stories, and then the windows.
    Stories,
}

/// `training.precision`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Nothing is rounded.
    #[default]
    F32,
    /// Factors have 8 bits of mantissa, which processors with AMX, and some with AVX-512 BF16, multiply
    /// faster.
    Bf16,
}

impl Default for TrainingKeys {
    fn default() -> Self {
        Self {
            sequence_length: 512,
            batch_size: 16,
            accumulation: 4,
            steps: 50_000,
            seed: 0,
            shuffle: Shuffle::Windows,
            precision: Precision::F32,
            exact_ranks: true,
        }
    }
}

/// `[averages]`: means of the weights over the steps, which become models of their own beside the finished
/// one (`model-ema`, `model-swa`). None unless it is asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AverageKeys {
    /// d of an exponential moving average: after each step `average ← d · average + (1 − d) · weights`.
    pub ema_decay: Option<f64>,
    /// The first step after which the weights are part of a plain mean (stochastic weight averaging).
    pub swa_start: Option<u64>,
    /// Steps from one of its parts to the next; 1 if left out.
    pub swa_every: Option<u64>,
}

impl AverageKeys {
    /// Steps from one part of the plain mean to the next.
    pub(crate) fn swa_every(&self) -> u64 {
        self.swa_every.unwrap_or(1)
    }
}

/// `[validation]`: when and where the validation split is measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ValidationKeys {
    /// Steps from one validation to the next; 0 validates at the end only.
    pub every: u64,
    /// Exit layers to measure beside the full model; if left out, a quarter, half and three quarters of
    /// the layers.
    pub exits: Option<Vec<usize>>,
    /// Tokens to measure at most; 0 is the whole split.
    pub max_tokens: u64,
}

impl Default for ValidationKeys {
    fn default() -> Self {
        Self { every: 500, exits: None, max_tokens: 0 }
    }
}

/// `[checkpoint]`: when the run is saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CheckpointKeys {
    /// Steps from one checkpoint to the next; 0 saves at the end only.
    pub every: u64,
    /// How many of the newest stay. The one with the lowest validation loss stays too. The next is written
    /// before the oldest is removed, so the disk needs room for `keep + 2` checkpoints and for the finished
    /// model.
    pub keep: usize,
}

impl Default for CheckpointKeys {
    fn default() -> Self {
        Self { every: 1000, keep: 2 }
    }
}
