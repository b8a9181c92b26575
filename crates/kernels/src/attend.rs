//! Causal attention in one pass over cached keys and values, a block of positions at a time.
//!
//! A head's cache is a row of blocks of [`BLOCK`] positions. A block holds its keys transposed,
//! `[head_dim][BLOCK]`, so that the scores of its positions lie in neighbouring lanes and need no sum across
//! them; then its values, `[BLOCK][head_dim padded to whole vectors]`. The first block begins at position 0,
//! whatever the call.
//!
//! A *row* is one query head of one token. For each block in turn it gets its scores, its largest score so far,
//! weights relative to that, and adds the values in increasing position, after what it has was rescaled to the
//! new largest score (Milakov and Gimelshein 2018; Dao et al. 2022). No row of scores longer than a block is
//! ever held. Many rows go through a block together; each is computed as if it were alone, and reads nothing of
//! positions beyond its own, which may hold anything.

pub(crate) mod lanes;
mod portable;
pub(crate) mod vector;

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

/// Keys and values of one head: whole blocks of [`block_len`].
#[derive(Clone, Copy, Debug)]
pub enum Blocks<'a> {
    /// As they were computed.
    F32(&'a [f32]),
    /// Rounded to nearest, ties to even; what is beyond ±65504 became infinite.
    F16(&'a [f16]),
}

/// The same for writing.
#[derive(Debug)]
pub enum BlocksMut<'a> {
    /// As they are computed.
    F32(&'a mut [f32]),
    /// See [`Blocks::F16`].
    F16(&'a mut [f16]),
}

impl BlocksMut<'_> {
    /// Writes the `key` and the `value` `[head_dim]` of a position.
    ///
    /// # Panics
    /// If its block does not exist.
    pub fn put(&mut self, position: usize, key: &[f32], value: &[f32]) {
        match self {
            Self::F32(blocks) => put(blocks, position, key, value, <[f32]>::copy_from_slice),
            Self::F16(blocks) => put(blocks, position, key, value, <[f16]>::convert_from_f32_slice),
        }
    }
}

#[inline(always)]
fn put<T: Copy + Default>(
    blocks: &mut [T],
    position: usize,
    key: &[f32],
    value: &[f32],
    narrow: impl Fn(&mut [T], &[f32]),
) {
    /// Elements narrowed at a time.
    const STRETCH: usize = 64;
    let head_dim = key.len();
    assert_eq!(value.len(), head_dim, "a key and a value of one head");
    let block = &mut blocks[position / BLOCK * block_len(head_dim)..][..block_len(head_dim)];
    let (keys, values) = block.split_at_mut(BLOCK * head_dim);
    let lane = position % BLOCK;
    narrow(&mut values[lane * padded(head_dim)..][..head_dim], value);
    for (keys, key) in keys.chunks_mut(STRETCH * BLOCK).zip(key.chunks(STRETCH)) {
        let mut narrowed = [T::default(); STRETCH];
        narrow(&mut narrowed[..key.len()], key);
        keys.as_chunks_mut::<BLOCK>().0.iter_mut().zip(narrowed).for_each(|(keys, key)| keys[lane] = key);
    }
}

/// The query heads that share one head's keys and values, of consecutive tokens: what a table's kernel is given.
#[derive(Clone, Copy, Debug)]
pub struct Attend<'a> {
    /// The first token's first head, and what follows; scaled by `1 / √head_dim`.
    pub queries: &'a [f32],
    /// Floats from one token's queries to the next one's.
    pub stride: usize,
    /// Length of a head.
    pub head_dim: usize,
    /// The first token's position: token `t` sees the positions `0..=first + t`.
    pub first: usize,
    /// Keys and values of these positions.
    pub cache: Blocks<'a>,
}

impl Attend<'_> {
    /// Checks that queries and cache suffice for an output `[tokens, columns]`; returns heads.
    ///
    /// # Panics
    /// If they do not.
    fn check(&self, tokens: usize, columns: usize) -> usize {
        let Self { queries, stride, head_dim, first, cache } = *self;
        assert!(head_dim > 0 && columns.is_multiple_of(head_dim), "whole heads of {head_dim}");
        assert!(
            tokens == 0 || queries.len() >= (tokens - 1) * stride + columns,
            "queries of {tokens} tokens"
        );
        let held = match cache {
            Blocks::F32(blocks) => blocks.len(),
            Blocks::F16(blocks) => blocks.len(),
        };
        let needed = (first + tokens).div_ceil(BLOCK) * block_len(head_dim);
        assert!(held >= needed, "blocks for {} positions", first + tokens);
        columns / head_dim
    }
}
