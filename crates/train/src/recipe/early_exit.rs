//! `[early_exit]`: the keys of the early-exit loss, with the model card's values as defaults.

use crate::network::{Distillation, TeacherLoss};
use serde::{Deserialize, Serialize};

/// `[early_exit]`: the exits' part of the loss, `L = CE_L + loss_scale · Σ w_i CE_i / Σ w_i`. With a teacher,
/// each exit's `CE_i` is `(1 − teacher_share) CE_i + teacher_share D_i`, where `D_i` is the exit's distance
/// from the last layer's logits of the same step, which get no gradient from it.
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
    /// From whom the exits learn beside the labels.
    pub teacher: Option<Teacher>,
    /// The teacher's share of each exit's loss; 0.5 if there is one.
    pub teacher_share: Option<f64>,
    /// How the distance from the teacher is measured; `kl` if there is one.
    pub teacher_loss: Option<TeacherLoss>,
    /// With `start.train = "exit_adapters"`: the exits that get a norm and an adapter; the quarters of the
    /// depth if left out.
    pub adapter_exits: Option<Vec<usize>>,
    /// The rank of the adapters; a quarter of the hidden size if left out.
    pub adapter_rank: Option<usize>,
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
            teacher: None,
            teacher_share: None,
            teacher_loss: None,
            adapter_exits: None,
            adapter_rank: None,
            own_heads: false,
        }
    }
}

/// The teacher's share where the recipe names none.
const TEACHER_SHARE: f64 = 0.5;

impl EarlyExitKeys {
    /// What the exits learn from the full model.
    pub fn distillation(&self) -> Option<Distillation> {
        let Teacher::Final = self.teacher?;
        let share = self.teacher_share.unwrap_or(TEACHER_SHARE) as f32;
        Some(Distillation { share, loss: self.teacher_loss.unwrap_or(TeacherLoss::Kl) })
    }
}

/// From whom exits learn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Teacher {
    /// The last layer's logits.
    Final,
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
    /// `w_i = 1`, beside the last layer's loss: more for the first exits, which draft.
    Equal,
    /// `Σ C e CE / Σ C e`, last layer included: LayerSkip's.
    Layerskip,
}
