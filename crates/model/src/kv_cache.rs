//! Keys and values of the positions so far, layer by layer.

use crate::error::{Error, Result};
use crate::format::CacheFormat;
use offramp_kernels::attend::{BLOCK, Blocks, BlocksMut, block_len};
use offramp_kernels::f16;

/// The cache that [`Llama::forward`](crate::Llama::forward) appends to.
///
/// Every layer has its own length: after an early exit the layers beyond it hold fewer positions. A
/// layer's memory for `capacity` positions is reserved when it first runs, and touched only as they come.
#[derive(Clone, Debug)]
pub struct KvCache {
    capacity: usize,
    format: CacheFormat,
    layers: Vec<LayerCache>,
}

/// One layer's share: whole blocks, of which `len` positions count. A head's blocks lie in one stream.
#[derive(Clone, Debug)]
pub(crate) struct LayerCache {
    capacity: usize,
    head_dim: usize,
    len: usize,
    heads: Heads,
}

/// Per head, `[blocks, block_len(head_dim)]`.
#[derive(Clone, Debug)]
enum Heads {
    F32(Vec<Vec<f32>>),
    F16(Vec<Vec<f16>>),
}

impl KvCache {
    pub(crate) fn new(
        layers: usize,
        kv_heads: usize,
        head_dim: usize,
        capacity: usize,
        format: CacheFormat,
    ) -> Self {
        let heads = match format {
            CacheFormat::F32 => Heads::F32(vec![Vec::new(); kv_heads]),
            CacheFormat::F16 => Heads::F16(vec![Vec::new(); kv_heads]),
        };
        let layer = LayerCache { capacity, head_dim, len: 0, heads };
        Self { capacity, format, layers: vec![layer; layers] }
    }

    /// Positions that fit.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// How keys and values are kept.
    pub fn format(&self) -> CacheFormat {
        self.format
    }

    /// Positions that `layer` holds.
    ///
    /// # Panics
    /// If there is no such layer.
    pub fn len(&self, layer: usize) -> usize {
        self.layers[layer].len()
    }

    /// Whether no layer holds anything.
    pub fn is_empty(&self) -> bool {
        self.layers.iter().all(|layer| layer.len() == 0)
    }

    /// Forgets every position from `len` on, in all layers; shorter layers stay as they are.
    pub fn truncate(&mut self, len: usize) {
        // What is behind the length is not read, and overwritten by the positions to come.
        self.layers.iter_mut().for_each(|layer| layer.len = layer.len.min(len));
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.truncate(0);
    }

    /// Bytes of keys and values held now: what attention reads for the next token at full depth.
    pub fn bytes(&self) -> u64 {
        let elements = self.layers.iter().map(|layer| 2 * layer.len * layer.kv_heads() * layer.head_dim);
        (elements.sum::<usize>() * self.format.bytes()) as u64
    }

    pub(crate) fn layer(&self, layer: usize) -> &LayerCache {
        &self.layers[layer]
    }

    pub(crate) fn layer_mut(&mut self, layer: usize) -> &mut LayerCache {
        &mut self.layers[layer]
    }
}

impl LayerCache {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn kv_heads(&self) -> usize {
        match &self.heads {
            Heads::F32(heads) => heads.len(),
            Heads::F16(heads) => heads.len(),
        }
    }

    /// Elements that a head needs for all positions; none where they cannot be counted.
    fn needed(&self) -> Option<usize> {
        self.capacity.div_ceil(BLOCK).checked_mul(block_len(self.head_dim))
    }

    /// Bytes that [`reserve`](Self::reserve) would ask for.
    pub(crate) fn unreserved(&self) -> u64 {
        let Some(needed) = self.needed() else { return u64::MAX };
        let bytes =
            |held: usize, size: usize| (needed.saturating_sub(held) as u64).saturating_mul(size as u64);
        let all = match &self.heads {
            Heads::F32(heads) => heads.iter().map(|head| bytes(head.capacity(), size_of::<f32>())).max(),
            Heads::F16(heads) => heads.iter().map(|head| bytes(head.capacity(), size_of::<f16>())).max(),
        };
        all.unwrap_or(0).saturating_mul(self.kv_heads() as u64)
    }

    /// Makes sure of the memory for all positions: [`append`](Self::append) could not refuse.
    ///
    /// # Errors
    /// If there is not so much.
    pub(crate) fn reserve(&mut self) -> Result<()> {
        let positions = self.capacity;
        let too_much = || Error::CacheMemory { positions };
        let needed = self.needed().ok_or_else(too_much)?;
        let reserved = match &mut self.heads {
            Heads::F32(heads) => reserve(heads, needed),
            Heads::F16(heads) => reserve(heads, needed),
        };
        reserved.ok_or_else(too_much)
    }

    /// Appends positions; `keys` and `values` are `[tokens, kv_heads, head_dim]`.
    ///
    /// # Panics
    /// If they do not fit: [`Llama::forward`](crate::Llama::forward) asks first.
    pub(crate) fn append(&mut self, keys: &[f32], values: &[f32]) {
        let (before, new) = (self.len, keys.len() / (self.kv_heads() * self.head_dim));
        assert!(before + new <= self.capacity, "the cache is full");
        let (head_dim, width) = (self.head_dim, self.kv_heads() * self.head_dim);
        let held = (before + new).div_ceil(BLOCK) * block_len(head_dim);
        let write = |head: usize, mut blocks: BlocksMut<'_>| {
            let of_head = head * head_dim..(head + 1) * head_dim;
            for (position, (keys, values)) in
                (before..).zip(keys.chunks_exact(width).zip(values.chunks_exact(width)))
            {
                blocks.put(position, &keys[of_head.clone()], &values[of_head.clone()]);
            }
        };
        match &mut self.heads {
            Heads::F32(heads) => heads.iter_mut().enumerate().for_each(|(index, head)| {
                grow(head, held);
                write(index, BlocksMut::F32(head));
            }),
            Heads::F16(heads) => heads.iter_mut().enumerate().for_each(|(index, head)| {
                grow(head, held);
                write(index, BlocksMut::F16(head));
            }),
        }
        self.len += new;
    }

    /// The blocks of one head.
    pub(crate) fn head(&self, head: usize) -> Blocks<'_> {
        match &self.heads {
            Heads::F32(heads) => Blocks::F32(&heads[head]),
            Heads::F16(heads) => Blocks::F16(&heads[head]),
        }
    }
}

fn reserve<T>(heads: &mut [Vec<T>], needed: usize) -> Option<()> {
    heads.iter_mut().try_for_each(|head| head.try_reserve_exact(needed.saturating_sub(head.len()))).ok()
}

/// Blocks of zeros, until there are `len` elements.
fn grow<T: Clone + Default>(head: &mut Vec<T>, len: usize) {
    if head.len() < len {
        head.resize(len, T::default());
    }
}
