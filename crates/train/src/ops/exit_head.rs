//! The one exit head, fused with its loss: final norm, LM head, cross-entropy, forward and backward.
//!
//! Logits exist for a stretch of tokens at a time and turn into their own gradient in place; a loss at
//! every exit so needs no more memory than a loss at one.

use super::linear;
use super::rms_norm::{self, PARTS, Rows, Saved, Sums};
use offramp_kernels::active;
use offramp_kernels::gemm::Write;
use offramp_kernels::rayon::prelude::*;

/// Logits held at once, in floats.
const LOGITS: usize = 1 << 21;

/// Sizes of the head.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Tokens scored.
    pub tokens: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Tokens of the vocabulary.
    pub vocab: usize,
}

impl Shape {
    /// Tokens whose logits exist at once.
    fn stretch(&self) -> usize {
        (LOGITS / self.vocab).clamp(1, self.tokens)
    }
}

/// The head's weights.
#[derive(Clone, Copy, Debug)]
pub struct Weights<'a> {
    /// The final norm, `[hidden]`.
    pub norm: &'a [f32],
    /// Its epsilon.
    pub eps: f32,
    /// The LM head, `[vocab, hidden]`.
    pub lm_head: &'a [f32],
}

/// Gradients of the head's weights and of its input; all are added to.
#[derive(Debug)]
pub struct Gradients<'a> {
    /// `[hidden]`
    pub d_norm: &'a mut [f32],
    /// `[vocab, hidden]`
    pub d_lm_head: &'a mut [f32],
    /// `[tokens, hidden]`
    pub d_x: &'a mut [f32],
}

/// Room to work in, made once.
#[derive(Debug)]
pub struct Scratch {
    normed: Vec<f32>,   // [tokens, hidden]
    d_normed: Vec<f32>, // [tokens, hidden]
    inv_rms: Vec<f32>,  // [tokens]
    logits: Vec<f32>,   // [stretch, vocab]
    losses: Vec<f64>,   // [tokens]
    parts: Vec<f32>,    // [PARTS, hidden]
}

impl Scratch {
    /// Room for heads of this shape.
    pub fn new(shape: Shape) -> Self {
        let Shape { tokens, hidden, vocab } = shape;
        Self {
            normed: vec![0.0; tokens * hidden],
            d_normed: vec![0.0; tokens * hidden],
            inv_rms: vec![0.0; tokens],
            logits: vec![0.0; shape.stretch() * vocab],
            losses: vec![0.0; tokens],
            parts: vec![0.0; PARTS * hidden],
        }
    }
}

/// The mean cross-entropy of `labels` given the residual stream `x`.
///
/// # Shapes
/// `x`: `[tokens, hidden]`, `labels`: `[tokens]`
pub fn loss(shape: Shape, x: &[f32], weights: Weights<'_>, labels: &[u32], scratch: &mut Scratch) -> f64 {
    norm(shape, x, weights, scratch);
    for first in (0..shape.tokens).step_by(shape.stretch()) {
        stretch_logits(shape, first, weights, scratch);
        let Scratch { logits, losses, .. } = scratch;
        let rows = labels[first..].iter().zip(&mut losses[first..]);
        score(shape, logits, rows.map(|(label, loss)| (*label, loss)), None);
    }
    mean(&scratch.losses)
}

/// Every logit, for tests and comparisons: `[tokens, vocab]`.
pub fn logits(shape: Shape, x: &[f32], weights: Weights<'_>, scratch: &mut Scratch) -> Vec<f32> {
    norm(shape, x, weights, scratch);
    let mut all = Vec::with_capacity(shape.tokens * shape.vocab);
    for first in (0..shape.tokens).step_by(shape.stretch()) {
        let rows = stretch_logits(shape, first, weights, scratch);
        all.extend_from_slice(&scratch.logits[..rows * shape.vocab]);
    }
    all
}

/// The mean cross-entropy, and the gradients of `weight` times it.
///
/// # Shapes
/// As [`loss`].
pub fn loss_and_gradients(
    shape: Shape,
    x: &[f32],
    weights: Weights<'_>,
    (labels, weight): (&[u32], f32),
    gradients: Gradients<'_>,
    scratch: &mut Scratch,
) -> f64 {
    let Shape { tokens, hidden, vocab } = shape;
    norm(shape, x, weights, scratch);
    for first in (0..tokens).step_by(shape.stretch()) {
        let rows = stretch_logits(shape, first, weights, scratch);
        let Scratch { normed, d_normed, logits, losses, .. } = &mut *scratch;
        let pairs = labels[first..].iter().zip(&mut losses[first..]);
        score(shape, logits, pairs.map(|(label, loss)| (*label, loss)), Some(weight / tokens as f32));
        let head = linear::Shape { tokens: rows, in_features: hidden, out_features: vocab };
        let (d_logits, range) = (&logits[..rows * vocab], first * hidden..(first + rows) * hidden);
        linear::backward_input(head, weights.lm_head, d_logits, Write::Replace, &mut d_normed[range.clone()]);
        linear::backward_weight(head, &normed[range], d_logits, gradients.d_lm_head);
    }
    let Scratch { d_normed, inv_rms, parts, .. } = scratch;
    let rows = Rows { kept: &[0], sequence: tokens };
    let saved = Saved { x, weight: weights.norm, inv_rms };
    let sums = Sums { d_weight: gradients.d_norm, parts };
    rms_norm::backward(rows, saved, d_normed, gradients.d_x, sums);
    mean(&scratch.losses)
}

fn norm(shape: Shape, x: &[f32], weights: Weights<'_>, scratch: &mut Scratch) {
    let rows = Rows { kept: &[0], sequence: shape.tokens };
    rms_norm::forward(rows, x, (weights.norm, weights.eps), &mut scratch.normed, &mut scratch.inv_rms);
}

/// Computes the logits of the stretch at `first` and returns its length.
fn stretch_logits(shape: Shape, first: usize, weights: Weights<'_>, scratch: &mut Scratch) -> usize {
    let Shape { tokens, hidden, vocab } = shape;
    let rows = shape.stretch().min(tokens - first);
    let head = linear::Shape { tokens: rows, in_features: hidden, out_features: vocab };
    let normed = &scratch.normed[first * hidden..(first + rows) * hidden];
    linear::forward(head, normed, weights.lm_head, &mut scratch.logits[..rows * vocab]);
    rows
}

/// Writes each row's loss; with `weight`, turns the row into `weight · (softmax − one-hot)`.
fn score<'a>(
    shape: Shape,
    logits: &mut [f32],
    rows: impl Iterator<Item = (u32, &'a mut f64)>,
    weight: Option<f32>,
) {
    let rows: Vec<(u32, &mut f64)> = rows.take(shape.stretch()).collect();
    logits.par_chunks_exact_mut(shape.vocab).zip(rows).for_each(|(row, (label, loss))| {
        let logit = f64::from(row[label as usize]);
        *loss = f64::from((active().softmax)(row)) - logit;
        if let Some(weight) = weight {
            row.iter_mut().for_each(|p| *p *= weight);
            row[label as usize] -= weight;
        }
    });
}

/// In order, so that it does not depend on threads.
fn mean(losses: &[f64]) -> f64 {
    losses.iter().sum::<f64>() / losses.len() as f64
}
