//! All weights in one buffer, in the order of the checkpoint. Gradients and moments have the same layout.
//!
//! The order is that of [`Config::layer_tensors`], which makes neighbours of matrices that read the same
//! input (q, k and v, and gate and up) and of their biases. Each group is then one larger matrix without
//! being copied.

mod layer;

pub(crate) use layer::{LayerGradients, LayerWeights, LinearGradients, LinearWeights};

use layer::LayerPlaces;
use offramp_kernels::rayon::prelude::*;
use offramp_model::{Config, TensorKind, TensorSpec, exit_adapter_tensors};
use rand::rngs::ChaCha8Rng;
use rand::{Rng, SeedableRng};
use std::f64::consts::TAU;
use std::ops::Range;

/// Values that are drawn from one key of the generator.
const CHUNK: usize = 1 << 14;

/// Where each tensor stands in the buffer.
#[derive(Clone, Debug)]
pub struct Layout {
    tensors: Vec<(TensorSpec, Range<usize>)>,
    layer: LayerPlaces,
    layers: usize,
    model_tensors: usize, // the tensors after these are heads of exits
    model_len: usize,
    len: usize,
    adapters: Vec<usize>, // exits that have one
}

impl Layout {
    /// The layout of a model.
    pub fn new(config: &Config) -> Self {
        let mut len = 0;
        let place = |spec: TensorSpec| {
            let range = len..len + spec.len();
            len = range.end;
            (spec, range)
        };
        let tensors: Vec<_> = config.tensors().into_iter().map(place).collect();
        let layer = LayerPlaces::new(&config.layer_tensors());
        let (model_tensors, layers) = (tensors.len(), config.num_hidden_layers);
        Self { tensors, layer, layers, model_tensors, model_len: len, len, adapters: Vec::new() }
    }

    /// The same, and after the model's tensors a norm and an LM head for each exit but the last. Only
    /// training has them.
    #[must_use]
    pub fn with_own_heads(mut self) -> Self {
        let [vocab, hidden] = self.tensors[0].0.shape[..] else { unreachable!("the embedding is a matrix") };
        for exit_layer in 1..self.layers {
            for (part, shape) in [("norm", vec![hidden]), ("lm_head", vec![vocab, hidden])] {
                let spec = TensorSpec::new(format!("exits.{exit_layer}.{part}.weight"), &shape);
                let range = self.len..self.len + spec.len();
                self.len = range.end;
                self.tensors.push((spec, range));
            }
        }
        self
    }

    /// The same, and after the model's tensors a norm and an adapter for each of these exits. Then nothing
    /// else learns.
    #[must_use]
    pub fn with_exit_adapters(mut self, exits: &[usize], rank: usize) -> Self {
        let [_, hidden] = self.tensors[0].0.shape[..] else { unreachable!("the embedding is a matrix") };
        for &exit_layer in exits {
            for spec in exit_adapter_tensors(exit_layer, hidden, rank) {
                let range = self.len..self.len + spec.len();
                self.len = range.end;
                self.tensors.push((spec, range));
            }
        }
        self.adapters = exits.to_vec();
        self
    }

    /// Where the norm, `down_proj` and `up_proj` of an exit's adapter stand, if it has one.
    pub(crate) fn adapter(&self, exit_layer: usize) -> Option<[Range<usize>; 3]> {
        let index = self.adapters.iter().position(|&exit| exit == exit_layer)?;
        let first = self.model_tensors + 3 * index;
        Some([0, 1, 2].map(|part| self.tensors[first + part].1.clone()))
    }

    /// Whether only adapters of exits learn.
    pub(crate) fn base_is_frozen(&self) -> bool {
        !self.adapters.is_empty()
    }

    /// Values of the model's tensors.
    pub(crate) fn model_len(&self) -> usize {
        self.model_len
    }

    /// The tensors that the model lacks: norms, heads and adapters of exits.
    pub(crate) fn own_heads(&self) -> impl Iterator<Item = (&TensorSpec, Range<usize>)> {
        self.tensors().skip(self.model_tensors)
    }

    /// Where the norm and the LM head of an exit stand: the model's, unless the exit has its own.
    pub(crate) fn exit_head(&self, exit_layer: usize) -> [Range<usize>; 2] {
        if self.base_is_frozen() {
            let norm = self.adapter(exit_layer).map_or_else(|| self.norm(), |[norm, ..]| norm);
            return [norm, self.lm_head()];
        }
        let first = 2 * exit_layer.saturating_sub(1);
        match self.tensors[self.model_tensors..].get(first..first + 2) {
            Some([norm, lm_head]) => [norm.1.clone(), lm_head.1.clone()],
            _ => [self.norm(), self.lm_head()],
        }
    }

    /// Values of the whole buffer.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none; never, for a config that was validated.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Every tensor and where it stands, in the checkpoint's order.
    pub fn tensors(&self) -> impl Iterator<Item = (&TensorSpec, Range<usize>)> {
        self.tensors.iter().map(|(spec, range)| (spec, range.clone()))
    }

    /// Where the embedding stands, `[vocab, hidden]`.
    pub(crate) fn embed_tokens(&self) -> Range<usize> {
        self.tensors[0].1.clone()
    }

    /// Where the final norm stands, `[hidden]`.
    pub(crate) fn norm(&self) -> Range<usize> {
        let start = self.layer(self.layers).start;
        start..start + self.layer.hidden()
    }

    /// Where the LM head stands, `[vocab, hidden]`: after the final norm, or in the embedding if tied.
    pub(crate) fn lm_head(&self) -> Range<usize> {
        let untied = self.norm().end..self.model_len;
        if untied.is_empty() { self.embed_tokens() } else { untied }
    }

    /// How many layers there are.
    pub(crate) fn layers(&self) -> usize {
        self.layers
    }

    /// Where the layers stand, all of them.
    pub(crate) fn all_layers(&self) -> Range<usize> {
        self.layer(0).start..self.norm().start
    }

    /// Where layer `index` stands; for the number of layers, what would be the next.
    pub(crate) fn layer(&self, index: usize) -> Range<usize> {
        let start = self.embed_tokens().end + index * self.layer.len;
        start..start + self.layer.len
    }

    /// The weights of layer `index` in `values`, a buffer of this layout.
    pub(crate) fn layer_weights<'a>(&self, values: &'a [f32], index: usize) -> LayerWeights<'a> {
        self.layer.weights(&values[self.layer(index)])
    }

    /// The gradients of a layer in its values.
    pub(crate) fn layer_gradients<'a>(&self, values: &'a mut [f32]) -> LayerGradients<'a> {
        self.layer.gradients(values)
    }
}

/// The first weights of a model: matrices are normal with mean 0 and deviation `range`, norms are 1, biases
/// 0.
///
/// `o_proj` and `down_proj` write to the residual stream. Their deviation is `range / √(2L)`, so the stream's
/// variance does not grow with the depth (GPT-2, Radford et al. 2019, section 2.3). The weights of a sub-norm
/// before them are `range`. At 1 the input of `o_proj` and `down_proj` would have a mean square of 1, the
/// layers would add far more than the embedding has, and the first gradients would be ten times as large
/// (`docs/low-bit.md`).
///
/// The same seed gives the same values, however many threads draw them.
pub fn initial(layout: &Layout, range: f64, seed: u64) -> Vec<f32> {
    let mut values = vec![0.0; layout.len()];
    let residual = range / (2.0 * layout.layers as f64).sqrt();
    for (index, (spec, place)) in layout.tensors().enumerate() {
        let values = &mut values[place];
        match spec.kind() {
            TensorKind::Matrix => (),
            TensorKind::Bias => continue,
            TensorKind::Norm => {
                values.fill(if spec.name.contains("_sub_norm") { range as f32 } else { 1.0 });
                continue;
            }
        }
        let writes_residual = spec.name.ends_with("o_proj.weight") || spec.name.ends_with("down_proj.weight");
        let deviation = if writes_residual { residual } else { range };
        values.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, values)| {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&seed.to_le_bytes());
            key[8..16].copy_from_slice(&(index as u64).to_le_bytes());
            key[16..24].copy_from_slice(&(chunk as u64).to_le_bytes());
            key[24..].copy_from_slice(b"weights\0");
            fill_normal(&mut ChaCha8Rng::from_seed(key), deviation, values);
        });
    }
    values
}

/// The first values of the `down_proj` of an exit's adapter: normal, with mean 0 and deviation `range`.
pub(crate) fn fill_adapter(values: &mut [f32], range: f64, seed: u64, exit_layer: usize) {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&(exit_layer as u64).to_le_bytes());
    key[24..].copy_from_slice(b"adapter\0");
    fill_normal(&mut ChaCha8Rng::from_seed(key), range, values);
}

/// Normal values in pairs (Box and Muller 1958), written out so that no library's version changes a run.
fn fill_normal(random: &mut impl Rng, deviation: f64, values: &mut [f32]) {
    let mut uniform = || ((random.next_u64() >> 11) as f64 + 0.5) / (1u64 << 53) as f64; // in (0, 1)
    for pair in values.chunks_mut(2) {
        let radius = deviation * (-2.0 * uniform().ln()).sqrt();
        let (sin, cos) = (TAU * uniform()).sin_cos();
        let both = [(radius * cos) as f32, (radius * sin) as f32];
        pair.copy_from_slice(&both[..pair.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Recipe;
    use std::path::Path;

    fn layout(tied: bool) -> Layout {
        layout_with(&format!("tie_word_embeddings = {tied}"))
    }

    fn layout_with(keys: &str) -> Layout {
        let text = format!(
            "[data]\ncorpus = \"c\"\n[layer_dropout]\nshape = \"none\"\n[model]\nhidden_size = 48\n\
             intermediate_size = 40\nnum_hidden_layers = 3\nnum_attention_heads = 6\nnum_key_value_heads = 2\n\
             {keys}"
        );
        let recipe = Recipe::from_toml(&text, Path::new("r.toml")).unwrap();
        Layout::new(&recipe.config(500, None).unwrap())
    }

    fn named<'a>(layout: &Layout, values: &'a [f32], name: &str) -> &'a [f32] {
        let (_, range) = layout.tensors().find(|(spec, _)| spec.name == name).expect("such a tensor");
        &values[range]
    }

    #[test]
    fn groups_are_the_tensors_they_are_made_of() {
        for tied in [false, true] {
            let layout = layout(tied);
            assert_eq!(layout.layers, 3);
            let values: Vec<f32> = (0..layout.len()).map(|i| i as f32).collect();
            for index in 0..3 {
                let layer = layout.layer_weights(&values, index);
                let part =
                    |name: &str| named(&layout, &values, &format!("model.layers.{index}.{name}.weight"));
                let joined = |names: [&str; 2]| names.map(part).concat();
                assert_eq!(layer.input_layernorm, part("input_layernorm"));
                let qkv =
                    [joined(["self_attn.q_proj", "self_attn.k_proj"]), part("self_attn.v_proj").to_vec()];
                assert_eq!(layer.qkv_proj.weight, qkv.concat());
                assert_eq!(layer.o_proj.weight, part("self_attn.o_proj"));
                assert_eq!(layer.post_attention_layernorm, part("post_attention_layernorm"));
                assert_eq!(layer.gate_up_proj.weight, joined(["mlp.gate_proj", "mlp.up_proj"]));
                assert_eq!(layer.down_proj.weight, part("mlp.down_proj"));
                assert!(layer.qkv_proj.bias.is_empty() && layer.q_norm.is_empty());
            }
            assert_eq!(&values[layout.norm()], named(&layout, &values, "model.norm.weight"));
            let head = if tied { "model.embed_tokens.weight" } else { "lm_head.weight" };
            assert_eq!(&values[layout.lm_head()], named(&layout, &values, head));
        }
    }

    #[test]
    fn biases_and_norms_of_heads_are_groups_of_their_own() {
        let biased = layout_with("attention_bias = true\nmlp_bias = true");
        let normed = layout_with("model_type = \"qwen3\"");
        for layout in [biased, normed] {
            let values: Vec<f32> = (0..layout.len()).map(|i| i as f32).collect();
            let layer = layout.layer_weights(&values, 2);
            let groups = [
                (
                    layer.qkv_proj.bias,
                    &["self_attn.q_proj.bias", "self_attn.k_proj.bias", "self_attn.v_proj.bias"][..],
                ),
                (layer.o_proj.bias, &["self_attn.o_proj.bias"]),
                (layer.gate_up_proj.bias, &["mlp.gate_proj.bias", "mlp.up_proj.bias"]),
                (layer.down_proj.bias, &["mlp.down_proj.bias"]),
                (layer.q_norm, &["self_attn.q_norm.weight"]),
                (layer.k_norm, &["self_attn.k_norm.weight"]),
            ];
            let mut found = 0;
            for (group, names) in groups {
                let tensors = layout.tensors().filter(|(spec, _)| {
                    names.iter().any(|name| spec.name == format!("model.layers.2.{name}"))
                });
                let expected: Vec<f32> = tensors.flat_map(|(_, range)| values[range].to_vec()).collect();
                assert_eq!(group, expected, "{names:?}");
                found += usize::from(!group.is_empty());
            }
            assert!(found >= 2);
            let mut gradients = values.clone();
            let len: usize = layout.all_layers().len() / 3;
            let layer = layout.layer_gradients(&mut gradients[layout.layer(2)]);
            let all = [layer.qkv_proj, layer.o_proj, layer.gate_up_proj, layer.down_proj];
            let linear: usize = all.iter().map(|linear| linear.weight.len() + linear.bias.len()).sum();
            let norms = layer.input_layernorm.len() + layer.post_attention_layernorm.len();
            assert_eq!(
                linear + norms + layer.q_norm.len() + layer.k_norm.len(),
                len,
                "every value of the layer"
            );
        }
    }

    #[test]
    fn first_weights_have_the_deviation_they_should() {
        let layout = layout_with("bit_linear = \"bitskip-v1\"");
        let values = initial(&layout, 0.02, 7);
        assert_eq!(values, initial(&layout, 0.02, 7));
        assert_ne!(values, initial(&layout, 0.02, 8));
        for (spec, range) in layout.tensors() {
            let values = &values[range];
            let mean = |f: fn(f64) -> f64| {
                values.iter().map(|&v| f(f64::from(v))).sum::<f64>() / values.len() as f64
            };
            if spec.name.contains("_sub_norm") {
                assert!(values.iter().all(|&v| v == 0.02), "{}", spec.name);
                continue;
            }
            if spec.name.ends_with("norm.weight") {
                assert!(values.iter().all(|&v| v == 1.0), "{}", spec.name);
                continue;
            }
            let residual = spec.name.ends_with("o_proj.weight") || spec.name.ends_with("down_proj.weight");
            let deviation = if residual { 0.02 / 6f64.sqrt() } else { 0.02 };
            let n = values.len() as f64;
            assert!(mean(|v| v).abs() < 5.0 * deviation / n.sqrt(), "{}", spec.name);
            let found = mean(|v| v * v).sqrt();
            assert!((found / deviation - 1.0).abs() < 5.0 / (2.0 * n).sqrt(), "{}: {found}", spec.name);
        }
    }
}
