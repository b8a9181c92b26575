//! Making a model: from a folder, from bytes, from a caller's weights, or at random.

use super::{Llama, new_id};
use crate::attention::Attention;
use crate::config::{BitLinear, Config, LayerAttention, LayerTensor};
use crate::error::{Error, Result};
use crate::exit_adapters::ExitAdapters;
use crate::format::{Format, Formats};
use crate::gguf::Gguf;
use crate::layer::{DecoderLayer, Mlp};
use crate::layout::Layout;
use crate::linear::Linear;
use crate::memory;
use crate::norm::RmsNorm;
use crate::source::{Damped, Given, Random, Source, storage};
use crate::tensor::{TensorKind, TensorSpec};
use crate::weights::Weights;
use offramp_kernels::ternary::InputQuantization;
use std::path::Path;
use std::sync::Arc;

impl Llama {
    /// Reads a Hugging Face folder: `config.json` and its safetensors, and the exits' adapters where it has
    /// any (`exits.safetensors`). A tensor that has the wanted format
    /// already is mapped, the others are converted, a few rows at a time.
    ///
    /// # Errors
    /// If a file cannot be read, does not hold exactly the tensors that the config asks for, or holds other
    /// integers than `formats` asks for; or if there is no memory for the converted weights.
    pub fn load(folder: &Path, formats: &Formats) -> Result<Self> {
        let config = Config::read(&folder.join("config.json"))?;
        config.check_formats(formats, folder)?;
        let weights = Weights::open(folder, &config)?;
        let exits = ExitAdapters::read(folder, &config)?.map(Arc::new);
        Ok(Self { exits, ..Self::build(config, &weights, formats)? })
    }

    /// As [`Llama::load`], of a GGUF file. Codes that our kernels have stay what they are, with their scales;
    /// others become those of the format with about as many bits. [`Weights::runs`] says which.
    ///
    /// # Errors
    /// As [`Llama::load`].
    pub fn from_gguf(path: &Path, formats: &Formats) -> Result<Self> {
        let gguf = Gguf::open(path)?;
        let config = gguf.config()?;
        config.check_formats(formats, path)?;
        let weights = Weights::of_gguf(gguf, &config)?;
        Self::build(config, &weights, formats)
    }

    /// As [`Llama::load`], of the text of a `config.json` and the bytes of a `model.safetensors` that a
    /// program carries; `origin` names them in errors. Tensors that have the wanted format already are not
    /// copied.
    ///
    /// # Errors
    /// As [`Llama::load`].
    pub fn from_bytes(
        config: &str,
        weights: &'static [u8],
        origin: &Path,
        formats: &Formats,
    ) -> Result<Self> {
        let config = Config::from_json(config, origin)?;
        config.check_formats(formats, origin)?;
        let weights = Weights::from_bytes(weights, origin, &config)?;
        Self::build(config, &weights, formats)
    }

    /// A model of random weights in the shape of `config`, for measuring speed. Formats that are not given
    /// are f32; the embedding is in `bf16` unless the layers are in `f32`.
    ///
    /// # Errors
    /// If there can be no such model, or no memory for it.
    pub fn random(config: Config, seed: u64, formats: &Formats) -> Result<Self> {
        Self::made_up(config, seed, formats, None)
    }

    /// As [`Llama::random`], with layers that add less to the residual stream, so that the exit before them
    /// often predicts what the whole model predicts.
    ///
    /// # Errors
    /// As [`Llama::random`].
    pub fn random_agreeing(config: Config, seed: u64, formats: &Formats, damped: Damped) -> Result<Self> {
        Self::made_up(config, seed, formats, Some(damped))
    }

    fn made_up(config: Config, seed: u64, formats: &Formats, damped: Option<Damped>) -> Result<Self> {
        let config = Config { quantization: None, ..config };
        config.validate(Path::new("config"))?;
        let embedding = config.new_embedding(formats.layers, formats.of_head());
        Self::build(config, &Random { seed, embedding, damped }, formats)
    }

    /// A model of the weights that `take` gives for each tensor of [`Config::tensors`], in `f32`.
    ///
    /// # Errors
    /// What `take` returns, or a tensor of the wrong length.
    pub fn from_weights(config: Config, take: impl FnMut(&TensorSpec) -> Result<Vec<f32>>) -> Result<Self> {
        let config = Config { quantization: None, ..config };
        config.validate(Path::new("config"))?;
        Self::build(config, &Given::new(take), &Formats::default())
    }

    fn build(mut config: Config, source: &dyn Source, formats: &Formats) -> Result<Self> {
        if formats.head == Some(Format::Ternary) {
            return Err(Error::TernaryHead);
        }
        check_memory(&config, source, formats)?;
        let embed_tokens = Linear::take(source, &config.embedding_tensor(), None, InputQuantization::ALL[0])?;
        let mut layers = Layers::new(&config, formats, source);
        let layers = (0..config.num_hidden_layers).map(|index| layers.build(index)).collect::<Result<_>>()?;
        let norm = rms_norm(&config, &config.norm_tensor(), source)?;
        let lm_head = match (config.head_source(formats.of_head()), formats.of_head()) {
            (spec, None) if spec.is_embedding() => embed_tokens.clone(),
            (spec, Some(format)) if spec.is_embedding() && format == embed_tokens.format() => {
                embed_tokens.clone()
            }
            (spec, format) => Linear::take(source, &spec, format, InputQuantization::ALL[0])?,
        };
        let rope = crate::rope::Rope::new(&config);
        config.quantization = None; // of the folder, not of the model
        let (id, kv_cache) = (new_id(), formats.kv_cache);
        Ok(Self { id, embed_tokens, layers, norm, lm_head, rope, config, kv_cache, exits: None })
    }
}

/// Checks that the memory suffices for all weights that are not mapped.
fn check_memory(config: &Config, source: &dyn Source, formats: &Formats) -> Result<()> {
    let layers = config.bit_linear.map_or(formats.layers, |_| Some(Format::Ternary));
    let mut needed = 0u64;
    let mut add = |spec: &TensorSpec, wanted: Option<Format>| {
        let held = source.format(spec)?;
        let format = wanted.unwrap_or(held);
        if !source.is_mapped(spec) || format != held {
            let bytes = Layout::new(spec, format).bytes().map_or(u64::MAX, |bytes| bytes as u64);
            needed = needed.saturating_add(bytes);
        }
        Result::Ok(())
    };
    add(&config.embedding_tensor(), None)?;
    for tensor in config.layer_tensors() {
        let format = if tensor.kind == TensorKind::Matrix { layers } else { Some(Format::F32) };
        (0..config.num_hidden_layers).try_for_each(|index| add(&tensor.spec(index), format))?;
    }
    let (head, wanted) = (config.head_source(formats.of_head()), formats.of_head());
    if !head.is_embedding()
        || wanted.is_some_and(|wanted| source.format(&head).is_ok_and(|held| held != wanted))
    {
        add(&head, wanted)?;
    }
    memory::check("the model's weights", needed)
}
fn rms_norm(config: &Config, spec: &TensorSpec, source: &dyn Source) -> Result<RmsNorm> {
    Ok(RmsNorm { weight: storage(source, spec, Format::F32)?, eps: config.rms_norm_eps as f32 })
}

/// Makes the layers one after the other.
struct Layers<'a> {
    config: &'a Config,
    tensors: Vec<LayerTensor>,
    format: Option<Format>,
    source: &'a dyn Source,
}

impl<'a> Layers<'a> {
    fn new(config: &'a Config, formats: &Formats, source: &'a dyn Source) -> Self {
        // Layers trained to be ternary are ternary, whatever the folder holds.
        let format = config.bit_linear.map_or(formats.layers, |_| Some(Format::Ternary));
        Self { config, tensors: config.layer_tensors(), format, source }
    }

    fn build(&mut self, index: usize) -> Result<DecoderLayer> {
        let LayerAttention { rotates, window } = self.config.layer_attention(index);
        let self_attn = Attention {
            q_proj: self.linear(index, "self_attn.q_proj")?,
            k_proj: self.linear(index, "self_attn.k_proj")?,
            v_proj: self.linear(index, "self_attn.v_proj")?,
            q_norm: self.optional_norm(index, "self_attn.q_norm")?,
            k_norm: self.optional_norm(index, "self_attn.k_norm")?,
            attn_sub_norm: self.optional_norm(index, "self_attn.attn_sub_norm")?,
            o_proj: self.linear(index, "self_attn.o_proj")?,
            head_dim: self.config.head_dim,
            rotates,
            window,
        };
        let mlp = Mlp {
            gate_proj: self.linear(index, "mlp.gate_proj")?,
            up_proj: self.linear(index, "mlp.up_proj")?,
            ffn_sub_norm: self.optional_norm(index, "mlp.ffn_sub_norm")?,
            down_proj: self.linear(index, "mlp.down_proj")?,
        };
        let input_layernorm = self.norm(index, "input_layernorm")?;
        let post_attention_layernorm = self.norm(index, "post_attention_layernorm")?;
        Ok(DecoderLayer { input_layernorm, self_attn, post_attention_layernorm, mlp })
    }

    /// A tensor of a layer, if the model's layers have it.
    fn spec(&self, index: usize, module: &str, kind: TensorKind) -> Option<TensorSpec> {
        let mut tensors = self.tensors.iter();
        tensors.find(|tensor| (tensor.module, tensor.kind) == (module, kind)).map(|tensor| tensor.spec(index))
    }

    fn linear(&mut self, index: usize, module: &str) -> Result<Linear> {
        // A model that was not trained to be ternary gets 8-bit activations and no rotation.
        let bit_linear = self.config.bit_linear.unwrap_or(BitLinear::V1);
        let hadamard = bit_linear.hadamard && ["self_attn.o_proj", "mlp.down_proj"].contains(&module);
        let input = InputQuantization { activations: bit_linear.activations, hadamard };
        let spec = self.spec(index, module, TensorKind::Matrix).expect("every layer has it");
        let linear = Linear::take(self.source, &spec, self.format, input)?;
        match self.spec(index, module, TensorKind::Bias) {
            None => Ok(linear),
            Some(bias) => Ok(linear.with_bias(storage(self.source, &bias, Format::F32)?)),
        }
    }

    fn norm(&mut self, index: usize, module: &str) -> Result<RmsNorm> {
        Ok(self.optional_norm(index, module)?.expect("every layer has it"))
    }

    fn optional_norm(&mut self, index: usize, module: &str) -> Result<Option<RmsNorm>> {
        let spec = self.spec(index, module, TensorKind::Norm);
        spec.map(|spec| rms_norm(self.config, &spec, self.source)).transpose()
    }
}
