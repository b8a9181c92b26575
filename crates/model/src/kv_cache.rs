//! Keys and values of the positions so far, layer by layer.

/// The cache that [`Llama::forward`](crate::Llama::forward) appends to.
///
/// Every layer has its own length: after an early exit the layers beyond it hold fewer positions.
/// Memory is reserved for `capacity` positions and touched only as they come.
#[derive(Clone, Debug)]
pub struct KvCache {
    capacity: usize,
    layers: Vec<LayerCache>,
}

/// One layer's share. Keys and values are `[kv_heads, capacity, head_dim]`: a head's positions lie in
/// one stream.
#[derive(Clone, Debug)]
pub(crate) struct LayerCache {
    len: usize,
    capacity: usize,
    head_dim: usize,
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl KvCache {
    pub(crate) fn new(layers: usize, kv_heads: usize, head_dim: usize, capacity: usize) -> Self {
        let floats = kv_heads * capacity * head_dim;
        let layer =
            || LayerCache { len: 0, capacity, head_dim, keys: vec![0.0; floats], values: vec![0.0; floats] };
        Self { capacity, layers: (0..layers).map(|_| layer()).collect() }
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
        self.layers[layer].len
    }

    /// Whether no layer holds anything.
    pub fn is_empty(&self) -> bool {
        self.layers.iter().all(|layer| layer.len == 0)
    }

    /// Forgets every position from `len` on, in all layers; shorter layers stay as they are.
    pub fn truncate(&mut self, len: usize) {
        for layer in &mut self.layers {
            layer.len = layer.len.min(len);
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.truncate(0);
    }

    /// Bytes of keys and values held now: what attention reads for the next token at full depth.
    pub fn bytes(&self) -> u64 {
        let held = |layer: &LayerCache| layer.keys.len() / layer.capacity.max(1) * layer.len;
        self.layers.iter().map(|layer| (2 * size_of::<f32>() * held(layer)) as u64).sum()
    }

    pub(crate) fn layer_mut(&mut self, layer: usize) -> &mut LayerCache {
        &mut self.layers[layer]
    }
}

impl LayerCache {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Appends positions; `keys` and `values` are `[tokens, kv_heads, head_dim]`.
    ///
    /// # Panics
    /// If they do not fit: [`Llama::forward`](crate::Llama::forward) asks first.
    pub(crate) fn append(&mut self, keys: &[f32], values: &[f32]) {
        let kv_heads = self.keys.len() / (self.capacity * self.head_dim);
        let width = kv_heads * self.head_dim;
        for (keys, values) in keys.chunks_exact(width).zip(values.chunks_exact(width)) {
            assert!(self.len < self.capacity, "the cache is full");
            for head in 0..kv_heads {
                let to = (head * self.capacity + self.len) * self.head_dim;
                let from = head * self.head_dim..(head + 1) * self.head_dim;
                self.keys[to..][..self.head_dim].copy_from_slice(&keys[from.clone()]);
                self.values[to..][..self.head_dim].copy_from_slice(&values[from]);
            }
            self.len += 1;
        }
    }

    /// The first `positions` keys and values of one head, `[positions, head_dim]` each.
    pub(crate) fn head(&self, head: usize, positions: usize) -> (&[f32], &[f32]) {
        let start = head * self.capacity * self.head_dim;
        let range = start..start + positions * self.head_dim;
        (&self.keys[range.clone()], &self.values[range])
    }
}
