//! What an exit learns from the full model's logits, beside the labels.
//!
//! With p the exit's distribution, q the full model's, which gets no gradient, and α = Σ min(p, q), the
//! chance that a token sampled from p is accepted for q (Leviathan et al. 2023):
//!
//! - `kl`: KL(q ‖ p), as in knowledge distillation (Hinton et al. 2015);
//! - `lk`: −ln α (Samarin et al. 2026, "LK losses"). The gradient of α alone, total variation, is nearly zero
//!   where p and q hardly overlap; divided by α, it is not.

use super::cross_entropy::{softmax, width};
use offramp_kernels::rayon::prelude::*;
use offramp_kernels::{active, bf16};
use serde::{Deserialize, Serialize};

/// How the exits' distance from the full model is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TeacherLoss {
    /// KL(full ‖ exit).
    Kl,
    /// The negative logarithm of the acceptance rate.
    Lk,
}

/// What the rows of a chunk are to become.
pub(crate) struct Targets<'a> {
    pub(crate) labels: &'a [u32],      // [rows]
    pub(crate) weights: &'a [f32],     // [rows]
    pub(crate) shares: &'a [f32],      // [rows], of the teacher's part in the loss
    pub(crate) teacher: &'a mut [f32], // [rows, vocab], the full model's logits, which are used up
    pub(crate) loss: TeacherLoss,
}

/// One row of them.
struct Row<'a> {
    label: u32,
    weight: f32,
    share: f32,
    teacher: &'a mut [f32], // [vocab]
    nats: &'a mut f64,
}

/// Leaves each row's cross-entropy in `nats`, and replaces `logits` by the gradient of
/// `Σ weight · ((1 − share) · cross-entropy + share · teacher loss)`. Where there is a `narrow`, the gradient
/// is written there in `bf16` too.
///
/// # Shapes
/// `logits`: `[rows, vocab]`, `nats`: `[rows]`, `narrow`: as `logits`, or empty
pub(crate) fn forward_backward(
    logits: &mut [f32],
    targets: Targets<'_>,
    nats: &mut [f64],
    narrow: &mut [bf16],
) {
    let Targets { labels, weights, shares, teacher, loss } = targets;
    let vocab = width(logits, labels);
    let of_rows = labels.par_iter().zip(weights).zip(shares).zip(teacher.par_chunks_mut(vocab)).zip(nats);
    let of_rows = of_rows.map(|((((&label, &weight), &share), teacher), nats)| Row {
        label,
        weight,
        share,
        teacher,
        nats,
    });
    let rows = logits.par_chunks_mut(vocab).zip(of_rows);
    let row = |logits: &mut [f32], Row { label, weight, share, teacher, nats }: Row<'_>| {
        *nats = softmax(logits, label);
        if share > 0.0 {
            (active().softmax)(teacher);
            match loss {
                TeacherLoss::Kl => kl(logits, teacher, share),
                TeacherLoss::Lk => lk(logits, teacher, share),
            }
        }
        logits[label as usize] -= 1.0 - share;
        if weight != 1.0 {
            logits.iter_mut().for_each(|logit| *logit *= weight);
        }
    };
    if narrow.is_empty() {
        rows.for_each(|(logits, of_row)| row(logits, of_row));
    } else {
        rows.zip(narrow.par_chunks_mut(vocab)).for_each(|((logits, of_row), narrow)| {
            row(logits, of_row);
            (active().narrow)(logits, narrow);
        });
    }
}

/// Replaces `p` by `(1 − share) p + share (p − q)`.
fn kl(p: &mut [f32], q: &[f32], share: f32) {
    p.iter_mut().zip(q).for_each(|(p, &q)| *p -= share * q);
}

/// Replaces `p` by `(1 − share) p + share · d(−ln α)`, where `dα / dz_j = p_j (m_j − Σ m p)` and m is 1 where
/// p is the smaller one.
fn lk(p: &mut [f32], q: &[f32], share: f32) {
    let (mut accepted, mut below) = (0.0f64, 0.0f64);
    for (&p, &q) in p.iter().zip(q) {
        accepted += f64::from(p.min(q));
        below += if p < q { f64::from(p) } else { 0.0 };
    }
    let (below, scale) = (below as f32, share / accepted.max(f64::from(f32::MIN_POSITIVE)) as f32);
    for (p, &q) in p.iter_mut().zip(q) {
        let smaller = if *p < q { 1.0 } else { 0.0 };
        *p *= 1.0 - share - scale * (smaller - below);
    }
}

#[cfg(test)]
mod tests {
    use super::super::finite_difference::{assert_gradient, numbers};
    use super::*;

    const VOCAB: usize = 7;
    const LABELS: [u32; 4] = [0, 6, 3, 3];
    const WEIGHTS: [f32; 4] = [1.0, 0.5, 0.0, 0.25];
    const SHARES: [f32; 4] = [0.5, 1.0, 0.5, 0.0];

    fn distribution(logits: &[f32]) -> Vec<f64> {
        let all: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
        logits.iter().map(|&logit| f64::from(logit).exp() / all).collect()
    }

    /// By the formulas, in f64.
    fn expected(logits: &[f32], teacher: &[f32], loss: TeacherLoss) -> f64 {
        let rows = logits.chunks_exact(VOCAB).zip(teacher.chunks_exact(VOCAB));
        let row = |(index, (logits, teacher)): (usize, (&[f32], &[f32]))| {
            let (p, q) = (distribution(logits), distribution(teacher));
            let distance = match loss {
                TeacherLoss::Kl => p.iter().zip(&q).map(|(p, q)| q * (q / p).ln()).sum::<f64>(),
                TeacherLoss::Lk => -p.iter().zip(&q).map(|(p, q)| p.min(*q)).sum::<f64>().ln(),
            };
            let (weight, share) = (f64::from(WEIGHTS[index]), f64::from(SHARES[index]));
            weight * ((1.0 - share) * -p[LABELS[index] as usize].ln() + share * distance)
        };
        rows.enumerate().map(row).sum()
    }

    #[test]
    fn the_gradient_is_that_of_differences() {
        let (logits, full) = (numbers(LABELS.len() * VOCAB, 1), numbers(LABELS.len() * VOCAB, 2));
        for loss in [TeacherLoss::Kl, TeacherLoss::Lk] {
            let (mut gradient, mut teacher) = (logits.clone(), full.clone());
            let (mut nats, mut narrow) = ([f64::NAN; LABELS.len()], vec![bf16::ZERO; logits.len()]);
            let targets =
                Targets { labels: &LABELS, weights: &WEIGHTS, shares: &SHARES, teacher: &mut teacher, loss };
            forward_backward(&mut gradient, targets, &mut nats, &mut narrow);
            assert_gradient("logits", &logits, &gradient, |logits| expected(logits, &full, loss));
            let rounded: Vec<_> = gradient.iter().map(|&value| bf16::from_f32(value)).collect();
            assert_eq!(narrow, rounded);
            let mut alone = [f64::NAN; LABELS.len()];
            super::super::cross_entropy::forward(&mut logits.clone(), &LABELS, &mut alone);
            assert_eq!(nats, alone, "what is told is the cross-entropy");
        }
    }

    #[test]
    fn who_agrees_with_the_teacher_learns_nothing_from_it() {
        let logits = numbers(LABELS.len() * VOCAB, 1);
        for loss in [TeacherLoss::Kl, TeacherLoss::Lk] {
            let (mut gradient, mut teacher) = (logits.clone(), logits.clone());
            let targets = Targets {
                labels: &LABELS,
                weights: &[1.0; 4],
                shares: &[1.0; 4],
                teacher: &mut teacher,
                loss,
            };
            forward_backward(&mut gradient, targets, &mut [0.0; LABELS.len()], &mut []);
            assert!(gradient.iter().all(|d| d.abs() < 1e-6), "{loss:?}: {gradient:?}");
        }
    }

    /// Where both hardly overlap, the gradient does not vanish and nothing is infinite.
    #[test]
    fn lk_has_a_gradient_from_scratch() {
        let (mut logits, mut teacher) = (vec![0.0; 2 * VOCAB], vec![0.0; 2 * VOCAB]);
        (logits[1], teacher[4]) = (20.0, 20.0);
        (logits[VOCAB + 1], teacher[VOCAB + 4]) = (300.0, 300.0);
        let targets = Targets {
            labels: &[4, 4],
            weights: &[1.0; 2],
            shares: &[1.0; 2],
            teacher: &mut teacher,
            loss: TeacherLoss::Lk,
        };
        forward_backward(&mut logits, targets, &mut [0.0; 2], &mut []);
        assert!(logits.iter().all(|d| d.is_finite()), "{logits:?}");
        assert!(logits[1] > 0.1 && logits[4] < -0.1, "{logits:?}");
    }
}
