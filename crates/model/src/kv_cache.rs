//! Keys and values of the positions so far, layer by layer.

use crate::error::{Error, Result};

/// The cache that [`Llama::forward`](crate::Llama::forward) appends to.
///
/// Every layer has its own length: after an early exit the layers beyond it hold fewer positions. A
/// layer's memory for `capacity` positions is reserved when it first runs, and touched only as they come.
#[derive(Clone, Debug)]
pub struct KvCache {
    capacity: usize,
    layers: Vec<LayerCache>,
}

/// One layer's share. A head's positions lie in one stream.
#[derive(Clone, Debug)]
pub(crate) struct LayerCache {
    capacity: usize,
    head_dim: usize,
    keys: Vec<Vec<f32>>,   // per head, [positions, head_dim]
    values: Vec<Vec<f32>>, // per head, [positions, head_dim]
}

impl KvCache {
    pub(crate) fn new(layers: usize, kv_heads: usize, head_dim: usize, capacity: usize) -> Self {
        let heads = vec![Vec::new(); kv_heads];
        let layer = LayerCache { capacity, head_dim, keys: heads.clone(), values: heads };
        Self { capacity, layers: vec![layer; layers] }
    }

    /// Positions that fit.
    pub fn capacity(&self) -> usize {
        self.capacity
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
        for layer in &mut self.layers {
            let floats = layer.len().min(len) * layer.head_dim;
            layer.keys.iter_mut().chain(&mut layer.values).for_each(|head| head.truncate(floats));
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.truncate(0);
    }

    /// Bytes of keys and values held now: what attention reads for the next token at full depth.
    pub fn bytes(&self) -> u64 {
        let heads = self.layers.iter().flat_map(|layer| layer.keys.iter().chain(&layer.values));
        heads.map(|head| size_of_val(&head[..]) as u64).sum()
    }

    pub(crate) fn layer_mut(&mut self, layer: usize) -> &mut LayerCache {
        &mut self.layers[layer]
    }
}

impl LayerCache {
    pub(crate) fn len(&self) -> usize {
        self.keys[0].len() / self.head_dim // a valid config has a head
    }

    /// Makes sure of the memory for all positions: [`append`](Self::append) could not refuse.
    ///
    /// # Errors
    /// If there is not so much.
    pub(crate) fn reserve(&mut self) -> Result<()> {
        let positions = self.capacity;
        let too_much = || Error::CacheMemory { positions };
        let floats = positions.checked_mul(self.head_dim).ok_or_else(too_much)?;
        let mut heads = self.keys.iter_mut().chain(&mut self.values);
        heads.try_for_each(|head| head.try_reserve_exact(floats - head.len()).map_err(|_| too_much()))
    }

    /// Appends positions; `keys` and `values` are `[tokens, kv_heads, head_dim]`.
    ///
    /// # Panics
    /// If they do not fit: [`Llama::forward`](crate::Llama::forward) asks first.
    pub(crate) fn append(&mut self, keys: &[f32], values: &[f32]) {
        let width = self.keys.len() * self.head_dim;
        assert!(self.len() + keys.len() / width <= self.capacity, "the cache is full");
        for (heads, new) in [(&mut self.keys, keys), (&mut self.values, values)] {
            for token in new.chunks_exact(width) {
                let rows = token.chunks_exact(self.head_dim);
                heads.iter_mut().zip(rows).for_each(|(head, row)| head.extend_from_slice(row));
            }
        }
    }

    /// The first `positions` keys and values of one head, `[positions, head_dim]` each.
    pub(crate) fn head(&self, head: usize, positions: usize) -> (&[f32], &[f32]) {
        let floats = positions * self.head_dim;
        (&self.keys[head][..floats], &self.values[head][..floats])
    }
}
