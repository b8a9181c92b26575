//! What ternary layers do beside their products: a norm before `o_proj` and `down_proj`, the rotation after it, and
//! room for codes.

use super::geometry::Geometry;
use crate::ops::rms_norm::{self, Normed};
use crate::ops::{Kept, hadamard};
use crate::profile::{Op, Way};

/// Room that ternary layers share; empty where there are none.
#[derive(Debug)]
pub(crate) struct Room {
    pub(super) codes: Vec<f32>, // [rows, widest input of a matrix], and their values on the way back
    pub(super) steps: Vec<f32>, // [rows]
    pub(super) normed: Vec<f32>, // as `codes`: after the sub-norm; on the way back, the gradient before it
}

impl Room {
    pub(super) fn new(geometry: &Geometry, rows: usize) -> Self {
        let rows = if geometry.bit_linear.is_some() { rows } else { 0 };
        let room = || vec![0.0; rows * geometry.widest()];
        Self { codes: room(), steps: vec![0.0; rows], normed: room() }
    }
}

impl Geometry {
    fn rotates(&self) -> bool {
        self.bit_linear.is_some_and(|bit_linear| bit_linear.hadamard)
    }

    /// `out = rotate(norm(x))`.
    ///
    /// # Shapes
    /// `x`, `out`: `[rows, width]`, `weight`: `[width]`, `inv_rms`: `[rows]`
    pub(super) fn sub_norm(
        &self,
        (x, kept): (&[f32], Kept<'_>),
        weight: &[f32],
        out: &mut [f32],
        inv_rms: &mut [f32],
    ) {
        let norm = || rms_norm::forward(x, kept, (weight, self.eps), out, inv_rms);
        self.clock.time(Op::Norms, Way::Forward, 0.0, norm);
        if self.rotates() {
            self.clock.time(Op::Quantise, Way::Forward, 0.0, || hadamard::forward(out, weight.len()));
        }
    }

    /// The same again, with what the way there kept.
    pub(super) fn sub_norm_again(&self, normed: Normed<'_>, out: &mut [f32]) {
        let Normed { x, kept, weight, inv_rms } = normed;
        let norm = || rms_norm::again(x, kept, weight, inv_rms, out);
        self.clock.time(Op::Norms, Way::Backward, 0.0, norm);
        if self.rotates() {
            self.clock.time(Op::Quantise, Way::Backward, 0.0, || hadamard::forward(out, weight.len()));
        }
    }

    /// Overwrites `d_x`, uses up `d_out`, and adds to `d_weight`.
    pub(super) fn sub_norm_back(
        &self,
        normed: Normed<'_>,
        d_out: &mut [f32],
        d_x: &mut [f32],
        (d_weight, partial): (&mut [f32], &mut [f32]),
    ) {
        let width = normed.weight.len();
        if self.rotates() {
            self.clock.time(Op::Quantise, Way::Backward, 0.0, || hadamard::backward(d_out, width));
        }
        self.clock.time(Op::Norms, Way::Backward, 0.0, || {
            d_x.fill(0.0);
            rms_norm::backward(normed, d_out, d_x, d_weight, partial);
        });
    }
}
