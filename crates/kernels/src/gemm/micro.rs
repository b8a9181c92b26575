//! The innermost part of a product for one instruction set: how operands are packed, and tiles multiplied.

use super::matrix::PackSource;

/// Words of k that are summed in registers before they reach the output.
pub(crate) const DEPTH: usize = 256;

/// What happens to the old values of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// They are overwritten.
    Replace,
    /// The product is added to them.
    Add,
}

/// The innermost part of a product for one instruction set and one kind of factors.
#[derive(Debug)]
pub struct Micro {
    /// Rows of a tile.
    pub(crate) rows: usize,
    /// Columns of a tile.
    pub(crate) columns: usize,
    /// Values of k that share a word of a panel: 1, or 2 `bf16`, the even one low.
    pub(crate) per_word: usize,
    /// Panels have a multiple of so many words of k, the last ones zero. It divides [`DEPTH`].
    pub(crate) step: usize,
    /// Writes rows of the left operand as panels of `rows` (second argument) by so many words, in an order of
    /// its own. The rows that pad the last panel may hold anything.
    pub(crate) pack_left: Pack,
    /// As `pack_left`, columns of the right operand as panels of `columns`.
    pub(crate) pack_right: Pack,
    /// `out = alpha · left · right`, or adds it, for all tiles of some panels.
    pub(crate) tiles: fn(Panels<'_>, &mut [f32]),
}

type Pack = fn(PackSource<'_>, usize, &mut [u32]);

impl Micro {
    /// Words of `depth` values of k in a panel.
    pub(super) fn words(&self, depth: usize) -> usize {
        depth.div_ceil(self.per_word).next_multiple_of(self.step)
    }
}

/// Packed rows and columns at a stretch of k, and where their product goes in the output slice.
#[derive(Clone, Copy)]
pub(crate) struct Panels<'a> {
    pub(super) left: &'a [u32],  // [panels, words · rows of a panel]
    pub(super) right: &'a [u32], // [panels, DEPTH · columns of a panel], of which `words` are used
    pub(super) words: usize,
    pub(super) size: [usize; 2], // rows and columns of the output
    pub(super) stride: usize,    // of the output's rows
    pub(crate) alpha: f32,
    pub(crate) write: Write,
}

impl Panels<'_> {
    /// Calls `tile` for every tile of so many rows and columns. Columns outside: their panel stays in the
    /// first cache while all rows go by.
    #[inline(always)]
    pub(crate) fn each(
        self,
        rows: usize,
        columns: usize,
        out: &mut [f32],
        tile: impl Fn(GemmTile<'_>, &mut [f32]),
    ) {
        let Self { left, right, words, size, stride, alpha, write } = self;
        for (c, right) in blocks(size[1], columns).zip(right.chunks_exact(DEPTH * columns)) {
            let right = &right[..words * columns];
            for (r, left) in blocks(size[0], rows).zip(left.chunks_exact(words * rows)) {
                let out = &mut out[r.start * stride + c.start..];
                tile(GemmTile { left, right, rows: r.len(), columns: c.len(), stride, alpha, write }, out);
            }
        }
    }
}

/// Two panels, and where their product goes in the output slice.
#[derive(Clone, Copy)]
pub(crate) struct GemmTile<'a> {
    pub(crate) left: &'a [u32],
    pub(crate) right: &'a [u32],
    pub(crate) rows: usize,    // of the output, at most the panel's
    pub(crate) columns: usize, // as `rows`
    pub(crate) stride: usize,  // of the output's rows
    pub(crate) alpha: f32,
    pub(crate) write: Write,
}

/// `0..len` in blocks.
#[inline]
pub(super) fn blocks(len: usize, block: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    (0..len).step_by(block).map(move |first| first..len.min(first + block))
}
