//! A model with its tokenizer: prompts in, and the rules for what comes out.

use crate::source::ends_of_text;
use crate::{Asked, Error, GenerationConfig, Request, Result, Sampling, TextGeneration};
use offramp_engine::{GenerateOptions, SamplingOptions, Session, Speculation};
use offramp_model::Llama;
use offramp_text::{PromptOptions, Tokenizer};
use std::sync::Arc;

/// A model, its tokenizer, and what its folder says of prompts, ends and sampling.
#[derive(Debug)]
pub struct Pipeline {
    model: Arc<Llama>,
    tokenizer: Tokenizer,
    generation: GenerationConfig,
    stop_tokens: Vec<u32>,
}

impl Pipeline {
    /// Puts together what [`crate::Source::open`] has read.
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

    /// The model, without the rest.
    pub fn into_model(self) -> Arc<Llama> {
        self.model
    }

    /// The tokenizer, which encodes corpora as plain text.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Tokens that end a text: those of `config.json` and `generation_config.json`; where neither names one, the
    /// tokenizer's end of text.
    pub fn stop_tokens(&self) -> &[u32] {
        &self.stop_tokens
    }

    /// Makes a token end texts too.
    pub fn add_stop_token(&mut self, id: u32) {
        if !self.stop_tokens.contains(&id) {
            self.stop_tokens.push(id);
        }
    }

    /// How tokens are chosen, where the user asks for this.
    pub fn sampling(&self, asked: &Asked) -> Sampling {
        Sampling::new(asked, &self.generation)
    }

    /// What the engine has to know of this model's texts.
    pub fn generate_options(&self, max_new_tokens: usize, sampling: SamplingOptions) -> GenerateOptions {
        GenerateOptions {
            max_new_tokens,
            stop_tokens: self.stop_tokens.clone(),
            token_limit: Some(self.tokenizer.vocab_size()),
            sampling,
        }
    }

    /// Token ids of a prompt, as `transformers` gives them. An empty one begins as texts do: with the beginning of a
    /// text where there is one, else with the end of the text before.
    ///
    /// # Errors
    /// If the tokenizer cannot take it; [`Error::EmptyPrompt`] if it is empty and nothing begins a text.
    pub fn encode(&self, prompt: &str, options: PromptOptions) -> Result<Vec<u32>> {
        let ids = self.tokenizer.encode_prompt(prompt, options)?;
        if !ids.is_empty() {
            return Ok(ids);
        }
        let exists = |id: &u32| self.tokenizer.token_bytes(*id).is_some();
        let bos = self.model.config().bos_token_id.filter(exists);
        Ok(vec![bos.or(self.tokenizer.end_of_text()).ok_or(Error::EmptyPrompt)?])
    }

    /// A session that holds a prompt and what follows it, as far as the context reaches.
    ///
    /// # Errors
    /// If the memory has no room for so many. What does not fit the context is refused by [`Pipeline::begin`].
    pub fn session(&self, prompt_tokens: usize, max_new_tokens: usize) -> Result<Session> {
        let wanted = prompt_tokens.saturating_add(max_new_tokens);
        Ok(Session::new(&self.model, wanted.min(self.model.config().context()))?)
    }

    /// A session that holds a longer prompt and what follows it: `session` where it has the room, else a new one with
    /// room for as much again and for a few turns at least, so that a conversation seldom needs another.
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

    /// Checks everything that a text needs, and computes nothing yet: after this, a prompt may be shown. What the session
    /// holds of the prompt already is kept and not run again.
    ///
    /// # Errors
    /// If an option is out of range, or the prompt does not fit.
    pub fn begin(
        &self,
        session: Session,
        request: &Request<'_>,
        speculation: Speculation,
    ) -> Result<TextGeneration<'_>> {
        TextGeneration::new(self, session, request, speculation)
    }
}
