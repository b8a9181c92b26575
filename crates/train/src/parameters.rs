//! All weights in one buffer, and where each lies.

use offramp_model::{Config, TensorSpec};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use std::ops::Range;

/// Where each tensor lies in the one buffer: offsets in floats, in the order of [`Config::tensors`].
#[derive(Clone, Debug)]
pub struct Layout {
    specs: Vec<TensorSpec>,
    ranges: Vec<Range<usize>>,
    /// `[vocab, hidden]`
    pub embed_tokens: Range<usize>,
    /// One for each layer.
    pub layers: Vec<LayerLayout>,
    /// `[hidden]`
    pub norm: Range<usize>,
    /// `[vocab, hidden]`; the embedding's where the config ties them.
    pub lm_head: Range<usize>,
}

/// Where one layer's tensors lie.
#[derive(Clone, Debug)]
pub struct LayerLayout {
    /// `[hidden]`
    pub input_layernorm: Range<usize>,
    /// `[heads · head_dim, hidden]`
    pub q_proj: Range<usize>,
    /// `[kv_heads · head_dim, hidden]`
    pub k_proj: Range<usize>,
    /// `[kv_heads · head_dim, hidden]`
    pub v_proj: Range<usize>,
    /// `[hidden, heads · head_dim]`
    pub o_proj: Range<usize>,
    /// `[hidden]`
    pub post_attention_layernorm: Range<usize>,
    /// `[intermediate, hidden]`
    pub gate_proj: Range<usize>,
    /// `[intermediate, hidden]`
    pub up_proj: Range<usize>,
    /// `[hidden, intermediate]`
    pub down_proj: Range<usize>,
}

impl Layout {
    /// The layout of a model's weights.
    pub fn new(config: &Config) -> Self {
        let specs = config.tensors();
        let mut end = 0;
        let ranges: Vec<Range<usize>> = specs
            .iter()
            .map(|spec| {
                let start = end;
                end += spec.len();
                start..end
            })
            .collect();
        let find = |name: &str| {
            let index = specs.iter().position(|spec| spec.name == name);
            ranges[index.expect("a tensor of every Llama")].clone()
        };
        let layer = |l: usize| {
            let find = |name: &str| find(&format!("model.layers.{l}.{name}.weight"));
            LayerLayout {
                input_layernorm: find("input_layernorm"),
                q_proj: find("self_attn.q_proj"),
                k_proj: find("self_attn.k_proj"),
                v_proj: find("self_attn.v_proj"),
                o_proj: find("self_attn.o_proj"),
                post_attention_layernorm: find("post_attention_layernorm"),
                gate_proj: find("mlp.gate_proj"),
                up_proj: find("mlp.up_proj"),
                down_proj: find("mlp.down_proj"),
            }
        };
        let embed_tokens = find("model.embed_tokens.weight");
        let tied = config.tie_word_embeddings;
        Self {
            layers: (0..config.num_hidden_layers).map(layer).collect(),
            norm: find("model.norm.weight"),
            lm_head: if tied { embed_tokens.clone() } else { find("lm_head.weight") },
            embed_tokens,
            specs,
            ranges,
        }
    }

    /// Floats in all.
    pub fn len(&self) -> usize {
        self.ranges.last().map_or(0, |range| range.end)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Each tensor and its place.
    pub fn tensors(&self) -> impl Iterator<Item = (&TensorSpec, Range<usize>)> {
        self.specs.iter().zip(self.ranges.iter().cloned())
    }

    /// A tensor's place.
    ///
    /// # Panics
    /// If the model has no such tensor.
    pub fn range(&self, name: &str) -> Range<usize> {
        let index = self.specs.iter().position(|spec| spec.name == name).expect("a tensor of this model");
        self.ranges[index].clone()
    }

    /// Random weights: normal with standard deviation `std`, norms 1. The two matrices that write into
    /// the residual stream are smaller by √(2L), so that its variance does not grow with depth (Radford
    /// et al. 2019). The same seed gives the same weights.
    pub fn random(&self, std: f64, seed: u64) -> Vec<f32> {
        let mut weights = vec![0.0; self.len()];
        let residual = 1.0 / (2.0 * self.layers.len() as f64).sqrt();
        for (stream, (spec, range)) in self.tensors().enumerate() {
            let values = &mut weights[range];
            if spec.shape.len() == 1 {
                values.fill(1.0);
                continue;
            }
            let writes_residual = spec.name.contains("o_proj") || spec.name.contains("down_proj");
            let std = if writes_residual { std * residual } else { std };
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            random.set_stream(stream as u64);
            values.iter_mut().for_each(|value| *value = (std * normal(&mut random)) as f32);
        }
        weights
    }
}

/// A standard normal number (Box and Muller 1958).
fn normal(random: &mut ChaCha8Rng) -> f64 {
    let (u, v): (f64, f64) = (random.random(), random.random());
    (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}
