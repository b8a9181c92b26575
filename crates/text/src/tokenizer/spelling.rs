//! What each token adds to a text, in bytes.
//!
//! A `tokenizer.json` describes decoding as steps over a list of strings. The steps that language models'
//! tokenizers use come down to a table from id to bytes plus a rule for the beginning of the text:
//!
//! - `ByteLevel`: every character of the token stands for one byte;
//! - `Metaspace`: `▁` is a space, and the first token loses its own;
//! - `Sequence` of `Replace` (a plain string), `ByteFallback` (`<0xE4>` is the byte E4), `Fuse`, and `Strip`
//!   of the beginning after a `Fuse`: SentencePiece's conventions, as Llama 2 and Gemma have them.
//!
//! With such a table, decoding token by token is appending bytes and showing those that form characters. It
//! agrees with the library on every id sequence. Under `ByteFallback` a run of byte tokens is text only as a whole
//! (one wrong byte makes `U+FFFD` of each), so it waits for the token that ends it.
//! Any other decoder (`WordPiece`, `CTC`, …) is left to the library: [`Spelling::Library`].

use std::sync::OnceLock;

use serde_json::Value;

use super::words::unspell;
use super::{Tokenizer, guard};
use crate::error::{Error, Result};

pub(super) enum Spelling {
    Exact(Pieces),
    /// Lengths are worked out when first asked for.
    Library(OnceLock<Vec<Option<usize>>>),
}

/// The bytes of every token, end to end.
pub(super) struct Pieces {
    bytes: Vec<u8>,
    starts: Vec<usize>, // [vocab_size + 1]
    kinds: Vec<Kind>,   // [vocab_size]
    rules: Rules,
}

/// What an id is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Absent,
    Special,
    Byte,
    Text,
}

/// What a token brings into a text.
pub(super) enum Piece<'a> {
    /// Nothing: decoding skips it.
    Special,
    /// A byte of a run that becomes text as a whole.
    Byte(u8),
    /// These bytes.
    Text(&'a [u8]),
}

/// What happens to the beginning of a text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Beginning {
    Keep,
    /// The first token loses its spaces.
    FirstTokenWithoutSpaces,
    /// The text loses up to so many spaces.
    Strip(usize),
}

impl Spelling {
    pub(super) fn of(inner: &tokenizers::Tokenizer, vocab_size: usize) -> Result<Self> {
        let decoder = serde_json::to_value(inner.get_decoder()).map_err(Error::tokenizer)?;
        let Some(rules) = Rules::read(&decoder) else { return Ok(Spelling::Library(OnceLock::new())) };
        let mut pieces = Pieces { bytes: Vec::new(), starts: vec![0], kinds: Vec::new(), rules };
        for id in 0..vocab_size as u32 {
            let kind = match inner.id_to_token(id) {
                None => Kind::Absent,
                Some(token) if inner.get_added_vocabulary().is_special_token(&token) => Kind::Special,
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

    /// Whether a token's text begins with a space. The library's pieces all do, where they are spelt with one.
    pub(super) fn begins_with_space(&self, id: u32) -> bool {
        match self {
            Spelling::Exact(pieces) => match pieces.get(id) {
                Some(Piece::Text(bytes)) => bytes.starts_with(b" "),
                Some(Piece::Byte(byte)) => byte == b' ',
                _ => false,
            },
            Spelling::Library(_) => true,
        }
    }

    pub(super) fn len(&self, tokenizer: &Tokenizer, id: u32) -> Option<usize> {
        match self {
            Spelling::Exact(pieces) => pieces.get(id).map(|piece| match piece {
                Piece::Special => 0,
                Piece::Byte(_) => 1,
                Piece::Text(bytes) => bytes.len(),
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

/// What a token adds when it follows itself, by the library's reckoning.
fn middle(tokenizer: &Tokenizer, id: u32) -> Option<usize> {
    tokenizer.inner.id_to_token(id)?;
    let len = |ids: &[u32]| guard(|| tokenizer.inner.decode(ids, true)).map_or(0, |text| text.len());
    Some(len(&[id, id]).saturating_sub(len(&[id])))
}

impl Pieces {
    /// What a token stands for; `None` if there is no such token.
    pub(super) fn get(&self, id: u32) -> Option<Piece<'_>> {
        let id = id as usize;
        let kind = *self.kinds.get(id)?;
        let bytes = &self.bytes[self.starts[id]..self.starts[id + 1]];
        match kind {
            Kind::Absent => None,
            Kind::Special => Some(Piece::Special),
            Kind::Byte => Some(Piece::Byte(bytes[0])),
            Kind::Text => Some(Piece::Text(bytes)),
        }
    }

    pub(super) fn beginning(&self) -> Beginning {
        self.rules.beginning
    }

    /// The text of a run of byte tokens, as the steps after `ByteFallback` leave it.
    pub(super) fn run(&self, bytes: &[u8], first: bool) -> String {
        match std::str::from_utf8(bytes) {
            Ok(text) => self.rules.after_fallback(text, first),
            Err(_) => char::REPLACEMENT_CHARACTER.to_string().repeat(bytes.len()),
        }
    }
}

/// A decoder's steps, as far as they concern one token.
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
    /// Reads a decoder's JSON; `None` if it has a step that is not one of those above.
    fn read(decoder: &Value) -> Option<Self> {
        let alone = [decoder.clone()];
        let steps = match kind(decoder)? {
            "Sequence" => decoder.get("decoders")?.as_array()?.as_slice(),
            _ => &alone,
        };
        let mut rules = Rules { steps: Vec::new(), beginning: Beginning::Keep };
        let mut fused = false;
        for step in steps {
            // After the pieces have become one text, only its beginning can be told apart.
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

    fn spell(&self, token: &str) -> (Kind, Vec<u8>) {
        let mut text = token.to_owned();
        for step in &self.steps {
            match step {
                // A token that is not in the alphabet was added as it is.
                Step::ByteLevel => return (Kind::Text, unspell(&text).unwrap_or_else(|| text.into_bytes())),
                Step::ByteFallback => {
                    if let Some(byte) = fallback_byte(&text) {
                        return (Kind::Byte, vec![byte]);
                    }
                }
                Step::Replace(from, to) => text = text.replace(from.as_str(), to),
            }
        }
        (Kind::Text, text.into_bytes())
    }

    /// A run of bytes that has become text meets the steps that are left; `Metaspace` takes the spaces of the first.
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
