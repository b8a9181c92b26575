//! The arithmetic of attention, written once over vectors of 16 lanes; tables compile it for their own.

use super::vector::{LANES, Vector, exp};
use super::{Attend, BLOCK, Blocks, padded};
use crate::columns::ColumnsMut;
use std::cell::Cell;
use std::ops::Range;

/// Vectors of a block's scores.
const VECTORS: usize = BLOCK / LANES;
/// Rows that go through a block before the next one is read: they and the block share the first-level cache.
const ROWS: usize = 32;

/// Bytes that memory sends at once.
const LINE: usize = 64;

/// What one call works in, kept from call to call.
#[derive(Default)]
struct Scratch {
    floats: Vec<f32>,
    seen: Vec<Range<usize>>, // [rows]: positions that a row sees
}

thread_local! {
    static SCRATCH: Cell<Scratch> = Cell::default();
}

/// `out[t, h] = Σ_p softmax_p(query[t, h] · key[p]) · value[p]` over the positions that token `t` sees; `out`
/// is `[tokens, heads · head_dim]`. `R` rows, and `W` vectors of each, `like` any, share the registers.
#[inline(always)]
pub(crate) fn attend<V: Vector, const R: usize, const W: usize>(
    like: V,
    job: &Attend<'_>,
    mut out: ColumnsMut<'_>,
) {
    let heads = job.check(out.rows(), out.columns());
    if heads == 0 {
        return;
    }
    let mut scratch = SCRATCH.take();
    let step = (ROWS / heads).max(1);
    for token in (0..out.rows()).step_by(step) {
        let tokens = token..out.rows().min(token + step);
        let Scratch { floats, seen } = &mut scratch;
        seen.clear();
        let positions = tokens.clone().map(|t| job.first + t);
        seen.extend(positions.flat_map(|p| std::iter::repeat_n(job.first_seen(p)..p + 1, heads)));
        let mut rows = Rows::new(floats, seen, job.head_dim);
        for (t, queries) in tokens.clone().zip(rows.queries.chunks_exact_mut(heads * job.head_dim)) {
            queries.copy_from_slice(&job.queries[t * job.stride..][..heads * job.head_dim]);
        }
        rows.through_blocks::<V, R, W>(like, job);
        for (t, first) in tokens.zip((0..).step_by(heads)) {
            for (row, out) in (first..).zip(out.row(t).chunks_exact_mut(job.head_dim)) {
                let scale = 1.0 / like.load(&rows.sums[row]).sum();
                let weighted = &rows.weighted[row * padded(job.head_dim)..][..job.head_dim];
                out.iter_mut().zip(weighted).for_each(|(out, &x)| *out = x * scale);
            }
        }
    }
    SCRATCH.set(scratch);
}

/// The block to come, asked for while this one is computed, a little at a time: memory has only so many ears.
struct Ahead {
    address: usize,
    end: usize,
    step: usize,
}

/// Keys, or positions, between two steps.
const STRETCH: usize = 8;

impl Ahead {
    /// Asks for `block` in so many steps.
    #[inline(always)]
    fn of<T>(block: &[T], steps: usize) -> Self {
        let (address, bytes) = (block.as_ptr().addr(), size_of_val(block));
        Self { address, end: address + bytes, step: bytes.div_ceil(steps).next_multiple_of(LINE) }
    }

    #[inline(always)]
    fn ask<V: Vector>(&mut self) {
        let end = self.end.min(self.address + self.step);
        while self.address < end {
            V::ask_for(self.address);
            self.address += LINE;
        }
    }
}

/// Rows on their way through the blocks.
struct Rows<'a> {
    head_dim: usize,
    seen: &'a [Range<usize>],
    queries: &'a mut [f32],       // [rows, head_dim]
    largest: &'a mut [f32],       // [rows]: the largest score so far
    sums: &'a mut [[f32; LANES]], // [rows]: weights, relative to it
    weighted: &'a mut [f32],      // [rows, padded]: values by these weights
    widened: &'a mut [f32],       // a block
}

impl<'a> Rows<'a> {
    #[inline(always)]
    fn new(floats: &'a mut Vec<f32>, seen: &'a [Range<usize>], head_dim: usize) -> Self {
        let (rows, wide) = (seen.len(), padded(head_dim));
        let needed = rows * (wide + LANES + 1 + head_dim) + BLOCK * (wide + head_dim);
        if floats.len() < needed {
            floats.resize(needed, 0.0);
        }
        let (weighted, rest) = floats.split_at_mut(rows * wide);
        let (sums, rest) = rest.split_at_mut(rows * LANES);
        let (widened, rest) = rest.split_at_mut(BLOCK * (wide + head_dim));
        let (queries, rest) = rest.split_at_mut(rows * head_dim);
        let largest = &mut rest[..rows];
        // Below any score but −∞, from which nothing could be taken away.
        largest.fill(-f32::MAX);
        sums.fill(0.0);
        weighted.fill(0.0);
        Self { head_dim, seen, queries, largest, sums: sums.as_chunks_mut().0, weighted, widened }
    }

    #[inline(always)]
    fn through_blocks<V: Vector, const R: usize, const W: usize>(&mut self, like: V, job: &Attend<'_>) {
        let (Some(first), Some(last)) = (self.seen.first(), self.seen.last()) else { return };
        let (first, end) = (first.start / BLOCK, last.end.div_ceil(BLOCK));
        // With many rows there is more to compute than to wait for.
        let few = self.seen.len() <= R;
        let ahead_of = |index: usize| if few { index } else { usize::MAX };
        let columns = padded(self.head_dim).div_ceil(W * LANES);
        let steps = self.head_dim.div_ceil(STRETCH) * VECTORS / W + columns * BLOCK / STRETCH;
        let (kv_head, len) = (job.kv_head, self.widened.len());
        for index in first..end {
            match job.cache {
                Blocks::F32(blocks) => {
                    let mut ahead = Ahead::of(block(blocks, ahead_of(index + 1), kv_head, len), steps);
                    self.through_block::<V, R, W>(
                        like,
                        index,
                        block(blocks, index, kv_head, len),
                        &mut ahead,
                    );
                }
                Blocks::F16(blocks) => {
                    let steps = steps + len / (LANES * STRETCH);
                    let mut ahead = Ahead::of(block(blocks, ahead_of(index + 1), kv_head, len), steps);
                    let widened = std::mem::take(&mut self.widened);
                    let narrow = block(blocks, index, kv_head, len).as_chunks().0;
                    for (i, (wide, narrow)) in widened.as_chunks_mut().0.iter_mut().zip(narrow).enumerate() {
                        if i % STRETCH == 0 {
                            ahead.ask::<V>();
                        }
                        like.widen(narrow).store(wide);
                    }
                    self.through_block::<V, R, W>(like, index, widened, &mut ahead);
                    self.widened = widened;
                }
            }
        }
    }

    /// Takes the rows that see any of the block through it, `R` at a time.
    #[inline(always)]
    fn through_block<V: Vector, const R: usize, const W: usize>(
        &mut self,
        like: V,
        index: usize,
        block: &[f32],
        ahead: &mut Ahead,
    ) {
        let before = index * BLOCK;
        let mut row = self.seen.partition_point(|seen| seen.end <= before);
        let end = self.seen.partition_point(|seen| seen.start < before + BLOCK);
        while row < end {
            let left = end - row;
            row += match left {
                _ if left >= R => self.tile::<V, R, W>(like, row, before, block, ahead),
                4.. => self.tile::<V, 4, W>(like, row, before, block, ahead),
                2.. => self.tile::<V, 2, W>(like, row, before, block, ahead),
                _ => self.tile::<V, 1, W>(like, row, before, block, ahead),
            };
        }
    }

    /// Takes `R` rows from `row` on through a block; returns `R`.
    #[inline(always)]
    fn tile<V: Vector, const R: usize, const W: usize>(
        &mut self,
        like: V,
        row: usize,
        before: usize,
        block: &[f32],
        ahead: &mut Ahead,
    ) -> usize {
        let wide = padded(self.head_dim);
        let (keys, values) = block.split_at(BLOCK * self.head_dim);
        let mut weights = [[0.0; BLOCK]; R];
        scores::<V, R, W>(
            like,
            &self.queries[row * self.head_dim..],
            keys.as_chunks().0,
            &mut weights,
            ahead,
        );
        let (mut seen, mut factors) = ([BLOCK; R], [1.0; R]);
        let mut least = BLOCK;
        for r in 0..R {
            let Range { start, end } = self.seen[row + r];
            seen[r] = (end - before).min(BLOCK);
            least = least.min(seen[r]);
            weights[r][seen[r]..].fill(f32::NEG_INFINITY);
            // Positions before the window weigh nothing.
            weights[r][..start.saturating_sub(before)].fill(f32::NEG_INFINITY);
            let (largest, sums) = (&mut self.largest[row + r], &mut self.sums[row + r]);
            factors[r] = weigh(like, &mut weights[r], largest, sums);
        }
        let weighted = &mut self.weighted[row * wide..][..R * wide];
        add_values::<V, R, W>(like, &weights, &factors, &values[..least * wide], weighted, ahead);
        for r in 0..R {
            if seen[r] > least {
                let mut weights = [weights[r]];
                weights[0].copy_within(least.., 0);
                let values = &values[least * wide..seen[r] * wide];
                add_values::<V, 1, W>(
                    like,
                    &weights,
                    &[1.0],
                    values,
                    &mut weighted[r * wide..][..wide],
                    ahead,
                );
            }
        }
        R
    }
}

/// One head's part of a block, or nothing if there are not so many blocks.
#[inline(always)]
fn block<'a, T>(blocks: &[&'a [T]], index: usize, kv_head: usize, len: usize) -> &'a [T] {
    blocks.get(index).and_then(|block| block.get(kv_head * len..(kv_head + 1) * len)).unwrap_or(&[])
}

/// `out[r, p] = Σ_d queries[r, d] · keys[d, p]`, in increasing d.
#[inline(always)]
fn scores<V: Vector, const R: usize, const W: usize>(
    like: V,
    queries: &[f32],
    keys: &[[f32; BLOCK]],
    out: &mut [[f32; BLOCK]; R],
    ahead: &mut Ahead,
) {
    let head_dim = keys.len();
    let mut of_row = [queries; R];
    for r in 0..R {
        of_row[r] = &queries[r * head_dim..][..head_dim];
    }
    for first in (0..VECTORS).step_by(W) {
        let mut sums = [[like.splat(0.0); W]; R];
        for d in 0..head_dim {
            if d % STRETCH == 0 {
                ahead.ask::<V>();
            }
            let keys = &keys[d].as_chunks::<LANES>().0[first..first + W];
            for r in 0..R {
                let query = like.splat(of_row[r][d]);
                for w in 0..W {
                    sums[r][w] = like.load(&keys[w]).mul_add(query, sums[r][w]);
                }
            }
        }
        for r in 0..R {
            let out = &mut out[r].as_chunks_mut::<LANES>().0[first..first + W];
            for w in 0..W {
                sums[r][w].store(&mut out[w]);
            }
        }
    }
}

/// Replaces a row's scores by weights relative to the largest score so far, and adds them to `sums`; returns
/// by what everything before must be multiplied.
#[inline(always)]
fn weigh<V: Vector>(like: V, scores: &mut [f32; BLOCK], largest: &mut f32, sums: &mut [f32; LANES]) -> f32 {
    let scores = scores.as_chunks_mut::<LANES>().0;
    let (mut factor, before) = (1.0, like.splat(*largest));
    let mut above = false;
    for scores in &*scores {
        above |= like.load(scores).any_above(before);
    }
    if above {
        for scores in &*scores {
            let here = like.load(scores).largest();
            *largest = if here > *largest { here } else { *largest };
        }
        let mut lanes = [0.0; LANES];
        exp(before.sub(like.splat(*largest))).store(&mut lanes);
        factor = lanes[0];
    }
    let largest = like.splat(*largest);
    let mut sum = like.load(sums).mul(like.splat(factor));
    for scores in scores {
        let weight = exp(like.load(scores).sub(largest));
        sum = sum.add(weight);
        weight.store(scores);
    }
    sum.store(sums);
    factor
}

/// `out[r] = out[r] · factors[r] + Σ_p weights[r, p] · values[p]`, in increasing p.
#[inline(always)]
fn add_values<V: Vector, const R: usize, const W: usize>(
    like: V,
    weights: &[[f32; BLOCK]; R],
    factors: &[f32; R],
    values: &[f32],
    out: &mut [f32],
    ahead: &mut Ahead,
) {
    let wide = out.len() / R;
    let mut first = 0;
    while first + W * LANES <= wide {
        add_columns::<V, R, W>(like, weights, factors, values, (first, out), ahead);
        first += W * LANES;
    }
    while first < wide {
        add_columns::<V, R, 1>(like, weights, factors, values, (first, out), ahead);
        first += LANES;
    }
}

/// As [`add_values`], for `W` vectors of columns from the first on.
#[inline(always)]
fn add_columns<V: Vector, const R: usize, const W: usize>(
    like: V,
    weights: &[[f32; BLOCK]; R],
    factors: &[f32; R],
    values: &[f32],
    (first, out): (usize, &mut [f32]),
    ahead: &mut Ahead,
) {
    let wide = out.len() / R;
    let mut sums = [[like.splat(0.0); W]; R];
    for r in 0..R {
        let factor = like.splat(factors[r]);
        let out = out[r * wide + first..][..W * LANES].as_chunks::<LANES>().0;
        for w in 0..W {
            sums[r][w] = like.load(&out[w]).mul(factor);
        }
    }
    let positions = (values.len() / wide).min(BLOCK);
    for p in 0..positions {
        if p % STRETCH == 0 {
            ahead.ask::<V>();
        }
        let values = values[p * wide + first..][..W * LANES].as_chunks::<LANES>().0;
        for r in 0..R {
            let weight = like.splat(weights[r][p]);
            for w in 0..W {
                sums[r][w] = like.load(&values[w]).mul_add(weight, sums[r][w]);
            }
        }
    }
    for r in 0..R {
        let out = out[r * wide + first..][..W * LANES].as_chunks_mut::<LANES>().0;
        for w in 0..W {
            sums[r][w].store(&mut out[w]);
        }
    }
}
