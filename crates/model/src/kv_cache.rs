//! Keys and values of one text's positions so far, layer by layer.

use crate::block_pool::{Block, BlockPool, Promise};
use crate::error::{Error, Result};
use crate::format::CacheFormat;
use offramp_kernels::attend::{BLOCK, BlockMut, Blocks};
use offramp_kernels::f16;
use std::ops::Range;
use std::sync::Arc;

/// The cache that [`Llama::forward`](crate::Llama::forward) appends to: a table of blocks of a [`BlockPool`].
///
/// Every layer has its own length: after an early exit the layers beyond it hold fewer positions. Blocks come
/// from the pool as positions need them. A block that other texts hold too is copied before it is written.
#[derive(Debug)]
pub struct KvCache {
    capacity: usize,
    blocks: Vec<Arc<Block>>,
    lens: Vec<usize>, // [layers]
    promise: Promise,
}

impl KvCache {
    /// An empty cache for `capacity` positions, whose blocks no other text can take.
    ///
    /// # Errors
    /// [`Error::PoolFull`] if the pool has not so many left.
    pub fn new(pool: &Arc<BlockPool>, capacity: usize) -> Result<Self> {
        let promise = pool.promise(capacity.div_ceil(BLOCK))?;
        Ok(Self { capacity, blocks: Vec::new(), lens: vec![0; pool.shape().layers], promise })
    }

    /// A cache for `capacity` positions that begins with the first `len` of this one, in blocks that both
    /// share.
    ///
    /// # Errors
    /// [`Error::PoolFull`] if the pool has no blocks left for the rest; [`Error::CacheFull`] if `len` is
    /// above `capacity`.
    pub fn fork(&self, len: usize, capacity: usize) -> Result<Self> {
        if len > capacity {
            return Err(Error::CacheFull { positions: len, capacity });
        }
        let shared = len.div_ceil(BLOCK).min(self.blocks.len());
        // The last shared block is copied when the text goes on within it.
        let whole = shared.min(len / BLOCK);
        let promise = self.pool().promise(capacity.div_ceil(BLOCK).saturating_sub(whole))?;
        let lens = self.lens.iter().map(|&held| held.min(len)).collect();
        Ok(Self { capacity, blocks: self.blocks[..shared].to_vec(), lens, promise })
    }

    /// The pool that its blocks are of.
    pub fn pool(&self) -> &Arc<BlockPool> {
        self.promise.pool()
    }

    /// Positions that fit.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// How keys and values are kept.
    pub fn format(&self) -> CacheFormat {
        self.pool().shape().format
    }

    /// Positions that `layer` holds.
    ///
    /// # Panics
    /// If there is no such layer.
    pub fn len(&self, layer: usize) -> usize {
        self.lens[layer]
    }

    /// Whether no layer holds anything.
    pub fn is_empty(&self) -> bool {
        self.lens.iter().all(|&len| len == 0)
    }

    /// Forgets every position from `len` on, in all layers; shorter layers stay as they are.
    pub fn truncate(&mut self, len: usize) {
        // What is behind the length is not read, and overwritten by the positions to come.
        self.lens.iter_mut().for_each(|held| *held = len.min(*held));
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.truncate(0);
    }

    /// Bytes of keys and values held now: what attention reads for the next token at full depth.
    pub fn bytes(&self) -> u64 {
        let shape = self.pool().shape();
        let of_position = 2 * shape.kv_heads * shape.head_dim * shape.format.bytes();
        (self.lens.iter().sum::<usize>() * of_position) as u64
    }

    /// Checks that `rows` positions from `first` on fit.
    ///
    /// # Errors
    /// [`Error::CacheFull`].
    pub(crate) fn check(&self, first: usize, rows: usize) -> Result<()> {
        let (positions, capacity) = (first + rows, self.capacity);
        if positions > capacity { Err(Error::CacheFull { positions, capacity }) } else { Ok(()) }
    }

    /// Bytes that [`reserve`](Self::reserve) may take. The first time it is all that the cache may come to
    /// need.
    pub(crate) fn unreserved(&self, positions: Range<usize>) -> u64 {
        let needed = if self.blocks.is_empty() { self.capacity } else { positions.end };
        self.pool().unchecked(needed.div_ceil(BLOCK).saturating_sub(self.blocks.len()))
    }

    /// Makes sure of blocks for `positions` that this cache alone holds.
    ///
    /// # Errors
    /// If the pool has none left, or there is no memory.
    pub(crate) fn reserve(&mut self, positions: Range<usize>) -> Result<()> {
        for index in positions.start / BLOCK..positions.end.div_ceil(BLOCK) {
            if index == self.blocks.len() {
                self.blocks.push(Arc::new(self.promise.take()?));
            } else if Arc::get_mut(&mut self.blocks[index]).is_none() {
                let mut copy = self.promise.take()?;
                copy.bytes_mut().copy_from_slice(self.blocks[index].bytes());
                self.blocks[index] = Arc::new(copy);
            }
        }
        Ok(())
    }

    /// The blocks of `positions` in one layer, for writing: what [`reserve`](Self::reserve) has made sure of.
    pub(crate) fn layer_mut(&mut self, layer: usize, positions: Range<usize>) -> Vec<LayerBlock<'_>> {
        let shape = *self.pool().shape();
        let bytes = shape.layer_len() * shape.format.bytes();
        let range = positions.start / BLOCK..positions.end.div_ceil(BLOCK);
        let blocks = self.blocks[range.clone()].iter_mut().zip(range);
        blocks
            .map(|(block, index)| {
                let block = Arc::get_mut(block).expect("reserved blocks are of this cache alone");
                let begin = positions.start.max(index * BLOCK);
                LayerBlock {
                    bytes: &mut block.bytes_mut()[layer * bytes..][..bytes],
                    format: shape.format,
                    head_len: shape.head_len(),
                    lanes: begin - index * BLOCK..positions.end.min((index + 1) * BLOCK) - index * BLOCK,
                    row: begin - positions.start,
                }
            })
            .collect()
    }

    /// All blocks of one layer, for reading.
    pub(crate) fn layer(&self, layer: usize) -> LayerBlocks<'_> {
        let shape = self.pool().shape();
        let bytes = shape.layer_len() * shape.format.bytes();
        let blocks = self.blocks.iter().map(|block| &block.bytes()[layer * bytes..][..bytes]);
        match shape.format {
            CacheFormat::F32 => LayerBlocks::F32(blocks.map(bytemuck::cast_slice).collect()),
            CacheFormat::F16 => LayerBlocks::F16(blocks.map(bytemuck::cast_slice).collect()),
        }
    }

    /// Counts `rows` more positions of a layer, which have been written.
    pub(crate) fn grow(&mut self, layer: usize, rows: usize) {
        self.lens[layer] += rows;
    }
}

/// One layer's part of each block.
#[derive(Debug)]
pub(crate) enum LayerBlocks<'a> {
    F32(Vec<&'a [f32]>),
    F16(Vec<&'a [f16]>),
}

impl LayerBlocks<'_> {
    /// As the kernels take them.
    pub(crate) fn as_blocks(&self) -> Blocks<'_> {
        match self {
            Self::F32(blocks) => Blocks::F32(blocks),
            Self::F16(blocks) => Blocks::F16(blocks),
        }
    }
}

/// One layer's part of one block, and which rows of a call it is to hold.
#[derive(Debug)]
pub(crate) struct LayerBlock<'a> {
    bytes: &'a mut [u8], // [kv_heads, block_len]
    format: CacheFormat,
    head_len: usize,
    lanes: Range<usize>,
    pub(crate) row: usize, // that the first lane holds
}

impl LayerBlock<'_> {
    /// Writes its rows of `keys` and `values` `[rows, kv_heads, head_dim]`.
    pub(crate) fn write(self, keys: &[f32], values: &[f32], head_dim: usize) {
        let Self { bytes, format, head_len, lanes, row } = self;
        let heads = bytes.len() / format.bytes() / head_len;
        let write = |head: usize, mut block: BlockMut<'_>| {
            for (lane, row) in lanes.clone().zip(row..) {
                let at = (row * heads + head) * head_dim;
                block.put(lane, &keys[at..][..head_dim], &values[at..][..head_dim]);
            }
        };
        match format {
            CacheFormat::F32 => {
                let blocks = bytemuck::cast_slice_mut(bytes).chunks_exact_mut(head_len).enumerate();
                blocks.for_each(|(head, block)| write(head, BlockMut::F32(block)));
            }
            CacheFormat::F16 => {
                let blocks = bytemuck::cast_slice_mut(bytes).chunks_exact_mut(head_len).enumerate();
                blocks.for_each(|(head, block)| write(head, BlockMut::F16(block)));
            }
        }
    }
}
