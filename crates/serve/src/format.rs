//! Answers that must be JSON: a grammar says which tokens may come next (the `llguidance` crate).

use crate::app::App;
use crate::error::{ApiError, Result};
use llguidance::api::TopLevelGrammar;
use llguidance::{Matcher, ParserFactory};
use offramp_engine::Constraint;
use offramp_text::Tokenizer;
use serde::Deserialize;
use serde_json::{Value, json};
use std::fmt;
use std::sync::OnceLock;
use toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};
use utoipa::ToSchema;

/// What form an answer has.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum ResponseFormat {
    /// Any text.
    Text,
    /// Any JSON object.
    JsonObject,
    /// What a schema describes.
    JsonSchema {
        /// As in chats.
        json_schema: Option<NamedSchema>,
        /// As in responses.
        schema: Option<Value>,
    },
}

/// Where JSON may have any white space, an answer may have this: some models would write nothing else.
const WHITESPACE: &str = "( |\\n {0,20})";

/// A schema and its name.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(crate) struct NamedSchema {
    #[serde(rename = "name")]
    _name: Option<String>,
    schema: Value,
    #[serde(rename = "strict")]
    _strict: Option<bool>,
    #[serde(rename = "description")]
    _description: Option<String>,
}

/// Makes grammars for one tokenizer, whose tokens are sorted when the first grammar is asked for.
#[derive(Default)]
pub(crate) struct Grammars {
    factory: OnceLock<std::result::Result<ParserFactory, String>>,
}

impl App {
    /// What an answer of this form may consist of; `None` if of anything.
    ///
    /// # Errors
    /// If the schema is not one, or there is no token that could end the answer.
    pub(crate) fn constraint(
        &self,
        format: Option<&ResponseFormat>,
        stop_tokens: &[u32],
    ) -> Result<Option<Box<dyn Constraint>>> {
        let schema = match format {
            None | Some(ResponseFormat::Text) => return Ok(None),
            Some(ResponseFormat::JsonObject) => json!({ "type": "object" }),
            Some(ResponseFormat::JsonSchema { json_schema: Some(named), .. }) => named.schema.clone(),
            Some(ResponseFormat::JsonSchema { schema: Some(schema), .. }) => schema.clone(),
            Some(ResponseFormat::JsonSchema { .. }) => {
                return Err(ApiError::invalid("response_format", "a json_schema needs a schema"));
            }
        };
        let Some(&end) = stop_tokens.first() else {
            let message = "an answer in JSON has to end: the model has no end of text, or ignore_eos is set";
            return Err(ApiError::invalid("response_format", message));
        };
        let matcher =
            tokio::task::block_in_place(|| self.grammars.matcher(self.pipeline.tokenizer(), end, schema));
        let matcher = matcher.map_err(|error| {
            ApiError::invalid("response_format", format!("the schema cannot be followed: {error}"))
        })?;
        Ok(Some(Box::new(Grammar { matcher, taken: Vec::new(), stop_tokens: stop_tokens.to_vec() })))
    }
}

impl Grammars {
    fn matcher(
        &self,
        tokenizer: &Tokenizer,
        end: u32,
        mut schema: Value,
    ) -> std::result::Result<Matcher, String> {
        if let Some(schema) = schema.as_object_mut() {
            schema.entry("x-guidance").or_insert_with(|| json!({ "whitespace_pattern": WHITESPACE }));
        }
        let factory = self.factory.get_or_init(|| factory(tokenizer, end));
        let factory = factory.as_ref().map_err(Clone::clone)?;
        let parser = factory.create_parser(TopLevelGrammar::from_json_schema(schema));
        let matcher = Matcher::new(parser);
        match matcher.get_error() {
            Some(error) => Err(offramp_model::one_line(&error)),
            None => Ok(matcher),
        }
    }
}

/// Sorts the tokens into a trie.
fn factory(tokenizer: &Tokenizer, end: u32) -> std::result::Result<ParserFactory, String> {
    let vocab = tokenizer.vocab_size();
    let word = |id: u32| match tokenizer.token_text(id) {
        Some(bytes) if tokenizer.is_special(id) => [&[TokTrie::SPECIAL_TOKEN_MARKER], &bytes[..]].concat(),
        bytes => bytes.unwrap_or_default(),
    };
    let words: Vec<Vec<u8>> = (0..vocab as u32).map(word).collect();
    let trie = TokTrie::from(&TokRxInfo::new(vocab as u32, end), &words);
    let environment: TokEnv = std::sync::Arc::new(ApproximateTokEnv::new(trie));
    let mut factory = ParserFactory::new_simple(&environment).map_err(|error| error.to_string())?;
    factory.quiet();
    Ok(factory)
}

/// A grammar, and the tokens that it has taken so far.
struct Grammar {
    matcher: Matcher,
    taken: Vec<u32>,
    stop_tokens: Vec<u32>,
}

impl fmt::Debug for Grammar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grammar").field("taken", &self.taken.len()).finish_non_exhaustive()
    }
}

impl Grammar {
    /// Goes to where the grammar has taken `tokens`.
    fn go_to(&mut self, tokens: &[u32]) -> Option<()> {
        let same = self.taken.iter().zip(tokens).take_while(|(one, other)| one == other).count();
        self.matcher.rollback(self.taken.len() - same).ok()?;
        self.taken.truncate(same);
        self.matcher.consume_tokens(&tokens[same..]).ok()?;
        self.taken.extend_from_slice(&tokens[same..]);
        Some(())
    }
}

impl Constraint for Grammar {
    fn allow(&mut self, tokens: &[u32], allowed: &mut [u32]) {
        let Some(()) = self.go_to(tokens) else { return };
        let Ok(mask) = self.matcher.compute_mask_or_eos() else { return };
        for (word, found) in allowed.iter_mut().zip(mask.as_slice()) {
            *word |= found;
        }
        // Any end of text is as good as the one that the grammar knows.
        let marked =
            |allowed: &[u32], id: u32| allowed.get(id as usize / 32).is_some_and(|w| w >> (id % 32) & 1 == 1);
        if self.stop_tokens.first().is_some_and(|&end| marked(allowed, end)) {
            for &id in &self.stop_tokens {
                if let Some(word) = allowed.get_mut(id as usize / 32) {
                    *word |= 1 << (id % 32);
                }
            }
        }
    }

    fn duplicate(&self) -> Box<dyn Constraint> {
        let (taken, stop_tokens) = (self.taken.clone(), self.stop_tokens.clone());
        Box::new(Self { matcher: self.matcher.deep_clone(), taken, stop_tokens })
    }
}
