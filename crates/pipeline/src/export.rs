//! A model with its tokenizer in another form: as a GGUF file, or as a folder in other formats.

use crate::{ChatTemplate, Error, ModelSource, Result};
use offramp_gguf::{TensorType, Value};
use offramp_model::Formats;
use offramp_model::checkpoint::{self, Quantized};
use std::path::Path;

/// Writes a model as a GGUF file that stock llama.cpp loads: its weights in `kind`, its tokenizer, its chat
/// template, and its exits in keys of ours.
///
/// # Errors
/// If the source cannot be read, llama.cpp has no words for such a model or tokenizer, or the file cannot be
/// written.
pub fn export_gguf(source: &ModelSource, kind: TensorType, out: &Path) -> Result<()> {
    let config = source.config()?;
    let weights = source.weights(&config)?;
    let eos = config.eos_token_ids.first().copied();
    let mut keys = source.tokenizer()?.gguf_metadata(config.vocab_size, config.bos_token_id, eos)?;
    if let Some(text) = template(source)? {
        keys.push(("tokenizer.chat_template".to_owned(), Value::Text(text)));
    }
    Ok(checkpoint::export_gguf(&weights, &config, kind, (&source.name(), &keys), out)?)
}

/// A format of GGUF that is written, by its name in small letters.
pub fn written_type(name: &str) -> Option<TensorType> {
    use TensorType::{BF16, F16, F32, Q4_0, Q8_0, TQ2_0};
    [F32, F16, BF16, Q8_0, Q4_0, TQ2_0].into_iter().find(|kind| kind.name().eq_ignore_ascii_case(name))
}

/// Writes a model folder in other number formats, from a folder or from a GGUF file.
///
/// # Errors
/// As [`checkpoint::quantize`]; if the tokenizer of a GGUF file cannot be read.
pub fn quantize(
    source: &ModelSource,
    to: &Path,
    formats: &Formats,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Quantized> {
    let ModelSource::Gguf(path) = source else {
        return Ok(checkpoint::quantize(source.path(), to, formats, progress)?);
    };
    let (tokenizer, template, config) = (source.tokenizer()?, template(source)?, source.config()?);
    let beside = |folder: &Path| -> Result<()> {
        tokenizer.save(&folder.join("tokenizer.json"))?;
        let write = |name: &str, text: &str| {
            checkpoint::write_atomically(&folder.join(name), |file| file.write_all(text.as_bytes()))
        };
        write("tokenizer_config.json", &tokenizer.transformers_json(config.max_position_embeddings))?;
        if let Some(text) = &template {
            write("chat_template.jinja", text)?;
        }
        Ok(())
    };
    checkpoint::quantize_gguf::<Error>(path, to, formats, &beside, progress)
}

/// The text of the chat template.
fn template(source: &ModelSource) -> Result<Option<String>> {
    match source {
        ModelSource::Folder(folder) => Ok(ChatTemplate::text_in(folder)?),
        ModelSource::Gguf(path) => {
            let gguf = offramp_model::Gguf::open(path)?;
            let text = gguf.header().get("tokenizer.chat_template").and_then(Value::as_str);
            Ok(text.map(str::to_owned))
        }
        ModelSource::Carried(_) => Ok(None),
    }
}
