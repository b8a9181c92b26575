//! `[early_exit]`: the keys of the early-exit loss, with the model card's values as defaults.

use serde::{Deserialize, Serialize};

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
    /// Whether each exit's term is divided by its probability of being active, and the weights by the sum
    /// over all exits. The expectation is then that of the curriculum `all`.
    pub unbiased: bool,
    /// The weights of the exits.
    pub weights: ExitWeights,
    /// Whether the weights of a step's active exits are divided by their sum.
    pub normalize_weights: bool,
    /// Whether each exit but the last learns with a norm and an LM head of its own. This is an experiment:
    /// the finished model has the last layer's only, and only the run's own validation uses the others.
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
    /// Every R-th exit, shifted by one from step to step (LayerSkip's C_rot,R).
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

/// The weights of the exits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitWeights {
    /// `w_i = (i + 1) / L` for i = 0 … L − 2, beside the last layer's loss: the card's.
    Linear,
    /// `Σ C e CE / Σ C e`, last layer included: LayerSkip's.
    Layerskip,
}
