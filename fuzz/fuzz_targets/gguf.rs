//! A GGUF file: what is accepted has its tensors within it, and a tokenizer of it that is accepted encodes
//! and decodes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use offramp_fuzz::{answer, begin, hold};
use offramp_gguf::Header;
use offramp_text::{PromptOptions, Tokenizer};
use std::path::Path;

/// A vocabulary, its JSON and the library's tables are many times as large as the file.
const MOST_BYTES: usize = 256 << 20;
/// Values that are decoded of a tensor.
const MOST_VALUES: usize = 1 << 16;

fuzz_target!(init: begin(), |data: &[u8]| hold(MOST_BYTES, || read(data)));

fn read(data: &[u8]) {
    let Ok(header) = Header::parse(data) else { return };
    for tensor in &header.tensors {
        let bytes = &data[tensor.bytes.clone()];
        let blocks = (bytes.len() / tensor.kind.block_bytes()).min(MOST_VALUES / tensor.kind.block());
        let mut values = vec![0.0; blocks * tensor.kind.block()];
        tensor.kind.decode(&bytes[..blocks * tensor.kind.block_bytes()], &mut values);
    }
    let Some(tokenizer) = answer(Tokenizer::from_gguf(&header, Path::new("model.gguf"))) else { return };
    let Some(ids) = answer(tokenizer.encode_prompt("Once upon a time", PromptOptions::default())) else { return };
    answer(tokenizer.decode(&ids));
}
