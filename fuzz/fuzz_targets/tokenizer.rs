//! `tokenizer.json`: what is accepted encodes, decodes and streams whatever text there is, or says why not.
#![no_main]

use libfuzzer_sys::fuzz_target;
use offramp_fuzz::{answer, begin, hold};
use offramp_text::{PromptOptions, Tokenizer};
use std::path::Path;

const MOST_BYTES: usize = 128 << 20;

const TEXTS: [&str; 4] = [
    "",
    "Once upon a time",
    "<|endoftext|> a</s>b <s>\u{2581}c<0xE4>",
    "  h\u{e9}llo\r\n\n\u{1f600}\u{4f60}\u{597d} 12",
];

fuzz_target!(init: begin(), |data: &[u8]| hold(MOST_BYTES, || read(data)));

fn read(data: &[u8]) {
    let Some(tokenizer) = answer(Tokenizer::from_json(data, Path::new("tokenizer.json"))) else { return };
    let vocab_size = tokenizer.vocab_size();
    assert!(vocab_size > 0);
    let plain = PromptOptions { add_special_tokens: false, plain_text: true };
    for text in TEXTS {
        for ids in [
            answer(tokenizer.encode(text)),
            answer(tokenizer.encode_prompt(text, PromptOptions::default())),
            answer(tokenizer.encode_prompt(text, plain)),
        ] {
            decode(&tokenizer, &ids.unwrap_or_default());
        }
    }
    decode(&tokenizer, &[0, vocab_size as u32 - 1, vocab_size as u32 / 2]);
    answer(tokenizer.decode(&[vocab_size as u32]));
    let lengths = (0..4).map(|id| tokenizer.token_bytes(id).unwrap_or(0));
    assert!(lengths.max().is_some_and(|most| most <= data.len() + 8), "a token is longer than its file");
}

/// What streams is what stands there.
fn decode(tokenizer: &Tokenizer, ids: &[u32]) {
    let Some(text) = answer(tokenizer.decode(ids)) else { return };
    let mut stream = tokenizer.stream();
    let mut told = String::new();
    for &id in ids {
        match stream.push(id) {
            Ok(piece) => told.push_str(&piece),
            Err(_) => return,
        }
    }
    told.push_str(&stream.finish());
    assert_eq!(told, text, "{ids:?}");
}
