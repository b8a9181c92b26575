//! Rows of the embedding.

/// `out[t] = weight[tokens[t]]`.
///
/// # Shapes
/// `tokens`: `[tokens]`, `weight`: `[vocab, hidden]`, `out`: `[tokens, hidden]`
pub fn forward(tokens: &[u32], weight: &[f32], hidden: usize, out: &mut [f32]) {
    for (&token, out) in tokens.iter().zip(out.chunks_exact_mut(hidden)) {
        out.copy_from_slice(&weight[token as usize * hidden..][..hidden]);
    }
}

/// `d_weight[tokens[t]] += d_out[t]`, in the order of the tokens.
///
/// # Shapes
/// As [`forward`].
pub fn backward(tokens: &[u32], d_out: &[f32], hidden: usize, d_weight: &mut [f32]) {
    let add = offramp_kernels::active().axpy;
    for (&token, d_out) in tokens.iter().zip(d_out.chunks_exact(hidden)) {
        add(1.0, d_out, &mut d_weight[token as usize * hidden..][..hidden]);
    }
}
