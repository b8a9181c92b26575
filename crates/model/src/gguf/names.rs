//! llama.cpp's names of tensors, and the order in which it keeps rows.

use crate::config::{Config, ModelType};
use crate::format::Format;
use crate::tensor::{EMBEDDING, HEAD, NORM, TensorKind, TensorSpec};
use offramp_gguf::TensorType;

/// The modules of a layer: llama.cpp's name, Hugging Face's.
const MODULES: [(&str, &str); 13] = [
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("attn_sub_norm", "self_attn.attn_sub_norm"),
    ("attn_output", "self_attn.o_proj"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_sub_norm", "mlp.ffn_sub_norm"),
    ("ffn_down", "mlp.down_proj"),
];
/// The tensors beside the layers.
const OTHERS: [(&str, &str); 3] =
    [("token_embd.weight", EMBEDDING), ("output_norm.weight", NORM), ("output.weight", HEAD)];

/// Factors of the rotary frequencies, which the config has as parameters.
pub(crate) const ROPE_FREQS: &str = "rope_freqs.weight";

/// Keys of ours, each with JSON: the `early_exit` and the `rope_scaling` of the config.
pub(crate) const EARLY_EXIT: &str = "offramp.early_exit";
pub(crate) const ROPE_SCALING: &str = "offramp.rope_scaling";

/// Where a row of the model is in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum RowOrder {
    /// In its own place.
    #[default]
    Own,
    /// The two halves of each head's rows alternate: llama.cpp rotates neighbours, transformers halves.
    Halves {
        /// Rows of a head.
        head_dim: usize,
    },
}

impl RowOrder {
    /// The file's row that is this row of the model.
    pub(crate) fn place(self, row: usize) -> usize {
        match self {
            Self::Own => row,
            Self::Halves { head_dim } => {
                let (head, within) = (row / head_dim, row % head_dim);
                let (half, pair) = (within / (head_dim / 2), within % (head_dim / 2));
                head * head_dim + 2 * pair + half
            }
        }
    }

    /// The model's row that is this row of the file.
    pub(crate) fn origin(self, row: usize) -> usize {
        match self {
            Self::Own => row,
            Self::Halves { head_dim } => {
                let (head, within) = (row / head_dim, row % head_dim);
                head * head_dim + within % 2 * (head_dim / 2) + within / 2
            }
        }
    }

    /// That of a tensor of the model.
    pub(crate) fn of(config: &Config, tensor: &str) -> Self {
        let alternates =
            matches!(config.family.model_type, ModelType::Llama | ModelType::Mistral | ModelType::SmolLm3)
                && config.bit_linear.is_none();
        let rotated = [".q_proj.", ".k_proj."].iter().any(|module| tensor.contains(module));
        match alternates && rotated {
            true => Self::Halves { head_dim: config.head_dim },
            false => Self::Own,
        }
    }
}

/// The model's name of a tensor and the order of its rows; none for one that the model does not need.
pub(crate) fn places(config: &Config) -> impl Fn(&str) -> Option<(String, RowOrder)> {
    let config = config.clone();
    move |name| {
        if name == ROPE_FREQS {
            return None;
        }
        let tensor = hugging_face(name).unwrap_or_else(|| name.to_owned());
        let order = RowOrder::of(&config, &tensor);
        Some((tensor, order))
    }
}

/// Hugging Face's name.
fn hugging_face(name: &str) -> Option<String> {
    if let Some((_, theirs)) = OTHERS.iter().find(|other| other.0 == name) {
        return Some((*theirs).to_owned());
    }
    let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    let (module, kind) = rest.rsplit_once('.')?;
    let (_, module) = MODULES.iter().find(|known| known.0 == module)?;
    // Of a ternary matrix: what its values are multiplied by.
    let kind = if kind == "scale" { "weight_scale" } else { kind };
    Some(format!("model.layers.{layer}.{module}.{kind}"))
}

/// llama.cpp's name of a tensor of the model.
pub(crate) fn llama_cpp(name: &str) -> Option<String> {
    if let Some((ours, _)) = OTHERS.iter().find(|other| other.1 == name) {
        return Some((*ours).to_owned());
    }
    let (layer, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let (module, kind) = rest.rsplit_once('.')?;
    let (module, _) = MODULES.iter().find(|known| known.1 == module)?;
    Some(format!("blk.{layer}.{module}.{kind}"))
}

/// The format in which a tensor is computed with unless another is asked for: one that can have its codes and
/// scales, else one whose codes have about as many bits.
pub(crate) fn nearest_format(kind: TensorType, spec: &TensorSpec) -> Format {
    use TensorType::{BF16, F16, F32, Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0, TQ1_0, TQ2_0};
    if spec.kind() != TensorKind::Matrix {
        return Format::F32;
    }
    match kind {
        F32 | F16 => Format::F32,
        BF16 => Format::Bf16,
        Q8_0 | Q5_0 => Format::Q8_0,
        Q4_0 | TQ1_0 | TQ2_0 => Format::Q4_0,
        Q6_K | Q5_K | Q5_1 => Format::Int8,
        Q4_1 | Q4_K => Format::Int4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_go_there_and_back() {
        let order = RowOrder::Halves { head_dim: 6 };
        let places: Vec<_> = (0..12).map(|row| order.place(row)).collect();
        assert_eq!(places, [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]);
        assert!((0..12).all(|row| order.origin(order.place(row)) == row));
    }

    #[test]
    fn names_go_there_and_back() {
        for (theirs, ours) in [
            ("model.layers.11.self_attn.q_proj.bias", "blk.11.attn_q.bias"),
            ("model.layers.0.mlp.down_proj.weight", "blk.0.ffn_down.weight"),
            (EMBEDDING, "token_embd.weight"),
            (HEAD, "output.weight"),
        ] {
            assert_eq!(llama_cpp(theirs).as_deref(), Some(ours));
            assert_eq!(hugging_face(ours).as_deref(), Some(theirs));
        }
        assert_eq!(hugging_face("blk.0.ffn_gate_exps.weight"), None);
    }
}
