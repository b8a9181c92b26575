//! A model's tokenizer.

use crate::errors::OrRaise;
use offramp_pipeline::{ModelSource, Pipeline};
use offramp_text::{PromptOptions, Tokenizer};
use pyo3::{PyResult, Python, pyclass, pymethods};
use std::path::PathBuf;
use std::sync::Arc;

/// Strings to token ids and back, as the folder's `tokenizer.json` says.
#[pyclass(frozen, name = "Tokenizer", module = "offramp.native")]
pub(crate) struct PyTokenizer(pub(crate) Of);

/// Whose it is.
pub(crate) enum Of {
    /// A model that is loaded.
    Model(Arc<Pipeline>),
    /// Nobody's: only the tokenizer was read.
    Alone(Box<Tokenizer>),
}

impl PyTokenizer {
    fn get(&self) -> &Tokenizer {
        match &self.0 {
            Of::Model(pipeline) => pipeline.tokenizer(),
            Of::Alone(tokenizer) => tokenizer,
        }
    }
}

#[pymethods]
impl PyTokenizer {
    /// That of a model folder; without one, of the model that comes with offramp.
    #[staticmethod]
    #[pyo3(signature = (path=None))]
    fn open(py: Python<'_>, path: Option<PathBuf>) -> PyResult<Self> {
        let source = crate::loaded::source(py, path)?;
        let source: &ModelSource = &source;
        Ok(Self(Of::Alone(Box::new(source.tokenizer().or_raise()?))))
    }

    /// Token ids of a prompt. With `add_special_tokens`, those that the tokenizer's own rules add.
    fn encode(&self, text: &str, add_special_tokens: bool) -> PyResult<Vec<u32>> {
        let options = PromptOptions { add_special_tokens, ..PromptOptions::default() };
        self.get().encode_prompt(text, options).or_raise()
    }

    /// The text of tokens. Special tokens are their names, unless they are skipped.
    fn decode(&self, ids: Vec<u32>, skip_special_tokens: bool) -> PyResult<String> {
        let tokenizer = self.get();
        if skip_special_tokens {
            return tokenizer.decode(&ids).or_raise();
        }
        let (mut text, mut first) = (String::new(), 0);
        // Each run of tokens between special ones is decoded as what follows the tokens before it.
        for run in ids.split_inclusive(|&id| tokenizer.is_special(id)) {
            let (special, plain) = match run.split_last() {
                Some((&last, plain)) if tokenizer.is_special(last) => (tokenizer.token_text(last), plain),
                _ => (None, run),
            };
            let mut stream = tokenizer.stream_after(&ids[..first]).or_raise()?;
            for &id in plain {
                text += &stream.push(id).or_raise()?;
            }
            text += &stream.finish();
            text += &String::from_utf8_lossy(&special.unwrap_or_default());
            first += run.len();
        }
        Ok(text)
    }

    /// The id of a token by its spelling in the vocabulary.
    fn token_id(&self, token: &str) -> Option<u32> {
        self.get().token_id(token)
    }

    /// Whether decoding may skip this token.
    fn is_special(&self, id: u32) -> bool {
        self.get().is_special(id)
    }

    #[getter]
    fn vocab_size(&self) -> usize {
        self.get().vocab_size()
    }

    /// The token that ends a text.
    #[getter]
    fn eos_token_id(&self) -> Option<u32> {
        self.get().end_of_text()
    }
}
