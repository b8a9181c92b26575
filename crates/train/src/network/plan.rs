//! What runs in one forward and backward.

use crate::exit_head::Distillation;
use crate::layer::Route;
use crate::ops::Kept;

/// Which samples run through which layers, and the weight of each exit's loss.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The samples that each layer runs for, increasing; `[layers]` of them.
    pub kept: Vec<Vec<usize>>,
    /// The factor of what each layer adds to the residual stream, `[layers]`.
    pub scale: Vec<f32>,
    /// Exit layers, increasing, and the weight of each one's mean cross-entropy.
    pub exits: Vec<(usize, f32)>,
    /// The positions of the micro-batch over which each exit's mean is taken, increasing; `[exits]` of them.
    pub scored: Vec<Vec<usize>>,
    /// What the exits before the deepest learn from it.
    pub distillation: Option<Distillation>,
    /// Whether only the final norm and the head get a gradient. Then there is no backward through the layers.
    pub head_only: bool,
}

impl Plan {
    /// Every layer for every one of `samples` of `length` tokens, and these exits at every position.
    pub fn full(layers: usize, samples: usize, length: usize, exits: Vec<(usize, f32)>) -> Self {
        let scored = vec![(0..samples * length).collect(); exits.len()];
        Self {
            kept: vec![(0..samples).collect(); layers],
            scale: vec![1.0; layers],
            exits,
            scored,
            distillation: None,
            head_only: false,
        }
    }

    /// The samples that a layer runs for, of `length` tokens each, and the factor of what it adds.
    pub(super) fn route(&self, layer: usize, length: usize) -> Route<'_> {
        Route { kept: Kept { samples: &self.kept[layer], length }, scale: self.scale[layer] }
    }
}

/// One micro-batch: samples of the network's sequence length one after the other, or a single shorter one.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Tokens, `[samples, sequence]`.
    pub inputs: &'a [u32],
    /// The token after each input, `[samples, sequence]`.
    pub labels: &'a [u32],
}
