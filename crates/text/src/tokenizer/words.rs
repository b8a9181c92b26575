//! GPT-2's word splitting without a regular expression engine, and an encoder that caches words.
//!
//! The pattern is `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+` (Radford et
//! al. 2019, `encoder.py`). One pass over the characters' classes matches it. A regular expression engine
//! needs a slow look-ahead and fails on very long runs of spaces. The classes come from the Unicode tables
//! that the `tokenizers` crate uses.
//!
//! A corpus has few different words, so [`Encoder`] looks up whole words and calls the BPE only for new ones.
//! The BPE's result depends on the word alone, so the ids are the same.

use std::collections::HashMap;
use std::sync::LazyLock;

use regex_syntax::hir::{Class, HirKind};
use tokenizers::Model;

use super::{Tokenizer, guard};
use crate::error::{Error, Result};

/// Longer words are not cached.
const MAX_CACHED_WORD: usize = 32;
/// A full cache is emptied, so memory stays bounded on any input.
const MAX_CACHED_WORDS: usize = 1 << 17;

/// BPE uses about 70 bytes of memory for every byte of a word, so longer words are refused.
const MAX_WORD_BYTES: usize = 1 << 20;
/// The library's general code uses about 90 bytes of memory for every byte of a text.
const MAX_GENERAL_TEXT_BYTES: usize = 4 << 20;

const OTHER: u8 = 0;
const LETTER: u8 = 1;
const NUMBER: u8 = 2;
const SPACE: u8 = 3;

/// The class of every character, by code point.
static CLASSES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut classes = vec![OTHER; char::MAX as usize + 1];
    for (pattern, class) in [(r"\p{L}", LETTER), (r"\p{N}", NUMBER), (r"\s", SPACE)] {
        let parsed = regex_syntax::parse(pattern).expect("a constant pattern");
        let HirKind::Class(Class::Unicode(ranges)) = parsed.into_kind() else {
            unreachable!("a class is a class")
        };
        for range in ranges.ranges() {
            classes[range.start() as usize..=range.end() as usize].fill(class);
        }
    }
    classes
});

/// GPT-2's printable character for every byte: printable Latin-1 bytes stand for themselves, the others for
/// code points from 256 on (`bytes_to_unicode` in `encoder.py`).
static STAND_INS: LazyLock<[char; 256]> = LazyLock::new(|| {
    let mut next = 256;
    std::array::from_fn(|byte| {
        let printable = matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
        let code = if printable { byte as u32 } else { next };
        next += u32::from(!printable);
        char::from_u32(code).expect("below the surrogates")
    })
});

/// A token's bytes as GPT-2's vocabulary files spell them.
pub(super) fn spell(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| STAND_INS[byte as usize]).collect()
}

/// The bytes that a spelling stands for; `None` if it is not one.
pub(super) fn unspell(spelling: &str) -> Option<Vec<u8>> {
    static BYTES: LazyLock<HashMap<char, u8>> =
        LazyLock::new(|| STAND_INS.iter().copied().zip(0..=255).collect());
    spelling.chars().map(|c| BYTES.get(&c).copied()).collect()
}

/// The words of a text, by GPT-2's pattern. Joined, they are the text.
pub(super) fn words(text: &str) -> Words<'_> {
    Words { rest: text, classes: &CLASSES }
}

pub(super) struct Words<'t> {
    rest: &'t str,
    classes: &'static [u8],
}

impl Words<'_> {
    fn class(&self, c: char) -> u8 {
        self.classes[c as usize]
    }

    /// The length in bytes of the run of `class` at the beginning of `text`.
    fn run(&self, text: &str, class: u8) -> usize {
        text.char_indices().find(|&(_, c)| self.class(c) != class).map_or(text.len(), |(at, _)| at)
    }

    /// The length of the first word of `rest`, which is not empty.
    fn first(&self, first: char) -> usize {
        let rest = self.rest;
        if first == '\''
            && let Some(found) =
                ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"].iter().find(|c| rest.starts_with(**c))
        {
            return found.len();
        }
        let lead = usize::from(first == ' ');
        match rest[lead..].chars().next().map(|c| self.class(c)) {
            Some(class) if class != SPACE => lead + self.run(&rest[lead..], class),
            _ => self.spaces(),
        }
    }

    /// A run of spaces. If a word follows, the last space belongs to the word.
    fn spaces(&self) -> usize {
        let run = self.run(self.rest, SPACE);
        if run == self.rest.len() {
            return run;
        }
        let last = self.rest[..run].chars().next_back().map_or(0, char::len_utf8);
        if run > last { run - last } else { run }
    }
}

impl<'t> Iterator for Words<'t> {
    type Item = &'t str;

    fn next(&mut self) -> Option<&'t str> {
        let first = self.rest.chars().next()?;
        let (word, rest) = self.rest.split_at(self.first(first));
        self.rest = rest;
        Some(word)
    }
}

/// Encodes one text after another; see [`Tokenizer::encoder`].
pub(crate) struct Encoder<'t> {
    tokenizer: &'t Tokenizer,
    /// Word → the range of its ids in `ids`.
    known: HashMap<Box<str>, (u32, u32)>,
    ids: Vec<u32>,
    spelling: String,
}

impl<'t> Encoder<'t> {
    pub(super) fn new(tokenizer: &'t Tokenizer) -> Self {
        Self { tokenizer, known: HashMap::new(), ids: Vec::new(), spelling: String::new() }
    }

    /// Appends the ids of `text` to `out`: those of [`Tokenizer::encode`].
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub(crate) fn encode(&mut self, text: &str, out: &mut Vec<u32>) -> Result<()> {
        if self.tokenizer.gpt2_words {
            return words(text).try_for_each(|word| self.word(word, out));
        }
        check_general_length(text)?;
        let encoding = guard(|| self.tokenizer.inner.encode_fast(text, false))?;
        out.extend_from_slice(encoding.get_ids());
        Ok(())
    }

    fn word(&mut self, word: &str, out: &mut Vec<u32>) -> Result<()> {
        if let Some(&(start, end)) = self.known.get(word) {
            out.extend_from_slice(&self.ids[start as usize..end as usize]);
            return Ok(());
        }
        check_length("a run without a word break", word, MAX_WORD_BYTES)?;
        self.spelling.clear();
        self.spelling.extend(word.bytes().map(|byte| STAND_INS[byte as usize]));
        let tokens = guard(|| self.tokenizer.inner.get_model().tokenize(&self.spelling))?;
        out.extend(tokens.iter().map(|token| token.id));
        if word.len() <= MAX_CACHED_WORD {
            self.remember(word, tokens.iter().map(|token| token.id));
        }
        Ok(())
    }

    fn remember(&mut self, word: &str, ids: impl Iterator<Item = u32>) {
        if self.known.len() >= MAX_CACHED_WORDS {
            self.known.clear();
            self.ids.clear();
        }
        let start = self.ids.len() as u32;
        self.ids.extend(ids);
        self.known.insert(word.into(), (start, self.ids.len() as u32));
    }
}

/// Whether the library's general code may take such a text.
pub(super) fn check_general_length(text: &str) -> Result<()> {
    check_length("a text", text, MAX_GENERAL_TEXT_BYTES)
}

fn check_length(what: &'static str, text: &str, limit: usize) -> Result<()> {
    if text.len() > limit {
        return Err(Error::TextTooLong { what, len: text.len(), limit });
    }
    Ok(())
}
