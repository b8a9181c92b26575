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

#[cfg(test)]
mod tests {
    use super::super::{Chunk, Gradients};
    use super::*;
    use crate::ops::finite_difference::{assert_gradient, numbers};
    use crate::profile::Clock;
    use offramp_kernels::gemm::Factors;

    const HIDDEN: usize = 3;
    const VOCAB: usize = 7;
    const LABELS: [u32; 6] = [0, 6, 3, 3, 1, 5];

    fn distribution(logits: &[f32]) -> Vec<f64> {
        let all: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
        logits.iter().map(|&logit| f64::from(logit).exp() / all).collect()
    }

    /// An exit that learns from the teacher shares a chunk with the teacher, which learns from the labels.
    #[test]
    fn exits_that_share_a_chunk_learn_each_at_its_positions() {
        let (x, full) = (numbers(6 * HIDDEN, 1), numbers(6 * HIDDEN, 4));
        let (norm, lm_head, clock) = (numbers(HIDDEN, 2), numbers(VOCAB * HIDDEN, 3), Clock::new());
        let head = Head {
            norm: &norm,
            eps: 1e-5,
            lm_head: &lm_head,
            adapter: None,
            factors: Factors::F32,
            clock: &clock,
        };
        let (taught, all) = ([1, 4, 5], [0, 1, 2, 3, 4, 5]);
        let logits = |x: &[f32]| Chunk::new(6, HIDDEN, VOCAB, Factors::F32).logits(x, head);
        let teacher = logits(&full);
        let row = |logits: &[f32], position: usize| distribution(&logits[position * VOCAB..][..VOCAB]);
        for loss in [TeacherLoss::Kl, TeacherLoss::Lk] {
            let mut chunk = Chunk::new(9, HIDDEN, VOCAB, Factors::F32).with_teacher();
            let exits = [
                Scored { x: &x, positions: &taught, weight: 0.5, share: 0.75 },
                Scored { x: &full, positions: &all, weight: 2.0, share: 0.0 },
            ];
            let (mut d_norm, mut d_lm_head) = ([0.0; HIDDEN], [0.0; VOCAB * HIDDEN]);
            let mut gradients = Gradients { norm: &mut d_norm, lm_head: Some(&mut d_lm_head), adapter: None };
            let teaching = Some(Teaching { x: &full, head, loss });
            chunk.forward_backward(&exits, &LABELS, head, teaching, &mut gradients).for_each(drop);
            let [mut d_x, mut d_full] = [vec![0.0; x.len()], vec![0.0; x.len()]];
            chunk.add_input_gradient(0, &taught, &mut d_x);
            chunk.add_input_gradient(taught.len(), &all, &mut d_full);
            assert_gradient("x", &x, &d_x, |x| {
                let found = logits(x);
                let of = |&position: &usize| {
                    let (p, q) = (row(&found, position), row(&teacher, position));
                    let distance = match loss {
                        TeacherLoss::Kl => p.iter().zip(&q).map(|(p, q)| q * (q / p).ln()).sum::<f64>(),
                        TeacherLoss::Lk => -p.iter().zip(&q).map(|(p, q)| p.min(*q)).sum::<f64>().ln(),
                    };
                    0.25 * -p[LABELS[position] as usize].ln() + 0.75 * distance
                };
                0.5 * taught.iter().map(of).sum::<f64>()
            });
            assert_gradient("full", &full, &d_full, |full| {
                let found = logits(full);
                let nats = |&position: &usize| -row(&found, position)[LABELS[position] as usize].ln();
                2.0 * all.iter().map(nats).sum::<f64>()
            });
        }
    }
}
