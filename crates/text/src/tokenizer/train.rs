//! Trains a byte-level BPE with GPT-2's word splitting.

use tokenizers::AddedToken;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::tokenizer::Trainer;

use super::words::{spell, words};
use super::{END_OF_TEXT, gpt2};
use crate::error::{Error, Result};

/// Training reads at most this many bytes of stories. Merges come from the most frequent pairs, which a part
/// of this size already shows, and memory stays bounded. A corpus that is sorted by kind should be shuffled.
pub(crate) const BPE_TRAINING_BYTES: usize = 64 << 20;

/// Longer words are skipped. The trainer's time grows with the square of a word's length, and such words (a
/// picture in base64, a line of dashes) teach no useful merge.
const MAX_WORD_BYTES: usize = 1 << 10;

/// The special token and one token for every byte.
const SMALLEST: usize = 257;
/// The trainer allocates by the size asked for.
const LARGEST: usize = 1 << 20;

pub(super) fn train(
    stories: impl Iterator<Item = Result<String>>,
    vocab_size: usize,
) -> Result<tokenizers::Tokenizer> {
    if vocab_size < SMALLEST {
        return Err(Error::VocabularyTooSmall { found: vocab_size });
    }
    if vocab_size > LARGEST {
        let expected = "a vocabulary trained here may have at most 1048576 tokens";
        return Err(Error::Option { option: "vocab_size", found: vocab_size.to_string(), expected });
    }
    let mut texts = Vec::new();
    let mut bytes = 0;
    for story in stories {
        let story = story?;
        bytes += story.len();
        texts.push(story);
        if bytes >= BPE_TRAINING_BYTES {
            break;
        }
    }
    let mut trainer = BpeTrainer::builder()
        .vocab_size(vocab_size)
        .min_frequency(2)
        .show_progress(false)
        .special_tokens(vec![AddedToken::from(END_OF_TEXT, true)])
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    let split = |text: &str| {
        let short = words(text).filter(|word| word.len() <= MAX_WORD_BYTES);
        Ok(short.map(|word| spell(word.as_bytes())).collect())
    };
    trainer.feed(texts.iter(), split).map_err(Error::tokenizer)?;
    drop(texts);
    let mut model = BPE::default();
    trainer.train(&mut model).map_err(Error::tokenizer)?;
    gpt2::byte_level(model)
}
