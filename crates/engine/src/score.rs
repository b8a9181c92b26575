//! How well logits predicted what came: the arithmetic of evaluation, kept beside the sampler's.

use offramp_kernels::active;
use offramp_kernels::rayon::prelude::*;

/// One token's prediction against what came.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenScore {
    /// Negative log-likelihood of the label.
    pub nats: f64,
    /// The most likely token, the lowest id among equals.
    pub argmax: u32,
}

/// Scores each row of `logits` `[labels, vocab]` against its label; the logits are used up.
///
/// # Panics
/// If there are no labels, or one lies beyond the vocabulary.
pub fn score(logits: &mut [f32], labels: &[u32]) -> Vec<TokenScore> {
    let vocab = logits.len() / labels.len();
    let one = |(row, &label): (&mut [f32], &u32)| {
        let (argmax, logit) = (argmax(row), row[label as usize]);
        let log_sum_exp = (active().softmax)(row);
        TokenScore { nats: f64::from(log_sum_exp) - f64::from(logit), argmax }
    };
    logits.par_chunks_exact_mut(vocab).zip(labels).map(one).collect()
}

/// The index of the largest logit, the lowest among equals; NaN never wins.
pub fn argmax(logits: &[f32]) -> u32 {
    const BLOCK: usize = 1024;
    let (mut best, mut most) = (0, f32::NEG_INFINITY);
    for (block, logits) in logits.chunks(BLOCK).enumerate() {
        let here = largest(logits);
        if here > most {
            (best, most) = (block, here);
        }
    }
    let within = logits[best * BLOCK..].iter().position(|&logit| logit == most);
    (best * BLOCK + within.unwrap_or(0)) as u32
}

/// By how much the largest logit leads the second largest, equal ones among them: at least 0; infinite if
/// there is no second.
pub fn gap(logits: &[f32]) -> f32 {
    lead(logits, argmax(logits))
}

/// By how much the `best` logit leads the largest of the others.
pub(crate) fn lead(logits: &[f32], best: u32) -> f32 {
    let (before, rest) = logits.split_at(best as usize);
    match rest {
        [best, after @ ..] => best - largest(before).max(largest(after)),
        [] => f32::INFINITY,
    }
}

/// The largest of them, in lanes, which a compiler turns into vectors.
pub(crate) fn largest(logits: &[f32]) -> f32 {
    let (chunks, rest) = logits.as_chunks::<16>();
    let larger = |most: f32, &logit: &f32| if logit > most { logit } else { most };
    let mut most = [f32::NEG_INFINITY; 16];
    for chunk in chunks {
        for (most, logit) in most.iter_mut().zip(chunk) {
            *most = larger(*most, logit);
        }
    }
    most.iter().chain(rest).fold(f32::NEG_INFINITY, larger)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_log_likelihoods() {
        let rows = [[1.0f32, 2.0, 3.0], [0.5, 0.5, -1.0]];
        let scores = score(&mut rows.concat(), &[0, 1]);
        for (row, (score, label)) in rows.iter().zip(scores.iter().zip([0, 1])) {
            let total: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
            let nats = -(f64::from(row[label]).exp() / total).ln();
            assert!((score.nats - nats).abs() < 1e-6, "{} instead of {nats}", score.nats);
        }
        assert_eq!((scores[0].argmax, scores[1].argmax), (2, 0));
    }

    #[test]
    fn nan_is_never_the_most_likely() {
        assert_eq!(argmax(&[f32::NAN, 1.0, f32::NAN]), 1);
        assert_eq!(argmax(&[f32::NAN]), 0);
    }

    #[test]
    fn the_gap_is_between_the_first_two() {
        assert_eq!(gap(&[1.0, 4.0, 2.5, -3.0]), 1.5);
        assert_eq!(gap(&[-1.0, -4.0, -1.5]), 0.5);
        assert_eq!(gap(&[4.0, 1.0, 4.0]), 0.0);
        assert_eq!(gap(&[4.0]), f32::INFINITY);
        assert_eq!(gap(&[]), f32::INFINITY);
        let mut many = [0.5f32; 100];
        (many[37], many[70], many[98], many[99]) = (3.0, 2.0, f32::NAN, 3.0);
        assert_eq!((argmax(&many), gap(&many)), (37, 0.0));
        many[99] = f32::NEG_INFINITY;
        assert_eq!((argmax(&many), gap(&many)), (37, 1.0));
    }
}
