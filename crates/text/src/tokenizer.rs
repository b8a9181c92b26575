//! Strings to token ids and back.
//!
//! A [`Tokenizer`] is a Hugging Face `tokenizer.json` and nothing less: whatever it is made from (GPT-2's
//! ranks, a file, a training), it can be saved as one and any other program that reads the format gets the same
//! ids. Three decisions are ours:
//!
//! - **Corpora are text.** [`Tokenizer::encode`] never turns a special token that is spelled out in a text into that
//!   token, so no text can end itself. The separator between stories is put in as an id, by [`crate::prepare`].
//!   Nothing is added either (no beginning-of-text token). Prompts are what `transformers` makes of them
//!   ([`Tokenizer::encode_prompt`]). A truncation, a padding or a random dropout of merges stored in the file is
//!   ignored. The saved file is an ordinary one, and other programs treat special tokens as they always do.
//! - **Decoding is exact and the same in one piece or token by token** (see `spelling.rs`). Special tokens
//!   stand for no text.
//! - **GPT-2's word splitting is done here** (see `words.rs`) whenever a file asks for exactly that: many times
//!   faster than the general path, and tested to give the same ids.

mod gpt2;
mod growth;
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
pub use train::BPE_TRAINING_BYTES;
pub use words::Encoder;

/// GPT-2's end of text; ours too.
const END_OF_TEXT: &str = "<|endoftext|>";

/// Names by which a special token is recognised as the end of a text, first found first.
const END_OF_TEXT_NAMES: [&str; 5] = [END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "<|eos|>"];

/// How git-lfs begins what it leaves in place of a file that it has not fetched.
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// Where `transformers` looks for more than the tokens.
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// Ids beyond this are a damaged file: tables are allocated by the largest id, so it must be believable.
const MAX_VOCABULARY: usize = 1 << 24;

/// Ids for each token that there is, and for a vocabulary of none: people leave gaps, and a file of a few bytes must not
/// ask for tables of millions.
const MAX_GAP: usize = 8;
const MAX_SPARSE: usize = 1 << 16;

/// What to do about a folder without a `tokenizer.json`, by what it has in its place.
fn instead(folder: &Path) -> String {
    let has = |name: &str| folder.join(name).is_file();
    let slow = [&["tokenizer.model"][..], &["spiece.model"], &["vocab.json", "merges.txt"]];
    match slow.iter().find(|names| names.iter().all(|name| has(name))) {
        Some(names) => format!(
            "transformers makes it of {}, in that folder: `python -c \"from transformers import AutoTokenizer as T; \
             T.from_pretrained('.').save_pretrained('.')\"`",
            names.join(" and ")
        ),
        None => "copy it from where the model comes from".to_owned(),
    }
}

/// Strings ↔ token ids. `Send + Sync`: share it by reference.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    named_in_prompts: AddedVocabulary,
    vocab_size: usize,
    end_of_text: Option<u32>,
    spelling: Spelling,
    adds_space: OnceLock<bool>, // before every text, known once asked for
    /// Words may be split by `words.rs`: the file asks for GPT-2's pre-tokenizer and nothing else.
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

    /// Trains a byte-level BPE like GPT-2's on `stories`: the same word splitting, all 256 bytes present, id 0 =
    /// `<|endoftext|>`. The same stories in the same order give the same tokenizer.
    ///
    /// Reads no further than [`BPE_TRAINING_BYTES`] of text. Only pairs seen at least twice are merged, so a
    /// small corpus may give a smaller vocabulary than `vocab_size`; see [`Tokenizer::vocab_size`].
    ///
    /// # Errors
    /// [`Error::VocabularyTooSmall`] below 257, and the first error that `stories` yields.
    pub fn train_bpe(stories: impl Iterator<Item = Result<String>>, vocab_size: usize) -> Result<Self> {
        Self::wrap(train::train(stories, vocab_size)?)
    }

    /// Any `tokenizer.json`. Where none of its special tokens has a known name for the end of a text, that is the
    /// `eos_token` of the `tokenizer_config.json` beside it.
    ///
    /// # Errors
    /// [`Error::Read`], or [`Error::TokenizerFile`] if it is not one.
    pub fn from_file(path: &Path) -> Result<Self> {
        let mut tokenizer = Self::from_json(&fs::read(path).map_err(|e| Error::read(path, e))?, path)?;
        if tokenizer.end_of_text.is_none() {
            let token = path.parent().and_then(eos_token);
            tokenizer.end_of_text = token.and_then(|token| tokenizer.token_id(&token));
        }
        Ok(tokenizer)
    }

    /// The bytes of a `tokenizer.json`; `origin` names them in errors.
    ///
    /// # Errors
    /// [`Error::TokenizerFile`] if they are none.
    pub fn from_json(bytes: &[u8], origin: &Path) -> Result<Self> {
        let fault =
            |reason: String| Error::TokenizerFile { path: origin.to_owned(), reason: one_line(&reason) };
        if bytes.starts_with(LFS_POINTER) {
            return Err(Error::LfsPointer { path: origin.to_owned() });
        }
        // Checked first, because the library's own parsing panics on some syntax errors.
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
            return Err(Error::NoTokenizer { folder: folder.to_owned(), advice: instead(folder) });
        }
        Self::from_file(&path)
    }

    /// Where a folder keeps its tokenizer.
    pub(crate) fn file_in(folder: &Path) -> PathBuf {
        folder.join("tokenizer.json")
    }

    /// Writes a `tokenizer.json`, beside `path` and renamed onto it.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn save(&self, path: &Path) -> Result<()> {
        let json = self.inner.to_string(true).map_err(Error::tokenizer)?;
        offramp_files::write_whole(path, json.as_bytes()).map_err(|e| Error::write(path, e))
    }

    /// Writes the `tokenizer.json` of a folder, and how its texts end where its own tokens do not tell.
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

    /// The text of the `tokenizer_config.json` with which `transformers` takes `tokenizer.json` as it is, for a
    /// model of so many positions. Without one, transformers 4.45 goes by the model's type and gives a Llama other tokens
    /// than these.
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

    /// Token ids of a text, none of them special. See the head of this file.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the tokenizer cannot handle some character; [`Error::TextTooLong`] for a run of more
    /// than 1 MiB without a word break or, with a tokenizer that does not split words as GPT-2 does, a text of
    /// more than 4 MiB: encoding would take many times as much memory.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        self.encoder().encode(text, &mut ids)?;
        Ok(ids)
    }

    /// An encoder that remembers the words it has seen: for many texts, on one thread.
    pub fn encoder(&self) -> Encoder<'_> {
        Encoder::new(self)
    }

    /// The text of `ids`. Special tokens stand for nothing; bytes that form no character become `U+FFFD`.
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

    /// A decoder for the tokens that follow `prompt`, whose own text it does not repeat.
    ///
    /// # Errors
    /// [`Error::UnknownToken`].
    pub fn stream_after(&self, prompt: &[u32]) -> Result<StreamDecoder<'_>> {
        StreamDecoder::after(self, prompt)
    }

    /// One more than the largest id, which is what a model's `vocab_size` must reach.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Whether both have the same tokens under the same ids.
    pub fn has_vocabulary_of(&self, other: &Self) -> bool {
        self.inner.get_vocab(true) == other.inner.get_vocab(true)
    }

    /// What makes it the same tokenizer again: whatever makes ids of a text, and which id is which token. The file's
    /// layout does not count, nor what is added around a prompt, nor how ids become text again.
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

    /// The id that separates stories: a special token with a known name for it (`<|endoftext|>`, `<|end_of_text|>`,
    /// `</s>`, `<eos>` or `<|eos|>`), or what the folder's files say.
    pub fn end_of_text(&self) -> Option<u32> {
        self.end_of_text
    }

    /// Lets `id` separate stories, as a model's own files may say.
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

    /// The id of the token that is spelled so in the vocabulary.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// How many UTF-8 bytes of text this token stands for in the middle of a text: special tokens 0, half a
    /// character its half. `None` if there is no such token.
    pub fn token_bytes(&self, id: u32) -> Option<usize> {
        self.spelling.len(self, id)
    }

    /// As [`Tokenizer::token_bytes`], of a token after `previous` in a stream of texts: the first of a text, after an end
    /// of text, loses the space that the tokenizer itself puts before every text. So the tokens of a text have the text's
    /// bytes. (If the text begins with a space, and the tokenizer then adds none, one byte less.)
    pub fn token_bytes_after(&self, previous: u32, id: u32) -> Option<usize> {
        let bytes = self.token_bytes(id)?;
        let is_first = Some(previous) == self.end_of_text;
        let adds_space = || *self.adds_space.get_or_init(|| self.finds_added_space());
        let lost = is_first && bytes > 0 && adds_space() && self.spelling.begins_with_space(id);
        Some(bytes - usize::from(lost))
    }

    /// Whether a text of one letter comes back with a space before it.
    fn finds_added_space(&self) -> bool {
        let bytes = |ids: Vec<u32>| ids.iter().filter_map(|&id| self.token_bytes(id)).sum::<usize>();
        self.encode("a").is_ok_and(|ids| bytes(ids) == " a".len())
    }

    pub(crate) fn end_of_text_or_error(&self) -> Result<u32> {
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

/// The `eos_token` of a folder's `tokenizer_config.json`: a string, or an object with its `content`. A file that is
/// missing or damaged says nothing.
fn eos_token(folder: &Path) -> Option<String> {
    let bytes = fs::read(folder.join(TOKENIZER_CONFIG)).ok()?;
    let config: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
    let token = config.get("eos_token")?;
    token.as_str().or_else(|| token.get("content")?.as_str()).map(str::to_owned)
}

/// Runs the library's code on a file that may be hostile: a panic in it is an error like any other.
fn guard<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(answer) => answer.map_err(Error::tokenizer),
        Err(_) => Err(Error::tokenizer("its tokenizer.json contradicts itself: use another")),
    }
}

/// Whether every text goes through GPT-2's pattern, untouched, straight into the model.
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
