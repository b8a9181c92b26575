//! Text from tokens that arrive one at a time, never half a character.

use super::spelling::{Beginning, Pieces, Spelling, TokenText};
use super::{Tokenizer, guard};
use crate::error::{Error, Result};

/// Decodes a stream of tokens. Everything that [`StreamDecoder::push`] returned, followed by what
/// [`StreamDecoder::finish`] returns, is [`Tokenizer::decode`] of all ids. For a stream that continues a
/// prompt, it is that text without the decoded prompt.
pub struct StreamDecoder<'t> {
    tokenizer: &'t Tokenizer,
    state: DecoderState<'t>,
    /// Text that comes next and was already shown with the prompt.
    shown: String,
}

impl std::fmt::Debug for StreamDecoder<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamDecoder").field("shown", &self.shown).finish_non_exhaustive()
    }
}

enum DecoderState<'t> {
    Exact(Exact<'t>),
    /// Decodes all tokens again at each one and returns what is new. This is slow, but right for any decoder
    /// that never changes earlier text. If a decoder does change it, the text that was returned stays.
    Library {
        ids: Vec<u32>,
        returned: String,
    },
}

struct Exact<'t> {
    pieces: &'t Pieces,
    /// The bytes of an incomplete character: at most 3.
    pending: Vec<u8>,
    /// Byte tokens whose run has not ended.
    run: Vec<u8>,
    beginning: Beginning,
}

impl<'t> StreamDecoder<'t> {
    pub(super) fn new(tokenizer: &'t Tokenizer) -> Self {
        let state = match &tokenizer.spelling {
            Spelling::Exact(pieces) => DecoderState::Exact(Exact {
                pieces,
                pending: Vec::new(),
                run: Vec::new(),
                beginning: pieces.beginning(),
            }),
            Spelling::Library(_) => DecoderState::Library { ids: Vec::new(), returned: String::new() },
        };
        Self { tokenizer, state, shown: String::new() }
    }

    /// Continues a prompt whose text is already shown.
    ///
    /// # Errors
    /// [`Error::UnknownToken`].
    pub(super) fn after(tokenizer: &'t Tokenizer, prompt: &[u32]) -> Result<Self> {
        let mut stream = Self::new(tokenizer);
        stream.extend(prompt)?;
        stream.shown = stream.rest();
        Ok(stream)
    }

    /// Takes one token and returns the text that is now certain, which is often empty.
    ///
    /// # Errors
    /// [`Error::UnknownToken`]. The decoder can go on as if the token had not been given.
    pub fn push(&mut self, id: u32) -> Result<String> {
        self.extend(&[id])
    }

    pub(super) fn extend(&mut self, new: &[u32]) -> Result<String> {
        let tokenizer = self.tokenizer;
        let unknown = |id: u32| Error::UnknownToken { id, vocab_size: tokenizer.vocab_size };
        let text = match &mut self.state {
            DecoderState::Exact(exact) => {
                let known = |id: &u32| exact.pieces.get(*id).is_some();
                if let Some(&id) = new.iter().find(|id| !known(id)) {
                    return Err(unknown(id));
                }
                exact.extend(new)
            }
            DecoderState::Library { ids, returned } => {
                if let Some(&id) = new.iter().find(|&&id| tokenizer.inner.id_to_token(id).is_none()) {
                    return Err(unknown(id));
                }
                let before = ids.len();
                ids.extend_from_slice(new);
                let text = guard(|| tokenizer.inner.decode(ids, true));
                let text = text.inspect_err(|_| ids.truncate(before))?;
                // A replacement character at the end may be an incomplete character.
                match text.strip_prefix(returned.as_str()) {
                    Some(fresh) if !fresh.ends_with(char::REPLACEMENT_CHARACTER) => {
                        let fresh = fresh.to_owned();
                        *returned = text;
                        fresh
                    }
                    _ => String::new(),
                }
            }
        };
        Ok(self.without_shown(text))
    }

    /// Ends the stream and returns the rest, with `U+FFFD` for an incomplete character.
    pub fn finish(mut self) -> String {
        let rest = self.rest();
        self.without_shown(rest)
    }

    /// The text that would still come if the tokens ended here.
    fn rest(&self) -> String {
        match &self.state {
            DecoderState::Exact(exact) => exact.rest(),
            DecoderState::Library { ids, returned } => {
                let text = guard(|| self.tokenizer.inner.decode(ids, true)).unwrap_or_default();
                text[shared(&text, returned)..].to_owned()
            }
        }
    }

    /// The part of `text` that was not shown with the prompt.
    fn without_shown(&mut self, text: String) -> String {
        let same = shared(&text, &self.shown);
        let differs = same < text.len() && same < self.shown.len();
        self.shown.drain(..if differs { self.shown.len() } else { same });
        text[same..].to_owned()
    }
}

impl Exact<'_> {
    /// Takes known tokens and returns the text that is now certain.
    fn extend(&mut self, ids: &[u32]) -> String {
        for &id in ids {
            match self.pieces.get(id) {
                None | Some(TokenText::Special) => {}
                Some(TokenText::Byte(byte)) => self.run.push(byte),
                Some(TokenText::Text(bytes)) => {
                    self.end_run();
                    append(&mut self.pending, bytes, &mut self.beginning);
                }
            }
        }
        take_characters(&mut self.pending)
    }

    /// Turns the waiting run of byte tokens into text.
    fn end_run(&mut self) {
        if self.run.is_empty() {
            return;
        }
        let first = self.beginning == Beginning::FirstTokenWithoutSpaces;
        let text = self.pieces.run(&self.run, first);
        self.run.clear();
        if first {
            self.beginning = Beginning::Keep;
        }
        append(&mut self.pending, text.as_bytes(), &mut self.beginning);
    }

    fn rest(&self) -> String {
        let mut end = Self {
            pieces: self.pieces,
            pending: self.pending.clone(),
            run: self.run.clone(),
            beginning: self.beginning,
        };
        end.end_run();
        String::from_utf8_lossy(&end.pending).into_owned()
    }
}

fn append(pending: &mut Vec<u8>, piece: &[u8], beginning: &mut Beginning) {
    match *beginning {
        Beginning::Keep => pending.extend_from_slice(piece),
        Beginning::FirstTokenWithoutSpaces => {
            pending.extend(piece.iter().filter(|&&byte| byte != b' '));
            *beginning = Beginning::Keep;
        }
        Beginning::Strip(most) => {
            let spaces = piece.iter().take(most).take_while(|&&byte| byte == b' ').count();
            pending.extend_from_slice(&piece[spaces..]);
            let stripping_goes_on = spaces == piece.len();
            *beginning = if stripping_goes_on { Beginning::Strip(most - spaces) } else { Beginning::Keep };
        }
    }
}

/// The length in bytes of the longest common beginning of `text` and `other`, in whole characters.
fn shared(text: &str, other: &str) -> usize {
    text.chars().zip(other.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum()
}

/// Moves every complete character out of `bytes`. Wrong bytes become `U+FFFD`, one for each maximal part, as
/// in `String::from_utf8_lossy`. The beginning of an incomplete character stays.
fn take_characters(bytes: &mut Vec<u8>) -> String {
    let mut text = String::with_capacity(bytes.len());
    let mut done = 0;
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        done += chunk.valid().len();
        let wrong = chunk.invalid();
        let at_end = done + wrong.len() == bytes.len();
        let may_become_whole = at_end && std::str::from_utf8(wrong).is_err_and(|e| e.error_len().is_none());
        if wrong.is_empty() || may_become_whole {
            continue;
        }
        text.push(char::REPLACEMENT_CHARACTER);
        done += wrong.len();
    }
    bytes.drain(..done);
    text
}
