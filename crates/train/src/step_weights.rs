//! The weights of a step: the floats that learn, and the codes that the matrices of low-bit layers are
//! rounded to. The codes are made once a step, in buffers allocated once.

use crate::ops::bit_linear::{MatrixScale, Ternary, quantize_weights};
use crate::parameters::Layout;
use offramp_kernels::rayon::prelude::*;
use offramp_model::Config;
use std::ops::Range;

/// Matrices of a layer: q, k, v, o, gate, up and down.
const MATRICES: usize = 7;

/// What a network computes with: all weights of a step.
#[derive(Clone, Copy, Debug)]
pub struct StepWeights<'a> {
    pub(crate) floats: &'a [f32],
    ternary: Option<&'a TernaryWeights>,
}

impl<'a> StepWeights<'a> {
    /// The weights of a model without ternary matrices, laid out as its network says.
    pub fn floats(floats: &'a [f32]) -> Self {
        Self { floats, ternary: None }
    }

    /// The ternary matrices of a layer, if the model has any.
    pub(crate) fn ternary_layer(&self, index: usize) -> Option<TernaryLayer<'a>> {
        self.ternary.map(|ternary| ternary.layer(index))
    }

    /// Whether matrices of layers are ternary.
    pub(crate) fn are_ternary(&self) -> bool {
        self.ternary.is_some()
    }
}

/// Rounds the weights of each step. A model of floats has nothing to round.
#[derive(Debug)]
pub struct Rounding(Option<TernaryWeights>);

impl Rounding {
    /// Buffers for a model.
    pub fn new(config: &Config, layout: &Layout) -> Self {
        Self(config.bit_linear.map(|_| TernaryWeights::new(layout)))
    }

    /// The weights of a step, rounded where the model asks for it. `floats` has the layout's order.
    pub fn round<'a>(&'a mut self, floats: &'a [f32]) -> StepWeights<'a> {
        if let Some(ternary) = &mut self.0 {
            ternary.quantize(floats);
        }
        self.rounded(floats)
    }

    /// The same weights, as [`Rounding::round`] rounded them last.
    pub(crate) fn rounded<'a>(&'a self, floats: &'a [f32]) -> StepWeights<'a> {
        StepWeights { floats, ternary: self.0.as_ref() }
    }
}

/// Codes and scales of all layers' matrices.
#[derive(Debug)]
struct TernaryWeights {
    codes: Vec<f32>, // the layers' matrices one after the other, as in the layout but without norms
    scales: Vec<MatrixScale>, // [layers · MATRICES]
    places: Vec<Range<usize>>, // in the weights, [layers · MATRICES]
    starts: Vec<usize>, // in `codes`, [layers · MATRICES + 1]
}

/// One layer's ternary matrices, grouped as [`LayerWeights`](crate::parameters::LayerWeights) are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TernaryLayer<'a> {
    pub(crate) qkv_proj: Ternary<'a>,
    pub(crate) o_proj: Ternary<'a>,
    pub(crate) gate_up_proj: Ternary<'a>,
    pub(crate) down_proj: Ternary<'a>,
}

impl TernaryWeights {
    /// Buffers for the matrices of a layout.
    fn new(layout: &Layout) -> Self {
        let (mut scales, mut places, mut starts) = (Vec::new(), Vec::new(), vec![0]);
        for (spec, range) in layout.tensors().filter(|(spec, _)| spec.name.ends_with("_proj.weight")) {
            scales.push(MatrixScale { out_features: spec.shape[0], scale: 0.0 });
            starts.push(starts[places.len()] + range.len());
            places.push(range);
        }
        Self { codes: vec![0.0; starts[places.len()]], scales, places, starts }
    }

    /// Rounds all matrices of `weights`, a buffer of the layout.
    fn quantize(&mut self, weights: &[f32]) {
        let mut codes = self.codes.as_mut_slice();
        let lengths = self.starts.windows(2).map(|ends| ends[1] - ends[0]);
        let codes = lengths.map(|length| codes.split_off_mut(..length).expect("room for each matrix"));
        let matrices: Vec<_> = self.scales.iter_mut().zip(&self.places).zip(codes).collect();
        matrices.into_par_iter().for_each(|((matrix, place), codes)| {
            matrix.scale = quantize_weights(&weights[place.clone()], codes);
        });
    }

    /// Layer `index`.
    fn layer(&self, index: usize) -> TernaryLayer<'_> {
        let group = |first: usize, count: usize| {
            let first = index * MATRICES + first;
            let codes = &self.codes[self.starts[first]..self.starts[first + count]];
            Ternary { codes, scales: &self.scales[first..first + count] }
        };
        TernaryLayer {
            qkv_proj: group(0, 3),
            o_proj: group(3, 1),
            gate_up_proj: group(4, 2),
            down_proj: group(6, 1),
        }
    }
}
