//! Where the codes of a ternary strip lie.

pub(crate) use crate::strips::layout::STRIP;

/// Consecutive k of a lane: the first codes of its four bytes.
pub(crate) const QUAD: usize = 4;
/// Codes of a byte: quads of k in a line.
pub(crate) const QUADS: usize = 4;
/// Consecutive k of a line.
pub(crate) const STEP: usize = QUAD * QUADS;
/// Bytes of a line: 32 rows at [`STEP`] k.
pub(crate) const LINE: usize = STRIP * QUAD;
/// Consecutive k of a block, which is the width of a tile. Rows are padded to whole blocks.
pub(crate) const BLOCK: usize = 64;
/// Bytes of a strip's block.
pub(crate) const BLOCK_BYTES: usize = BLOCK / STEP * LINE;
/// Four codes of zero.
pub(crate) const ZEROS: u8 = 0b01_01_01_01;

/// The widest rows: the sum of so many products of 2 and 128 fits `i32`.
pub const MAX_FEATURES: usize = 1 << 22;
const _: () = assert!(MAX_FEATURES * 2 * 128 < 1 << 31);

/// Blocks of a row; the last one may be padded.
pub(crate) const fn blocks(in_features: usize) -> usize {
    in_features.div_ceil(BLOCK)
}

/// Bytes of one strip.
pub const fn strip_bytes(in_features: usize) -> usize {
    blocks(in_features) * BLOCK_BYTES
}

/// Bytes of a matrix; `None` if they cannot be counted.
pub fn bytes(rows: usize, in_features: usize) -> Option<usize> {
    blocks(in_features).checked_mul(BLOCK_BYTES)?.checked_mul(rows.div_ceil(STRIP))
}
