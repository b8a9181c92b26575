//! The full model's logits beside those of a chunk's exits, which learn from them.

use super::{Head, Scored};
use crate::ops::distillation::TeacherLoss;
use crate::ops::{Kept, linear, rms_norm};
use crate::profile::{Op, Pass};

/// How exits learn from the full model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Distillation {
    /// The teacher's share of each exit's loss; the rest is the cross-entropy.
    pub share: f32,
    /// How the distance from the teacher is measured.
    pub loss: TeacherLoss,
}

/// The full model's states, from which a chunk's exits learn.
#[derive(Clone, Copy)]
pub(crate) struct Teaching<'a> {
    pub(crate) x: &'a [f32], // [rows, hidden]
    pub(crate) head: Head<'a>,
    pub(crate) loss: TeacherLoss,
}

/// The buffers of a chunk's teacher.
#[derive(Debug)]
pub(super) struct TeacherRows {
    pub(super) logits: Vec<f32>, // [rows, vocab]
    pub(super) shares: Vec<f32>, // [rows]
    inv_rms: Vec<f32>,           // [rows]
}

/// Bytes of the buffers for so many rows.
pub(super) fn bytes(rows: u128, vocab: u128) -> u128 {
    4 * rows * (vocab + 2)
}

impl TeacherRows {
    pub(super) fn new(rows: usize, vocab: usize) -> Self {
        Self { logits: vec![0.0; rows * vocab], shares: vec![0.0; rows], inv_rms: vec![0.0; rows] }
    }

    /// Leaves the full model's logits of the exits' positions in `logits`, and each one's share.
    ///
    /// # Shapes
    /// `normed`: `[rows, hidden]`, overwritten
    pub(super) fn ask(&mut self, exits: &[Scored<'_>], teaching: Teaching<'_>, normed: &mut [f32]) {
        let Teaching { x, head, .. } = teaching;
        let rows: usize = exits.iter().map(|exit| exit.positions.len()).sum();
        let Self { logits, shares, inv_rms } = self;
        head.clock.time(Op::LmHead, Pass::Forward, head.flops(rows), || {
            let mut first = 0;
            for exit in exits {
                let kept = Kept { samples: exit.positions, length: 1 };
                let rows = first..first + kept.rows();
                let out = &mut normed[rows.start * head.hidden()..rows.end * head.hidden()];
                rms_norm::forward(x, kept, head.norm, head.eps, out, &mut inv_rms[rows.clone()]);
                shares[rows].fill(exit.share);
                first += kept.rows();
            }
            let normed = &normed[..rows * head.hidden()];
            let logits = &mut logits[..rows * head.vocab()];
            linear::forward(normed, head.lm_head, head.hidden(), head.factors, logits);
        });
    }
}
