//! Which configs describe a model that can exist.

use super::{Config, Family, ModelType, RopeScaling, Yarn};
use offramp_kernels::bit_linear::Activations;

/// More layers than any model has. The names of all tensors are made before any weight is looked for.
pub(super) const MAX_LAYERS: usize = 10_000;
/// Far above any context. Angles are computed in `f32`, in which positions are exact up to 2^24.
pub(super) const MAX_POSITIONS: usize = 1 << 30;
/// Four trillion values.
const MAX_PARAMETERS: u64 = 1 << 42;
/// No size is larger; the product of two then fits 64 bits.
const MAX_SIZE: usize = 1 << 31;

/// A key whose value is impossible.
pub(super) struct Fault {
    pub(super) key: &'static str,
    pub(super) found: String,
    pub(super) expected: String,
}

type Checked = Result<(), Fault>;

fn ensure(good: bool, key: &'static str, found: impl ToString, expected: impl ToString) -> Checked {
    match good {
        true => Ok(()),
        false => Err(Fault { key, found: found.to_string(), expected: expected.to_string() }),
    }
}

pub(super) fn check(config: &Config) -> Checked {
    sizes(config)?;
    heads(config)?;
    bit_linear(config)?;
    constants(config)?;
    scaling(config)?;
    family(config)?;
    early_exit(config)?;
    let expected = format!("such that the model has at most {MAX_PARAMETERS} parameters");
    let count = config.checked_parameter_count();
    ensure(count.is_some_and(|count| count <= MAX_PARAMETERS), "hidden_size", config.hidden_size, expected)
}

fn sizes(config: &Config) -> Checked {
    for (key, found, most) in [
        ("hidden_size", config.hidden_size, MAX_SIZE),
        ("intermediate_size", config.intermediate_size, MAX_SIZE),
        ("num_hidden_layers", config.num_hidden_layers, MAX_LAYERS),
        ("num_attention_heads", config.num_attention_heads, MAX_SIZE),
        ("num_key_value_heads", config.num_key_value_heads, MAX_SIZE),
        ("head_dim", config.head_dim, MAX_SIZE),
        ("vocab_size", config.vocab_size, MAX_SIZE),
        ("max_position_embeddings", config.max_position_embeddings, MAX_POSITIONS),
    ] {
        ensure((1..=most).contains(&found), key, found, format!("1 to {most}"))?;
    }
    Ok(())
}

fn heads(config: &Config) -> Checked {
    let (heads, kv_heads) = (config.num_attention_heads, config.num_key_value_heads);
    let even = format!("a divisor of num_attention_heads, {heads}");
    ensure(heads.is_multiple_of(kv_heads), "num_key_value_heads", kv_heads, even)?;
    // transformers refuses such a Llama even where head_dim is given, and no other family.
    let whole = format!("a multiple of num_attention_heads, {heads}");
    let fits = config.hidden_size.is_multiple_of(heads) || config.family.model_type != ModelType::Llama;
    ensure(fits, "hidden_size", config.hidden_size, whole)?;
    let head_dim = config.head_dim;
    let even = "even: rotary positions rotate its elements in pairs";
    ensure(head_dim.is_multiple_of(2), "head_dim", head_dim, even)
}

fn bit_linear(config: &Config) -> Checked {
    let Some(bit_linear) = config.bit_linear else { return Ok(()) };
    if !bit_linear.hadamard {
        let found = format!("{} without the rotation", bit_linear.activations.bits());
        let expected = "8 bits without the rotation: 4 need it";
        let eight = bit_linear.activations == Activations::Int8;
        ensure(eight, "quantization_config.activation_bits", found, expected)?;
        // transformers' attn_sub_norm is as wide as the stream.
        let expected = "hidden_size / num_attention_heads in a bitnet";
        let whole = config.head_dim == config.hidden_size / config.num_attention_heads;
        return ensure(whole, "head_dim", config.head_dim, expected);
    }
    let power = |key, found: usize, what: &str| {
        let expected = format!("such that {what} is a power of two, as a Hadamard rotation needs");
        ensure(found.is_power_of_two(), key, found, expected)
    };
    power("intermediate_size", config.intermediate_size, "it")?;
    let what = "num_attention_heads · head_dim";
    power("num_attention_heads", config.num_attention_heads, what)?;
    power("head_dim", config.head_dim, what)
}

fn constants(config: &Config) -> Checked {
    ensure(
        config.rms_norm_eps >= 0.0 && config.rms_norm_eps < 1.0,
        "rms_norm_eps",
        config.rms_norm_eps,
        "0 or more and below 1",
    )?;
    // Below 1 the frequency grows with the pair, and a tiny base makes it infinite.
    let theta = config.rope.theta;
    ensure((1.0..=f64::from(f32::MAX)).contains(&theta), "rope_theta", theta, "1 or more, as an f32")
}

fn scaling(config: &Config) -> Checked {
    let at_least_one =
        |factor: f64| ensure((1.0..=1e6).contains(&factor), "rope_parameters.factor", factor, "1 to 1e6");
    match config.rope.scaling {
        RopeScaling::Default => Ok(()),
        RopeScaling::Linear { factor } => at_least_one(factor),
        RopeScaling::Dynamic { factor } => {
            at_least_one(factor)?;
            let expected = "4 or more: dynamic scaling divides by head_dim - 2";
            ensure(config.head_dim >= 4, "head_dim", config.head_dim, expected)
        }
        RopeScaling::Yarn(parameters) => {
            at_least_one(parameters.factor)?;
            let theta = config.rope.theta;
            ensure(theta > 1.0, "rope_theta", theta, "above 1: yarn divides by its logarithm")?;
            yarn(&parameters)
        }
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings,
        } => {
            at_least_one(factor)?;
            let positive = low_freq_factor > 0.0 && low_freq_factor <= 1e6;
            ensure(
                positive,
                "rope_parameters.low_freq_factor",
                low_freq_factor,
                "a positive number, at most 1e6",
            )?;
            let above = format!("above low_freq_factor, {low_freq_factor}, and at most 1e6");
            // Compared in f32, in which their difference is a divisor.
            let ordered = high_freq_factor as f32 > low_freq_factor as f32 && high_freq_factor <= 1e6;
            ensure(ordered, "rope_parameters.high_freq_factor", high_freq_factor, above)?;
            original_context(original_max_position_embeddings)
        }
    }
}

fn original_context(found: usize) -> Checked {
    let key = "rope_parameters.original_max_position_embeddings";
    ensure((1..=MAX_POSITIONS).contains(&found), key, found, format!("1 to {MAX_POSITIONS}"))
}

fn yarn(yarn: &Yarn) -> Checked {
    original_context(yarn.original_max_position_embeddings)?;
    for (key, found) in [
        ("rope_parameters.beta_slow", Some(yarn.beta_slow)),
        ("rope_parameters.beta_fast", Some(yarn.beta_fast)),
        ("rope_parameters.attention_factor", yarn.attention_factor),
        ("rope_parameters.mscale", yarn.mscale),
        ("rope_parameters.mscale_all_dim", yarn.mscale_all_dim),
    ] {
        let Some(found) = found else { continue };
        ensure((1e-6..=1e6).contains(&found), key, found, "1e-6 to 1e6")?;
    }
    let expected = format!("at least beta_slow, {}", yarn.beta_slow);
    ensure(yarn.beta_fast >= yarn.beta_slow, "rope_parameters.beta_fast", yarn.beta_fast, expected)
}

/// What only some families have.
fn family(config: &Config) -> Checked {
    let Family { model_type, attention_bias, mlp_bias, no_rope_layers, sliding_window } = &config.family;
    let (name, layers) = (model_type.name(), config.num_hidden_layers);
    if let Some(bit_linear) = config.bit_linear {
        let name = bit_linear.name();
        ensure(!attention_bias, "attention_bias", "true", format!("false: a {name} has no biases"))?;
        ensure(!mlp_bias, "mlp_bias", "true", format!("false: a {name} has no biases"))?;
        let plain = config.family == Family::default();
        ensure(plain, "model_type", model_type.name(), format!("a llama's: a {name} is one"))?;
    }
    let bias = format!("false: a {name} has no such biases");
    ensure(!attention_bias || model_type.knows_attention_bias(), "attention_bias", "true", &bias)?;
    ensure(!mlp_bias || model_type.knows_mlp_bias(), "mlp_bias", "true", &bias)?;
    let within = |set: &std::collections::BTreeSet<usize>| set.last().is_none_or(|&last| last < layers);
    let known = no_rope_layers.is_empty() || *model_type == ModelType::SmolLm3;
    let expected = format!("layers of a smollm3, below {layers}");
    ensure(known && within(no_rope_layers), "no_rope_layers", format!("{no_rope_layers:?}"), expected)?;
    let Some(window) = sliding_window else { return Ok(()) };
    let sizes = 1..=MAX_POSITIONS;
    ensure(sizes.contains(&window.size), "sliding_window", window.size, format!("1 to {MAX_POSITIONS}"))?;
    let known = match model_type {
        ModelType::Llama => false,
        ModelType::Mistral => window.layers.len() == layers,
        _ => !window.layers.is_empty(),
    };
    let expected = format!("layers that may have a window in a {name}, below {layers}");
    ensure(known && within(&window.layers), "layer_types", format!("{:?}", window.layers), expected)
}

fn early_exit(config: &Config) -> Checked {
    let Some(block) = &config.early_exit else { return Ok(()) };
    let (scale, most) = (block.early_exit_loss_scale, block.layer_dropout_max);
    let fine = scale >= 0.0 && scale.is_finite();
    ensure(fine, "early_exit.early_exit_loss_scale", scale, "0 or more")?;
    ensure((0.0..1.0).contains(&most), "early_exit.layer_dropout_max", most, "0 or more and below 1")
}
