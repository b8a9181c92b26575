//! Strings to token ids and back.
//!
//! A [`Tokenizer`] is always a Hugging Face `tokenizer.json`. Wherever it came from (GPT-2's ranks, a file, a
//! training), it can be saved as such a file, and other programs then get the same ids. Three decisions are
//! ours:
//!
//! - **Corpora are text.** [`Tokenizer::encode`] never turns the name of a special token in a text into that
//!   token, so no text can end itself, and it adds no tokens. [`crate::prepare`] inserts the separator
//!   between stories as an id. Prompts are encoded as `transformers` encodes them
//!   ([`Tokenizer::encode_prompt`]). A truncation, a padding or a random dropout of merges that the file asks
//!   for is ignored.
//! - **Decoding is exact, and the same for one piece of text or token by token** (see `spelling.rs`). Special
//!   tokens decode to nothing.
//! - **GPT-2's word splitting is implemented here** (see `words.rs`). It is many times faster than the
//!   library's general code, and tests hold it to the same ids.

mod gguf;
mod gpt2;
mod growth;
mod missing;
mod prompt;
mod spelling;
mod stream;
mod train;
mod words;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tokenizers::{AddedVocabulary, ModelWrapper, PreTokenizerWrapper};

use crate::error::{Error, Result};
use crate::fingerprint::Fingerprint;
use offramp_files::one_line;
use spelling::Spelling;

pub use prompt::PromptOptions;
pub use stream::StreamDecoder;
pub(crate) use train::BPE_TRAINING_BYTES;
pub(crate) use words::Encoder;

/// GPT-2's end of text, which the tokenizers trained here use too.
const END_OF_TEXT: &str = "<|endoftext|>";

/// Names of special tokens that mean the end of a text. The first one that a tokenizer has is used.
const END_OF_TEXT_NAMES: [&str; 5] = [END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "<|eos|>"];

/// The beginning of the pointer that git-lfs leaves in place of a file that it has not fetched.
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// The file in which `transformers` keeps everything but the tokens.
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// A larger id means a damaged file. Tables are allocated by the largest id, so it must be plausible.
const MAX_VOCABULARY: usize = 1 << 24;

/// The largest id may be `MAX_SPARSE` plus `MAX_GAP` times the number of tokens. Real vocabularies have gaps,
/// but a file of a few bytes must not allocate tables of millions.
const MAX_GAP: usize = 8;
const MAX_SPARSE: usize = 1 << 16;

/// Strings ↔ token ids. `Send + Sync`: share it by reference.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    named_in_prompts: AddedVocabulary,
    vocab_size: usize,
    end_of_text: Option<u32>,
    spelling: Spelling,
    adds_space: OnceLock<bool>, // before every text; computed when it is first asked for
    /// Whether `words.rs` may split words: the file asks for GPT-2's pre-tokenizer and nothing else.
    gpt2_words: bool,
    fingerprint: OnceLock<Fingerprint>,
}

impl Tokenizer {
    /// GPT-2's tokenizer: 50,257 tokens, the last of which is `<|endoftext|>`.
    ///
    /// # Errors
    /// None that depend on the caller: the ranks are compiled in.
    pub fn gpt2() -> Result<Self> {
        Self::wrap(gpt2::build()?)
    }

    /// Trains a byte-level BPE like GPT-2's on `stories`: with the same word splitting, with a token for each
    /// of the 256 bytes, and with `<|endoftext|>` as id 0. The same stories in the same order give the same
    /// tokenizer.
    ///
    /// Reads at most 64 MiB of text. Only pairs that occur at least twice are merged, so a
    /// small corpus may give a smaller vocabulary than `vocab_size`; see [`Tokenizer::vocab_size`].
    ///
    /// # Errors
    /// [`Error::VocabularyTooSmall`] below 257, and the first error that `stories` yields.
    pub fn train_bpe(stories: impl Iterator<Item = Result<String>>, vocab_size: usize) -> Result<Self> {
        Self::wrap(train::train(stories, vocab_size)?)
    }

    /// Reads any `tokenizer.json`. If none of its special tokens has a known name for the end of a text, the
    /// `eos_token` of the `tokenizer_config.json` beside it is used.
    ///
    /// # Errors
    /// [`Error::Read`], or [`Error::TokenizerFile`] if the file is not a tokenizer.
    pub fn from_file(path: &Path) -> Result<Self> {
        let mut tokenizer = Self::from_json(&fs::read(path).map_err(|e| Error::read(path, e))?, path)?;
        if tokenizer.end_of_text.is_none() {
            let token = path.parent().and_then(eos_token);
            tokenizer.end_of_text = token.and_then(|token| tokenizer.token_id(&token));
        }
        Ok(tokenizer)
    }

    /// Reads the bytes of a `tokenizer.json`; `origin` names them in errors.
    ///
    /// # Errors
    /// [`Error::TokenizerFile`] if they are not a tokenizer.
    pub fn from_json(bytes: &[u8], origin: &Path) -> Result<Self> {
        let fault =
            |reason: String| Error::TokenizerFile { path: origin.to_owned(), reason: one_line(&reason) };
        if bytes.starts_with(LFS_POINTER) {
            return Err(Error::LfsPointer { path: origin.to_owned() });
        }
        // Parsed here first, because the library's parser panics on some syntax errors.
        serde_json::from_slice::<serde::de::IgnoredAny>(bytes).map_err(|e| fault(e.to_string()))?;
        let inner = catch_unwind(AssertUnwindSafe(|| tokenizers::Tokenizer::from_bytes(bytes)))
            .map_err(|_| fault("its contents are of no known shape".into()))?
            .map_err(|e| fault(e.to_string()))?;
        Self::wrap(inner).map_err(|e| match e {
            Error::Tokenizer { reason } => fault(reason),
            other => other,
        })
    }

    /// The `tokenizer.json` of a model's or a prepared corpus' folder.
    ///
    /// # Errors
    /// [`Error::NoTokenizer`] if there is none, and as [`Tokenizer::from_file`].
    pub fn from_folder(folder: &Path) -> Result<Self> {
        let path = Self::file_in(folder);
        if !path.exists() {
            return Err(Error::NoTokenizer { folder: folder.to_owned(), advice: missing::instead(folder) });
        }
        Self::from_file(&path)
    }

    /// The path of a folder's tokenizer.
    pub(crate) fn file_in(folder: &Path) -> PathBuf {
        folder.join("tokenizer.json")
    }

    /// Writes a `tokenizer.json` beside `path` and renames it onto `path`.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn save(&self, path: &Path) -> Result<()> {
        let json = self.inner.to_string(true).map_err(Error::tokenizer)?;
        offramp_files::write_whole(path, json.as_bytes()).map_err(|e| Error::write(path, e))
    }

    /// Writes a folder's `tokenizer.json`, and its `tokenizer_config.json` if the end of text has no known
    /// name.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub(crate) fn save_in(&self, folder: &Path) -> Result<()> {
        let end = self.end_of_text.and_then(|id| self.inner.id_to_token(id));
        if let Some(end) = end.filter(|end| !END_OF_TEXT_NAMES.contains(&end.as_str())) {
            let path = folder.join(TOKENIZER_CONFIG);
            let json = format!("{:#}\n", serde_json::json!({ "eos_token": end }));
            offramp_files::write_whole(&path, json.as_bytes()).map_err(|e| Error::write(&path, e))?;
        }
        self.save(&Self::file_in(folder))
    }

    /// The text of a `tokenizer_config.json` that makes `transformers` use `tokenizer.json` as it is, for a
    /// model with so many positions. Without this file, transformers 4.45 chooses by the model's type and
    /// gives a Llama other tokens.
    pub fn transformers_json(&self, model_max_length: usize) -> String {
        let end_of_text = self.end_of_text.and_then(|id| self.inner.id_to_token(id));
        let json = serde_json::json!({
            "clean_up_tokenization_spaces": false,
            "eos_token": end_of_text,
            "model_input_names": ["input_ids", "attention_mask"],
            "model_max_length": model_max_length,
            "tokenizer_class": "PreTrainedTokenizerFast",
        });
        format!("{json:#}\n")
    }

    fn wrap(mut inner: tokenizers::Tokenizer) -> Result<Self> {
        inner.with_truncation(None).map_err(Error::tokenizer)?;
        inner.with_padding(None);
        inner.set_encode_special_tokens(true);
        if let ModelWrapper::BPE(model) = inner.get_model()
            && model.dropout.is_some()
        {
            let mut model = model.clone();
            model.dropout = None;
            inner.with_model(model);
        }
        let vocab = inner.get_vocab(true);
        let vocab_size = vocab.values().max().map_or(0, |&id| id as usize + 1);
        if vocab_size == 0 {
            return Err(Error::tokenizer("its vocabulary is empty"));
        }
        let most = MAX_VOCABULARY.min(MAX_SPARSE + MAX_GAP * vocab.len());
        if vocab_size > most {
            return Err(Error::tokenizer(format!(
                "its largest token id is {}, and ids of {} tokens may go up to {}",
                vocab_size - 1,
                vocab.len(),
                most - 1
            )));
        }
        let special = |name: &&str| inner.get_added_vocabulary().is_special_token(name);
        let end_of_text =
            END_OF_TEXT_NAMES.iter().filter(|n| special(n)).find_map(|n| vocab.get(*n).copied());
        growth::check(&inner)?;
        let spelling = Spelling::of(&inner, vocab_size)?;
        let gpt2_words = splits_like_gpt2(&inner);
        let named_in_prompts = prompt::added_vocabulary(&inner);
        Ok(Self {
            inner,
            named_in_prompts,
            vocab_size,
            end_of_text,
            spelling,
            adds_space: OnceLock::new(),
            gpt2_words,
            fingerprint: OnceLock::new(),
        })
    }

    /// Token ids of a text. None of them is special; see the head of this file.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the tokenizer cannot encode some character. [`Error::TextTooLong`] for a run
    /// of more than 1 MiB without a word break, or, if the tokenizer does not split words as GPT-2 does, for
    /// a text of more than 4 MiB: encoding it would take many times as much memory.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        self.encoder().encode(text, &mut ids)?;
        Ok(ids)
    }

    /// An encoder that caches words: for many texts, on one thread.
    pub(crate) fn encoder(&self) -> Encoder<'_> {
        Encoder::new(self)
    }

    /// The text of `ids`. Special tokens decode to nothing; bytes that form no character become `U+FFFD`.
    ///
    /// # Errors
    /// [`Error::UnknownToken`].
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        let mut stream = self.stream();
        let mut text = stream.extend(ids)?;
        text.push_str(&stream.finish());
        Ok(text)
    }

    /// A decoder for tokens that arrive one by one.
    pub fn stream(&self) -> StreamDecoder<'_> {
        StreamDecoder::new(self)
    }

    /// A decoder for the tokens after `prompt`. It does not repeat the prompt's text.
    ///
    /// # Errors
    /// [`Error::UnknownToken`].
    pub fn stream_after(&self, prompt: &[u32]) -> Result<StreamDecoder<'_>> {
        StreamDecoder::after(self, prompt)
    }

    /// The largest id plus one. A model's `vocab_size` must be at least this.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Whether both have the same tokens under the same ids.
    pub fn has_vocabulary_of(&self, other: &Self) -> bool {
        self.inner.get_vocab(true) == other.inner.get_vocab(true)
    }

    /// The tokenizer's fingerprint. It covers everything that turns a text into ids, and the id of every
    /// token. It does not cover the file's layout, what is added around a prompt, or how ids become text
    /// again.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if it cannot be written as JSON.
    pub fn fingerprint(&self) -> Result<Fingerprint> {
        if let Some(&known) = self.fingerprint.get() {
            return Ok(known);
        }
        let found = guard(|| Ok(Fingerprint::of_tokenizer(&self.inner)?))?;
        Ok(*self.fingerprint.get_or_init(|| found))
    }

    /// The id that separates stories: a special token with a known name (`<|endoftext|>`, `<|end_of_text|>`,
    /// `</s>`, `<eos>` or `<|eos|>`), or the one that the folder's files name.
    pub fn end_of_text(&self) -> Option<u32> {
        self.end_of_text
    }

    /// Makes `id` the separator of stories, as a model's own files may say.
    ///
    /// # Errors
    /// [`Error::UnknownToken`].
    pub fn set_end_of_text(&mut self, id: u32) -> Result<()> {
        if self.inner.id_to_token(id).is_none() {
            return Err(Error::UnknownToken { id, vocab_size: self.vocab_size });
        }
        self.end_of_text = Some(id);
        Ok(())
    }

    /// The id of the token with this spelling in the vocabulary.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The number of UTF-8 bytes that this token adds in the middle of a text. A special token adds 0; a
    /// token that is half a character adds its bytes. `None` if there is no such token.
    pub fn token_bytes(&self, id: u32) -> Option<usize> {
        self.spelling.len(self, id)
    }

    /// As [`Tokenizer::token_bytes`], for a token after `previous` in a stream of texts. The first token of a
    /// text, which follows an end of text, does not count the space that the tokenizer itself puts before
    /// every text. So the tokens of a text have as many bytes as the text. (One byte too few, if the text
    /// begins with a space and the tokenizer then adds none.)
    pub fn token_bytes_after(&self, previous: u32, id: u32) -> Option<usize> {
        let bytes = self.token_bytes(id)?;
        let is_first = Some(previous) == self.end_of_text;
        let adds_space = || *self.adds_space.get_or_init(|| self.finds_added_space());
        let lost = is_first && bytes > 0 && adds_space() && self.spelling.begins_with_space(id);
        Some(bytes - usize::from(lost))
    }

    /// Whether a text of one letter decodes with a space before it.
    fn finds_added_space(&self) -> bool {
        let bytes = |ids: Vec<u32>| ids.iter().filter_map(|&id| self.token_bytes(id)).sum::<usize>();
        self.encode("a").is_ok_and(|ids| bytes(ids) == " a".len())
    }

    /// The token that ends a text.
    ///
    /// # Errors
    /// [`Error::NoEndOfText`] if there is none.
    pub fn end_of_text_or_error(&self) -> Result<u32> {
        self.end_of_text.ok_or_else(|| Error::NoEndOfText { expected: END_OF_TEXT_NAMES.join(", ") })
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab_size", &self.vocab_size)
            .field("end_of_text", &self.end_of_text)
            .finish_non_exhaustive()
    }
}

/// The `eos_token` of a folder's `tokenizer_config.json`: a string, or an object with `content`. `None` if
/// the file is missing or damaged.
fn eos_token(folder: &Path) -> Option<String> {
    let bytes = fs::read(folder.join(TOKENIZER_CONFIG)).ok()?;
    let config: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
    let token = config.get("eos_token")?;
    token.as_str().or_else(|| token.get("content")?.as_str()).map(str::to_owned)
}

/// Runs the library on a file that may be hostile and turns a panic into an error.
fn guard<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(answer) => answer.map_err(Error::tokenizer),
        Err(_) => Err(Error::tokenizer("its tokenizer.json contradicts itself: use another")),
    }
}

/// Whether every text goes unchanged through GPT-2's pattern and then straight into the model.
fn splits_like_gpt2(inner: &tokenizers::Tokenizer) -> bool {
    let plain = matches!(
        inner.get_pre_tokenizer(),
        Some(PreTokenizerWrapper::ByteLevel(level)) if level.use_regex && !level.add_prefix_space
    );
    let added = inner.get_added_tokens_decoder();
    plain && inner.get_normalizer().is_none() && added.values().all(|token| token.special)
}

#[cfg(test)]
mod tests;
