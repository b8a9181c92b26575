//! The prompts of a completion: text or token ids, one or several.

use crate::app::App;
use crate::error::{ApiError, Result};
use offramp_pipeline::PromptOptions;
use serde::Deserialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// A prompt, or several.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(
    untagged,
    expecting = "expected a text, a list of token ids, or a list of either; ids are whole numbers from 0 on"
)]
pub(crate) enum Prompt {
    /// A text.
    Text(String),
    /// Token ids.
    Ids(Vec<u32>),
    /// Texts.
    Texts(Vec<String>),
    /// Token ids of several prompts.
    ManyIds(Vec<Vec<u32>>),
}

/// A prompt as ids and as text.
#[derive(Clone, Debug)]
pub(crate) struct PromptText {
    pub(crate) ids: Vec<u32>,
    pub(crate) text: String,
}

impl Prompt {
    /// Every prompt, on a thread that may take its time.
    pub(crate) async fn encode(self, app: &Arc<App>, add_special_tokens: bool) -> Result<Vec<PromptText>> {
        let app = Arc::clone(app);
        let encode = move || {
            let options = PromptOptions { add_special_tokens, ..PromptOptions::default() };
            let of_text = |text: String| -> Result<PromptText> {
                Ok(PromptText { ids: app.pipeline.encode(&text, options)?, text })
            };
            let of_ids = |ids: Vec<u32>| -> Result<PromptText> {
                let vocab = app.pipeline.tokenizer().vocab_size();
                if ids.is_empty() {
                    return Err(ApiError::invalid("prompt", "a prompt has no token: give at least one"));
                }
                if let Some(id) = ids.iter().find(|id| **id as usize >= vocab) {
                    let message =
                        format!("the prompt has the token id {id}: the vocabulary ends at {}", vocab - 1);
                    return Err(ApiError::invalid("prompt", message));
                }
                let text = app.pipeline.tokenizer().decode(&ids).map_err(|error| {
                    ApiError::invalid("prompt", format!("the prompt cannot be decoded: {error}"))
                })?;
                Ok(PromptText { ids, text })
            };
            let prompts: Vec<PromptText> = match self {
                Self::Text(text) => vec![of_text(text)?],
                Self::Ids(ids) => vec![of_ids(ids)?],
                Self::Texts(texts) => texts.into_iter().map(of_text).collect::<Result<_>>()?,
                Self::ManyIds(prompts) => prompts.into_iter().map(of_ids).collect::<Result<_>>()?,
            };
            if prompts.is_empty() {
                return Err(ApiError::invalid("prompt", "there is no prompt: give at least one"));
            }
            Ok(prompts)
        };
        crate::app::on_blocking_thread(encode).await
    }
}
