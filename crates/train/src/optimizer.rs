//! The optimizer: AdamW over the flat buffers, or Muon for the matrices of the layers, with the gradient
//! clipped by its global norm.

mod muon;
mod shares;

pub(crate) use shares::{Bucket, Held, Own, buckets};

use crate::ops::{adamw, muon as muon_op, values};
use crate::parameters::Layout;
use crate::recipe::{Matrices, OptimizerKeys};
use muon::Muon;
use offramp_kernels::AdamWStep;
use offramp_model::TensorKind;
use offramp_ranks::Ranks;
use std::ops::Range;

/// Decay of Muon's momentum where the recipe says nothing: the paper's.
const MUON_MOMENTUM: f64 = 0.95;

/// The optimizer: its constants and the two moments of every value.
#[derive(Debug)]
pub struct Optimizer {
    keys: OptimizerKeys,
    /// First moments of the share, laid out as the weights; for a matrix that Muon moves, its momentum.
    pub(crate) m: Vec<f32>,
    /// Second moments of the share; zero for a matrix that Muon moves.
    pub(crate) v: Vec<f32>,
    /// The values that this process moves.
    pub(crate) own: Own,
    pieces: Vec<(usize, Range<usize>)>, // of the norm, those of the share, with their numbers among all
    sums: Vec<f64>,                     // of each piece of all
    len: usize,                         // of the weights
    frozen: usize,                      // values before this one never change
    muon: Option<Muon>,                 // for the matrices of the layers
}

/// One update of all weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Update {
    /// Its number, counted from 1.
    pub number: u64,
    /// The learning rate.
    pub learning_rate: f64,
    /// The global norm of the gradient ([`Optimizer::norm`]).
    pub norm: f64,
}

impl Optimizer {
    /// An optimizer of the values of `layout` whose moments are zero.
    pub fn new(keys: &OptimizerKeys, layout: &Layout) -> Self {
        Self::of_share(keys, layout, Own::of(&buckets(layout, keys, 1, usize::MAX), 0))
    }

    /// An optimizer of what one rank has of the [`buckets`].
    pub(crate) fn of_share(keys: &OptimizerKeys, layout: &Layout, own: Own) -> Self {
        let (m, v) = (vec![0.0; own.len()], vec![0.0; own.len()]);
        let muon = (keys.matrices == Matrices::Muon).then(|| Muon::new(layout));
        let pieces = shares::pieces(layout);
        let sums = vec![0.0; pieces.len()];
        let pieces = pieces.into_iter().enumerate().filter(|(_, piece)| own.contains(piece.start)).collect();
        Self { keys: keys.clone(), m, v, own, pieces, sums, len: layout.len(), frozen: 0, muon }
    }

    /// From now on, nothing changes the tensors that stand before this value, decay included.
    pub fn freeze_before(&mut self, first: usize) {
        self.frozen = first;
    }

    /// From now on, matrices have this weight decay.
    pub fn set_weight_decay(&mut self, weight_decay: f64) {
        self.keys.weight_decay = weight_decay;
    }

    /// The global norm of a gradient, summed in `f64` and in a fixed order.
    ///
    /// # Panics
    /// If it is not of this optimizer's length.
    pub fn norm(&mut self, gradients: &[f32]) -> f64 {
        self.norm_over(gradients, &mut Ranks::alone())
    }

    /// The same where each rank has the gradient of its share: every rank gets the same number.
    pub(crate) fn norm_over(&mut self, gradients: &[f32], ranks: &mut Ranks) -> f64 {
        assert_eq!(gradients.len(), self.len, "one gradient for each value");
        self.sums.fill(0.0);
        for ((index, _), sum) in self.pieces.iter().zip(values::sums_of_squares(gradients, &self.pieces)) {
            self.sums[*index] = sum;
        }
        if ranks.size() > 1 {
            ranks.sum(&mut self.sums); // a piece is one rank's, and zero elsewhere
        }
        self.sums.iter().sum::<f64>().sqrt()
    }

    /// Makes one update of the share. The gradient is clipped to the norm `optimizer.clip`. Matrices decay,
    /// norms and biases do not.
    ///
    /// # Panics
    /// If `weights` or `gradients` are not of this optimizer's length.
    pub fn step(&mut self, layout: &Layout, weights: &mut [f32], gradients: &[f32], update: Update) {
        let Update { number, learning_rate, norm } = update;
        let clip = self.keys.clip;
        let grad_scale = if clip > 0.0 && norm > clip { clip / norm } else { 1.0 };
        let [beta1, beta2] = self.keys.betas;
        let bias = |beta: f64| (1.0 - beta.powf(number as f64)) as f32;
        if let Some(muon) = &mut self.muon {
            let update = muon_op::Update {
                momentum: self.keys.muon_momentum.unwrap_or(MUON_MOMENTUM) as f32,
                learning_rate,
                weight_decay: self.keys.weight_decay,
                grad_scale: grad_scale as f32,
            };
            let own = muon::matrices(layout, self.frozen)
                .filter_map(|place| Some(place.clone().with_momentum(self.own.within(&place.range)?.place)));
            muon.step(&update, own, weights, gradients, &mut self.m);
        }
        for (held, weight_decay) in self.groups(layout) {
            let step = AdamWStep {
                lr: learning_rate as f32,
                beta1: beta1 as f32,
                beta2: beta2 as f32,
                eps: self.keys.eps as f32,
                weight_decay: weight_decay as f32,
                bias1: bias(beta1),
                bias2: bias(beta2),
                grad_scale: grad_scale as f32,
            };
            let (m, v) = (&mut self.m[held.places()], &mut self.v[held.places()]);
            adamw::step(&step, &mut weights[held.values.clone()], &gradients[held.values], m, v);
        }
    }

    /// The values of the share that AdamW moves, and the decay of each.
    fn groups(&self, layout: &Layout) -> Vec<(Held, f64)> {
        let mut groups: Vec<(Held, f64)> = Vec::new();
        let learning = layout.tensors().filter(|(_, range)| range.start >= self.frozen);
        let mut others = self.muon.iter().flat_map(|_| muon::matrices(layout, self.frozen)).peekable();
        for (spec, range) in learning {
            if others.next_if(|other| other.range == range).is_some() {
                continue;
            }
            let Some(held) = self.own.within(&range) else { continue };
            let decay = if spec.kind() == TensorKind::Matrix { self.keys.weight_decay } else { 0.0 };
            match groups.last_mut() {
                Some((before, same)) if *same == decay && before.values.end == held.values.start => {
                    before.values.end = held.values.end;
                }
                _ => groups.push((held, decay)),
            }
        }
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Recipe;
    use std::path::Path;

    fn layout() -> Layout {
        layout_with("")
    }

    fn layout_with(keys: &str) -> Layout {
        let text = "[data]\ncorpus = \"c\"\n[layer_dropout]\nshape = \"none\"\n[model]\nhidden_size = 8\n\
                    intermediate_size = 8\nnum_hidden_layers = 2\nnum_attention_heads = 2\nnum_key_value_heads = 1\n";
        let text = format!("{text}{keys}");
        Layout::new(&Recipe::from_toml(&text, Path::new("r.toml")).unwrap().config(3000, None).unwrap())
    }

    /// The first update.
    fn update(learning_rate: f64, norm: f64) -> Update {
        Update { number: 1, learning_rate, norm }
    }

    #[test]
    fn the_norm_is_that_of_all_values() {
        let layout = layout();
        let gradients: Vec<f32> = (0..layout.len()).map(|i| (i % 7) as f32 - 3.0).collect();
        let expected = gradients.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
        let found = Optimizer::new(&OptimizerKeys::default(), &layout).norm(&gradients);
        assert!((found / expected - 1.0).abs() < 1e-12, "{found} instead of {expected}");
    }

    #[test]
    fn only_matrices_decay() {
        let layout = layout_with("attention_bias = true\nmlp_bias = true");
        assert!(layout.tensors().any(|(spec, _)| spec.name.ends_with(".bias")));
        let keys = OptimizerKeys { weight_decay: 0.5, ..Default::default() };
        let mut weights = vec![1.0; layout.len()];
        let gradients = vec![0.0; layout.len()];
        Optimizer::new(&keys, &layout).step(&layout, &mut weights, &gradients, update(0.5, 0.0));
        for (spec, range) in layout.tensors() {
            let expected = if spec.shape.len() == 2 { 0.75 } else { 1.0 };
            assert!(weights[range].iter().all(|&w| w == expected), "{}", spec.name);
        }
    }

    /// The first step of Adam has the size of the learning rate, in the direction of the gradient.
    #[test]
    fn clipping_changes_the_size_of_the_gradient_alone() {
        let layout = layout();
        let keys = OptimizerKeys { weight_decay: 0.0, ..Default::default() };
        let gradients: Vec<f32> = (0..layout.len()).map(|i| if i % 2 == 0 { 2.0 } else { -2.0 }).collect();
        let mut optimizer = Optimizer::new(&keys, &layout);
        let norm = optimizer.norm(&gradients);
        let mut weights = vec![0.0; layout.len()];
        optimizer.step(&layout, &mut weights, &gradients, update(0.25, norm));
        assert!(weights.iter().zip(&gradients).all(|(w, g)| (w + 0.25 * g.signum()).abs() < 1e-5));
        let clipped = 2.0 / norm as f32;
        assert!((optimizer.m[0] / (0.1 * clipped) - 1.0).abs() < 1e-5, "{}", optimizer.m[0]);
    }

    /// AdamW moves embedding, head and norms, and has second moments. Nothing moves a frozen layer.
    #[test]
    fn muon_moves_the_matrices_of_the_layers() {
        let layout = layout();
        let keys = OptimizerKeys { matrices: Matrices::Muon, ..Default::default() };
        let gradients: Vec<f32> = (0..layout.len()).map(|i| (i % 7) as f32 - 3.0).collect();
        for frozen in [0, layout.norm().start] {
            let mut optimizer = Optimizer::new(&keys, &layout);
            optimizer.freeze_before(frozen);
            let mut weights = vec![1.0; layout.len()];
            optimizer.step(&layout, &mut weights, &gradients, update(0.5, 1.0));
            for (spec, range) in layout.tensors() {
                let learns = range.start >= frozen;
                let by_muon = spec.name.contains("proj");
                let moved = |values: &[f32], from: f32| values.iter().any(|&v| v != from);
                assert_eq!(moved(&weights[range.clone()], 1.0), learns, "{}", spec.name);
                assert_eq!(moved(&optimizer.m[range.clone()], 0.0), learns, "{}", spec.name);
                assert_eq!(moved(&optimizer.v[range], 0.0), learns && !by_muon, "{}", spec.name);
            }
        }
    }
}
