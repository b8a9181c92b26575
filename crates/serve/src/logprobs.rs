//! Tokens and their log-probabilities as OpenAI's clients read them.

use offramp_engine::{Logprobs, NewToken, Origin};
use offramp_text::Tokenizer;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// What stands for minus infinity, which JSON does not have; as in vLLM.
const LEAST: f64 = -9999.0;

/// Log-probabilities of a completion: one entry per token in each list.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub(crate) struct CompletionLogprobs {
    pub(crate) tokens: Vec<String>,
    /// In nats; null for the first token of a prompt.
    pub(crate) token_logprobs: Vec<Option<f64>>,
    /// The most likely tokens and the one that stands there.
    #[schema(value_type = Vec<Option<Object>>)]
    pub(crate) top_logprobs: Vec<Option<Map<String, Value>>>,
    /// Characters before each token.
    pub(crate) text_offset: Vec<usize>,
}

/// Log-probabilities of a chat's answer.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ChatLogprobs {
    pub(crate) content: Vec<TokenLogprob>,
}

/// One token of an answer.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct TokenLogprob {
    token: String,
    logprob: f64,
    bytes: Vec<u8>,
    top_logprobs: Vec<TopLogprob>,
}

/// One of the most likely tokens.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct TopLogprob {
    token: String,
    logprob: f64,
    bytes: Vec<u8>,
}

/// How a token came into the text, and how deep it went.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct TokenDepth {
    token_id: u32,
    token: String,
    /// Layers that were run for it.
    depth: usize,
    /// `chosen`, `accepted` or `corrected`.
    origin: &'static str,
}

/// A token by itself. One that is no whole character is named by its bytes, as OpenAI does.
pub(crate) fn name(tokenizer: &Tokenizer, id: u32) -> String {
    let Some(bytes) = tokenizer.token_text(id) else { return format!("token:{id}") };
    String::from_utf8(bytes).unwrap_or_else(|error| {
        let bytes = error.as_bytes().iter().map(|byte| format!("\\x{byte:02x}"));
        format!("bytes:{}", bytes.collect::<String>())
    })
}

/// The word for an origin.
pub(crate) fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::Chosen => "chosen",
        Origin::Accepted => "accepted",
        Origin::Corrected => "corrected",
    }
}

/// The depths of tokens.
pub(crate) fn depths(tokenizer: &Tokenizer, tokens: &[NewToken]) -> Vec<TokenDepth> {
    let one = |token: &NewToken| TokenDepth {
        token_id: token.id,
        token: name(tokenizer, token.id),
        depth: token.depth,
        origin: origin(token.origin),
    };
    tokens.iter().map(one).collect()
}

/// Characters that begin in a token.
fn characters(tokenizer: &Tokenizer, id: u32) -> usize {
    let bytes = if tokenizer.is_special(id) { None } else { tokenizer.token_text(id) };
    bytes.unwrap_or_default().iter().filter(|byte| **byte & 0xC0 != 0x80).count()
}

impl CompletionLogprobs {
    /// Adds a token `offset` characters after the beginning of the text; where the next one begins. With
    /// `top`, the token that stands there is among the most likely ones.
    pub(crate) fn push(
        &mut self,
        tokenizer: &Tokenizer,
        id: u32,
        found: Option<&Logprobs>,
        offset: usize,
    ) -> usize {
        let token = name(tokenizer, id);
        let logprob = found.and_then(|found| found.logprob).map(finite);
        self.token_logprobs.push(logprob);
        self.top_logprobs.push(found.map(|found| {
            let mut top = Map::new();
            // Two tokens may have one name: the more likely one keeps it, so that the maximum stays.
            for &(id, logprob) in &found.top {
                top.entry(name(tokenizer, id)).or_insert_with(|| finite(logprob).into());
            }
            if let Some(logprob) = logprob {
                top.entry(token.clone()).or_insert_with(|| logprob.into());
            }
            top
        }));
        self.tokens.push(token);
        self.text_offset.push(offset);
        offset + characters(tokenizer, id)
    }
}

impl ChatLogprobs {
    pub(crate) fn of(tokenizer: &Tokenizer, tokens: &[NewToken]) -> Self {
        let bytes = |id| tokenizer.token_text(id).unwrap_or_default();
        let one = |token: &NewToken| {
            let found = token.logprobs.clone().unwrap_or_default();
            let top = |&(id, logprob): &(u32, f64)| TopLogprob {
                token: name(tokenizer, id),
                logprob: finite(logprob),
                bytes: bytes(id),
            };
            TokenLogprob {
                token: name(tokenizer, token.id),
                logprob: found.logprob.map_or(LEAST, finite),
                bytes: bytes(token.id),
                top_logprobs: found.top.iter().map(top).collect(),
            }
        };
        Self { content: tokens.iter().map(one).collect() }
    }
}

pub(crate) fn finite(logprob: f64) -> f64 {
    logprob.max(LEAST)
}
