//! Finds a model folder's chat template and special tokens, as `transformers` does: in `chat_template.jinja`,
//! `additional_chat_templates/`, `tokenizer_config.json` and `special_tokens_map.json`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::error::{ChatTemplateError, Result};
use super::source::TEMPLATE_LIMIT;

/// The most bytes of a JSON file that are read.
const JSON_LIMIT: u64 = 64 << 20;

/// The text of a template, and its file.
pub(super) struct TemplateText {
    pub(super) origin: String,
    pub(super) text: String,
}

/// A folder's templates and special tokens.
pub(super) struct FolderTemplates {
    /// By name. `default` is used, and `tool_use` if there are tools.
    pub(super) templates: BTreeMap<String, TemplateText>,
    /// `bos_token`, `eos_token`, …
    pub(super) special_tokens: BTreeMap<String, String>,
}

/// Reads a folder. It may have no template.
pub(super) fn read(folder: &Path) -> Result<FolderTemplates> {
    let config_path = folder.join("tokenizer_config.json");
    let config = read_json(&config_path)?.unwrap_or_default();
    let mut templates = jinja_files(folder)?;
    // Template files replace those in the configuration.
    if templates.is_empty() {
        templates = configured(&config_path, &config)?;
    }
    Ok(FolderTemplates { templates, special_tokens: special_tokens(folder, &config)? })
}

fn jinja_files(folder: &Path) -> Result<BTreeMap<String, TemplateText>> {
    let mut templates = BTreeMap::new();
    let mut add = |name: &str, path: &Path| -> Result<()> {
        if let Some(text) = read_text(path, TEMPLATE_LIMIT as u64)? {
            templates.insert(name.to_owned(), TemplateText { origin: path.display().to_string(), text });
        }
        Ok(())
    };
    add("default", &folder.join("chat_template.jinja"))?;
    let more = folder.join("additional_chat_templates");
    let entries = match fs::read_dir(&more) {
        Ok(entries) => entries,
        Err(error) if is_absent(&error) => return Ok(templates),
        Err(source) => return Err(ChatTemplateError::Read { path: more, source }),
    };
    for entry in entries {
        let path = entry.map_err(|source| ChatTemplateError::Read { path: more.clone(), source })?.path();
        let name =
            path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".jinja"));
        if let Some(name) = name {
            add(name, &path)?;
        }
    }
    Ok(templates)
}

/// `chat_template` of `tokenizer_config.json`: a text, or a list of `{name, template}`, or texts by name.
fn configured(path: &Path, config: &Map<String, Value>) -> Result<BTreeMap<String, TemplateText>> {
    let source = |text: &str| TemplateText {
        origin: format!("{}: chat_template", path.display()),
        text: text.to_owned(),
    };
    let wrong = || {
        ChatTemplateError::Json {
        path: path.to_owned(),
        reason: "\"chat_template\" must be a text or a list of {\"name\": …, \"template\": …}: correct it, or put the \
                 template into chat_template.jinja beside it"
            .to_owned(),
    }
    };
    match config.get("chat_template") {
        None | Some(Value::Null) => Ok(BTreeMap::new()),
        Some(Value::String(text)) => Ok(BTreeMap::from([("default".to_owned(), source(text))])),
        Some(Value::Array(list)) => list
            .iter()
            .map(|entry| {
                let name = entry.get("name").and_then(Value::as_str).ok_or_else(wrong)?;
                let text = entry.get("template").and_then(Value::as_str).ok_or_else(wrong)?;
                Ok((name.to_owned(), source(text)))
            })
            .collect(),
        Some(Value::Object(named)) => named
            .iter()
            .map(|(name, text)| Ok((name.clone(), source(text.as_str().ok_or_else(wrong)?))))
            .collect(),
        Some(_) => Err(wrong()),
    }
}

/// The named special tokens: those of the configuration, and those of the older file if the configuration
/// does not list all added tokens.
fn special_tokens(folder: &Path, config: &Map<String, Value>) -> Result<BTreeMap<String, String>> {
    let mut keys = config.clone();
    if !config.contains_key("added_tokens_decoder")
        && let Some(map) = read_json(&folder.join("special_tokens_map.json"))?
    {
        keys.extend(map);
    }
    let mut tokens = BTreeMap::new();
    for (key, value) in &keys {
        if key.ends_with("_token") {
            tokens.extend(token_text(value).map(|text| (key.clone(), text)));
        } else if key == "extra_special_tokens" || key == "model_specific_special_tokens" {
            let named = value.as_object().into_iter().flatten();
            tokens.extend(named.filter_map(|(name, value)| Some((name.clone(), token_text(value)?))));
        }
    }
    Ok(tokens)
}

/// A token is a text, or an object that holds it under `content`.
fn token_text(value: &Value) -> Option<String> {
    let text = value.as_str().or_else(|| value.get("content").and_then(Value::as_str));
    text.map(str::to_owned)
}

fn read_json(path: &Path) -> Result<Option<Map<String, Value>>> {
    let Some(text) = read_text(path, JSON_LIMIT)? else { return Ok(None) };
    let wrong = |reason: String| ChatTemplateError::Json { path: path.to_owned(), reason };
    let value = serde_json::from_str(&text).map_err(|error| {
        wrong(format!("not JSON: {error}: get the file again from where the model came from"))
    })?;
    match value {
        Value::Object(map) => Ok(Some(map)),
        _ => Err(wrong(
            "must hold a JSON object: get the file again from where the model came from".to_owned(),
        )),
    }
}

/// The text of a file; `None` if there is no such file.
fn read_text(path: &Path, limit: u64) -> Result<Option<String>> {
    let failed = |source| ChatTemplateError::Read { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if is_absent(&error) => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(ChatTemplateError::TooLarge { file: path.display().to_string(), limit });
    }
    String::from_utf8(bytes).map(Some).map_err(|error| ChatTemplateError::Json {
        path: PathBuf::from(path),
        reason: format!(
            "byte {} is not valid UTF-8: get the file again from where the model came from",
            error.utf8_error().valid_up_to()
        ),
    })
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
