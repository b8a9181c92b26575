//! Python code for `transformers` in a model folder.

use super::replace::write_atomically;
use crate::error::{Error, Result};
use crate::run_folder::CONFIG;
use crate::text_file::read_text;
use serde_json::{Value, json};
use std::path::Path;

/// Writes a Python module into a model folder and enters `class` in its `config.json` as what
/// `AutoModelForCausalLM` loads with `trust_remote_code=True`. Without that, the stock class still loads the
/// folder.
///
/// # Errors
/// If the folder has no `config.json` that is a JSON object, or a file cannot be written.
pub fn add_remote_code(folder: &Path, module: &str, class: &str, code: &str) -> Result<()> {
    let path = folder.join(CONFIG);
    let text = read_text(&path)?;
    let mut config: Value = serde_json::from_str(&text)
        .map_err(|error| Error::json(&path, format!("not JSON: {error}: export the model again")))?;
    let keys =
        config.as_object_mut().ok_or_else(|| Error::json(&path, "a config.json holds one JSON object"))?;
    keys.insert("auto_map".to_owned(), json!({ "AutoModelForCausalLM": format!("{module}.{class}") }));
    write_atomically(&folder.join(module).with_extension("py"), |file| file.write_all(code.as_bytes()))?;
    let text = format!("{config:#}\n");
    write_atomically(&path, |file| file.write_all(text.as_bytes())).map(drop)
}
