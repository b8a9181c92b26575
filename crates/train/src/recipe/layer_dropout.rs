//! `[layer_dropout]`: its keys, with the model card's values as defaults, and the probabilities that they
//! mean.

use serde::{Deserialize, Serialize};

/// With a higher probability a layer would hardly be trained.
const HIGHEST: f64 = 0.9;

/// `[layer_dropout]`: the probability `p_l = S(t) · D(l) · c` of skipping layer l for a sample.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LayerDropoutKeys {
    /// D: how the probability grows with depth.
    pub shape: DropoutShape,
    /// c, where `normalize` is `none`.
    pub p_max: f64,
    /// How c is found.
    pub normalize: DropoutNormalize,
    /// S: how the probability changes over the run.
    pub time: DropoutTime,
    /// Whether what a kept layer adds is multiplied by `1 / (1 − p)`.
    pub rescale: bool,
    /// Whether the last layer may be dropped too, as in LayerSkip.
    pub drop_last: bool,
}

impl Default for LayerDropoutKeys {
    fn default() -> Self {
        Self {
            shape: DropoutShape::Quadratic,
            p_max: 0.5,
            normalize: DropoutNormalize::Sum,
            time: DropoutTime::Constant,
            rescale: false,
            drop_last: false,
        }
    }
}

/// D(l) of layer dropout, for l = 0 … L − 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DropoutShape {
    /// Nothing is dropped.
    None,
    /// `(l / L)²`, the card's.
    Quadratic,
    /// `l / (L − 1)`.
    Linear,
    /// `2^(l / (L − 1)) − 1`, LayerSkip's.
    Exponential,
}

impl DropoutShape {
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
pub enum DropoutNormalize {
    /// `p_max`.
    None,
    /// `1 / Σ D(l)` over l ≤ L − 2: one layer is dropped per forward, and `p_max` cancels.
    Sum,
}

/// S(t) of layer dropout, for step t = 0 … T − 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DropoutTime {
    /// 1.
    Constant,
    /// `2^(t / (T − 1)) − 1`, LayerSkip's from scratch.
    Increasing,
    /// `1 − t / T`.
    Decreasing,
}

impl LayerDropoutKeys {
    /// `D(l) · c` of every layer of a model.
    ///
    /// # Errors
    /// What is wrong and what to do, if a probability is above 0.9 or `normalize = "sum"` divides by zero.
    pub(crate) fn probabilities(&self, count: usize) -> Result<Vec<f64>, String> {
        let mut layers: Vec<f64> = (0..count).map(|layer| self.shape.depth(layer, count)).collect();
        let scale = match self.normalize {
            _ if self.shape == DropoutShape::None => 0.0,
            DropoutNormalize::None => self.p_max,
            DropoutNormalize::Sum => {
                let sum: f64 = layers[..count.saturating_sub(1)].iter().sum();
                if sum == 0.0 {
                    return Err(format!(
                        "normalize = \"sum\" divides by a sum of zero: a model of {count} layers has no depth to \
                         drop by, set shape = \"none\" or normalize = \"none\""
                    ));
                }
                1.0 / sum
            }
        };
        layers.iter_mut().for_each(|probability| *probability *= scale);
        if let Some(last) = layers.last_mut().filter(|_| !self.drop_last) {
            *last = 0.0;
        }
        let Some(layer) = layers.iter().position(|&probability| probability > HIGHEST) else {
            return Ok(layers);
        };
        let remedy = match self.normalize {
            DropoutNormalize::None => "lower p_max",
            DropoutNormalize::Sum => "set normalize = \"none\" and a p_max",
        };
        Err(format!(
            "layer {layer} of 0 to {} would be dropped with a chance of {:.3}, above {HIGHEST}: {remedy}",
            count - 1,
            layers[layer]
        ))
    }
}

impl DropoutShape {
    /// D(l).
    fn depth(self, layer: usize, layers: usize) -> f64 {
        let (layer, last, layers) = (layer as f64, layers.saturating_sub(1).max(1) as f64, layers as f64);
        match self {
            Self::None => 0.0,
            Self::Quadratic => (layer / layers).powi(2),
            Self::Linear => layer / last,
            Self::Exponential => (layer / last).exp2() - 1.0,
        }
    }
}
