//! The most frequent tokens of a text.

use crate::error::Result;
use crate::stream::TokenStream;

/// Tokens read at once.
const PART: usize = 1 << 16;

/// The `count` most frequent tokens, the most frequent first. Of equally frequent tokens the lower id comes
/// first. Tokens that do not occur are left out, so the result may be shorter.
///
/// # Errors
/// If the stream cannot be read.
pub fn most_used(stream: &TokenStream, count: usize) -> Result<Vec<u32>> {
    let mut counts = vec![0u64; stream.vocab_size()];
    let mut part = vec![0; PART];
    let mut position = 0;
    while position < stream.len() {
        let length = PART.min((stream.len() - position) as usize);
        stream.read(position, &mut part[..length])?;
        part[..length].iter().for_each(|&token| counts[token as usize] += 1);
        position += length as u64;
    }
    let mut tokens: Vec<u32> = (0..counts.len() as u32).filter(|&token| counts[token as usize] > 0).collect();
    tokens.sort_by_key(|&token| std::cmp::Reverse(counts[token as usize]));
    tokens.truncate(count);
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_frequent_come_first() {
        let mut tokens = vec![5, 5, 3, 1, 3, 5, 2];
        tokens.extend(std::iter::repeat_n(7, PART + 10));
        let stream = TokenStream::from_tokens(tokens, 9).unwrap();
        assert_eq!(most_used(&stream, 9).unwrap(), [7, 5, 3, 1, 2]);
        assert_eq!(most_used(&stream, 2).unwrap(), [7, 5]);
        assert!(most_used(&stream, 0).unwrap().is_empty());
    }
}
