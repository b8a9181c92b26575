//! One layer's groups of tensors, and where they stand in it.

use offramp_model::{LayerTensor, TensorKind};
use std::ops::Range;

/// Where the groups of tensors stand in a layer, counted from its first value. A group that a model lacks is
/// empty.
#[derive(Clone, Debug, Default)]
pub(super) struct LayerPlaces {
    input_layernorm: Range<usize>,
    qkv_proj: LinearPlaces,
    q_norm: Range<usize>,
    k_norm: Range<usize>,
    attn_sub_norm: Range<usize>,
    o_proj: LinearPlaces,
    post_attention_layernorm: Range<usize>,
    gate_up_proj: LinearPlaces,
    ffn_sub_norm: Range<usize>,
    down_proj: LinearPlaces,
    pub(super) len: usize,
}

/// Where matrices that read the same input stand, and their biases.
#[derive(Clone, Debug, Default)]
struct LinearPlaces {
    weight: Range<usize>,
    bias: Range<usize>,
}

/// One layer's weights.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LayerWeights<'a> {
    pub(crate) input_layernorm: &'a [f32],          // [hidden]
    pub(crate) qkv_proj: LinearWeights<'a>,         // [(heads + 2 · kv_heads) · head_dim, hidden]
    pub(crate) q_norm: &'a [f32],                   // [head_dim], or empty
    pub(crate) k_norm: &'a [f32],                   // as `q_norm`
    pub(crate) attn_sub_norm: &'a [f32],            // [heads · head_dim], or empty
    pub(crate) o_proj: LinearWeights<'a>,           // [hidden, heads · head_dim]
    pub(crate) post_attention_layernorm: &'a [f32], // [hidden]
    pub(crate) gate_up_proj: LinearWeights<'a>,     // [2 · intermediate, hidden]
    pub(crate) ffn_sub_norm: &'a [f32],             // [intermediate], or empty
    pub(crate) down_proj: LinearWeights<'a>,        // [hidden, intermediate]
}

/// Matrices that read the same input, one after the other, and their biases.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinearWeights<'a> {
    pub(crate) weight: &'a [f32], // [out_features, in_features]
    pub(crate) bias: &'a [f32],   // [out_features], or empty
}

/// One layer's gradients, shaped as [`LayerWeights`].
#[derive(Debug)]
pub(crate) struct LayerGradients<'a> {
    pub(crate) input_layernorm: &'a mut [f32],
    pub(crate) qkv_proj: LinearGradients<'a>,
    pub(crate) q_norm: &'a mut [f32],
    pub(crate) k_norm: &'a mut [f32],
    pub(crate) attn_sub_norm: &'a mut [f32],
    pub(crate) o_proj: LinearGradients<'a>,
    pub(crate) post_attention_layernorm: &'a mut [f32],
    pub(crate) gate_up_proj: LinearGradients<'a>,
    pub(crate) ffn_sub_norm: &'a mut [f32],
    pub(crate) down_proj: LinearGradients<'a>,
}

/// The gradients of [`LinearWeights`].
#[derive(Debug)]
pub(crate) struct LinearGradients<'a> {
    pub(crate) weight: &'a mut [f32],
    pub(crate) bias: &'a mut [f32],
}

impl LayerPlaces {
    /// The places of a layer's tensors, in the order of their list.
    pub(super) fn new(tensors: &[LayerTensor]) -> Self {
        let mut places = Self::default();
        for tensor in tensors {
            let start = places.len;
            places.len += tensor.shape.iter().product::<usize>();
            let end = places.len;
            let group = places.group(tensor);
            let start = if group.start < group.end { group.start } else { start };
            *group = start..end;
        }
        places
    }

    /// The group of a tensor.
    fn group(&mut self, tensor: &LayerTensor) -> &mut Range<usize> {
        let linear = match tensor.module {
            "input_layernorm" => return &mut self.input_layernorm,
            "post_attention_layernorm" => return &mut self.post_attention_layernorm,
            "self_attn.q_norm" => return &mut self.q_norm,
            "self_attn.k_norm" => return &mut self.k_norm,
            "self_attn.attn_sub_norm" => return &mut self.attn_sub_norm,
            "mlp.ffn_sub_norm" => return &mut self.ffn_sub_norm,
            "self_attn.q_proj" | "self_attn.k_proj" | "self_attn.v_proj" => &mut self.qkv_proj,
            "self_attn.o_proj" => &mut self.o_proj,
            "mlp.gate_proj" | "mlp.up_proj" => &mut self.gate_up_proj,
            "mlp.down_proj" => &mut self.down_proj,
            other => unreachable!("training knows no {other}"),
        };
        if tensor.kind == TensorKind::Bias { &mut linear.bias } else { &mut linear.weight }
    }

    /// Width of the residual stream.
    pub(super) fn hidden(&self) -> usize {
        self.input_layernorm.len()
    }

    /// The weights in the values of a layer.
    pub(super) fn weights<'a>(&self, values: &'a [f32]) -> LayerWeights<'a> {
        let at = |place: &Range<usize>| &values[place.clone()];
        let linear =
            |place: &LinearPlaces| LinearWeights { weight: at(&place.weight), bias: at(&place.bias) };
        LayerWeights {
            input_layernorm: at(&self.input_layernorm),
            qkv_proj: linear(&self.qkv_proj),
            q_norm: at(&self.q_norm),
            k_norm: at(&self.k_norm),
            attn_sub_norm: at(&self.attn_sub_norm),
            o_proj: linear(&self.o_proj),
            post_attention_layernorm: at(&self.post_attention_layernorm),
            gate_up_proj: linear(&self.gate_up_proj),
            ffn_sub_norm: at(&self.ffn_sub_norm),
            down_proj: linear(&self.down_proj),
        }
    }

    /// The gradients in the values of a layer.
    pub(super) fn gradients<'a>(&self, values: &'a mut [f32]) -> LayerGradients<'a> {
        let linear = |place: &LinearPlaces| [place.weight.clone(), place.bias.clone()];
        let [qkv_weight, qkv_bias] = linear(&self.qkv_proj);
        let [o_weight, o_bias] = linear(&self.o_proj);
        let [gate_up_weight, gate_up_bias] = linear(&self.gate_up_proj);
        let [down_weight, down_bias] = linear(&self.down_proj);
        let groups = values.get_disjoint_mut([
            self.input_layernorm.clone(),
            qkv_weight,
            qkv_bias,
            self.q_norm.clone(),
            self.k_norm.clone(),
            self.attn_sub_norm.clone(),
            o_weight,
            o_bias,
            self.post_attention_layernorm.clone(),
            gate_up_weight,
            gate_up_bias,
            self.ffn_sub_norm.clone(),
            down_weight,
            down_bias,
        ]);
        let [
            input_layernorm,
            qkv_weight,
            qkv_bias,
            q_norm,
            k_norm,
            attn_sub_norm,
            o_weight,
            o_bias,
            post_attention_layernorm,
            gate_up_weight,
            gate_up_bias,
            ffn_sub_norm,
            down_weight,
            down_bias,
        ] = groups.expect("groups of tensors do not overlap");
        LayerGradients {
            input_layernorm,
            qkv_proj: LinearGradients { weight: qkv_weight, bias: qkv_bias },
            q_norm,
            k_norm,
            attn_sub_norm,
            o_proj: LinearGradients { weight: o_weight, bias: o_bias },
            post_attention_layernorm,
            gate_up_proj: LinearGradients { weight: gate_up_weight, bias: gate_up_bias },
            ffn_sub_norm,
            down_proj: LinearGradients { weight: down_weight, bias: down_bias },
        }
    }
}
