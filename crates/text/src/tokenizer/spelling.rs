//! The bytes that each token adds to a text.
//!
//! A `tokenizer.json` describes decoding as steps over a list of strings. For the decoders of language models
//! these steps amount to a table from id to bytes, plus a rule for the beginning of the text:
//!
//! - `ByteLevel`: every character of the token stands for one byte;
//! - `Metaspace`: `▁` is a space, and the first token loses its own;
//! - `Sequence` of `Replace` (a plain string), `ByteFallback` (`<0xE4>` is the byte E4), `Fuse`, and `Strip`
//!   of the beginning after a `Fuse`: SentencePiece's conventions, as in Llama 2 and Gemma.
//!
//! With such a table, decoding token by token appends bytes and returns the complete characters. The result
//! equals the library's for every sequence of ids. Under `ByteFallback` a run of byte tokens becomes text
//! only as a whole (one wrong byte turns each into `U+FFFD`), so a run waits for the token that ends it. Any
//! other decoder (`WordPiece`, `CTC`, …) is left to the library: [`Spelling::Library`].

use std::sync::OnceLock;

use serde_json::Value;

use super::words::unspell;
use super::{Tokenizer, guard};
use crate::error::{Error, Result};

pub(super) enum Spelling {
    Exact(Pieces),
    /// The lengths, computed when they are first asked for.
    Library(OnceLock<Vec<Option<usize>>>),
}

/// The bytes of every token, end to end.
pub(super) struct Pieces {
    bytes: Vec<u8>,
    starts: Vec<usize>,    // [vocab_size + 1]
    kinds: Vec<TokenKind>, // [vocab_size]
    rules: Rules,
}

/// What an id is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TokenKind {
    Absent,
    Special,
    Byte,
    Text,
}

/// What a token adds to a text.
pub(super) enum TokenText<'a> {
    /// Nothing: decoding skips it.
    Special,
    /// A byte of a run that becomes text as a whole.
    Byte(u8),
    /// These bytes.
    Text(&'a [u8]),
}

/// What decoding does at the beginning of a text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Beginning {
    Keep,
    /// The first token loses its spaces.
    FirstTokenWithoutSpaces,
    /// The text loses up to this many spaces.
    Strip(usize),
}

impl Tokenizer {
    /// A token by itself: its bytes in the middle of a text, which may be part of a character; of a special
    /// token, its name. `None` if there is no such token.
    pub fn token_text(&self, id: u32) -> Option<Vec<u8>> {
        self.spelling.text(self, id)
    }

    /// Whether decoding skips this token.
    pub fn is_special(&self, id: u32) -> bool {
        let special = |name: &str| self.inner.get_added_vocabulary().is_special_token(name);
        self.inner.id_to_token(id).is_some_and(|name| special(&name))
    }
}

impl Spelling {
    pub(super) fn of(inner: &tokenizers::Tokenizer, vocab_size: usize) -> Result<Self> {
        let decoder = serde_json::to_value(inner.get_decoder()).map_err(Error::tokenizer)?;
        let Some(rules) = Rules::read(&decoder) else { return Ok(Spelling::Library(OnceLock::new())) };
        let mut pieces = Pieces { bytes: Vec::new(), starts: vec![0], kinds: Vec::new(), rules };
        for id in 0..vocab_size as u32 {
            let kind = match inner.id_to_token(id) {
                None => TokenKind::Absent,
                Some(token) if inner.get_added_vocabulary().is_special_token(&token) => TokenKind::Special,
                Some(token) => {
                    let (kind, bytes) = pieces.rules.spell(&token);
                    pieces.bytes.extend(bytes);
                    kind
                }
            };
            pieces.kinds.push(kind);
            pieces.starts.push(pieces.bytes.len());
        }
        Ok(Spelling::Exact(pieces))
    }

    /// Whether a token's text begins with a space. With the library's decoder, every token that is spelled
    /// with one.
    pub(super) fn begins_with_space(&self, id: u32) -> bool {
        match self {
            Spelling::Exact(pieces) => match pieces.get(id) {
                Some(TokenText::Text(bytes)) => bytes.starts_with(b" "),
                Some(TokenText::Byte(byte)) => byte == b' ',
                _ => false,
            },
            Spelling::Library(_) => true,
        }
    }

    /// The bytes of a token in the middle of a text; the name of a special one.
    pub(super) fn text(&self, tokenizer: &Tokenizer, id: u32) -> Option<Vec<u8>> {
        let name = tokenizer.inner.id_to_token(id)?;
        match self {
            Spelling::Exact(pieces) => pieces.get(id).map(|piece| match piece {
                TokenText::Special => name.into_bytes(),
                TokenText::Byte(byte) => vec![byte],
                TokenText::Text(bytes) => bytes.to_vec(),
            }),
            Spelling::Library(_) if tokenizer.is_special(id) => Some(name.into_bytes()),
            Spelling::Library(_) => {
                let decode = |ids: &[u32]| guard(|| tokenizer.inner.decode(ids, true)).unwrap_or_default();
                let (twice, once) = (decode(&[id, id]), decode(&[id]));
                Some(twice.strip_prefix(once.as_str()).unwrap_or(&once).as_bytes().to_vec())
            }
        }
    }

    pub(super) fn len(&self, tokenizer: &Tokenizer, id: u32) -> Option<usize> {
        match self {
            Spelling::Exact(pieces) => pieces.get(id).map(|piece| match piece {
                TokenText::Special => 0,
                TokenText::Byte(_) => 1,
                TokenText::Text(bytes) => bytes.len(),
            }),
            Spelling::Library(lengths) => {
                let lengths = lengths.get_or_init(|| {
                    (0..tokenizer.vocab_size as u32).map(|id| middle(tokenizer, id)).collect()
                });
                lengths.get(id as usize).copied().flatten()
            }
        }
    }
}

/// The bytes that a token adds when it follows itself, as the library decodes it.
fn middle(tokenizer: &Tokenizer, id: u32) -> Option<usize> {
    tokenizer.inner.id_to_token(id)?;
    let len = |ids: &[u32]| guard(|| tokenizer.inner.decode(ids, true)).map_or(0, |text| text.len());
    Some(len(&[id, id]).saturating_sub(len(&[id])))
}

impl Pieces {
    /// The bytes of a token; `None` if there is no such token.
    pub(super) fn get(&self, id: u32) -> Option<TokenText<'_>> {
        let id = id as usize;
        let kind = *self.kinds.get(id)?;
        let bytes = &self.bytes[self.starts[id]..self.starts[id + 1]];
        match kind {
            TokenKind::Absent => None,
            TokenKind::Special => Some(TokenText::Special),
            TokenKind::Byte => Some(TokenText::Byte(bytes[0])),
            TokenKind::Text => Some(TokenText::Text(bytes)),
        }
    }

    pub(super) fn beginning(&self) -> Beginning {
        self.rules.beginning
    }

    /// The text of a run of byte tokens, after the steps that follow `ByteFallback`.
    pub(super) fn run(&self, bytes: &[u8], first: bool) -> String {
        match std::str::from_utf8(bytes) {
            Ok(text) => self.rules.after_fallback(text, first),
            Err(_) => char::REPLACEMENT_CHARACTER.to_string().repeat(bytes.len()),
        }
    }
}

/// A decoder's steps, reduced to what they do to one token.
struct Rules {
    steps: Vec<Step>,
    beginning: Beginning,
}

enum Step {
    ByteLevel,
    ByteFallback,
    Replace(String, String),
}

impl Rules {
    /// Reads a decoder's JSON; `None` if it has a step that is not listed at the head of this file.
    fn read(decoder: &Value) -> Option<Self> {
        let alone = [decoder.clone()];
        let steps = match kind(decoder)? {
            "Sequence" => decoder.get("decoders")?.as_array()?.as_slice(),
            _ => &alone,
        };
        let mut rules = Rules { steps: Vec::new(), beginning: Beginning::Keep };
        let mut fused = false;
        for step in steps {
            // After `Fuse` there is one text, and only its beginning is known.
            if fused && kind(step)? != "Strip" || rules.beginning != Beginning::Keep && kind(step)? != "Fuse"
            {
                return None;
            }
            match kind(step)? {
                "ByteLevel" => {
                    rules.steps.push(Step::ByteLevel);
                    fused = true;
                }
                "ByteFallback" => rules.steps.push(Step::ByteFallback),
                "Fuse" => fused = true,
                "Replace" => {
                    let pattern = step.get("pattern")?.get("String")?.as_str()?;
                    rules
                        .steps
                        .push(Step::Replace(pattern.to_owned(), step.get("content")?.as_str()?.to_owned()));
                }
                "Metaspace" => {
                    rules
                        .steps
                        .push(Step::Replace(step.get("replacement")?.as_str()?.to_owned(), " ".to_owned()));
                    if step.get("prepend_scheme")?.as_str()? != "never" {
                        rules.beginning = Beginning::FirstTokenWithoutSpaces;
                    }
                }
                "Strip" if fused => {
                    let number = |key: &str| step.get(key)?.as_u64();
                    if step.get("content")?.as_str()? != " " || number("stop")? != 0 {
                        return None;
                    }
                    rules.beginning = Beginning::Strip(usize::try_from(number("start")?).ok()?);
                }
                _ => return None,
            }
        }
        Some(rules)
    }

    fn spell(&self, token: &str) -> (TokenKind, Vec<u8>) {
        let mut text = token.to_owned();
        for step in &self.steps {
            match step {
                // A token with characters outside the alphabet was added, and is spelled as it is.
                Step::ByteLevel => {
                    return (TokenKind::Text, unspell(&text).unwrap_or_else(|| text.into_bytes()));
                }
                Step::ByteFallback => {
                    if let Some(byte) = fallback_byte(&text) {
                        return (TokenKind::Byte, vec![byte]);
                    }
                }
                Step::Replace(from, to) => text = text.replace(from.as_str(), to),
            }
        }
        (TokenKind::Text, text.into_bytes())
    }

    /// Applies the remaining steps to a run of bytes that has become text. `Metaspace` removes the spaces of
    /// the first.
    fn after_fallback(&self, text: &str, first: bool) -> String {
        let is_fallback = |step: &Step| matches!(step, Step::ByteFallback);
        let after = self.steps.iter().skip_while(|step| !is_fallback(step));
        after.fold(text.to_owned(), |text, step| match step {
            Step::Replace(from, _) if first && self.beginning == Beginning::FirstTokenWithoutSpaces => {
                text.replace(from.as_str(), "")
            }
            Step::Replace(from, to) => text.replace(from.as_str(), to),
            Step::ByteLevel | Step::ByteFallback => text,
        })
    }
}

fn kind(step: &Value) -> Option<&str> {
    step.get("type")?.as_str()
}

/// `<0xE4>` → E4.
fn fallback_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() != 2 { None } else { u8::from_str_radix(digits, 16).ok() }
}
