//! Packs codes that somebody else has chosen, with their scales: nothing is rounded.

use super::layout::{QUAD, SCALES, STRIP, StripFormat};
use half::f16;

/// Bytes of a strip's rows at four k.
const CODES: usize = STRIP * QUAD;
/// k of a block.
const BLOCK: usize = 32;
/// Blocks of a row that are written together: what they become stays in the first-level cache, and a row is
/// read in stretches of whole lines.
const TOGETHER: usize = 8;

/// Puts the codes of up to [`STRIP`] rows, `[rows, in_features]`, and the scales of their blocks, `[rows,
/// in_features / 32]`, into one strip; rows that are missing are zeros.
///
/// # Panics
/// If the format is not of such scales, rows are no whole blocks, there are more of them, or `strip` is not
/// [`StripFormat::strip_bytes`] long. In 4 bits, codes outside −8 to 7 become others.
pub fn pack_codes(format: StripFormat, codes: &[i8], scales: &[f16], in_features: usize, strip: &mut [u8]) {
    assert!(format.has_halves() && in_features.is_multiple_of(BLOCK), "blocks of {BLOCK} with halves");
    assert!(codes.len() <= STRIP * in_features && codes.len().is_multiple_of(in_features), "rows of a strip");
    assert_eq!(scales.len() * BLOCK, codes.len(), "a scale for each block");
    assert_eq!(strip.len(), format.strip_bytes(in_features), "one strip");
    let (blocks, bytes) = (in_features / BLOCK, format.block_bytes());
    if codes.len() < STRIP * in_features {
        strip.chunks_exact_mut(bytes).for_each(|block| clear(format, block));
    }
    let codes = codes.as_chunks::<BLOCK>().0;
    for (part, strip) in strip.chunks_mut(TOGETHER * bytes).enumerate() {
        let rows = codes.chunks_exact(blocks).zip(scales.chunks_exact(blocks)).enumerate();
        for (row, (codes, scales)) in rows {
            let of_row = codes[part * TOGETHER..].iter().zip(&scales[part * TOGETHER..]);
            for (block, (codes, scale)) in strip.chunks_exact_mut(bytes).zip(of_row) {
                let (stored, of_rows) = block.split_at_mut(bytes - SCALES);
                match format {
                    StripFormat::Q8_0 => put_bytes(codes, row, stored),
                    _ => put_nibbles(codes, row, stored),
                }
                of_rows[2 * row..][..2].copy_from_slice(&scale.to_le_bytes());
            }
        }
    }
}

/// Copies rows of `strips`, by their numbers, into one strip of the same format and width; rows that are
/// missing are zeros.
///
/// # Panics
/// If there are more than [`STRIP`], or one is not in the strips.
pub fn copy_rows(format: StripFormat, strips: &[u8], rows: &[usize], strip: &mut [u8]) {
    assert!(rows.len() <= STRIP, "rows of a strip");
    let (whole, bytes) = (strip.len(), format.block_bytes());
    for (block, out) in strip.chunks_exact_mut(bytes).enumerate() {
        clear(format, out);
        for (place, row) in rows.iter().enumerate() {
            let from = &strips[row / STRIP * whole + block * bytes..][..bytes];
            let (codes, scales) = (bytes - SCALES, [row % STRIP, place].map(|row| bytes - SCALES + 2 * row));
            for quads in (0..codes).step_by(CODES) {
                let [from_quad, to] = [row % STRIP, place].map(|row| quads + QUAD * row);
                out[to..to + QUAD].copy_from_slice(&from[from_quad..from_quad + QUAD]);
            }
            out[scales[1]..scales[1] + 2].copy_from_slice(&from[scales[0]..scales[0] + 2]);
        }
    }
}

/// Makes a block of zeros.
fn clear(format: StripFormat, block: &mut [u8]) {
    let (codes, scales) = block.split_at_mut(block.len() - SCALES);
    codes.fill(if format.bits() == 8 { 0x80 } else { 0x88 });
    scales.fill(0);
}

/// Four codes as they lie in memory, without their signs.
#[inline(always)]
fn quad(codes: &[i8; QUAD], zero: u8) -> u32 {
    u32::from_le_bytes(codes.map(|code| (code as u8).wrapping_add(zero)))
}

#[inline(always)]
fn put_bytes(codes: &[i8; BLOCK], row: usize, stored: &mut [u8]) {
    for (codes, stored) in codes.as_chunks::<QUAD>().0.iter().zip(stored.chunks_exact_mut(CODES)) {
        stored[row * QUAD..][..QUAD].copy_from_slice(&quad(codes, 128).to_le_bytes());
    }
}

#[inline(always)]
fn put_nibbles(codes: &[i8; BLOCK], row: usize, stored: &mut [u8]) {
    let pairs = codes.as_chunks::<QUAD>().0.as_chunks::<2>().0;
    for ([low, high], stored) in pairs.iter().zip(stored.chunks_exact_mut(CODES)) {
        let both = quad(low, 8) & 0x0f0f_0f0f | (quad(high, 8) & 0x0f0f_0f0f) << 4;
        stored[row * QUAD..][..QUAD].copy_from_slice(&both.to_le_bytes());
    }
}
