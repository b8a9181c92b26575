//! The sections of a recipe, key by key, each with the model card's value as its default.

use super::Paths;
use offramp_kernels::bit_linear::Activations;
use offramp_model::{BitLinear, Config};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// `[model]`: the keys of Hugging Face's `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelKeys {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward network.
    pub intermediate_size: usize,
    /// Decoder layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads, a divisor of the query heads.
    pub num_key_value_heads: usize,
    /// Width of a head; `hidden_size / num_attention_heads` if left out.
    pub head_dim: Option<usize>,
    /// Token ids; 0 is the tokenizer's number of them.
    pub vocab_size: usize,
    /// The context that the model is made for, at least `training.sequence_length`.
    pub max_position_embeddings: usize,
    /// The base of the rotary wavelengths.
    pub rope_theta: f64,
    /// What RMSNorm adds to the mean square.
    pub rms_norm_eps: f64,
    /// Whether the LM head is the embedding.
    pub tie_word_embeddings: bool,
    /// Standard deviation of the first weights.
    pub initializer_range: f64,
    /// Which of the low-bit family it is; floats if left out.
    pub bit_linear: Option<LowBit>,
}

/// `model.bit_linear`: the layers' seven projections are ternary, their inputs rounded to codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LowBit {
    /// 8-bit activations (BitNet b1.58).
    #[serde(rename = "bitskip-v1")]
    V1,
    /// 8-bit activations, then 4-bit ones, and a Hadamard rotation before `o_proj` and `down_proj` (BitNet v2).
    #[serde(rename = "bitskip-v2")]
    V2,
    /// 8-bit activations and the rotation.
    #[serde(rename = "bitskip-v3")]
    V3,
}

impl From<BitLinear> for LowBit {
    fn from(bit_linear: BitLinear) -> Self {
        match (bit_linear.activations, bit_linear.hadamard) {
            (Activations::Int8, false) => Self::V1,
            (Activations::Int4, _) => Self::V2,
            (Activations::Int8, true) => Self::V3,
        }
    }
}

impl From<LowBit> for BitLinear {
    fn from(low_bit: LowBit) -> Self {
        match low_bit {
            LowBit::V1 => Self::V1,
            LowBit::V2 => Self::V2,
            LowBit::V3 => Self::V3,
        }
    }
}

impl Default for ModelKeys {
    fn default() -> Self {
        Self {
            hidden_size: 2048,
            intermediate_size: 4096,
            num_hidden_layers: 24,
            num_attention_heads: 32,
            num_key_value_heads: 8,
            head_dim: None,
            vocab_size: 0,
            max_position_embeddings: 512,
            rope_theta: 10_000.0,
            rms_norm_eps: 1e-5,
            tie_word_embeddings: false,
            initializer_range: 0.02,
            bit_linear: None,
        }
    }
}

impl From<&Config> for ModelKeys {
    /// The sizes of a model that is there.
    fn from(config: &Config) -> Self {
        Self {
            hidden_size: config.hidden_size,
            intermediate_size: config.intermediate_size,
            num_hidden_layers: config.num_hidden_layers,
            num_attention_heads: config.num_attention_heads,
            num_key_value_heads: config.num_key_value_heads,
            head_dim: Some(config.head_dim),
            vocab_size: config.vocab_size,
            max_position_embeddings: config.max_position_embeddings,
            rope_theta: config.rope.theta,
            rms_norm_eps: config.rms_norm_eps,
            tie_word_embeddings: config.tie_word_embeddings,
            bit_linear: config.bit_linear.map(LowBit::from),
            ..Self::default()
        }
    }
}

/// `[start]`: what a run begins from, and what of it learns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StartKeys {
    /// A model folder to go on from (continual training, LayerSkip's way); `[model]` is left out then. If this
    /// is left out, the first weights are random.
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
}

/// `[data]`: a prepared corpus, or the files to prepare one from. Paths are relative to the working
/// directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataKeys {
    /// A folder that `offramp prepare` wrote.
    pub corpus: Option<PathBuf>,
    /// Instead: the training stories, `.txt`, `.jsonl` or `.parquet`, to prepare first; one file, or a list that is
    /// read as one row of stories.
    pub train: Option<Paths>,
    /// The validation stories.
    pub valid: Option<PathBuf>,
    /// With `train`: `gpt2`, `bpe` (trained on the stories), or the path of a `tokenizer.json`.
    pub tokenizer: Option<String>,
    /// With `tokenizer = "bpe"`: how many tokens it has.
    pub vocab_size: Option<usize>,
}

/// `[training]`: how much is learned from, at a time and in all.
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
    /// What all chance is drawn from.
    pub seed: u64,
    /// What the factors of products are rounded to; weights, sums and the optimizer are `f32` always.
    pub precision: Precision,
}

/// `training.precision`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Nothing is rounded.
    #[default]
    F32,
    /// Factors have 8 bits of mantissa, which processors with AMX, and some with AVX-512 BF16, multiply faster.
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
            precision: Precision::F32,
        }
    }
}

/// `[layer_dropout]`: the chance `p_l = S(t) · D(l) · c` of skipping layer l for a sample.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LayerDropoutKeys {
    /// D: how the chance grows with depth.
    pub shape: Shape,
    /// c, unless it is normalised away.
    pub p_max: f64,
    /// How c is found.
    pub normalize: Normalize,
    /// S: how the chance changes over the run.
    pub time: Time,
    /// Whether what a kept layer adds is multiplied by `1 / (1 − p)`.
    pub rescale: bool,
    /// Whether the last layer may be dropped too (LayerSkip's way).
    pub drop_last: bool,
}

impl Default for LayerDropoutKeys {
    fn default() -> Self {
        Self {
            shape: Shape::Quadratic,
            p_max: 0.5,
            normalize: Normalize::Sum,
            time: Time::Constant,
            rescale: false,
            drop_last: false,
        }
    }
}

/// D(l) of layer dropout, for l = 0 … L − 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// Nothing is dropped.
    None,
    /// `(l / L)²`, the card's.
    Quadratic,
    /// `l / (L − 1)`.
    Linear,
    /// `2^(l / (L − 1)) − 1`, LayerSkip's.
    Exponential,
}

impl Shape {
    /// As recipes and `config.json` write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Quadratic => "quadratic",
            Self::Linear => "linear",
            Self::Exponential => "exponential",
        }
    }
}

/// c of layer dropout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalize {
    /// `p_max`.
    None,
    /// `1 / Σ D(l)` over l ≤ L − 2: one layer is dropped per forward, and `p_max` cancels.
    Sum,
}

/// S(t) of layer dropout, for step t = 0 … T − 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Time {
    /// 1.
    Constant,
    /// `2^(t / (T − 1)) − 1`, LayerSkip's from scratch.
    Increasing,
    /// `1 − t / T`.
    Decreasing,
}

/// `[early_exit]`: the exits' part of the loss, `L = CE_L + loss_scale · Σ w_i CE_i / Σ w_i`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EarlyExitKeys {
    /// Weight of that part beside the last layer's loss (LayerSkip's e_scale with its weights).
    pub loss_scale: f64,
    /// Which exits are active in which step.
    pub curriculum: Curriculum,
    /// R of the rotational curriculum.
    pub period: Option<usize>,
    /// The share of a micro-batch's positions at which the sampled curriculum scores each exit.
    pub sample_fraction: Option<f64>,
    /// Whether each exit's term is divided by its chance of being active and the weights by the sum over all
    /// exits, so that the expectation is that of the curriculum `all`.
    pub unbiased: bool,
    /// How exits are weighed against each other.
    pub weights: ExitWeights,
    /// Whether the weights of a step's active exits are divided by their sum.
    pub normalize_weights: bool,
    /// Whether each exit but the last learns with a norm and an LM head of its own, an experiment: the finished model has the
    /// last layer's alone, and only the validation of the run hears the others.
    pub own_heads: bool,
}

impl Default for EarlyExitKeys {
    fn default() -> Self {
        Self {
            loss_scale: 0.3,
            curriculum: Curriculum::All,
            period: None,
            sample_fraction: None,
            unbiased: false,
            weights: ExitWeights::Linear,
            normalize_weights: true,
            own_heads: false,
        }
    }
}

/// Which exits are active in which step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Curriculum {
    /// None: the last layer's loss alone.
    None,
    /// Every exit in every step, the card's.
    All,
    /// Every R-th exit, moved on by one from step to step (LayerSkip's C_rot,R).
    Rotational,
    /// At first the last layer alone, then one exit more, from deep to shallow, every T/(2L) steps
    /// (LayerSkip's C_grad).
    Gradual,
    /// Every exit in every step, each at positions of its own drawn for the micro-batch.
    Sampled,
}

impl Curriculum {
    /// As recipes and `config.json` write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::All => "all",
            Self::Rotational => "rotational",
            Self::Gradual => "gradual",
            Self::Sampled => "sampled",
        }
    }
}

/// How exits are weighed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitWeights {
    /// `w_i = (i + 1) / L` for i = 0 … L − 2, beside the last layer's loss: the card's.
    Linear,
    /// `Σ C e CE / Σ C e`, last layer included: LayerSkip's.
    Layerskip,
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
    /// How many of the newest stay. The one with the lowest validation loss stays beside them; and as the next
    /// is written before the oldest goes, the disk needs room for `keep + 2`, and for the finished model.
    pub keep: usize,
}

impl Default for CheckpointKeys {
    fn default() -> Self {
        Self { every: 1000, keep: 2 }
    }
}
