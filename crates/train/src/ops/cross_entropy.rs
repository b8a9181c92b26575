//! Cross-entropy of rows of logits. The logits become their own gradient, so that they are held once.

use offramp_kernels::rayon::prelude::*;
use offramp_kernels::{active, bf16};

/// Leaves each row's cross-entropy in `nats`. Uses up `logits`.
///
/// # Shapes
/// `logits`: `[rows, vocab]`, `labels`, `nats`: `[rows]`
pub(crate) fn forward(logits: &mut [f32], labels: &[u32], nats: &mut [f64]) {
    let vocab = width(logits, labels);
    let rows = logits.par_chunks_mut(vocab).zip(labels.par_iter().zip(nats));
    rows.for_each(|(logits, (&label, nats))| *nats = softmax(logits, label));
}

/// As [`forward`], and replaces `logits` by the gradient of `Σ weight · cross-entropy`. Where there is a
/// `narrow`, the gradient is written there in `bf16` too.
///
/// # Shapes
/// As [`forward`]; `weights`: `[rows]`, `narrow`: as `logits`, or empty
pub(crate) fn forward_backward(
    logits: &mut [f32],
    labels: &[u32],
    weights: &[f32],
    nats: &mut [f64],
    narrow: &mut [bf16],
) {
    let vocab = width(logits, labels);
    let rows = logits.par_chunks_mut(vocab).zip(labels.par_iter().zip(weights).zip(nats));
    let row = |logits: &mut [f32], ((&label, &weight), nats): ((&u32, &f32), &mut f64)| {
        *nats = softmax(logits, label);
        logits[label as usize] -= 1.0;
        if weight != 1.0 {
            logits.iter_mut().for_each(|logit| *logit *= weight);
        }
    };
    if narrow.is_empty() {
        rows.for_each(|(logits, of_row)| row(logits, of_row));
    } else {
        // Now, because the row is in the cache; the backward then reads half as many bytes, twice.
        rows.zip(narrow.par_chunks_mut(vocab)).for_each(|((logits, of_row), narrow)| {
            row(logits, of_row);
            (active().narrow)(logits, narrow);
        });
    }
}

pub(super) fn width(logits: &[f32], labels: &[u32]) -> usize {
    assert!(!labels.is_empty() && logits.len().is_multiple_of(labels.len()), "a label for each row");
    logits.len() / labels.len()
}

/// Softmax in place; returns the cross-entropy.
pub(super) fn softmax(logits: &mut [f32], label: u32) -> f64 {
    let logit = logits[label as usize];
    let log_sum_exp = (active().softmax)(logits);
    f64::from(log_sum_exp) - f64::from(logit)
}

#[cfg(test)]
mod tests {
    use super::super::finite_difference::{assert_gradient, numbers};
    use super::*;

    const VOCAB: usize = 7;
    const LABELS: [u32; 4] = [0, 6, 3, 3];

    #[test]
    fn it_is_the_logarithm_of_softmax() {
        let logits = numbers(LABELS.len() * VOCAB, 1);
        let mut nats = [f64::NAN; LABELS.len()];
        forward(&mut logits.clone(), &LABELS, &mut nats);
        for ((row, label), found) in logits.chunks_exact(VOCAB).zip(LABELS).zip(nats) {
            let total: f64 = row.iter().map(|&logit| f64::from(logit).exp()).sum();
            let expected = total.ln() - f64::from(row[label as usize]);
            assert!((found - expected).abs() < 1e-6, "{found} instead of {expected}");
        }
    }

    #[test]
    fn the_gradient_is_that_of_differences() {
        let (logits, weights) = (numbers(LABELS.len() * VOCAB, 1), [1.0, 0.5, 0.0, 0.25]);
        let mut nats = [f64::NAN; LABELS.len()];
        let (mut gradient, mut narrow) = (logits.clone(), vec![bf16::ZERO; logits.len()]);
        forward_backward(&mut gradient, &LABELS, &weights, &mut nats, &mut narrow);
        let rounded: Vec<_> = gradient.iter().map(|&value| bf16::from_f32(value)).collect();
        assert_eq!(narrow, rounded);
        assert_gradient("logits", &logits, &gradient, |logits| {
            let mut nats = [f64::NAN; LABELS.len()];
            forward(&mut logits.to_vec(), &LABELS, &mut nats);
            nats.iter().zip(weights).map(|(nats, weight)| nats * f64::from(weight)).sum()
        });
    }
}
