//! A model with its tokenizer: encodes prompts, and holds the folder's rules for texts.

use crate::source::ends_of_text;
use crate::{Error, GenerationConfig, Result, Sampling, TextGeneration, TextRequest, UserSampling};
use offramp_engine::{GenerateOptions, SamplingOptions, Session, Speculation};
use offramp_model::Llama;
use offramp_text::{PromptOptions, Tokenizer};
use std::sync::Arc;

/// A model, its tokenizer, and its folder's settings for prompts, ends of text and sampling.
#[derive(Debug)]
pub struct Pipeline {
    model: Arc<Llama>,
    tokenizer: Tokenizer,
    generation: GenerationConfig,
    stop_tokens: Vec<u32>,
}

impl Pipeline {
    /// Combines what [`crate::ModelSource::open`] has read.
    pub fn new(model: Llama, tokenizer: Tokenizer, generation: GenerationConfig) -> Self {
        let mut stop_tokens = ends_of_text(model.config(), &generation);
        if stop_tokens.is_empty() {
            stop_tokens.extend(tokenizer.end_of_text());
        }
        Self { model: Arc::new(model), tokenizer, generation, stop_tokens }
    }

    /// The model.
    pub fn model(&self) -> &Arc<Llama> {
        &self.model
    }

    /// The model, without tokenizer and settings.
    pub fn into_model(self) -> Arc<Llama> {
        self.model
    }

    /// The tokenizer, which encodes corpora as plain text.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The tokens that end a text: those of `config.json` and `generation_config.json`, or, if neither names
    /// one, the tokenizer's end of text.
    pub fn stop_tokens(&self) -> &[u32] {
        &self.stop_tokens
    }

    /// Makes one more token end texts.
    pub(crate) fn add_stop_token(&mut self, id: u32) {
        if !self.stop_tokens.contains(&id) {
            self.stop_tokens.push(id);
        }
    }

    /// The sampling options, with the user's where given.
    pub fn sampling(&self, asked: &UserSampling) -> Sampling {
        Sampling::new(asked, &self.generation)
    }

    /// Whether the folder's `generation_config.json` says how tokens are chosen.
    pub fn says_how_to_sample(&self) -> bool {
        self.generation.says_how_to_sample()
    }

    /// The engine's options for this model's texts.
    pub fn generate_options(&self, max_new_tokens: usize, sampling: SamplingOptions) -> GenerateOptions {
        GenerateOptions {
            max_new_tokens,
            stop_tokens: self.stop_tokens.clone(),
            token_limit: Some(self.tokenizer.vocab_size()),
            sampling,
            ..GenerateOptions::default()
        }
    }

    /// Token ids of a prompt, as in `transformers`. An empty prompt becomes the beginning-of-text token, or,
    /// if there is none, the end-of-text token.
    ///
    /// # Errors
    /// If the tokenizer cannot encode it; [`Error::EmptyPrompt`] if it is empty and there is neither token.
    pub fn encode(&self, prompt: &str, options: PromptOptions) -> Result<Vec<u32>> {
        let ids = self.tokenizer.encode_prompt(prompt, options)?;
        if !ids.is_empty() {
            return Ok(ids);
        }
        let exists = |id: &u32| self.tokenizer.token_bytes(*id).is_some();
        let bos = self.model.config().bos_token_id.filter(exists);
        Ok(vec![bos.or(self.tokenizer.end_of_text()).ok_or(Error::EmptyPrompt)?])
    }

    /// A session for a prompt and its continuation, as far as the context allows.
    ///
    /// # Errors
    /// If there is not enough memory. [`Pipeline::begin`] refuses a prompt that does not fit into the
    /// context.
    pub fn session(&self, prompt_tokens: usize, max_new_tokens: usize) -> Result<Session> {
        let wanted = prompt_tokens.saturating_add(max_new_tokens);
        Ok(Session::new(&self.model, wanted.min(self.model.config().context()))?)
    }

    /// A session for a longer prompt and its continuation: `session` if it is large enough, else a new one.
    /// The new one has twice the capacity, and enough for a few messages, so that a conversation seldom needs
    /// another.
    ///
    /// # Errors
    /// As [`Pipeline::session`].
    pub fn longer_session(
        &self,
        session: Option<Session>,
        prompt_tokens: usize,
        max_new_tokens: usize,
    ) -> Result<Session> {
        const FEW_TURNS: usize = 1024;
        let wanted = prompt_tokens.saturating_add(max_new_tokens).min(self.model.config().context());
        match session {
            Some(session) if session.capacity() >= wanted => Ok(session),
            _ => self.session((2 * wanted).max(FEW_TURNS), 0),
        }
    }

    /// Checks everything that a text needs and computes nothing yet. After this, the prompt may be shown. The
    /// part of the prompt that the session holds already is not computed again.
    ///
    /// # Errors
    /// If an option is out of range, or the prompt does not fit.
    pub fn begin(
        &self,
        session: Session,
        request: &TextRequest<'_>,
        speculation: Speculation,
    ) -> Result<TextGeneration<'_>> {
        TextGeneration::new(self, session, request, speculation)
    }
}
