//! The first layers of a model in a narrower format, which only draft.
//!
//! What they say is verified by the model itself, so that they may err: only speed depends on how often
//! (Georganas et al. 2025, "ML-SpecQD", drafts with a 4-bit copy). They read the model's own cache.

use crate::attention::Attention;
use crate::config::Config;
use crate::draft_head::Rows;
use crate::error::{Error, Result};
use crate::format::Format;
use crate::layer::{DecoderLayer, Mlp};
use crate::linear::Linear;
use crate::llama::Llama;
use crate::memory;
use crate::tensor::TensorSpec;
use offramp_kernels::ternary::InputQuantization;
use std::sync::Arc;

/// A copy of a model's first layers that only drafts; embedding, norm and head are the model's own.
#[derive(Clone, Debug)]
pub struct DraftLayers {
    model: u64, // whose layers they are copies of
    copy: Arc<Llama>,
}

impl DraftLayers {
    /// A number that no other copy of this process has; clones share it.
    pub fn id(&self) -> u64 {
        self.copy.id()
    }

    /// Whether they are copies of this model's layers.
    pub fn is_of(&self, model: &Llama) -> bool {
        self.model == model.id()
    }

    /// How many there are.
    pub fn layers(&self) -> usize {
        self.copy.config().num_hidden_layers
    }

    /// Their number format.
    pub fn format(&self) -> Format {
        self.copy.layers()[0].self_attn.q_proj.format() // there is a layer at least
    }

    /// The layers as a model of so much less depth.
    pub fn model(&self) -> &Arc<Llama> {
        &self.copy
    }

    /// Bytes of the copy: what the model does not have already.
    pub fn bytes(&self) -> u64 {
        self.copy.layers().iter().map(DecoderLayer::bytes).sum()
    }
}

/// Copies save reading where they have at most this share of the model's bits.
const WORTH_IT: f64 = 0.75;

impl Llama {
    /// The format of layers that draft if nobody names one: int4, which is read fastest. `None` where the
    /// model's own have few more bits.
    pub fn usual_draft_layers(&self) -> Option<Format> {
        let bits = |of: &dyn Fn(&Linear) -> usize| {
            let linears = self.layers().iter().flat_map(DecoderLayer::linears);
            linears.map(|linear| (linear.weights() * of(linear)) as f64).sum::<f64>()
        };
        let copy = bits(&|linear| linear.format().bits().min(Format::Int4.bits()));
        (copy <= WORTH_IT * bits(&|linear| linear.format().bits())).then_some(Format::Int4)
    }

    /// The first `layers` layers in `format`. A matrix that is in no more bits stays the model's own.
    ///
    /// # Errors
    /// If there are not so many layers, the format is ternary, or there is no memory for the copy.
    pub fn draft_layers(&self, layers: usize, format: Format) -> Result<DraftLayers> {
        self.config().check_exit_layer(layers)?;
        if format == Format::Ternary {
            return Err(Error::TernaryDraft);
        }
        let own = &self.layers()[..layers];
        let narrower = |linear: &&Linear| linear.format().bits() > format.bits();
        let weights: usize =
            own.iter().flat_map(DecoderLayer::linears).filter(narrower).map(|linear| linear.weights()).sum();
        memory::check("the layers that draft", (weights * format.bits() / 8) as u64)?;
        let narrow = |linear: &Linear| match narrower(&linear) {
            true => linear.recoded(format),
            false => Ok(linear.clone()),
        };
        let copies = own.iter().map(|layer| layer.with_linears(&narrow)).collect::<Result<_>>()?;
        let config = Config { num_hidden_layers: layers, ..self.config().clone() };
        Ok(DraftLayers { model: self.id(), copy: Arc::new(self.with_layers(config, copies)) })
    }

    /// The same model with layers in `format`, whose numbers are those that they have now, rounded.
    ///
    /// # Errors
    /// If the format is ternary, or there is no memory.
    pub fn with_layers_in(&self, format: Format) -> Result<Self> {
        if format == Format::Ternary {
            return Err(Error::TernaryDraft);
        }
        let layers = self.layers().iter().map(|layer| layer.with_linears(&|linear| linear.recoded(format)));
        Ok(self.with_layers(self.config().clone(), layers.collect::<Result<_>>()?))
    }
}

impl DecoderLayer {
    /// The same layer, with what `make` gives for its matrices.
    fn with_linears(&self, make: &dyn Fn(&Linear) -> Result<Linear>) -> Result<Self> {
        let Attention { q_proj, k_proj, v_proj, o_proj, .. } = &self.self_attn;
        let Mlp { gate_proj, up_proj, down_proj, .. } = &self.mlp;
        let self_attn = Attention {
            q_proj: make(q_proj)?,
            k_proj: make(k_proj)?,
            v_proj: make(v_proj)?,
            o_proj: make(o_proj)?,
            ..self.self_attn.clone()
        };
        let mlp = Mlp {
            gate_proj: make(gate_proj)?,
            up_proj: make(up_proj)?,
            down_proj: make(down_proj)?,
            ..self.mlp.clone()
        };
        Ok(Self { self_attn, mlp, ..self.clone() })
    }
}

impl Linear {
    /// The same matrix in `format`.
    fn recoded(&self, format: Format) -> Result<Self> {
        let spec = TensorSpec::new("a copied layer", &[self.out_features(), self.in_features()]);
        let copy = Self::take(&Rows::all(self), &spec, Some(format), InputQuantization::ALL[0])?;
        Ok(copy.with_bias_of(self))
    }
}
