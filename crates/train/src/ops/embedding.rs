//! Token ids become rows of the residual stream.

use super::BLOCK;
use offramp_kernels::active;
use offramp_kernels::rayon::prelude::*;

/// `out[t] = weight[tokens[t]]`.
///
/// # Shapes
/// `tokens`: `[rows]`, `weight`: `[vocab, hidden]`, `out`: `[rows, hidden]`
pub(crate) fn forward(tokens: &[u32], weight: &[f32], hidden: usize, out: &mut [f32]) {
    assert_eq!(out.len(), tokens.len() * hidden, "one row for each token");
    let blocks = out.par_chunks_mut(BLOCK * hidden).zip(tokens.par_chunks(BLOCK));
    blocks.for_each(|(out, tokens)| {
        for (out, &token) in out.chunks_exact_mut(hidden).zip(tokens) {
            out.copy_from_slice(&weight[token as usize * hidden..][..hidden]);
        }
    });
}

/// Adds to `d_weight`: `d_weight[tokens[t]] += d_out[t]`, in increasing `t` for every row.
///
/// # Shapes
/// As [`forward`]; `d_out` like `out`, `d_weight` like `weight`.
pub(crate) fn backward(tokens: &[u32], d_out: &[f32], hidden: usize, d_weight: &mut [f32]) {
    // Each task owns some rows of the vocabulary and looks through all tokens for them.
    const TASKS: usize = 16;
    assert_eq!(d_out.len(), tokens.len() * hidden, "one row for each token");
    let vocab = d_weight.len() / hidden;
    let rows = vocab.div_ceil(TASKS);
    d_weight.par_chunks_mut(rows * hidden).enumerate().for_each(|(index, d_weight)| {
        let first = index * rows;
        let owned = first..first + d_weight.len() / hidden;
        for (&token, d_out) in tokens.iter().zip(d_out.chunks_exact(hidden)) {
            if owned.contains(&(token as usize)) {
                (active().axpy)(1.0, d_out, &mut d_weight[(token as usize - first) * hidden..][..hidden]);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::super::finite_difference::{assert_gradient, numbers, weigh};
    use super::*;

    #[test]
    fn the_gradient_is_that_of_differences() {
        let (vocab, hidden) = (19, 5);
        let tokens = [3, 18, 3, 0, 7, 3];
        let (weight, d_out) = (numbers(vocab * hidden, 1), numbers(tokens.len() * hidden, 2));
        let mut d_weight = vec![0.0; weight.len()];
        backward(&tokens, &d_out, hidden, &mut d_weight);
        assert_gradient("embed_tokens", &weight, &d_weight, |weight| {
            let mut out = vec![0.0; d_out.len()];
            forward(&tokens, weight, hidden, &mut out);
            weigh(&out, &d_out)
        });
    }
}
