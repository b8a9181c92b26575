//! Memory for keys and values, in blocks of positions, up to a size that is stated once.

use crate::error::{Error, Result};
use crate::format::CacheFormat;
use crate::memory;
use crate::storage::Pages;
use offramp_kernels::attend::{BLOCK, block_len};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockShape {
    pub(crate) layers: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) format: CacheFormat,
}

impl BlockShape {
    /// Elements of one head in one layer.
    pub(crate) fn head_len(&self) -> usize {
        block_len(self.head_dim)
    }

    /// Elements of one layer.
    pub(crate) fn layer_len(&self) -> usize {
        self.kv_heads * self.head_len()
    }

    /// Bytes of a block; none where they cannot be counted.
    fn bytes(&self) -> Option<usize> {
        self.layer_len().checked_mul(self.layers)?.checked_mul(self.format.bytes())
    }
}

/// Blocks of keys and values for many texts ([`KvCache`](crate::KvCache)): a block holds 32 positions in
/// every layer. The pool never holds more blocks than it was made for. A block is taken when a position needs
/// it and given back when the last text that holds it ends; texts with the same prefix share blocks.
#[derive(Debug)]
pub struct BlockPool {
    shape: BlockShape,
    blocks: usize,
    checked: bool, // that the memory has space for all of it
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Blocks that texts hold.
    live: usize,
    /// Blocks that texts may still take.
    promised: usize,
    /// Blocks that texts gave back.
    free: Vec<Pages>,
}

/// One block: `[layers, kv_heads, block_len]`.
#[derive(Debug)]
pub(crate) struct Block {
    pages: Option<Pages>, // none once it is given back
    pool: Arc<BlockPool>,
}

/// Blocks of a pool that one text may still take.
#[derive(Debug)]
pub(crate) struct Promise {
    pool: Arc<BlockPool>,
    blocks: usize,
}

impl BlockPool {
    /// A pool for `positions` positions, rounded up to whole blocks; no memory is taken yet.
    pub(crate) fn new(shape: BlockShape, positions: usize) -> Arc<Self> {
        Arc::new(Self { shape, blocks: positions.div_ceil(BLOCK), checked: false, state: Mutex::default() })
    }

    /// As [`BlockPool::new`], after it was made sure that the memory has space for all of it.
    ///
    /// # Errors
    /// [`Error::NoMemory`](crate::Error::NoMemory).
    pub(crate) fn checked(shape: BlockShape, positions: usize) -> Result<Arc<Self>> {
        let pool = Self { shape, blocks: positions.div_ceil(BLOCK), checked: true, state: Mutex::default() };
        memory::check(&format!("a cache of {positions} positions"), pool.bytes())?;
        Ok(Arc::new(pool))
    }

    /// Bytes that the memory has yet to be asked for, where a text takes so many blocks.
    pub(crate) fn unchecked(&self, blocks: usize) -> u64 {
        if self.checked { 0 } else { self.bytes_of(blocks) }
    }

    pub(crate) fn shape(&self) -> &BlockShape {
        &self.shape
    }

    /// Positions that it has blocks for.
    pub fn capacity(&self) -> usize {
        self.blocks.saturating_mul(BLOCK)
    }

    /// Positions in blocks that texts hold; a block that texts share counts once.
    pub fn used(&self) -> usize {
        self.state().live * BLOCK
    }

    /// Positions that a new text may ask for: those that no text holds or was promised.
    pub fn available(&self) -> usize {
        let state = self.state();
        self.blocks.saturating_sub(state.live.saturating_add(state.promised)).saturating_mul(BLOCK)
    }

    /// Bytes of all of its blocks.
    pub fn bytes(&self) -> u64 {
        self.bytes_of(self.blocks)
    }

    /// Bytes of so many blocks.
    fn bytes_of(&self, blocks: usize) -> u64 {
        let bytes = self.shape.bytes().map_or(u64::MAX, |bytes| bytes as u64);
        bytes.saturating_mul(blocks as u64)
    }

    /// Promises so many blocks to a text.
    ///
    /// # Errors
    /// [`Error::PoolFull`] if others hold them or were promised them.
    pub(crate) fn promise(self: &Arc<Self>, blocks: usize) -> Result<Promise> {
        let mut state = self.state();
        let left = self.blocks.saturating_sub(state.live.saturating_add(state.promised));
        if blocks > left {
            return Err(self.full(blocks, left));
        }
        state.promised += blocks;
        drop(state);
        Ok(Promise { pool: Arc::clone(self), blocks })
    }

    fn full(&self, blocks: usize, left: usize) -> Error {
        let positions = |blocks: usize| blocks.saturating_mul(BLOCK);
        Error::PoolFull { wanted: positions(blocks), left: positions(left), capacity: self.capacity() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Promise {
    pub(crate) fn pool(&self) -> &Arc<BlockPool> {
        &self.pool
    }

    /// Takes one block: of those that were promised, or else of those that nobody was.
    ///
    /// # Errors
    /// If there is none, or no memory for it.
    pub(crate) fn take(&mut self) -> Result<Block> {
        let mut state = self.pool.state();
        if self.blocks == 0 && state.live.saturating_add(state.promised) >= self.pool.blocks {
            return Err(self.pool.full(1, 0));
        }
        let bytes = self.pool.shape.bytes().ok_or(Error::CacheMemory { positions: self.pool.capacity() })?;
        let pages = match state.free.pop() {
            Some(pages) => pages,
            None => Pages::new(bytes).map_err(|_| Error::CacheMemory { positions: self.pool.capacity() })?,
        };
        state.live += 1;
        if self.blocks > 0 {
            (self.blocks, state.promised) = (self.blocks - 1, state.promised - 1);
        }
        drop(state);
        Ok(Block { pages: Some(pages), pool: Arc::clone(&self.pool) })
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.pool.state().promised -= self.blocks;
    }
}

impl Block {
    /// All of its bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.pages.as_ref().map_or(&[], Pages::bytes)
    }

    /// All of its bytes, for writing.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        self.pages.as_mut().map_or(&mut [], Pages::bytes_mut)
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let mut state = self.pool.state();
        state.live -= 1;
        state.free.extend(self.pages.take());
    }
}
