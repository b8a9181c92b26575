//! The ternary weights of a step, made of the weights that learn, in buffers allocated once.

use crate::ops::bit_linear::{Part, Ternary, quantise_weights};
use crate::parameters::Layout;
use offramp_kernels::rayon::prelude::*;
use std::ops::Range;

/// Matrices of a layer: q, k, v, o, gate, up and down.
const MATRICES: usize = 7;

/// Codes and steps of all layers' matrices.
#[derive(Debug)]
pub(crate) struct TernaryWeights {
    codes: Vec<f32>, // the layers' matrices one after the other, as in the layout but for the norms
    parts: Vec<Part>, // [layers · MATRICES]
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
    /// Room for the matrices of a layout.
    pub(crate) fn new(layout: &Layout) -> Self {
        let (mut parts, mut places, mut starts) = (Vec::new(), Vec::new(), vec![0]);
        for (spec, range) in layout.tensors().filter(|(spec, _)| spec.name.contains("_proj.")) {
            parts.push(Part { out_features: spec.shape[0], step: 0.0 });
            starts.push(starts[places.len()] + range.len());
            places.push(range);
        }
        Self { codes: vec![0.0; starts[places.len()]], parts, places, starts }
    }

    /// Makes the matrices of the first `layers` layers of `weights`, a buffer of the layout.
    pub(crate) fn quantise(&mut self, weights: &[f32], layers: usize) {
        let mut codes = self.codes.as_mut_slice();
        let lengths = self.starts.windows(2).map(|ends| ends[1] - ends[0]);
        let codes = lengths.map(|length| codes.split_off_mut(..length).expect("room for each matrix"));
        let matrices = self.parts.iter_mut().zip(&self.places).zip(codes).take(layers * MATRICES);
        let matrices: Vec<_> = matrices.collect();
        matrices.into_par_iter().for_each(|((part, place), codes)| {
            part.step = quantise_weights(&weights[place.clone()], codes);
        });
    }

    /// Layer `index`, as it was made last.
    pub(crate) fn layer(&self, index: usize) -> TernaryLayer<'_> {
        let group = |first: usize, count: usize| {
            let first = index * MATRICES + first;
            let codes = &self.codes[self.starts[first]..self.starts[first + count]];
            Ternary { codes, parts: &self.parts[first..first + count] }
        };
        TernaryLayer {
            qkv_proj: group(0, 3),
            o_proj: group(3, 1),
            gate_up_proj: group(4, 2),
            down_proj: group(6, 1),
        }
    }
}
