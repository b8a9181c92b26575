//! Packs floats into strips, and unpacks them.

use super::layout::{SCALES, STRIP, StripFormat};
use super::pack_strip::place;
use crate::dispatch::active;

/// Quantizes up to [`STRIP`] rows, `[rows, in_features]`, into one strip; rows that are missing are zeros.
///
/// int8 takes the largest weight of a block to ±127. int4 tries several scales around that of its largest
/// weight, fits each by least squares and keeps the one with the least squared error, as llama.cpp does. It
/// is never worse than the plain scale, which takes the largest weight to −8. Q8_0 and Q4_0 are what
/// llama.cpp makes of the weights; of one of 2²³ or more in Q8_0, and of 2¹⁹ in Q4_0, the scale is infinite.
/// A weight that is not finite makes its block's scale NaN, so that no product hides it.
///
/// # Panics
/// If there are more rows, or `strip` is not [`StripFormat::strip_bytes`] long.
pub fn pack(format: StripFormat, rows: &[f32], in_features: usize, strip: &mut [u8]) {
    assert!(rows.len() <= STRIP * in_features && rows.len().is_multiple_of(in_features), "rows of a strip");
    assert_eq!(strip.len(), format.strip_bytes(in_features), "one strip");
    (active().pack)(format, rows, in_features, strip);
}

/// The weights of a strip's first rows, as many as `rows` `[rows, in_features]` has room for.
///
/// # Panics
/// If these are more than [`STRIP`], or `strip` is not [`StripFormat::strip_bytes`] long.
pub fn unpack(format: StripFormat, strip: &[u8], in_features: usize, rows: &mut [f32]) {
    assert!(rows.len() <= STRIP * in_features && rows.len().is_multiple_of(in_features), "rows of a strip");
    assert_eq!(strip.len(), format.strip_bytes(in_features), "one strip");
    for (row, values) in rows.chunks_exact_mut(in_features).enumerate() {
        for (block, values) in strip.chunks_exact(format.block_bytes()).zip(values.chunks_mut(format.block()))
        {
            let scale = [0, 1].map(|byte| block[block.len() - SCALES + 2 * row + byte]);
            let scale = format.scale(scale);
            for (k, value) in values.iter_mut().enumerate() {
                let (byte, shift) = place(format, row, k);
                let code = i32::from(block[byte] >> shift & ((1u16 << format.bits()) - 1) as u8);
                *value = (code - format.zero()) as f32 * scale;
            }
        }
    }
}
