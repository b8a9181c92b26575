//! The sections on how gradients become steps, with the model card's values as defaults.

use serde::{Deserialize, Serialize};

/// `[optimizer]`: AdamW, Muon beside it if wished, and the clipping of their gradients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OptimizerKeys {
    /// The peak of the schedule.
    pub learning_rate: f64,
    /// Decays of the two moments.
    pub betas: [f64; 2],
    /// Added to the denominator.
    pub eps: f64,
    /// Decoupled decay of the matrices; norms are left alone.
    pub weight_decay: f64,
    /// The decay of the second stage; `weight_decay` if left out.
    pub second_weight_decay: Option<f64>,
    /// The largest global norm of the gradient; 0 does not clip.
    pub clip: f64,
    /// What moves the weight matrices of the layers; embedding, LM head and norms are AdamW's always.
    pub matrices: Matrices,
    /// Decay of Muon's momentum (Nesterov's); 0.95 if left out.
    pub muon_momentum: Option<f64>,
}

/// `optimizer.matrices`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Matrices {
    /// AdamW, as all else.
    #[default]
    AdamW,
    /// Muon (Jordan et al. 2024): each matrix moves along its momentum, whose singular values are first brought
    /// close to 1. With `0.2 · √max(rows, columns)` times the learning rate (Liu et al. 2025, arXiv:2502.16982)
    /// steps have the size of AdamW's, so that `learning_rate` and `weight_decay` serve for both.
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

/// `[schedule]`: linear warm-up, then a cosine down to a fraction of the peak; and what changes on the way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScheduleKeys {
    /// Steps of the warm-up.
    pub warmup_steps: u64,
    /// The learning rate at the end, as a fraction of the peak.
    pub final_fraction: f64,
    /// The share of the steps after which the second stage begins (BitNet's two-stage schedule, arXiv:2402.17764 and
    /// its training tips); there is none if left out.
    pub second_stage: Option<f64>,
    /// What the learning rate of the second stage is multiplied by; 1 if left out.
    pub second_fraction: Option<f64>,
    /// Of `bitskip-v2`: the share of the steps after which activations have 4 bits, and 8 before (BitNet a4.8 and
    /// v2); 0.9 if left out.
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
