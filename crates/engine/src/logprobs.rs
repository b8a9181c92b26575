//! How likely the model holds a token, and which it holds most likely in its place.

use crate::score::argmax;
use offramp_kernels::active;

/// Log-probabilities at one position, in nats. They are the model's own: of the softmax of its logits, before
/// penalties, bias, temperature and constraints. Under speculation they are those of the layers that verify.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Logprobs {
    /// That of the token which stands there; `None` where none does yet.
    pub logprob: Option<f64>,
    /// The most likely tokens, the most likely first, and the lowest id first among equals.
    pub top: Vec<(u32, f64)>,
}

impl Logprobs {
    /// Of one row of logits `[vocab]`, for the token that stands there, with the `count` most likely ones.
    /// `buffer` is used up.
    pub(crate) fn of(logits: &[f32], token: Option<u32>, count: usize, buffer: &mut Vec<f32>) -> Self {
        buffer.clear();
        buffer.extend_from_slice(logits);
        let log_sum_exp = f64::from((active().softmax)(buffer));
        let of = |id: u32| f64::from(logits[id as usize]) - log_sum_exp;
        let top = most_likely(logits, count).into_iter().map(|id| (id, of(id))).collect();
        Self { logprob: token.map(of), top }
    }
}

/// The ids of the `count` largest logits, in order.
fn most_likely(logits: &[f32], count: usize) -> Vec<u32> {
    if count <= 1 {
        return (0..count).map(|_| argmax(logits)).collect();
    }
    let count = count.min(logits.len());
    let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
    let order = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
    if count < ids.len() {
        ids.select_nth_unstable_by(count, order);
        ids.truncate(count);
    }
    ids.sort_unstable_by(order);
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_logs_of_the_softmax_the_most_likely_first() {
        let logits = [1.0f32, 3.0, 2.0, 3.0, -4.0];
        let total: f64 = logits.iter().map(|&x| f64::from(x).exp()).sum();
        let expected = |id: u32| f64::from(logits[id as usize]) - total.ln();
        for (count, ids) in [(0, vec![]), (1, vec![1]), (3, vec![1, 3, 2]), (9, vec![1, 3, 2, 0, 4])] {
            let found = Logprobs::of(&logits, Some(4), count, &mut Vec::new());
            assert!((found.logprob.expect("a token") - expected(4)).abs() < 1e-6);
            assert_eq!(found.top.iter().map(|top| top.0).collect::<Vec<_>>(), ids);
            assert!(found.top.iter().all(|&(id, logprob)| (logprob - expected(id)).abs() < 1e-6));
        }
        assert_eq!(Logprobs::of(&logits, None, 1, &mut Vec::new()).logprob, None);
    }
}
