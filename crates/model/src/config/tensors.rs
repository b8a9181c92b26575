//! The list of a model's tensors. Loading, saving, random weights, quantizing, training's buffer and the
//! count of parameters all follow it.

use super::Config;
use crate::tensor::{EMBEDDING, HEAD, NORM, TensorKind, TensorSpec};

/// A tensor that each layer of a model has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerTensor {
    /// The module that it belongs to, by its name within the layer: `self_attn.q_proj`.
    pub module: &'static str,
    /// What it is of that module.
    pub kind: TensorKind,
    /// Its shape.
    pub shape: Vec<usize>,
}

impl LayerTensor {
    /// The tensor in a layer.
    pub fn spec(&self, layer: usize) -> TensorSpec {
        let end = if self.kind == TensorKind::Bias { "bias" } else { "weight" };
        TensorSpec::new(format!("model.layers.{layer}.{}.{end}", self.module), &self.shape)
    }
}

impl Config {
    /// The tensors of one layer, in the order of the file. Matrices that read the same input follow one
    /// another, and so do their biases: each group is one larger matrix, or one longer bias, without being
    /// copied.
    pub fn layer_tensors(&self) -> Vec<LayerTensor> {
        use TensorKind::{Bias, Matrix, Norm};
        let (hidden, inner) = (self.hidden_size, self.intermediate_size);
        let queries = self.num_attention_heads * self.head_dim;
        let keys = self.num_key_value_heads * self.head_dim;
        let (qkv_bias, mlp_bias) = (self.has_qkv_bias(), self.family.mlp_bias);
        let (qk_norm, sub_norm) = (self.has_qk_norm(), self.bit_linear.is_some());
        [
            (true, "input_layernorm", Norm, vec![hidden]),
            (true, "self_attn.q_proj", Matrix, vec![queries, hidden]),
            (true, "self_attn.k_proj", Matrix, vec![keys, hidden]),
            (true, "self_attn.v_proj", Matrix, vec![keys, hidden]),
            (qkv_bias, "self_attn.q_proj", Bias, vec![queries]),
            (qkv_bias, "self_attn.k_proj", Bias, vec![keys]),
            (qkv_bias, "self_attn.v_proj", Bias, vec![keys]),
            (qk_norm, "self_attn.q_norm", Norm, vec![self.head_dim]),
            (qk_norm, "self_attn.k_norm", Norm, vec![self.head_dim]),
            (sub_norm, "self_attn.attn_sub_norm", Norm, vec![queries]),
            (true, "self_attn.o_proj", Matrix, vec![hidden, queries]),
            (self.family.attention_bias, "self_attn.o_proj", Bias, vec![hidden]),
            (true, "post_attention_layernorm", Norm, vec![hidden]),
            (true, "mlp.gate_proj", Matrix, vec![inner, hidden]),
            (true, "mlp.up_proj", Matrix, vec![inner, hidden]),
            (mlp_bias, "mlp.gate_proj", Bias, vec![inner]),
            (mlp_bias, "mlp.up_proj", Bias, vec![inner]),
            (sub_norm, "mlp.ffn_sub_norm", Norm, vec![inner]),
            (true, "mlp.down_proj", Matrix, vec![hidden, inner]),
            (mlp_bias, "mlp.down_proj", Bias, vec![hidden]),
        ]
        .into_iter()
        .filter(|(present, ..)| *present)
        .map(|(_, module, kind, shape)| LayerTensor { module, kind, shape })
        .collect()
    }

    /// Every tensor of the model, in the order in which the layers use them; a tied head is not one.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let mut tensors = vec![self.embedding_tensor()];
        let layer = self.layer_tensors();
        for index in 0..self.num_hidden_layers {
            tensors.extend(layer.iter().map(|tensor| tensor.spec(index)));
        }
        tensors.push(self.norm_tensor());
        if !self.tie_word_embeddings {
            tensors.push(self.head_tensor());
        }
        tensors
    }

    /// The token embedding.
    pub(crate) fn embedding_tensor(&self) -> TensorSpec {
        TensorSpec::new(EMBEDDING, &[self.vocab_size, self.hidden_size])
    }

    /// The final norm.
    pub(crate) fn norm_tensor(&self) -> TensorSpec {
        TensorSpec::new(NORM, &[self.hidden_size])
    }

    /// The LM head, whether or not it is a tensor of its own.
    pub(crate) fn head_tensor(&self) -> TensorSpec {
        TensorSpec::new(HEAD, &[self.vocab_size, self.hidden_size])
    }

    /// Values of all tensors; `None` if they cannot be counted.
    pub(super) fn checked_parameter_count(&self) -> Option<u64> {
        let values = |shape: &[usize]| shape.iter().try_fold(1u64, |all, &size| all.checked_mul(size as u64));
        let add = |all: u64, shape: &[usize]| all.checked_add(values(shape)?);
        let layer = self.layer_tensors().iter().try_fold(0, |all, tensor| add(all, &tensor.shape))?;
        let mut beside = vec![self.embedding_tensor(), self.norm_tensor()];
        if !self.tie_word_embeddings {
            beside.push(self.head_tensor());
        }
        let layers = layer.checked_mul(self.num_hidden_layers as u64)?;
        beside.iter().try_fold(layers, |all, tensor| add(all, &tensor.shape))
    }
}
