//! How a model is made: from a folder, from bytes, from a caller's weights, or from a seed.

use super::{Llama, new_id};
use crate::attention::Attention;
use crate::config::{BitLinear, Config, EMBEDDING, Family, TensorSpec};
use crate::error::{Error, Result};
use crate::format::{Format, Formats};
use crate::layer::{DecoderLayer, Mlp};
use crate::linear::Linear;
use crate::memory;
use crate::norm::RmsNorm;
use crate::source::{Given, Random, Source, storage};
use crate::weights::{Layout, Weights};
use offramp_kernels::ternary::Input;
use std::path::Path;

impl Llama {
    /// Reads a Hugging Face folder: `config.json` and its safetensors. What is to have the format that it has
    /// there is mapped, the rest converted, a few rows at a time.
    ///
    /// # Errors
    /// If a file cannot be read, does not hold exactly the tensors that the config asks for, or holds other
    /// integers than `formats` asks for; or if there is no memory for what is converted.
    pub fn load(folder: &Path, formats: &Formats) -> Result<Self> {
        let config = Config::read(&folder.join("config.json"))?;
        config.check_formats(formats, folder)?;
        let weights = Weights::open(folder, &config)?;
        Self::build(config, &mut &weights, formats)
    }

    /// As [`Llama::load`], of the text of a `config.json` and the bytes of a `model.safetensors` that a program
    /// carries; `origin` names them in errors. Nothing of the bytes is copied that has its format already.
    ///
    /// # Errors
    /// As [`Llama::load`].
    pub fn from_bytes(
        (config, weights): (&str, &'static [u8]),
        origin: &Path,
        formats: &Formats,
    ) -> Result<Self> {
        let config = Config::from_json(config, origin)?;
        config.check_formats(formats, origin)?;
        let weights = Weights::from_bytes(weights, origin, &config)?;
        Self::build(config, &mut &weights, formats)
    }

    /// A model of random weights in the shape of `config`, as good as any other to measure speed with: a float
    /// model where `formats` does not say, with an embedding in `bf16` unless the layers are in `f32`.
    ///
    /// # Errors
    /// If there can be no such model, or no memory for it.
    pub fn random(config: Config, seed: u64, formats: &Formats) -> Result<Self> {
        Self::made_up(config, seed, formats, None)
    }

    /// As [`Llama::random`], but what the layers from `exit_layer` on add to the residual stream is `scale` times as
    /// much: the nearer it is to 0, the more often the exit before them says what the whole model says.
    ///
    /// # Errors
    /// As [`Llama::random`].
    pub fn random_agreeing(
        config: Config,
        seed: u64,
        formats: &Formats,
        (exit_layer, scale): (usize, f32),
    ) -> Result<Self> {
        Self::made_up(config, seed, formats, Some((exit_layer, scale)))
    }

    fn made_up(config: Config, seed: u64, formats: &Formats, damped: Option<(usize, f32)>) -> Result<Self> {
        let config = Config { quantization: None, ..config };
        config.validate(Path::new("config"))?;
        let embedding = config.new_embedding(formats.layers, formats.of_head());
        Self::build(config, &mut Random { seed, embedding, damped }, formats)
    }

    /// A model over the weights that `take` gives for each tensor of [`Config::tensors`], in `f32`.
    ///
    /// # Errors
    /// What `take` returns, or a tensor of the wrong length.
    pub fn from_weights(config: Config, take: impl FnMut(&TensorSpec) -> Result<Vec<f32>>) -> Result<Self> {
        let config = Config { quantization: None, ..config };
        config.validate(Path::new("config"))?;
        Self::build(config, &mut Given(take), &Formats::default())
    }

    fn build(mut config: Config, source: &mut dyn Source, formats: &Formats) -> Result<Self> {
        if formats.head == Some(Format::Ternary) {
            return Err(Error::TernaryHead);
        }
        let plain = Family { model_type: config.family.model_type, ..Family::default() };
        if config.family != plain || config.has_bias() || config.has_qk_norm() {
            return Err(Error::Config {
                path: Path::new("config.json").to_owned(),
                key: "model_type".to_owned(),
                found: config.family.model_type.name().to_owned(),
                expected:
                    "a model without biases, norms of queries and keys, windows, and layers that do not \
                           rotate: the forward has none of them yet"
                        .to_owned(),
            });
        }
        check_memory(&config, source, formats)?;
        let spec = TensorSpec::new(EMBEDDING, &[config.vocab_size, config.hidden_size]);
        let embed_tokens = Linear::take(source, &spec, None, Input::ALL[0])?;
        // Layers that were made to be ternary are, whatever holds them.
        let format = config.bit_linear.map_or(formats.layers, |_| Some(Format::Ternary));
        let layers = (0..config.num_hidden_layers).map(|l| layer(&config, l, format, source));
        let layers = layers.collect::<Result<_>>()?;
        let norm = rms_norm(&config, "model.norm.weight", config.hidden_size, source)?;
        let lm_head = match (config.head_source(formats.of_head()), formats.of_head()) {
            (spec, None) if spec.is_embedding() => embed_tokens.clone(),
            (spec, Some(format)) if spec.is_embedding() && format == embed_tokens.format() => {
                embed_tokens.clone()
            }
            (spec, format) => Linear::take(source, &spec, format, Input::ALL[0])?,
        };
        let rope = crate::rope::Rope::new(&config);
        config.quantization = None; // of the folder, not of the model
        let (id, kv_cache) = (new_id(), formats.kv_cache);
        Ok(Self { id, embed_tokens, layers, norm, lm_head, rope, config, kv_cache })
    }
}

/// Checks that what is not read as it lies in a file fits the memory.
fn check_memory(config: &Config, source: &dyn Source, formats: &Formats) -> Result<()> {
    let layers = config.bit_linear.map_or(formats.layers, |_| Some(Format::Ternary));
    let mut needed = 0u64;
    let mut add = |spec: &TensorSpec, wanted: Option<Format>| {
        let held = source.format(spec)?;
        let format = wanted.unwrap_or(held);
        if !source.is_mapped() || format != held {
            let bytes = Layout::new(spec, format).bytes().map_or(u64::MAX, |bytes| bytes as u64);
            needed = needed.saturating_add(bytes);
        }
        Ok(())
    };
    let embedding = TensorSpec::new(EMBEDDING, &[config.vocab_size, config.hidden_size]);
    add(&embedding, None)?;
    for spec in config.tensors().iter().filter(|spec| spec.name.starts_with("model.layers.")) {
        add(spec, if spec.shape.len() == 1 { Some(Format::F32) } else { layers })?;
    }
    let (head, wanted) = (config.head_source(formats.of_head()), formats.of_head());
    if !head.is_embedding()
        || wanted.is_some_and(|wanted| source.format(&head).is_ok_and(|held| held != wanted))
    {
        add(&head, wanted)?;
    }
    memory::check("the model's weights", needed)
}
fn rms_norm(config: &Config, name: &str, width: usize, source: &mut dyn Source) -> Result<RmsNorm> {
    let spec = TensorSpec::new(name, &[width]);
    Ok(RmsNorm { weight: storage(source, &spec, Format::F32)?, eps: config.rms_norm_eps as f32 })
}

fn layer(
    config: &Config,
    index: usize,
    format: Option<Format>,
    source: &mut dyn Source,
) -> Result<DecoderLayer> {
    let Config { hidden_size: hidden, intermediate_size: inner, head_dim, .. } = *config;
    let (queries, keys) = (config.num_attention_heads * head_dim, config.num_key_value_heads * head_dim);
    let prefix = format!("model.layers.{index}");
    // Of a Llama that was not made for it: 8 bits and no rotation.
    let bit_linear = config.bit_linear.unwrap_or(BitLinear::V1);
    let mut linear = |name: &str, out: usize, into: usize| {
        let hadamard = bit_linear.hadamard && ["self_attn.o_proj", "mlp.down_proj"].contains(&name);
        let input = Input { activations: bit_linear.activations, hadamard };
        Linear::take(source, &TensorSpec::new(format!("{prefix}.{name}.weight"), &[out, into]), format, input)
    };
    let mut self_attn = Attention {
        q_proj: linear("self_attn.q_proj", queries, hidden)?,
        k_proj: linear("self_attn.k_proj", keys, hidden)?,
        v_proj: linear("self_attn.v_proj", keys, hidden)?,
        attn_sub_norm: None,
        o_proj: linear("self_attn.o_proj", hidden, queries)?,
        head_dim,
    };
    let mut mlp = Mlp {
        gate_proj: linear("mlp.gate_proj", inner, hidden)?,
        up_proj: linear("mlp.up_proj", inner, hidden)?,
        ffn_sub_norm: None,
        down_proj: linear("mlp.down_proj", hidden, inner)?,
    };
    let mut norm =
        |name: &str, width: usize| rms_norm(config, &format!("{prefix}.{name}.weight"), width, source);
    if config.bit_linear.is_some() {
        self_attn.attn_sub_norm = Some(norm("self_attn.attn_sub_norm", queries)?);
        mlp.ffn_sub_norm = Some(norm("mlp.ffn_sub_norm", inner)?);
    }
    Ok(DecoderLayer {
        input_layernorm: norm("input_layernorm", hidden)?,
        self_attn,
        post_attention_layernorm: norm("post_attention_layernorm", hidden)?,
        mlp,
    })
}
