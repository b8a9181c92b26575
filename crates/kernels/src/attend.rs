//! Causal attention in one pass over cached keys and values, a block of positions at a time.
//!
//! A head's cache is a row of blocks of [`BLOCK`] positions. A block holds its keys transposed,
//! `[head_dim][BLOCK]`, so that the scores of its positions lie in neighbouring lanes and need no sum across
//! them; then its values, `[BLOCK][head_dim padded to whole vectors]`. The first block begins at position 0,
//! whatever the call.
//!
//! A *row* is one query head of one token. For each block in turn it gets its scores, its largest score so
//! far, weights relative to that, and adds the values in increasing position, after what it has was rescaled
//! to the new largest score (Milakov and Gimelshein 2018; Dao et al. 2022). No row of scores longer than a
//! block is ever held. Many rows go through a block together; each is computed as if it were alone, and reads
//! nothing of positions beyond its own, which may hold anything.

pub(crate) mod lanes;
mod portable;
mod texts;
pub(crate) mod vector;

pub use texts::{AttentionHeads, AttentionText};

use half::f16;
use half::slice::HalfFloatSliceExt;

/// Positions of a block.
pub const BLOCK: usize = 32;

/// Elements that a block of one head takes.
pub const fn block_len(head_dim: usize) -> usize {
    BLOCK * (head_dim + padded(head_dim))
}

/// Elements of a value.
const fn padded(head_dim: usize) -> usize {
    head_dim.next_multiple_of(vector::LANES)
}

/// Keys and values of consecutive positions, from position 0 on: a slice for each block of [`BLOCK`]
/// positions, in which the heads follow one another, [`block_len`] elements each. Blocks may lie anywhere in
/// memory.
#[derive(Clone, Copy, Debug)]
pub enum Blocks<'a> {
    /// As they were computed.
    F32(&'a [&'a [f32]]),
    /// Rounded to nearest, ties to even; what is beyond ±65504 became infinite.
    F16(&'a [&'a [f16]]),
}

/// One head's part of one block, `[block_len]`, for writing.
#[derive(Debug)]
pub enum BlockMut<'a> {
    /// As they are computed.
    F32(&'a mut [f32]),
    /// See [`Blocks::F16`].
    F16(&'a mut [f16]),
}

impl BlockMut<'_> {
    /// Writes the `key` and the `value` `[head_dim]` of the block's position `lane`.
    ///
    /// # Panics
    /// If the block has no such position, or another length.
    pub fn put(&mut self, lane: usize, key: &[f32], value: &[f32]) {
        match self {
            Self::F32(block) => put(block, lane, key, value, <[f32]>::copy_from_slice),
            Self::F16(block) => put(block, lane, key, value, <[f16]>::convert_from_f32_slice),
        }
    }
}

#[inline(always)]
fn put<T: Copy + Default>(
    block: &mut [T],
    lane: usize,
    key: &[f32],
    value: &[f32],
    narrow: impl Fn(&mut [T], &[f32]),
) {
    /// Elements narrowed at a time.
    const STRETCH: usize = 64;
    let head_dim = key.len();
    assert_eq!(value.len(), head_dim, "a key and a value of one head");
    assert!(lane < BLOCK && block.len() == block_len(head_dim), "a position of a block of one head");
    let (keys, values) = block.split_at_mut(BLOCK * head_dim);
    narrow(&mut values[lane * padded(head_dim)..][..head_dim], value);
    for (keys, key) in keys.chunks_mut(STRETCH * BLOCK).zip(key.chunks(STRETCH)) {
        let mut narrowed = [T::default(); STRETCH];
        narrow(&mut narrowed[..key.len()], key);
        keys.as_chunks_mut::<BLOCK>().0.iter_mut().zip(narrowed).for_each(|(keys, key)| keys[lane] = key);
    }
}

/// The query heads that share one head's keys and values, of consecutive tokens: what a table's kernel is
/// given.
#[derive(Clone, Copy, Debug)]
pub struct Attend<'a> {
    /// The first token's first head, and what follows; scaled by `1 / √head_dim`.
    pub queries: &'a [f32],
    /// Floats from one token's queries to the next one's.
    pub stride: usize,
    /// Length of a head.
    pub head_dim: usize,
    /// The first token's position: token `t` sees the positions up to `first + t`.
    pub first: usize,
    /// How many positions a token sees, itself among them; `None` for all.
    pub window: Option<usize>,
    /// Keys and values of these positions.
    pub cache: Blocks<'a>,
    /// Which head of the cache.
    pub kv_head: usize,
}

impl Attend<'_> {
    /// Checks that queries and cache suffice for an output `[tokens, columns]`; returns heads.
    ///
    /// # Panics
    /// If they do not.
    fn check(&self, tokens: usize, columns: usize) -> usize {
        let Self { queries, stride, head_dim, first, cache, .. } = *self;
        assert!(head_dim > 0 && columns.is_multiple_of(head_dim), "whole heads of {head_dim}");
        assert!(
            tokens == 0 || queries.len() >= (tokens - 1) * stride + columns,
            "queries of {tokens} tokens"
        );
        let held = match cache {
            Blocks::F32(blocks) => blocks.len(),
            Blocks::F16(blocks) => blocks.len(),
        };
        assert!(held >= (first + tokens).div_ceil(BLOCK), "blocks for {} positions", first + tokens);
        columns / head_dim
    }

    /// The first position that a token at `position` sees.
    fn first_seen(&self, position: usize) -> usize {
        self.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }
}
