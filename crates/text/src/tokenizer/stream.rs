//! Text from tokens that arrive one at a time, never half a character.

use super::spelling::{Beginning, Piece, Pieces, Spelling};
use super::{Tokenizer, guard};
use crate::error::{Error, Result};

/// Decodes a stream of tokens: everything [`StreamDecoder::push`] returned, followed by what
/// [`StreamDecoder::finish`] returns, is [`Tokenizer::decode`] of all the ids; of a stream that goes on from a prompt,
/// it is that without the prompt's own decode.
pub struct StreamDecoder<'t> {
    tokenizer: &'t Tokenizer,
    state: State<'t>,
    /// Text that comes out next and was shown with the prompt.
    shown: String,
}

impl std::fmt::Debug for StreamDecoder<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamDecoder").field("shown", &self.shown).finish_non_exhaustive()
    }
}

enum State<'t> {
    Exact(Exact<'t>),
    /// Decodes all again at every token and gives what is new: slow, but right for any decoder that does not
    /// take back what it has said; what such a one takes back stays said.
    Library {
        ids: Vec<u32>,
        said: String,
    },
}

struct Exact<'t> {
    pieces: &'t Pieces,
    /// Bytes of a character that is not whole yet: at most 3.
    pending: Vec<u8>,
    /// Byte tokens that wait for the end of their run.
    run: Vec<u8>,
    beginning: Beginning,
}

impl<'t> StreamDecoder<'t> {
    pub(super) fn new(tokenizer: &'t Tokenizer) -> Self {
        let state = match &tokenizer.spelling {
            Spelling::Exact(pieces) => State::Exact(Exact {
                pieces,
                pending: Vec::new(),
                run: Vec::new(),
                beginning: pieces.beginning(),
            }),
            Spelling::Library(_) => State::Library { ids: Vec::new(), said: String::new() },
        };
        Self { tokenizer, state, shown: String::new() }
    }

    /// Goes on from a prompt, whose text is shown already.
    ///
    /// # Errors
    /// [`Error::UnknownToken`].
    pub(super) fn after(tokenizer: &'t Tokenizer, prompt: &[u32]) -> Result<Self> {
        let mut stream = Self::new(tokenizer);
        stream.extend(prompt)?;
        stream.shown = stream.rest();
        Ok(stream)
    }

    /// Takes one token and returns the text that became certain with it, often none.
    ///
    /// # Errors
    /// [`Error::UnknownToken`]; the decoder can go on as if the token had not been there.
    pub fn push(&mut self, id: u32) -> Result<String> {
        self.extend(&[id])
    }

    pub(super) fn extend(&mut self, new: &[u32]) -> Result<String> {
        let tokenizer = self.tokenizer;
        let unknown = |id: u32| Error::UnknownToken { id, vocab_size: tokenizer.vocab_size };
        let text = match &mut self.state {
            State::Exact(exact) => {
                let known = |id: &u32| exact.pieces.get(*id).is_some();
                if let Some(&id) = new.iter().find(|id| !known(id)) {
                    return Err(unknown(id));
                }
                exact.extend(new)
            }
            State::Library { ids, said } => {
                if let Some(&id) = new.iter().find(|&&id| tokenizer.inner.id_to_token(id).is_none()) {
                    return Err(unknown(id));
                }
                let before = ids.len();
                ids.extend_from_slice(new);
                let text = guard(|| tokenizer.inner.decode(ids, true));
                let text = text.inspect_err(|_| ids.truncate(before))?;
                // A replacement character at the end may be half of one that is still to come.
                match text.strip_prefix(said.as_str()) {
                    Some(fresh) if !fresh.ends_with(char::REPLACEMENT_CHARACTER) => {
                        let fresh = fresh.to_owned();
                        *said = text;
                        fresh
                    }
                    _ => String::new(),
                }
            }
        };
        Ok(self.without_shown(text))
    }

    /// The end of the tokens: what is left, with `U+FFFD` for a character that never became whole.
    pub fn finish(mut self) -> String {
        let rest = self.rest();
        self.without_shown(rest)
    }

    /// What would still come if the tokens ended here.
    fn rest(&self) -> String {
        match &self.state {
            State::Exact(exact) => exact.rest(),
            State::Library { ids, said } => {
                let text = guard(|| self.tokenizer.inner.decode(ids, true)).unwrap_or_default();
                text[shared(&text, said)..].to_owned()
            }
        }
    }

    /// What of `text` was not shown with the prompt.
    fn without_shown(&mut self, text: String) -> String {
        let same = shared(&text, &self.shown);
        let differs = same < text.len() && same < self.shown.len();
        self.shown.drain(..if differs { self.shown.len() } else { same });
        text[same..].to_owned()
    }
}

impl Exact<'_> {
    /// Takes tokens that exist; the text that became certain.
    fn extend(&mut self, ids: &[u32]) -> String {
        for &id in ids {
            match self.pieces.get(id) {
                None | Some(Piece::Special) => {}
                Some(Piece::Byte(byte)) => self.run.push(byte),
                Some(Piece::Text(bytes)) => {
                    self.end_run();
                    append(&mut self.pending, bytes, &mut self.beginning);
                }
            }
        }
        take_characters(&mut self.pending)
    }

    /// The run of byte tokens before this place becomes text.
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

/// Bytes at the beginning of `text`, whole characters, that are those of `other`.
fn shared(text: &str, other: &str) -> usize {
    text.chars().zip(other.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum()
}

/// Moves every whole character out of `bytes`; wrong ones become `U+FFFD`, one for each maximal part, as
/// `String::from_utf8_lossy` has it. What stays is the beginning of a character.
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
