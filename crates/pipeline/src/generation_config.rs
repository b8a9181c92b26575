//! `generation_config.json`: the folder's sampling options and end-of-text tokens.

use crate::{Error, Result};
use offramp_model::legible;
use serde_json::{Map, Value};
use std::path::Path;

const NAME: &str = "generation_config.json";

/// The keys of Hugging Face's file that are used here. A key that is missing or `null` is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationConfig {
    /// Tokens that end a text; in the file a number or a list.
    pub eos_token_ids: Vec<u32>,
    /// Whether tokens are sampled; `transformers` reads a missing key as `false`.
    pub do_sample: Option<bool>,
    /// Below 1 sharpens the distribution.
    pub temperature: Option<f32>,
    /// Keeps this many of the most likely tokens; 0 keeps all.
    pub top_k: Option<usize>,
    /// Keeps the most likely tokens until their probabilities sum to this.
    pub top_p: Option<f32>,
    /// Above 1 makes tokens that have occurred less likely.
    pub repetition_penalty: Option<f32>,
}

impl GenerationConfig {
    /// The file of a model folder; without a file, an empty one.
    ///
    /// # Errors
    /// If the file cannot be read, is not JSON, or a key has an invalid value.
    pub fn from_folder(folder: &Path) -> Result<Self> {
        let path = folder.join(NAME);
        match path.exists() {
            true => Self::from_json(&offramp_model::read_text(&path)?, &path),
            false => Ok(Self::default()),
        }
    }

    /// Parses the text of such a file; `origin` names it in errors.
    ///
    /// # Errors
    /// As [`GenerationConfig::from_folder`].
    pub fn from_json(text: &str, origin: &Path) -> Result<Self> {
        let fault = |key: &str, found: String, expected| Error::GenerationConfig {
            path: origin.to_owned(),
            key: key.to_owned(),
            found,
            expected,
        };
        let json: Value = serde_json::from_str(text)
            .map_err(|error| fault("its text", format!("no JSON ({error})"), "a JSON object"))?;
        let keys = Keys(json.as_object().ok_or_else(|| fault("its text", kind(&json), "a JSON object"))?);
        let named = |(key, expected): (&str, _)| fault(key, legible(&keys.0[key].to_string()), expected);
        Ok(Self {
            eos_token_ids: keys.ids("eos_token_id").map_err(named)?,
            do_sample: keys.get("do_sample", "true or false", Value::as_bool).map_err(named)?,
            temperature: keys.float("temperature", "0 or more", |t| t >= 0.0).map_err(named)?,
            top_k: keys.get("top_k", "a whole number, 0 or more", whole).map_err(named)?,
            top_p: keys.float("top_p", "above 0 and at most 1", |p| p > 0.0 && p <= 1.0).map_err(named)?,
            repetition_penalty: keys
                .float("repetition_penalty", "above 0", |penalty| penalty > 0.0)
                .map_err(named)?,
        })
    }

    /// Whether the file has any sampling key.
    pub(crate) fn says_how_to_sample(&self) -> bool {
        let Self { do_sample, temperature, top_k, top_p, repetition_penalty, .. } = self;
        do_sample.is_some()
            || top_k.is_some()
            || [temperature, top_p, repetition_penalty].into_iter().any(Option::is_some)
    }
}

/// The keys of a file. An error names the key and the expected values.
struct Keys<'a>(&'a Map<String, Value>);

type KeyResult<'a, T> = std::result::Result<T, (&'a str, &'static str)>;

impl Keys<'_> {
    fn get<'k, T>(
        &self,
        key: &'k str,
        expected: &'static str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> KeyResult<'k, Option<T>> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => read(value).map(Some).ok_or((key, expected)),
        }
    }

    fn float<'k>(
        &self,
        key: &'k str,
        expected: &'static str,
        fits: impl Fn(f32) -> bool,
    ) -> KeyResult<'k, Option<f32>> {
        let number = |value: &Value| value.as_f64().map(|number| number as f32);
        self.get(key, expected, |value| number(value).filter(|&number| number.is_finite() && fits(number)))
    }

    fn ids<'k>(&self, key: &'k str) -> KeyResult<'k, Vec<u32>> {
        let ids = |value: &Value| match value {
            Value::Array(ids) => ids.iter().map(id).collect(),
            one => Some(vec![id(one)?]),
        };
        Ok(self.get(key, "a token id or a list of token ids", ids)?.unwrap_or_default())
    }
}

fn id(value: &Value) -> Option<u32> {
    u32::try_from(value.as_u64()?).ok()
}

fn whole(value: &Value) -> Option<usize> {
    usize::try_from(value.as_u64()?).ok()
}

fn kind(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".to_owned(),
        other => legible(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<GenerationConfig> {
        GenerationConfig::from_json(text, Path::new("folder/generation_config.json"))
    }

    #[test]
    fn ends_are_a_number_a_list_or_nothing() {
        let ends = |text| read(text).unwrap().eos_token_ids;
        assert_eq!(ends(r#"{"eos_token_id": 2}"#), [2]);
        assert_eq!(ends(r#"{"eos_token_id": [128001, 128008, 128009]}"#), [128_001, 128_008, 128_009]);
        assert!(ends(r#"{"eos_token_id": null}"#).is_empty());
        assert!(ends("{}").is_empty());
    }

    #[test]
    fn what_is_not_said_is_not_made_up() {
        let silent = read(r#"{"bos_token_id": 1, "max_new_tokens": 9, "top_k": null}"#).unwrap();
        assert_eq!(silent, GenerationConfig::default());
        assert!(!silent.says_how_to_sample());
        let llama = read(r#"{"do_sample": true, "temperature": 0.6, "top_p": 0.9}"#).unwrap();
        assert_eq!((llama.do_sample, llama.temperature, llama.top_p), (Some(true), Some(0.6), Some(0.9)));
        assert!(llama.says_how_to_sample());
        let nowhere = tempfile::tempdir().unwrap();
        assert_eq!(GenerationConfig::from_folder(nowhere.path()).unwrap(), GenerationConfig::default());
    }

    #[test]
    fn a_git_lfs_pointer_is_told_and_not_parsed() {
        let folder = tempfile::tempdir().unwrap();
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 180\n";
        std::fs::write(folder.path().join(NAME), pointer).unwrap();
        let message = GenerationConfig::from_folder(folder.path()).unwrap_err().to_string();
        assert!(message.contains("generation_config.json is a git-lfs pointer"), "{message}");
    }

    #[test]
    fn what_means_nothing_is_one_line_that_names_the_key() {
        for (text, key) in [
            ("{", "its text"),
            ("[]", "its text"),
            (r#"{"eos_token_id": "</s>"}"#, "eos_token_id"),
            (r#"{"eos_token_id": [1, -1]}"#, "eos_token_id"),
            (r#"{"eos_token_id": 4294967296}"#, "eos_token_id"),
            (r#"{"do_sample": 1}"#, "do_sample"),
            (r#"{"temperature": -1}"#, "temperature"),
            (r#"{"temperature": "hot"}"#, "temperature"),
            (r#"{"top_k": 2.5}"#, "top_k"),
            (r#"{"top_p": 0}"#, "top_p"),
            (r#"{"repetition_penalty": 0}"#, "repetition_penalty"),
        ] {
            let message = read(text).unwrap_err().to_string();
            assert!(message.starts_with(&format!("folder/generation_config.json: {key} is ")), "{message}");
            assert!(!message.contains('\n') && message.contains("remove it"), "{message}");
        }
    }

    #[test]
    fn a_value_stays_in_the_line() {
        let long = format!("[{}\"a\"]", "1, ".repeat(100_000));
        for value in [long.as_str(), "\"a\\u009b2Jb\"", "\"a\\u007fb\""] {
            for text in [format!("{{\"eos_token_id\": {value}}}"), value.to_owned()] {
                let message = read(&text).unwrap_err().to_string();
                assert!(!message.contains(char::is_control) && message.len() < 1000, "{message:?}");
            }
        }
    }
}
