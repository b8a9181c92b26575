//! Packing and tiles in plain Rust, for any target and any kind of factors.

use super::matrix::PackSource;
use super::micro::{GemmTile, Write};
use half::bf16;

/// Panels of `[words of k, width]`, one value to a word.
pub(crate) fn pack(source: PackSource<'_>, width: usize, panels: &mut [u32]) {
    pack_words(source, width, source.depth, panels, |i, k| value(source, i, k).to_bits());
}

/// Panels of `[words of k, width]`, two rounded values to a word.
pub(crate) fn pack_bf16(source: PackSource<'_>, width: usize, panels: &mut [u32]) {
    let half = |i, k| u32::from(bf16::from_f32(value(source, i, k)).to_bits());
    let pair = |i, word| half(i, 2 * word) | half(i, 2 * word + 1) << 16;
    pack_words(source, width, source.depth.div_ceil(2), panels, pair);
}

fn pack_words(
    source: PackSource<'_>,
    width: usize,
    words: usize,
    panels: &mut [u32],
    word: impl Fn(usize, usize) -> u32,
) {
    assert_eq!(panels.len(), source.count.div_ceil(width) * width * words, "panels of the operand's shape");
    for (panel, out) in panels.chunks_exact_mut(width * words).enumerate() {
        for (k, out) in out.chunks_exact_mut(width).enumerate() {
            for (i, out) in out.iter_mut().enumerate() {
                *out = word(panel * width + i, k);
            }
        }
    }
}

/// Zero beyond the edges.
fn value(source: PackSource<'_>, i: usize, k: usize) -> f32 {
    if i < source.count && k < source.depth {
        source.values.get(i * source.stride + k * source.k_stride)
    } else {
        0.0
    }
}

/// A tile of one value to a word.
#[inline(always)]
pub(crate) fn tile<const R: usize, const C: usize>(tile: GemmTile<'_>, out: &mut [f32]) {
    let mut sums = [[0f32; C]; R];
    let (left, right) = (tile.left.as_chunks::<R>().0, tile.right.as_chunks::<C>().0);
    for (left, right) in left.iter().zip(right) {
        for (sums, left) in sums.iter_mut().zip(left) {
            let left = f32::from_bits(*left);
            for (sum, right) in sums.iter_mut().zip(right) {
                *sum += left * f32::from_bits(*right);
            }
        }
    }
    put::<R, C>(&sums, tile, out);
}

/// A tile of two `bf16` to a word.
#[inline(always)]
pub(crate) fn tile_bf16<const R: usize, const C: usize>(tile: GemmTile<'_>, out: &mut [f32]) {
    let mut sums = [[0f32; C]; R];
    let (left, right) = (tile.left.as_chunks::<R>().0, tile.right.as_chunks::<C>().0);
    let (low, high) =
        (|word: u32| f32::from_bits(word << 16), |word: u32| f32::from_bits(word & 0xffff_0000));
    for (left, right) in left.iter().zip(right) {
        for (sums, &left) in sums.iter_mut().zip(left) {
            for (sum, &right) in sums.iter_mut().zip(right) {
                // The odd one first, as in `vdpbf16ps`.
                *sum += high(left) * high(right);
                *sum += low(left) * low(right);
            }
        }
    }
    put::<R, C>(&sums, tile, out);
}

/// Writes the sums that lie within the output.
#[inline(always)]
fn put<const R: usize, const C: usize>(sums: &[[f32; C]; R], tile: GemmTile<'_>, out: &mut [f32]) {
    for (row, sums) in sums.iter().take(tile.rows).enumerate() {
        let out = &mut out[row * tile.stride..][..tile.columns];
        for (out, sum) in out.iter_mut().zip(sums) {
            let before = if tile.write == Write::Add { *out } else { 0.0 };
            *out = tile.alpha * *sum + before;
        }
    }
}
