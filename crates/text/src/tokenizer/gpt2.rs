//! GPT-2's vocabulary and merges, rebuilt from the ranks that the `tiktoken-rs` crate contains.
//!
//! tiktoken stores the bytes of every token; a token's id is the order in which training created it. A
//! `tokenizer.json` needs the merges themselves: the two tokens that were joined. BPE over a token's bytes
//! with only the tokens before it ends with exactly these two.

use std::collections::HashMap;

use tokenizers::AddedToken;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use super::END_OF_TEXT;
use super::words::spell;
use crate::error::{Error, Result};

/// Ordinary tokens; `<|endoftext|>` follows them.
const ORDINARY: u32 = 50_256;

pub(super) fn build() -> Result<tokenizers::Tokenizer> {
    let ranks = tiktoken_rs::r50k_base().map_err(Error::tokenizer)?;
    let bytes: Vec<Vec<u8>> = (0..ORDINARY)
        .map(|id| ranks.decode_bytes(&[id]).map_err(|e| Error::tokenizer(format!("GPT-2's ranks: {e}"))))
        .collect::<Result<_>>()?;
    let ids: HashMap<&[u8], u32> = bytes.iter().zip(0..).map(|(b, id)| (b.as_slice(), id)).collect();
    let merges = bytes
        .iter()
        .zip(0..)
        .filter(|(token, _)| token.len() > 1)
        .map(|(token, id)| {
            let (left, right) = parents(token, id, &ids).ok_or_else(|| {
                Error::tokenizer(format!("GPT-2's token {id} is not the merge of two others"))
            })?;
            Ok((spell(left), spell(right)))
        })
        .collect::<Result<Vec<_>>>()?;
    let mut vocab: Vocab = bytes.iter().zip(0..).map(|(token, id)| (spell(token), id)).collect();
    vocab.insert(END_OF_TEXT.to_owned(), ORDINARY);
    byte_level(BPE::builder().vocab_and_merges(vocab, merges).build().map_err(Error::tokenizer)?)
}

/// A tokenizer around a byte-level BPE, with GPT-2's splitting and spelling. `<|endoftext|>` is special.
pub(super) fn byte_level(model: BPE) -> Result<tokenizers::Tokenizer> {
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    let level = ByteLevel::default().add_prefix_space(false);
    tokenizer.with_pre_tokenizer(Some(level));
    tokenizer.with_post_processor(Some(level.trim_offsets(false)));
    tokenizer.with_decoder(Some(level));
    tokenizer.add_special_tokens(&[AddedToken::from(END_OF_TEXT, true)]);
    Ok(tokenizer)
}

/// The two tokens that merge `id` joined.
fn parents<'b>(token: &'b [u8], id: u32, ids: &HashMap<&[u8], u32>) -> Option<(&'b [u8], &'b [u8])> {
    let mut cuts: Vec<usize> = (0..=token.len()).collect();
    while cuts.len() > 3 {
        let rank = |i: usize| ids.get(&token[cuts[i]..cuts[i + 2]]).copied().filter(|&rank| rank < id);
        let best = (0..cuts.len() - 2).filter_map(|i| Some((rank(i)?, i))).min()?;
        cuts.remove(best.1 + 1);
    }
    Some(token.split_at(cuts[1]))
}
