//! Prompts: the beginnings of stories.

use crate::{Error, Result};
use offramp_text::TokenStream;

/// The first `tokens` tokens of each of the first `count` stories that are longer than that.
///
/// # Errors
/// If there is no such story, or the stream cannot be read.
pub fn openings(
    stream: &TokenStream,
    end_of_text: Option<u32>,
    count: usize,
    tokens: usize,
) -> Result<Vec<Vec<u32>>> {
    let mut all = vec![0; stream.len() as usize];
    stream.read(0, &mut all)?;
    let stories = all.split(|&token| Some(token) == end_of_text).filter(|story| story.len() > tokens);
    let found: Vec<Vec<u32>> = stories.take(count).map(|story| story[..tokens].to_vec()).collect();
    if found.is_empty() || tokens == 0 {
        let message =
            format!("there is no story of more than {tokens} tokens to begin with: ask for shorter prompts");
        return Err(Error::Options(if tokens == 0 {
            "a prompt has at least one token".into()
        } else {
            message
        }));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stories_begin_after_an_end() {
        let stream = TokenStream::from_tokens(vec![1, 2, 3, 0, 4, 0, 5, 6, 7, 8, 0, 9, 9, 9], 10).unwrap();
        let find = |count, tokens| openings(&stream, Some(0), count, tokens);
        assert_eq!(find(9, 2).unwrap(), [[1, 2], [5, 6], [9, 9]]);
        assert_eq!(find(2, 1).unwrap(), [[1], [5]]);
        assert_eq!(openings(&stream, None, 2, 3).unwrap(), [[1, 2, 3]]);
        assert!(find(9, 4).unwrap_err().to_string().contains("more than 4 tokens"));
        assert!(find(9, 0).is_err());
    }
}
