//! `[optimizer]` and `[schedule]`: how gradients become updates, with the model card's values as defaults.

use serde::{Deserialize, Serialize};

/// The largest share of a run after which activations may become 4-bit. BitNet v2 has 95 % of the tokens;
/// here at least a tenth of the steps have 4 bits.
pub(crate) const LAST_INT4_FROM: f64 = 0.9;

/// `[optimizer]`: AdamW, or AdamW and Muon, and the clipping of the gradient.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OptimizerKeys {
    /// The peak of the schedule.
    pub learning_rate: f64,
    /// Decays of the two moments.
    pub betas: [f64; 2],
    /// Added to the denominator.
    pub eps: f64,
    /// Decoupled weight decay of the matrices; norms have none.
    pub weight_decay: f64,
    /// The decay of the second stage; `weight_decay` if left out.
    pub second_weight_decay: Option<f64>,
    /// The largest global norm of the gradient; 0 does not clip.
    pub clip: f64,
    /// The optimizer of the layers' matrices; AdamW always moves embedding, LM head and norms.
    pub matrices: Matrices,
    /// Decay of Muon's momentum (Nesterov's); 0.95 if left out.
    pub muon_momentum: Option<f64>,
}

/// `optimizer.matrices`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Matrices {
    /// AdamW, as for all other tensors.
    #[default]
    AdamW,
    /// Muon (Jordan et al. 2024): each matrix moves along its momentum, whose singular values are first
    /// brought close to 1. The learning rate is multiplied by `0.2 · √max(rows, columns)` (Liu et al. 2025,
    /// arXiv:2502.16982). Updates then have the size of AdamW's, so `learning_rate` and `weight_decay` serve
    /// for both.
    Muon,
}

impl Default for OptimizerKeys {
    fn default() -> Self {
        Self {
            learning_rate: 6e-4,
            betas: [0.9, 0.95],
            eps: 1e-8,
            weight_decay: 0.1,
            second_weight_decay: None,
            clip: 1.0,
            matrices: Matrices::AdamW,
            muon_momentum: None,
        }
    }
}

/// `[schedule]`: linear warm-up, then a cosine down to a fraction of the peak, and what changes in later
/// stages.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScheduleKeys {
    /// Steps of the warm-up.
    pub warmup_steps: u64,
    /// The learning rate at the end, as a fraction of the peak.
    pub final_fraction: f64,
    /// The share of the steps after which the second stage begins (BitNet's two-stage schedule,
    /// arXiv:2402.17764 and its training tips); there is none if left out.
    pub second_stage: Option<f64>,
    /// The factor of the learning rate in the second stage; 1 if left out.
    pub second_fraction: Option<f64>,
    /// For `bitskip-v2`: the share of the steps after which activations have 4 bits; before they have 8
    /// (BitNet a4.8 and v2). 0.9 if left out.
    pub int4_from: Option<f64>,
}

impl Default for ScheduleKeys {
    fn default() -> Self {
        Self {
            warmup_steps: 1000,
            final_fraction: 0.1,
            second_stage: None,
            second_fraction: None,
            int4_from: None,
        }
    }
}
