//! Text from tokens that arrive one at a time, never half a character.

use super::spelling::{Beginning, Pieces, Spelling};
use super::{Tokenizer, guard};
use crate::error::{Error, Result};

/// Decodes a stream of tokens: everything [`StreamDecoder::push`] returned, followed by what
/// [`StreamDecoder::finish`] returns, is [`Tokenizer::decode`] of all the ids.
pub struct StreamDecoder<'t> {
    tokenizer: &'t Tokenizer,
    state: State<'t>,
}

enum State<'t> {
    Exact {
        pieces: &'t Pieces,
        /// Bytes of a character that is not whole yet: at most 3.
        pending: Vec<u8>,
        beginning: Beginning,
    },
    /// Decodes all again at every token and shows what is new: slow, but right for any decoder that does not
    /// take back what it has said; what such a one takes back stays shown.
    Library { ids: Vec<u32>, shown: String },
}

impl<'t> StreamDecoder<'t> {
    pub(super) fn new(tokenizer: &'t Tokenizer) -> Self {
        let state = match &tokenizer.spelling {
            Spelling::Exact(pieces) => {
                State::Exact { pieces, pending: Vec::new(), beginning: pieces.beginning }
            }
            Spelling::Library(_) => State::Library { ids: Vec::new(), shown: String::new() },
        };
        Self { tokenizer, state }
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
        match &mut self.state {
            State::Exact { pieces, pending, beginning } => {
                for &id in new {
                    let piece = pieces.get(id).ok_or_else(|| unknown(id))?;
                    append(pending, piece, beginning);
                }
                Ok(take_characters(pending))
            }
            State::Library { ids, shown } => {
                if let Some(&id) = new.iter().find(|&&id| tokenizer.inner.id_to_token(id).is_none()) {
                    return Err(unknown(id));
                }
                let before = ids.len();
                ids.extend_from_slice(new);
                let text = guard(|| tokenizer.inner.decode(ids, true));
                let text = text.inspect_err(|_| ids.truncate(before))?;
                // A replacement character at the end may be half of one that is still to come.
                match text.strip_prefix(shown.as_str()) {
                    Some(fresh) if !fresh.ends_with(char::REPLACEMENT_CHARACTER) => {
                        let fresh = fresh.to_owned();
                        *shown = text;
                        Ok(fresh)
                    }
                    _ => Ok(String::new()),
                }
            }
        }
    }

    /// The end of the tokens: what is left, with `U+FFFD` for a character that never became whole.
    pub fn finish(self) -> String {
        match self.state {
            State::Exact { pending, .. } => String::from_utf8_lossy(&pending).into_owned(),
            State::Library { ids, shown } => {
                let text = guard(|| self.tokenizer.inner.decode(&ids, true)).unwrap_or_default();
                let agreed: usize = text
                    .chars()
                    .zip(shown.chars())
                    .take_while(|(a, b)| a == b)
                    .map(|(a, _)| a.len_utf8())
                    .sum();
                text[agreed..].to_owned()
            }
        }
    }
}

fn append(pending: &mut Vec<u8>, piece: &[u8], beginning: &mut Beginning) {
    match *beginning {
        Beginning::Keep => pending.extend_from_slice(piece),
        // Special tokens, which are empty, do not count as the first.
        Beginning::FirstTokenWithoutSpaces if piece.is_empty() => {}
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
