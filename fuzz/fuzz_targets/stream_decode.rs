//! Ids that arrive one by one, of every kind of tokenizer: the text that streams is what the tokenizers
//! library makes of all of them, never half a character, and after a prompt it goes on.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use offramp_fuzz::{begin, hold};
use offramp_text::Tokenizer;
use std::path::Path;
use std::sync::LazyLock;

const MOST_BYTES: usize = 32 << 20;

macro_rules! fixtures {
    ($($name:literal),*) => {
        [$(include_bytes!(concat!("../../tests/fixtures/prompts/", $name, "/tokenizer.json")).as_slice()),*]
    };
}

/// Byte-level and byte-fallback, with `Metaspace` and with `Strip`.
const FILES: [&[u8]; 5] = fixtures!("gpt-2", "llama-2", "llama-3", "metaspace", "deepseek");

/// Ours and the library's.
static BOTH: LazyLock<Vec<(Tokenizer, tokenizers::Tokenizer)>> = LazyLock::new(|| {
    let read = |&json: &&[u8]| {
        let ours = Tokenizer::from_json(json, Path::new("tokenizer.json")).expect("a tokenizer");
        (ours, tokenizers::Tokenizer::from_bytes(json).expect("a tokenizer"))
    };
    FILES.iter().map(read).collect()
});

#[derive(Arbitrary, Debug)]
struct Input {
    tokenizer: u8,
    prompt: u8,
    ids: Vec<u16>,
    /// Encoded and set among the ids.
    text: String,
}

fuzz_target!(init: begin(), |input: Input| {
    let (ours, library) = &BOTH[usize::from(input.tokenizer) % BOTH.len()];
    hold(MOST_BYTES, || decode(ours, library, &input));
});

fn decode(ours: &Tokenizer, library: &tokenizers::Tokenizer, input: &Input) {
    let known = |id: &u32| ours.token_bytes(*id).is_some();
    let mut ids: Vec<u32> =
        input.ids.iter().map(|&id| u32::from(id) % ours.vocab_size() as u32).filter(known).collect();
    ids.extend(ours.encode(&input.text).expect("every text has ids"));
    ids.extend(input.ids.iter().rev().map(|&id| u32::from(id) % ours.vocab_size() as u32).filter(known));
    let text = library.decode(&ids, true).expect("the library decodes known ids");
    assert_eq!(ours.decode(&ids).expect("known ids"), text, "{ids:?}");

    let (prompt, rest) = ids.split_at(usize::from(input.prompt).min(ids.len()));
    let shown = library.decode(prompt, true).expect("the library decodes known ids");
    let mut stream = ours.stream_after(prompt).expect("known ids");
    let mut told = String::new();
    for &id in rest {
        told.push_str(&stream.push(id).expect("a known id"));
        // What has been told is the beginning of what comes of all, which half a character is not.
        let soon = format!("{shown}{told}");
        assert!(text.starts_with(&soon) || !text.starts_with(&shown), "{soon:?} of {text:?}");
    }
    told.push_str(&stream.finish());
    if let Some(rest) = text.strip_prefix(&shown) {
        assert_eq!(told, rest, "{ids:?} after {}", prompt.len());
    }
}
