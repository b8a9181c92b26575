//! A corpus in memory is the same stream as a prepared one.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::{PrepareOptions, TokenizerChoice, prepare};

const STORIES: [&str; 4] =
    ["Mo found a snail.", "José couldn't sleep.\n\nThe moon 🌙 shone.", "Hush.", "The end."];

fn corpus(text: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tales.txt");
    fs::write(&path, text).unwrap();
    (folder, path)
}

fn tales() -> (TempDir, PathBuf) {
    corpus(&STORIES.join("\n<|endoftext|>\n"))
}

fn from_corpus(path: &std::path::Path, tokenizer: &Tokenizer, max_tokens: u64) -> Result<TokenStream> {
    TokenStream::from_corpora(&[Corpus::open(path, &Default::default())?], tokenizer, max_tokens)
}

fn tokens(stream: &TokenStream) -> Vec<u32> {
    let mut tokens = vec![0; stream.len() as usize];
    stream.read(0, &mut tokens).unwrap();
    tokens
}

#[test]
fn a_corpus_in_memory_is_the_stream_that_prepare_makes() {
    let (folder, path) = tales();
    for tokenizer in [TokenizerChoice::Gpt2, TokenizerChoice::Train { vocab_size: 300 }] {
        let out = folder.path().join("out");
        let options = PrepareOptions {
            train: vec![path.clone()],
            valid: Vec::new(),
            reading: Default::default(),
            out: out.clone(),
            tokenizer,
            shard_tokens: 10,
        };
        prepare(&options, &mut |_| {}).unwrap();
        let prepared = TokenStream::open(&out, "train").unwrap();
        let tokenizer = Tokenizer::from_folder(&out).unwrap();
        let memory = from_corpus(&path, &tokenizer, u64::MAX).unwrap();
        assert_eq!(tokens(&memory), tokens(&prepared));
        assert_eq!(memory.utf8_bytes(), prepared.utf8_bytes());
        assert_eq!(memory.vocab_size(), prepared.vocab_size());
    }
}

#[test]
fn reading_stops_after_the_story_that_has_enough() {
    let (_folder, path) = tales();
    let tokenizer = Tokenizer::gpt2().unwrap();
    let encoded: Vec<Vec<u32>> = STORIES.iter().map(|story| tokenizer.encode(story).unwrap()).collect();
    // The stream grows by whole stories, and never by more than needed.
    let all = encoded.join(&50_256);
    for most in 0..=all.len() as u64 + 1 {
        let stream = from_corpus(&path, &tokenizer, most).unwrap();
        let enough = |n: &usize| encoded[..*n].join(&50_256).len() as u64 >= most;
        let stories = (1..=STORIES.len()).find(enough).unwrap_or(STORIES.len());
        assert_eq!(tokens(&stream), encoded[..stories].join(&50_256), "{most}");
        assert_eq!(stream.utf8_bytes(), STORIES[..stories].iter().map(|s| s.len() as u64).sum::<u64>());
    }
    // The rest is not even read.
    let broken = [STORIES[0].as_bytes(), b"\n<|endoftext|>\n\xFF"].concat();
    fs::write(&path, broken).unwrap();
    from_corpus(&path, &tokenizer, 1).unwrap();
    assert!(matches!(from_corpus(&path, &tokenizer, 100), Err(Error::NotUtf8 { .. })));
}

#[test]
fn a_corpus_that_makes_no_stream_says_why() {
    let tokenizer = Tokenizer::gpt2().unwrap();
    for empty in ["", "\n \n<|endoftext|>\n\n"] {
        let (_folder, path) = corpus(empty);
        let error = from_corpus(&path, &tokenizer, 100).unwrap_err();
        assert!(matches!(error, Error::NoStories { .. }), "{error}");
        assert!(error.to_string().contains("tales.txt holds no stories"), "{error}");
    }
    let (_folder, path) = corpus(&format!("Fine.\n<|endoftext|>\n{}", "a".repeat(2 << 20)));
    let message = from_corpus(&path, &tokenizer, 100).unwrap_err().to_string();
    assert!(message.contains("tales.txt, story 2: ") && !message.contains('\n'), "{message}");
    let absent = path.with_file_name("absent.txt");
    assert!(matches!(from_corpus(&absent, &tokenizer, 100), Err(Error::Read { .. })));
}

/// Only the folder's own tokenizer goes with its shards, and the shards of a split go together.
#[test]
fn a_prepared_folder_knows_whose_ids_it_holds() {
    let (folder, path) = tales();
    let prepared = |name: &str, vocab_size: usize| {
        let options = PrepareOptions {
            train: vec![path.clone()],
            valid: Vec::new(),
            reading: Default::default(),
            out: folder.path().join(name),
            tokenizer: TokenizerChoice::Train { vocab_size },
            shard_tokens: 10,
        };
        prepare(&options, &mut |_| {}).unwrap();
        options.out
    };
    let (one, other) = (prepared("one", 257), prepared("other", 262));
    let [mine, theirs] = [&one, &other].map(|out| Tokenizer::from_folder(out).unwrap());
    let stream = TokenStream::open(&one, "train").unwrap();
    stream.check_tokenizer(&mine, &one).unwrap();
    let message = stream.check_tokenizer(&theirs, &one).unwrap_err().to_string();
    assert!(message.contains("not the tokenizer that made") && message.contains("prepare"), "{message}");
    // The same stories and tokenizer give the same stream, however it is cut into shards.
    let memory = from_corpus(&path, &mine, u64::MAX).unwrap();
    assert_eq!(memory.fingerprint(), stream.fingerprint());
    assert_ne!(TokenStream::open(&other, "train").unwrap().fingerprint(), stream.fingerprint());
    // Two shards in the wrong order, and a shard missing in the middle.
    let [first, second] = ["train-00000.tokens", "train-00001.tokens"].map(|name| one.join(name));
    let (a, b) = (fs::read(&first).unwrap(), fs::read(&second).unwrap());
    fs::write(&first, &b).unwrap();
    fs::write(&second, &a).unwrap();
    let message = TokenStream::open(&one, "train").unwrap_err().to_string();
    assert!(message.contains("do not follow") && message.contains("train-00000"), "{message}");
}
