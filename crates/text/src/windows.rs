//! The stream as evaluation reads it: every token but the first is scored exactly once.
//!
//! Windows have `C + 1` tokens and overlap by one: the last label of a window is the first input of the next.
//! The last window may be shorter.

use crate::error::{Error, Result};
use crate::stream::TokenStream;

/// The evaluation windows of one stream.
pub struct Windows<'s> {
    stream: &'s TokenStream,
    context: u64,
}

/// A range of the stream. Its inputs are all tokens but the last, its labels all tokens but the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Position of the first input in the stream.
    pub start: u64,
    /// At least 2 and at most `C + 1` tokens.
    pub tokens: Vec<u32>,
}

impl Window {
    /// The model's inputs: all tokens but the last.
    pub fn inputs(&self) -> &[u32] {
        &self.tokens[..self.tokens.len() - 1]
    }

    /// The model's labels: all tokens but the first; `labels()[i]` follows `inputs()[i]`.
    pub fn labels(&self) -> &[u32] {
        &self.tokens[1..]
    }
}

impl<'s> Windows<'s> {
    /// Windows of at most `context` inputs.
    ///
    /// # Errors
    /// [`Error::TooShort`] if the stream has fewer than 2 tokens; [`Error::Option`] if `context` is 0.
    pub fn new(stream: &'s TokenStream, context: usize) -> Result<Self> {
        if context == 0 {
            return Err(Error::Option {
                option: "context",
                found: "0".into(),
                expected: "must be at least 1",
            });
        }
        if stream.len() < 2 {
            return Err(Error::TooShort { len: stream.len(), needed: 2 });
        }
        Ok(Self { stream, context: context as u64 })
    }

    /// The number of windows.
    pub fn len(&self) -> u64 {
        (self.stream.len() - 1).div_ceil(self.context)
    }

    /// Always false: a stream of two tokens has a window.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Window `index`, counted from 0.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] if there is none; as [`TokenStream::read`].
    pub fn get(&self, index: u64) -> Result<Window> {
        let start = index.saturating_mul(self.context);
        let len = self.stream.len();
        let labels = (len - 1).saturating_sub(start).min(self.context);
        if labels == 0 {
            return Err(Error::OutOfRange { start, count: 2, len });
        }
        let mut tokens = vec![0; labels as usize + 1];
        self.stream.read(start, &mut tokens)?;
        Ok(Window { start, tokens })
    }

    /// All windows in order.
    pub fn iter(&self) -> impl Iterator<Item = Result<Window>> + '_ {
        (0..self.len()).map(|index| self.get(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_token_but_the_first_is_scored_once(len in 2usize..200, context in 1usize..50) {
            let tokens: Vec<u32> = (0..len as u32).collect();
            let stream = TokenStream::from_tokens(tokens.clone(), len).unwrap();
            let windows = Windows::new(&stream, context).unwrap();
            let all: Vec<Window> = windows.iter().collect::<Result<_>>().unwrap();
            prop_assert_eq!(all.len() as u64, windows.len());
            let labels: Vec<u32> = all.iter().flat_map(|w| w.labels().to_vec()).collect();
            let inputs: Vec<u32> = all.iter().flat_map(|w| w.inputs().to_vec()).collect();
            prop_assert_eq!(labels, &tokens[1..]);
            prop_assert_eq!(inputs, &tokens[..len - 1]);
            for (i, window) in all.iter().enumerate() {
                prop_assert_eq!(window.start, (i * context) as u64);
                let whole = window.inputs().len() == context;
                prop_assert!(whole || i + 1 == all.len());
            }
        }
    }

    #[test]
    fn what_has_no_window_says_so() {
        let short = TokenStream::from_tokens(vec![1], 2).unwrap();
        assert!(matches!(Windows::new(&short, 4), Err(Error::TooShort { len: 1, needed: 2 })));
        let stream = TokenStream::from_tokens(vec![1, 0, 1], 2).unwrap();
        assert!(matches!(Windows::new(&stream, 0), Err(Error::Option { .. })));
        let windows = Windows::new(&stream, 2).unwrap();
        assert!(matches!(windows.get(1), Err(Error::OutOfRange { .. })));
        assert!(matches!(windows.get(u64::MAX), Err(Error::OutOfRange { .. })));
    }
}
