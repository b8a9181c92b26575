//! The residual stream: packed contributions of the kept samples, added where they belong.

use super::ROWS;
use super::rms_norm::Rows;
use offramp_kernels::rayon::prelude::*;

/// `out = x + scale · (a + b)` for kept samples, `out = x` for dropped ones.
///
/// # Shapes
/// `x`, `out`: `[all rows, hidden]`, `a`, `b`: `[rows, hidden]`
pub fn add(rows: Rows<'_>, x: &[f32], (a, b): (&[f32], &[f32]), scale: f32, out: &mut [f32]) {
    let sample = x.len().min(rows.sequence * (a.len() / rows.len().max(1)));
    let sample = if rows.is_empty() { x.len().max(1) } else { sample };
    let samples = out.par_chunks_mut(sample).zip(x.par_chunks(sample)).enumerate();
    samples.for_each(|(s, (out, x))| match rows.kept.binary_search(&s) {
        Ok(packed) => {
            let range = packed * sample..(packed + 1) * sample;
            let contributions = a[range.clone()].iter().zip(&b[range]);
            for ((out, x), (a, b)) in out.iter_mut().zip(x).zip(contributions) {
                *out = x + scale * (a + b);
            }
        }
        Err(_) => out.copy_from_slice(x),
    });
}

/// Packs the kept samples of `x` and adds `y`: `out = x[kept] + y`.
///
/// # Shapes
/// `x`: `[all rows, hidden]`, `y`, `out`: `[rows, hidden]`
pub fn gather_add(rows: Rows<'_>, x: &[f32], y: &[f32], out: &mut [f32]) {
    let hidden = out.len() / rows.len().max(1);
    let tasks = out.par_chunks_mut(ROWS * hidden.max(1)).zip(y.par_chunks(ROWS * hidden.max(1))).enumerate();
    tasks.for_each(|(task, (out, y))| {
        for (i, (out, y)) in out.chunks_exact_mut(hidden).zip(y.chunks_exact(hidden)).enumerate() {
            let x = &x[rows.of(task * ROWS + i) * hidden..][..hidden];
            for ((out, x), y) in out.iter_mut().zip(x).zip(y) {
                *out = x + y;
            }
        }
    });
}

/// Packs the kept samples of a gradient, scaled: `out = scale · d[kept]`.
///
/// # Shapes
/// `d`: `[all rows, hidden]`, `out`: `[rows, hidden]`
pub fn gather(rows: Rows<'_>, d: &[f32], scale: f32, out: &mut [f32]) {
    let hidden = out.len() / rows.len().max(1);
    out.par_chunks_mut(ROWS * hidden.max(1)).enumerate().for_each(|(task, out)| {
        for (i, out) in out.chunks_exact_mut(hidden).enumerate() {
            let d = &d[rows.of(task * ROWS + i) * hidden..][..hidden];
            out.iter_mut().zip(d).for_each(|(out, d)| *out = scale * d);
        }
    });
}

/// Adds packed gradients back to where they belong: `d[kept] += packed`.
///
/// # Shapes
/// As [`gather`].
pub fn scatter_add(rows: Rows<'_>, packed: &[f32], d: &mut [f32]) {
    let sample = packed.len() / rows.kept.len().max(1);
    for (&kept, packed) in rows.kept.iter().zip(packed.chunks_exact(sample.max(1))) {
        add_into(packed, &mut d[kept * sample..][..sample]);
    }
}

/// `y += x` on all threads.
pub fn add_into(x: &[f32], y: &mut [f32]) {
    const CHUNK: usize = 1 << 13;
    let chunks = y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK));
    chunks.for_each(|(y, x)| (offramp_kernels::active().axpy)(1.0, x, y));
}
