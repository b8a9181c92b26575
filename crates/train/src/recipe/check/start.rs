//! What a run may begin from, and what of it may learn.

use super::super::early_exit::Curriculum;
use super::super::layer_dropout::DropoutShape;
use super::super::model_keys::ModelTypeKey;
use super::super::sections::Trained;
use super::super::whole::Recipe;
use super::ensure;
use crate::error::Result;
use offramp_model::run_folder::TOKENIZER;
use offramp_model::{Gguf, ModelType};

pub(super) fn start(recipe: &Recipe) -> Result<()> {
    if let (Some(checkpoint), Some("bpe")) = (&recipe.start.checkpoint, recipe.data.tokenizer.as_deref()) {
        let own = if Gguf::is_one(checkpoint) { checkpoint.clone() } else { checkpoint.join(TOKENIZER) };
        let own = own.display();
        let expected =
            format!("\"{own}\", start.checkpoint's own: ids of another would mean other words to it");
        return Err(recipe.fault("data.tokenizer", "\"bpe\"", expected));
    }
    adapters(recipe)?;
    if recipe.start.train != Trained::ExitHead {
        return Ok(());
    }
    let fault = |expected: &str| recipe.fault("start.train", "\"exit_head\"", expected);
    ensure(recipe.start.checkpoint.is_some(), || fault("\"all\" where no start.checkpoint is given"))?;
    ensure(!recipe.model.tie_word_embeddings, || {
        fault("\"all\" where the checkpoint's head is its embedding: one cannot learn without the other")
    })
}

/// What adapters of exits ask for: a model that runs as it is, in a folder whose files can be copied.
fn adapters(recipe: &Recipe) -> Result<()> {
    let (keys, layers) = (&recipe.early_exit, recipe.model.num_hidden_layers);
    let Some(adapters) = recipe.adapters() else {
        for (key, given) in
            [("adapter_exits", keys.adapter_exits.is_some()), ("adapter_rank", keys.adapter_rank.is_some())]
        {
            ensure(!given, || {
                let expected = "left out unless start.train is \"exit_adapters\"";
                recipe.fault(&format!("early_exit.{key}"), "given", expected)
            })?;
        }
        return Ok(());
    };
    let fault = |expected: &str| recipe.fault("start.train", "\"exit_adapters\"", expected);
    let Some(checkpoint) = &recipe.start.checkpoint else {
        return Err(fault("\"all\" where no start.checkpoint is given: adapters stand over a model"));
    };
    ensure(!Gguf::is_one(checkpoint), || {
        fault("\"all\" where start.checkpoint is a GGUF file: adapters stand beside the files of a folder")
    })?;
    for &exit in keys.adapter_exits.iter().flatten() {
        ensure((1..layers).contains(&exit), || {
            recipe.fault("early_exit.adapter_exits", exit, format!("exit layers from 1 to {}", layers - 1))
        })?;
    }
    ensure(!adapters.exits.is_empty(), || {
        recipe.fault("early_exit.adapter_exits", "[]", "one exit at least")
    })?;
    let most = recipe.model.hidden_size.max(1);
    ensure((1..=most).contains(&adapters.rank), || {
        recipe.fault("early_exit.adapter_rank", adapters.rank, format!("1 to {most}, the hidden size"))
    })?;
    let frozen = "where start.train is \"exit_adapters\": the model runs as it is";
    ensure(recipe.layer_dropout.shape == DropoutShape::None, || {
        recipe.fault("layer_dropout.shape", "another", format!("\"none\" {frozen}"))
    })?;
    ensure(keys.curriculum != Curriculum::None, || {
        recipe.fault("early_exit.curriculum", "\"none\"", "another where only exits learn")
    })?;
    ensure(crate::averages::count(&recipe.averages) == 0, || {
        recipe.fault("[averages]", "given", format!("left out {frozen}"))
    })
}

/// The keys of families that training can honour together.
pub(super) fn family(recipe: &Recipe) -> Result<()> {
    let model = &recipe.model;
    let family = model.model_type;
    let no_bias = "left out where model.bit_linear is given: ternary matrices have no biases";
    for (key, given) in [("attention_bias", model.attention_bias), ("mlp_bias", model.mlp_bias)] {
        let low_bit = model.bit_linear.is_some() && given;
        ensure(!low_bit, || recipe.fault(&format!("model.{key}"), "true", no_bias))?;
    }
    ensure(model.bit_linear.is_none() || family == ModelTypeKey::Llama, || {
        let expected = "\"llama\" where model.bit_linear is given: low-bit layers are those of a Llama";
        recipe.fault("model.model_type", format!("\"{}\"", ModelType::from(family).name()), expected)
    })?;
    if let Some(window) = model.sliding_window {
        let good = family == ModelTypeKey::Mistral && window >= 1;
        let expected = "1 or more, and left out unless model.model_type is \"mistral\"";
        ensure(good, || recipe.fault("model.sliding_window", window, expected))?;
    }
    if let Some(interval) = model.no_rope_layer_interval {
        let good = family == ModelTypeKey::SmolLm3 && interval >= 1;
        let expected = "1 or more, and left out unless model.model_type is \"smollm3\"";
        ensure(good, || recipe.fault("model.no_rope_layer_interval", interval, expected))?;
    }
    Ok(())
}
