//! From files to a stream and back. A failure leaves nothing that looks complete.

use std::collections::BTreeSet;

use tempfile::TempDir;

use super::*;
use crate::{SEPARATOR, TokenStream};
use several::{cut, jsonl};

mod crew;
mod several;

/// Stories written for this test, of many lengths.
fn stories(count: usize) -> Vec<String> {
    let names = ["Mo", "Ada", "Finn", "Uma", "José"];
    let things = ["snail", "pond", "moon", "kite", "bread", "river", "button 🔘"];
    let story = |i: usize| {
        let name = names[i % names.len()];
        let sentences: Vec<String> = (0..=i % 9)
            .map(|j| format!("{name} couldn't find the {} number {}.", things[(i + j) % things.len()], i * j))
            .collect();
        sentences.join(if i.is_multiple_of(4) { "\n\n" } else { " " })
    };
    (0..count).map(story).collect()
}

struct Bench {
    folder: TempDir,
    options: PrepareOptions,
}

impl Bench {
    fn new(train: &[String], valid: Option<&[String]>, tokenizer: TokenizerChoice) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, stories: &[String]| {
            let path = folder.path().join(name);
            fs::write(&path, stories.join(&format!("\n{SEPARATOR}\n"))).unwrap();
            path
        };
        let options = PrepareOptions {
            train: vec![write("tales.txt", train)],
            valid: valid.map(|stories| write("more tales.txt", stories)).into_iter().collect(),
            reading: Default::default(),
            out: folder.path().join("deep").join("out"),
            tokenizer,
            shard_tokens: 500,
        };
        Self { folder, options }
    }

    fn prepare(&self) -> Result<PrepareSummary> {
        prepare(&self.options, &mut |_| {})
    }

    fn names(&self) -> BTreeSet<String> {
        let entries = fs::read_dir(&self.options.out).unwrap();
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn all_tokens(stream: &TokenStream) -> Vec<u32> {
    let mut tokens = vec![0; stream.len() as usize];
    stream.read(0, &mut tokens).unwrap();
    tokens
}

#[test]
fn the_stream_is_the_stories_with_one_token_between() {
    let (train, valid) = (stories(100), stories(7));
    let bench = Bench::new(&train, Some(&valid), TokenizerChoice::Gpt2);
    let summary = bench.prepare().unwrap();
    let tokenizer = Tokenizer::from_folder(&bench.options.out).unwrap();
    for (split, stories) in [("train", &train), ("valid", &valid)] {
        let stream = TokenStream::open(&bench.options.out, split).unwrap();
        let encoded: Vec<Vec<u32>> = stories.iter().map(|s| tokenizer.encode(s).unwrap()).collect();
        let expected = encoded.join(&50_256);
        assert_eq!(all_tokens(&stream), expected);
        assert_eq!(stream.utf8_bytes(), stories.iter().map(|s| s.len() as u64).sum::<u64>());
        assert_eq!(stream.vocab_size(), 50_257);
        let info = summary.split(split).unwrap();
        assert_eq!(info.counts.stories, stories.len() as u64);
        assert_eq!((info.tokens, info.utf8_bytes), (stream.len(), stream.utf8_bytes()));
        let bytes: usize = expected.iter().map(|&id| tokenizer.token_bytes(id).unwrap()).sum();
        assert_eq!(bytes as u64, stream.utf8_bytes(), "tokens stand for exactly the stories' bytes");
    }
    assert_eq!(summary.train.sources, ["tales.txt"]);
    assert!(summary.train.shards.len() > 5);
    assert_eq!(PrepareSummary::read(&bench.options.out).unwrap(), summary);
    let manifest = fs::read_to_string(bench.options.out.join("corpus.json")).unwrap();
    assert!(!manifest.contains(bench.folder.path().to_str().unwrap()), "no absolute path: {manifest}");
}

#[test]
fn reads_reach_across_shards_and_not_beyond_the_end() {
    let bench = Bench::new(&stories(60), None, TokenizerChoice::Train { vocab_size: 300 });
    bench.prepare().unwrap();
    let stream = TokenStream::open(&bench.options.out, "train").unwrap();
    let all = all_tokens(&stream);
    for start in (0..all.len()).step_by(37) {
        let mut out = vec![0; (all.len() - start).min(1200)];
        stream.read(start as u64, &mut out).unwrap();
        assert_eq!(out, &all[start..start + out.len()]);
    }
    stream.read(stream.len(), &mut []).unwrap();
    assert!(matches!(stream.read(stream.len(), &mut [0]), Err(Error::OutOfRange { .. })));
    assert!(matches!(stream.read(u64::MAX, &mut [0, 0]), Err(Error::OutOfRange { .. })));
    let error = TokenStream::open(&bench.options.out, "valid").unwrap_err();
    assert!(error.to_string().contains("it has train"), "{error}");
}

#[test]
fn every_choice_of_tokenizer_and_format_prepares_the_same_stories() {
    let stories = stories(80);
    let trained = Bench::new(&stories, None, TokenizerChoice::Train { vocab_size: 320 });
    let summary = trained.prepare().unwrap();
    assert_eq!((summary.tokenizer.as_str(), summary.vocab_size), ("trained", 320));
    let expected = all_tokens(&TokenStream::open(&trained.options.out, "train").unwrap());

    let file = TokenizerChoice::File(trained.options.out.join("tokenizer.json"));
    let mut bench = Bench::new(&stories, None, file);
    let jsonl: Vec<String> =
        stories.iter().map(|s| serde_json::json!({"n": 1, "text": s}).to_string()).collect();
    bench.options.train = vec![bench.folder.path().join("tales.jsonl")];
    fs::write(&bench.options.train[0], jsonl.join("\n")).unwrap();
    bench.options.shard_tokens = u64::MAX;
    let summary = bench.prepare().unwrap();
    assert_eq!((summary.tokenizer.as_str(), summary.train.shards.len()), ("file", 1));
    assert_eq!(all_tokens(&TokenStream::open(&bench.options.out, "train").unwrap()), expected);
}

#[test]
fn progress_reaches_the_end_of_every_stage() {
    let (train, valid) = (stories(3000), stories(5));
    let bench = Bench::new(&train, Some(&valid), TokenizerChoice::Train { vocab_size: 300 });
    let mut last = Vec::<PrepareProgress>::new();
    let summary = prepare(&bench.options, &mut |now| {
        match last.last_mut() {
            Some(before) if before.stage == now.stage => {
                assert!(before.bytes_read <= now.bytes_read && before.tokens <= now.tokens);
                *before = now;
            }
            _ => last.push(now),
        }
        assert!(now.bytes_read <= now.bytes_total);
    })
    .unwrap();
    let stages: Vec<Stage> = last.iter().map(|p| p.stage).collect();
    assert_eq!(stages, [Stage::TrainTokenizer, Stage::EncodeTrain, Stage::EncodeValid]);
    assert!(last.iter().all(|p| p.bytes_read == p.bytes_total), "{last:?}");
    assert_eq!(last[1].tokens, summary.train.tokens);
}

#[test]
fn empty_corpora_are_refused() {
    let bench = Bench::new(&[], None, TokenizerChoice::Gpt2);
    let error = bench.prepare().unwrap_err();
    assert!(matches!(error, Error::NoStories { .. }));
    assert!(error.to_string().contains("tales.txt holds no stories"), "{error}");
    let bench = Bench::new(&stories(3), Some(&["\n \n".to_owned()]), TokenizerChoice::Gpt2);
    let error = bench.prepare().unwrap_err();
    assert!(error.to_string().contains("more tales.txt holds no stories"), "{error}");
    assert_eq!(bench.names(), BTreeSet::new());
}

#[test]
fn a_failure_leaves_the_earlier_corpus_whole() {
    let mut bench = Bench::new(&stories(40), Some(&stories(3)), TokenizerChoice::Gpt2);
    let before = bench.prepare().unwrap();
    let names = bench.names();
    let good = fs::read(&bench.options.train[0]).unwrap();
    let mut bad = good.clone();
    bad.extend_from_slice(b"\n<|endoftext|>\nlast \xFF story\n");
    fs::write(&bench.options.train[0], bad).unwrap();
    let error = bench.prepare().unwrap_err();
    assert!(matches!(error, Error::NotUtf8 { offset, .. } if offset == good.len() as u64 + 20), "{error}");
    assert_eq!(bench.names(), names);
    assert_eq!(PrepareSummary::read(&bench.options.out).unwrap(), before);
    TokenStream::open(&bench.options.out, "train").unwrap();

    // A shorter corpus replaces it, and the shards that it does not need are removed.
    fs::write(&bench.options.train[0], "One short story.").unwrap();
    bench.options.valid.clear();
    bench.prepare().unwrap();
    let expected = ["corpus.json", "tokenizer.json", "train-00000.tokens"];
    assert_eq!(bench.names(), expected.map(str::to_owned).into());
}

#[test]
fn a_story_that_cannot_be_encoded_is_named() {
    let mut stories = stories(3000);
    stories[2345] = "a".repeat(2 << 20);
    let bench = Bench::new(&stories, None, TokenizerChoice::Gpt2);
    let message = bench.prepare().unwrap_err().to_string();
    assert!(message.contains("tales.txt, story 2346: ") && !message.contains('\n'), "{message}");
}

#[test]
fn folders_that_cannot_be_written_are_one_clear_line() {
    let mut bench = Bench::new(&stories(3), None, TokenizerChoice::Gpt2);
    let file = bench.folder.path().join("a file");
    fs::write(&file, "").unwrap();
    bench.options.out = file.join("out");
    let message = bench.prepare().unwrap_err().to_string();
    assert!(
        message.contains("cannot write") && message.contains("a file") && !message.contains('\n'),
        "{message}"
    );
}

#[test]
fn impossible_options_are_refused() {
    let mut bench = Bench::new(&stories(3), None, TokenizerChoice::Train { vocab_size: 12 });
    assert!(matches!(bench.prepare(), Err(Error::VocabularyTooSmall { found: 12 })));
    bench.options.tokenizer = TokenizerChoice::File(bench.folder.path().join("absent.json"));
    assert!(matches!(bench.prepare(), Err(Error::Read { .. })));
    bench.options.shard_tokens = 0;
    assert!(matches!(bench.prepare(), Err(Error::Option { option: "shard_tokens", .. })));
    bench.options.shard_tokens = 1;
    bench.options.train.clear();
    assert!(matches!(bench.prepare(), Err(Error::Option { option: "train", .. })));
}

#[test]
fn a_tokenizer_without_an_end_of_text_cannot_prepare() {
    let bench = Bench::new(&stories(3), None, TokenizerChoice::Train { vocab_size: 300 });
    bench.prepare().unwrap();
    let json = fs::read_to_string(bench.options.out.join("tokenizer.json")).unwrap();
    let path = bench.folder.path().join("endless.json");
    fs::write(&path, json.replace("<|endoftext|>", "<|other|>")).unwrap();
    let bench = Bench::new(&stories(3), None, TokenizerChoice::File(path));
    let error = bench.prepare().unwrap_err();
    assert!(matches!(error, Error::NoEndOfText { .. }) && error.to_string().contains("</s>"), "{error}");
}

#[test]
fn a_tampered_folder_is_refused() {
    let bench = Bench::new(&stories(40), None, TokenizerChoice::Gpt2);
    bench.prepare().unwrap();
    let path = bench.options.out.join("corpus.json");
    let whole = fs::read_to_string(&path).unwrap();
    let summary = PrepareSummary::read(&bench.options.out).unwrap();
    let cases = [
        String::new(),
        whole[..whole.len() / 2].to_owned(),
        whole.replace("offramp-corpus", "other"),
        whole.replace("\"version\": 2", "\"version\": 3"),
        whole.replace("\"sources\"", "\"source\""),
        whole.replace("train-00000.tokens", "../out/train-00000.tokens"),
        whole.replace("train-00000.tokens", "train-00001.tokens"),
        whole.replace("train-00000.tokens", "missing.tokens"),
        whole.replace("50257", "50258"),
        whole.replace(&summary.train.tokens.to_string(), "7"),
    ];
    for case in cases {
        fs::write(&path, &case).unwrap();
        let message = TokenStream::open(&bench.options.out, "train").expect_err(&case).to_string();
        assert!(message.contains("out") && !message.contains('\n'), "{message}");
    }
    // The form of earlier versions, in which a split had one file.
    let older = whole.replace("\"version\": 2", "\"version\": 1").replace("\"sources\"", "\"source\"");
    fs::write(&path, older).unwrap();
    let message = PrepareSummary::read(&bench.options.out).unwrap_err().to_string();
    let expected =
        "format \"offramp-corpus\" version 1, expected \"offramp-corpus\" version 2: prepare the corpus";
    assert!(message.contains(expected), "{message}");
    fs::remove_file(&path).unwrap();
    assert!(matches!(TokenStream::open(&bench.options.out, "train"), Err(Error::Read { .. })));
}

#[test]
fn real_stories_make_a_stream() {
    let data = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data/tinystories"));
    let valid = data.join("valid.txt");
    if !valid.exists() {
        println!("skipped: no TinyStories at {}", valid.display());
        return;
    }
    let out = tempfile::tempdir().unwrap();
    let options = PrepareOptions {
        train: vec![valid],
        valid: Vec::new(),
        reading: Default::default(),
        out: out.path().to_owned(),
        tokenizer: TokenizerChoice::Train { vocab_size: 2000 },
        shard_tokens: 100_000,
    };
    let summary = prepare(&options, &mut |_| {}).unwrap();
    assert_eq!((summary.vocab_size, summary.train.counts.stories), (2000, 1300));
    let first = fs::read(out.path().join("tokenizer.json")).unwrap();
    assert_eq!(prepare(&options, &mut |_| {}).unwrap(), summary, "the same again");
    assert_eq!(fs::read(out.path().join("tokenizer.json")).unwrap(), first);
    let stream = TokenStream::open(out.path(), "train").unwrap();
    let tokenizer = Tokenizer::from_folder(out.path()).unwrap();
    let text = tokenizer.decode(&all_tokens(&stream)).unwrap();
    assert_eq!(text.len() as u64, stream.utf8_bytes());
}

#[test]
fn a_folder_that_is_not_there_and_a_full_disk_are_one_clear_line() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("absent").join("tokenizer.json");
    let message = Tokenizer::gpt2().unwrap().save(&target).unwrap_err().to_string();
    assert!(message.contains("tokenizer.json") && message.contains("check the folder"), "{message}");
    let full = Error::write(&target, std::io::ErrorKind::StorageFull.into()).to_string();
    assert!(full.contains("tokenizer.json") && full.contains("free some space"), "{full}");
    assert!(!message.contains('\n') && !full.contains('\n'));
}

/// The end of text has no known name: the folder's `tokenizer_config.json` says which token it is.
#[test]
fn the_end_of_text_of_any_tokenizer_separates_stories() {
    let kind = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/prompts/deepseek");
    let bench = Bench::new(&stories(3), None, TokenizerChoice::File(kind.join("tokenizer.json")));
    bench.prepare().unwrap();
    let stream = TokenStream::open(&bench.options.out, "train").unwrap();
    let mut ids = vec![0; stream.len() as usize];
    stream.read(0, &mut ids).unwrap();
    let prepared = Tokenizer::from_folder(&bench.options.out).unwrap();
    let end = prepared.token_id("<｜end▁of▁sentence｜>").unwrap();
    assert_eq!(prepared.end_of_text(), Some(end));
    assert_eq!(ids.iter().filter(|&&id| id == end).count(), 2, "one between each two of three stories");
}
