//! A tensor by its name and shape, and what it is for.

/// The token embedding's name.
pub(crate) const EMBEDDING: &str = "model.embed_tokens.weight";
/// The LM head's name.
pub(crate) const HEAD: &str = "lm_head.weight";
/// The final norm's name.
pub(crate) const NORM: &str = "model.norm.weight";

/// What a tensor is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TensorKind {
    /// `[out_features, in_features]`: multiplied, may be quantized, decays in training.
    Matrix,
    /// `[out_features]`: added to a product.
    Bias,
    /// `[width]`: the weight of an RMSNorm.
    Norm,
}

/// A tensor that a model has.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TensorSpec {
    /// Hugging Face's name, `model.layers.0.self_attn.q_proj.weight`.
    pub name: String,
    /// `[out_features, in_features]` for matrices.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// A tensor of this name and shape.
    pub fn new(name: impl Into<String>, shape: &[usize]) -> Self {
        Self { name: name.into(), shape: shape.to_vec() }
    }

    /// What a tensor of a model is for, by its shape and its name.
    pub fn kind(&self) -> TensorKind {
        match self.shape.len() {
            0 | 1 if self.name.ends_with(".bias") => TensorKind::Bias,
            0 | 1 => TensorKind::Norm,
            _ => TensorKind::Matrix,
        }
    }

    /// How many values it holds.
    ///
    /// # Panics
    /// If that is no `usize`: no such tensor is in a config that
    /// [`Config::validate`](crate::Config::validate) accepts.
    pub fn len(&self) -> usize {
        let product = self.shape.iter().try_fold(1usize, |product, size| product.checked_mul(*size));
        product.expect("a tensor's length fits a usize")
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.shape.contains(&0)
    }

    /// Whether it is one of a layer's.
    pub(crate) fn is_in_layer(&self) -> bool {
        self.name.starts_with("model.layers.")
    }

    /// Whether it is the token embedding.
    pub(crate) fn is_embedding(&self) -> bool {
        self.name == EMBEDDING
    }
}
