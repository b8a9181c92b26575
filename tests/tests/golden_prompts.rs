//! Prompts and what follows them, as `transformers` encodes and decodes them: tokenizers of the kinds that
//! people's folders hold, made and asked by `tests/python/make_prompt_fixtures.py`.

#![allow(clippy::unwrap_used, reason = "in a test, to unwrap is to assert")]

use offramp_tests::repository::root;
use offramp_text::{PromptOptions, Tokenizer};
use serde::Deserialize;
use std::fs;
use std::path::PathBuf;

#[derive(Deserialize)]
struct Expected {
    prompts: Vec<Prompt>,
    streams: Vec<Stream>,
}

#[derive(Deserialize)]
struct Prompt {
    text: String,
    ids: Vec<u32>,
    without_special_tokens: Vec<u32>,
    plain: Vec<u32>,
}

#[derive(Deserialize)]
struct Stream {
    prompt: Vec<u32>,
    new: Vec<u32>,
    text: String,
    all: String,
}

fn each(check: impl Fn(&str, &Tokenizer, Expected)) {
    let folder = root().join("tests/fixtures/prompts");
    let mut kinds: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    kinds.sort();
    assert!(kinds.len() >= 7, "{kinds:?}");
    for kind in kinds {
        let expected = serde_json::from_slice(&fs::read(kind.join("expected.json")).unwrap()).unwrap();
        check(kind.file_name().unwrap().to_str().unwrap(), &Tokenizer::from_folder(&kind).unwrap(), expected);
    }
}

#[test]
fn prompts_have_the_ids_that_transformers_gives_them() {
    each(|kind, tokenizer, expected| {
        for Prompt { text, ids, without_special_tokens, plain } in expected.prompts {
            let encode = |add_special_tokens, plain_text| {
                tokenizer.encode_prompt(&text, PromptOptions { add_special_tokens, plain_text }).unwrap()
            };
            assert_eq!(encode(true, false), ids, "{kind}: {text:?}");
            assert_eq!(encode(false, false), without_special_tokens, "{kind}: {text:?}, nothing added");
            assert_eq!(encode(false, true), plain, "{kind}: {text:?}, spelled out");
            assert_eq!(tokenizer.encode(&text).unwrap(), plain, "{kind}: {text:?}, of a corpus");
        }
    });
}

#[test]
fn a_stream_goes_on_from_its_prompt() {
    each(|kind, tokenizer, expected| {
        for Stream { prompt, new, text, all } in expected.streams {
            let mut stream = tokenizer.stream_after(&prompt).unwrap();
            let mut shown = String::new();
            for &id in &new {
                shown.push_str(&stream.push(id).unwrap());
            }
            shown.push_str(&stream.finish());
            assert_eq!(shown, text, "{kind}: {new:?} after {prompt:?}");
            assert_eq!(tokenizer.decode(&[prompt, new].concat()).unwrap(), all, "{kind}");
        }
    });
}
