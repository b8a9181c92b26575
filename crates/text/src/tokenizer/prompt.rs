//! The token ids of a prompt. They differ from those of the same text in a corpus: as in `transformers`,
//! names of special tokens in the text become these tokens, and the post-processor of `tokenizer.json` adds
//! its own.

use tokenizers::{
    AddedVocabulary, Encoding, Model, OffsetType, PostProcessor, PreTokenizer, Tokenizer as Library,
};

use super::{Tokenizer, guard, words};
use crate::error::Result;

/// How the text of a prompt becomes token ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PromptOptions {
    /// Adds what the post-processor of `tokenizer.json` adds, such as a beginning-of-text token, unless the
    /// prompt has it already.
    pub add_special_tokens: bool,
    /// Takes the names of special tokens for text, as corpora do.
    pub plain_text: bool,
}

impl Default for PromptOptions {
    /// As `transformers` encodes a prompt.
    fn default() -> Self {
        Self { add_special_tokens: true, plain_text: false }
    }
}

impl PromptOptions {
    /// For a text that a chat template rendered: the template writes every special token itself.
    pub fn rendered() -> Self {
        Self { add_special_tokens: false, plain_text: false }
    }
}

/// The added tokens of a vocabulary, by name. The library's own tokenizer reads no special tokens here,
/// because most texts are corpora.
pub(super) fn added_vocabulary(inner: &Library) -> AddedVocabulary {
    let mut added = inner.get_added_vocabulary().clone();
    added.set_encode_special_tokens(false);
    added
}

impl Tokenizer {
    /// Token ids of a prompt.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`]; also for a text of more than 4 MiB, with any tokenizer.
    pub fn encode_prompt(&self, text: &str, options: PromptOptions) -> Result<Vec<u32>> {
        words::check_general_length(text)?;
        let own = guard(|| self.encoding(text, options.plain_text))?;
        if !options.add_special_tokens {
            return Ok(own.get_ids().to_vec());
        }
        let ids = own.get_ids().to_vec();
        let processed = match self.inner.get_post_processor() {
            Some(processor) => guard(|| processor.process(own, None, true))?,
            None => return Ok(ids),
        };
        Ok(without_doubles(&processed, &ids))
    }

    /// What the library's `encode` does, with special tokens read from the text or not.
    fn encoding(&self, text: &str, plain_text: bool) -> tokenizers::Result<Encoding> {
        let inner = &self.inner;
        let added = if plain_text { inner.get_added_vocabulary() } else { &self.named_in_prompts };
        let mut pieces = added.extract_and_normalize(inner.get_normalizer(), text);
        if let Some(pre_tokenizer) = inner.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut pieces)?;
        }
        pieces.tokenize(|piece| inner.get_model().tokenize(piece.get()))?;
        pieces.into_encoding(None, 0, OffsetType::None)
    }
}

/// The ids of `processed`, without an addition that the text's `own` ids already begin or end with.
fn without_doubles(processed: &Encoding, own: &[u32]) -> Vec<u32> {
    let ids = processed.get_ids();
    let added = |&&mask: &&u32| mask == 1;
    let mask = processed.get_special_tokens_mask();
    let before = mask.iter().take_while(added).count();
    if before == ids.len() {
        return ids.to_vec(); // the text was empty
    }
    let after = ids.len() - mask.iter().rev().take_while(added).count();
    let (prefix, suffix) = (&ids[..before], &ids[after..]);
    let from = if own.starts_with(prefix) { before } else { 0 };
    let to = if own.ends_with(suffix) { after } else { ids.len() };
    ids[from..to].to_vec()
}
