//! Opens the text to measure on: stories, or a prepared corpus.

use crate::{Error, Result};
use offramp_text::{Corpus, CorpusOptions, PrepareSummary, TokenStream, Tokenizer};
use std::path::{Path, PathBuf};

/// The tokens of `paths` for a model with this tokenizer: the stories of all files that [`Corpus::find`]
/// finds, or the validation split of one prepared folder (its training split if it has no other). Ends with
/// the story that reaches `max_tokens`.
///
/// # Errors
/// If the files or the folder cannot be read, or the folder was prepared with another tokenizer.
pub fn open_data(
    paths: &[PathBuf],
    reading: &CorpusOptions,
    tokenizer: &Tokenizer,
    max_tokens: u64,
) -> Result<TokenStream> {
    match paths {
        [folder] if PrepareSummary::is_in(folder) => open_prepared(folder, tokenizer, max_tokens),
        _ => Ok(TokenStream::from_corpora(&Corpus::find(paths, reading)?, tokenizer, max_tokens)?),
    }
}

fn open_prepared(folder: &Path, tokenizer: &Tokenizer, max_tokens: u64) -> Result<TokenStream> {
    let summary = PrepareSummary::read(folder)?;
    let own = Tokenizer::from_folder(folder)?;
    if !own.has_vocabulary_of(tokenizer) {
        return Err(Error::Tokenizer { path: folder.to_owned() });
    }
    let stream = TokenStream::open(folder, if summary.valid.is_some() { "valid" } else { "train" })?;
    stream.check_tokenizer(&own, &folder.join("tokenizer.json"))?;
    match own.end_of_text() {
        Some(end_of_text) => Ok(stream.up_to(max_tokens, end_of_text)?),
        None => Ok(stream),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use offramp_text::{PrepareOptions, TokenizerChoice, prepare};
    use std::fs;
    use tempfile::TempDir;

    const TRAIN: &str = "The cat sat on the mat.\n<|endoftext|>\nThe cat sang and the cat sat.\n";
    const VALID: &str = "A cat sat.\n<|endoftext|>\nThe mat sang.\n<|endoftext|>\nThe cat and the mat sat.\n";

    /// `train.txt` and `valid.txt`, and `corpus/`, prepared from both or only from the first.
    fn place(with_valid: bool, vocab_size: usize) -> TempDir {
        let place = tempfile::tempdir().unwrap();
        let [train, valid] = ["train.txt", "valid.txt"].map(|name| place.path().join(name));
        fs::write(&train, TRAIN).unwrap();
        fs::write(&valid, VALID).unwrap();
        let options = PrepareOptions {
            train: vec![train],
            valid: if with_valid { vec![valid] } else { Vec::new() },
            reading: Default::default(),
            out: place.path().join("corpus"),
            tokenizer: TokenizerChoice::Train { vocab_size },
            shard_tokens: 1 << 20,
        };
        prepare(&options, &mut |_| ()).unwrap();
        place
    }

    fn open_data(path: &Path, tokenizer: &Tokenizer, max_tokens: u64) -> Result<TokenStream> {
        super::open_data(&[path.to_owned()], &CorpusOptions::default(), tokenizer, max_tokens)
    }

    fn tokens(stream: &TokenStream) -> Vec<u32> {
        let mut tokens = vec![0; stream.len() as usize];
        stream.read(0, &mut tokens).unwrap();
        tokens
    }

    #[test]
    fn a_file_and_a_prepared_folder_are_the_same_stream() {
        let place = place(true, 264);
        let corpus = place.path().join("corpus");
        let tokenizer = Tokenizer::from_folder(&corpus).unwrap();
        let open = |name: &str| tokens(&open_data(&place.path().join(name), &tokenizer, u64::MAX).unwrap());
        assert_eq!(open("corpus"), open("valid.txt"), "the validation split");
        assert_ne!(open("corpus"), open("train.txt"));
        let ends = open("corpus").iter().filter(|&&token| Some(token) == tokenizer.end_of_text()).count();
        assert_eq!(ends, 2, "one between each two of three stories");
    }

    #[test]
    fn a_folder_without_a_validation_split_gives_its_training_split() {
        let place = place(false, 264);
        let corpus = place.path().join("corpus");
        let tokenizer = Tokenizer::from_folder(&corpus).unwrap();
        let train = open_data(&place.path().join("train.txt"), &tokenizer, u64::MAX).unwrap();
        assert_eq!(tokens(&open_data(&corpus, &tokenizer, u64::MAX).unwrap()), tokens(&train));
    }

    #[test]
    fn no_more_of_a_file_is_read_than_is_needed() {
        let place = place(true, 264);
        let tokenizer = Tokenizer::from_folder(&place.path().join("corpus")).unwrap();
        let path = place.path().join("valid.txt");
        let first = tokenizer.encode("A cat sat.").unwrap();
        let some = open_data(&path, &tokenizer, first.len() as u64).unwrap();
        assert_eq!(tokens(&some), first);
        let more = open_data(&path, &tokenizer, first.len() as u64 + 1).unwrap();
        assert!(more.len() > first.len() as u64, "one token more takes a second story");
    }

    /// For every limit, a prepared folder gives the same tokens as the stories.
    #[test]
    fn a_limit_holds_for_a_prepared_folder_too() {
        let place = place(true, 264);
        let corpus = place.path().join("corpus");
        let tokenizer = Tokenizer::from_folder(&corpus).unwrap();
        let whole = open_data(&corpus, &tokenizer, u64::MAX).unwrap().len();
        let mut lengths = Vec::new();
        for most in 0..=whole + 1 {
            let open = |name: &str| open_data(&place.path().join(name), &tokenizer, most).unwrap();
            let (folder, file) = (open("corpus"), open("valid.txt"));
            assert_eq!(tokens(&folder), tokens(&file), "{most}");
            lengths.push(folder.len());
        }
        lengths.dedup();
        assert_eq!(lengths.len(), 3, "it grows by whole stories");
    }

    #[test]
    fn several_files_are_one_stream_and_a_prepared_folder_stands_alone() {
        let place = place(true, 264);
        let path = |name: &str| place.path().join(name);
        let tokenizer = Tokenizer::from_folder(&path("corpus")).unwrap();
        let open =
            |paths: &[PathBuf]| super::open_data(paths, &CorpusOptions::default(), &tokenizer, u64::MAX);
        let both = open(&[path("train.txt"), path("valid.txt")]).unwrap();
        let end = tokenizer.end_of_text().unwrap();
        let parts = ["train.txt", "valid.txt"].map(|name| tokens(&open(&[path(name)]).unwrap()));
        assert_eq!(tokens(&both), parts.join(&end));
        assert_eq!(tokens(&open(&[path("[tv]*.txt")]).unwrap()), tokens(&both));
        assert_eq!(both.counts().stories, 5);
        let message = open(&[path("corpus"), path("valid.txt")]).unwrap_err().to_string();
        assert!(message.contains("was prepared already"), "{message}");
    }

    #[test]
    fn what_cannot_be_measured_on_is_one_clear_line() {
        let place = place(true, 264);
        let corpus = place.path().join("corpus");
        let tokenizer = Tokenizer::from_folder(&corpus).unwrap();
        fs::create_dir(place.path().join("empty")).unwrap();
        fs::write(place.path().join("nothing.txt"), " \n").unwrap();
        let refused = |name: &str, tokenizer: &Tokenizer, expected: &[&str]| {
            let message = open_data(&place.path().join(name), tokenizer, 9).unwrap_err().to_string();
            assert!(!message.contains('\n'), "{message}");
            expected.iter().for_each(|part| assert!(message.contains(part), "{message:?}, not {part:?}"));
        };
        refused("absent.txt", &tokenizer, &["absent.txt"]);
        refused("empty", &tokenizer, &["empty"]);
        refused("nothing.txt", &tokenizer, &["nothing.txt"]);
        // The tokenizer is put beside shards that another one made.
        let mut json: serde_json::Value =
            serde_json::from_slice(&fs::read(corpus.join("tokenizer.json")).unwrap()).unwrap();
        json["model"]["merges"].as_array_mut().unwrap().swap(0, 1);
        fs::write(corpus.join("tokenizer.json"), json.to_string()).unwrap();
        refused("corpus", &tokenizer, &["tokenizer.json", "not the tokenizer that made"]);
        // As many tokens, but different ones.
        let other = Tokenizer::train_bpe([Ok("dog dog do big bigger".repeat(9))].into_iter(), 264).unwrap();
        refused("corpus", &other, &["corpus", "another tokenizer", "model's tokenizer.json"]);
    }
}
