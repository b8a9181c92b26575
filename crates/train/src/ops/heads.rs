//! From rows of heads to heads of rows, turning queries and keys to their positions on the way.

use offramp_kernels::active;
use offramp_kernels::rayon::prelude::*;

/// Rotary angles of the positions of a sequence.
#[derive(Clone, Debug)]
pub struct Angles {
    cos: Vec<f32>,  // [sequence, head_dim / 2]
    sin: Vec<f32>,  // [sequence, head_dim / 2]
    back: Vec<f32>, // −sin
    half: usize,
}

impl Angles {
    /// The tables of a rotary embedding, `[sequence, head_dim / 2]` each.
    pub fn new(cos: Vec<f32>, sin: Vec<f32>, head_dim: usize) -> Self {
        let back = sin.iter().map(|sin| -sin).collect();
        Self { cos, sin, back, half: head_dim / 2 }
    }

    fn turn(&self, position: usize, head: &mut [f32], back: bool) {
        let range = position * self.half..(position + 1) * self.half;
        let sin = if back { &self.back } else { &self.sin };
        (active().rope)(head, &self.cos[range.clone()], &sin[range]);
    }
}

/// How many heads of what width, over how long a sequence.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Tokens of a sample.
    pub sequence: usize,
    /// Heads in a row.
    pub heads: usize,
    /// Width of a head.
    pub head_dim: usize,
}

/// Splits rows into heads; with `angles`, each is turned to its position.
///
/// # Shapes
/// `rows`: `[samples, sequence, heads, head_dim]`, `out`: `[samples, heads, sequence, head_dim]`
pub fn split(shape: Shape, rows: &[f32], angles: Option<&Angles>, out: &mut [f32]) {
    let Shape { sequence, heads, head_dim } = shape;
    out.par_chunks_mut(sequence * head_dim).enumerate().for_each(|(task, out)| {
        let (sample, head) = (task / heads, task % heads);
        for (position, out) in out.chunks_exact_mut(head_dim).enumerate() {
            let row = (sample * sequence + position) * heads + head;
            out.copy_from_slice(&rows[row * head_dim..][..head_dim]);
            if let Some(angles) = angles {
                angles.turn(position, out, false);
            }
        }
    });
}

/// Merges heads into rows, the inverse of [`split`] and its gradient: with `angles`, each head is
/// turned back.
///
/// # Shapes
/// `heads`: `[samples, heads, sequence, head_dim]`, `out`: `[samples, sequence, heads, head_dim]`
pub fn merge(shape: Shape, split: &[f32], angles: Option<&Angles>, out: &mut [f32]) {
    let Shape { sequence, heads, head_dim } = shape;
    out.par_chunks_mut(heads * head_dim).enumerate().for_each(|(token, out)| {
        let (sample, position) = (token / sequence, token % sequence);
        for (head, out) in out.chunks_exact_mut(head_dim).enumerate() {
            let row = (sample * heads + head) * sequence + position;
            out.copy_from_slice(&split[row * head_dim..][..head_dim]);
            if let Some(angles) = angles {
                angles.turn(position, out, true);
            }
        }
    });
}
