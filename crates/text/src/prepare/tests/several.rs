//! Several training files are read one after the other, and a fault names its file.

use super::*;

pub(super) fn jsonl(stories: &[String]) -> String {
    let line = |story| serde_json::json!({ "text": story }).to_string() + "\n";
    stories.iter().map(line).collect()
}

/// The training stories, cut into files at these places: the second file is `.jsonl`, the others are `.txt`.
pub(super) fn cut(bench: &mut Bench, train: &[String], at: &[usize]) {
    let ends = at.iter().copied().chain([train.len()]);
    let mut start = 0;
    bench.options.train.clear();
    for (index, end) in ends.enumerate() {
        let part = &train[start..end];
        let (name, text) = match index {
            1 => ("part-1.jsonl".to_owned(), jsonl(part)),
            _ => (format!("part-{index}.txt"), part.join(&format!("\n{SEPARATOR}\n"))),
        };
        let path = bench.folder.path().join(name);
        fs::write(&path, text).unwrap();
        bench.options.train.push(path);
        start = end;
    }
}

#[test]
fn are_the_same_shards_as_one_file_of_all_their_stories() {
    // Enough for several rounds of chunks on few cores, with ends of files within chunks and shards.
    let train = stories(20_000);
    for tokenizer in [TokenizerChoice::Gpt2, TokenizerChoice::Train { vocab_size: 400 }] {
        let mut one = Bench::new(&train, None, tokenizer.clone());
        let mut several = Bench::new(&train, None, tokenizer);
        (one.options.shard_tokens, several.options.shard_tokens) = (30_000, 30_000);
        cut(&mut several, &train, &[1, 7_000, 7_003]);
        let (expected, found) = (one.prepare().unwrap(), several.prepare().unwrap());
        assert_eq!(found.train.sources, ["part-0.txt", "part-1.jsonl", "part-2.txt", "part-3.txt"]);
        assert!(expected.train.shards.len() > 10);
        assert_eq!(SplitSummary { sources: expected.train.sources.clone(), ..found.train }, expected.train);
        assert_eq!(several.names(), one.names());
        for name in one.names().iter().filter(|name| *name != "corpus.json") {
            let read = |bench: &Bench| fs::read(bench.options.out.join(name)).unwrap();
            assert!(read(&several) == read(&one), "{name}");
        }
    }
}

#[test]
fn are_read_in_the_order_given() {
    let train = stories(9);
    let mut bench = Bench::new(&train, None, TokenizerChoice::Gpt2);
    cut(&mut bench, &train, &[4]);
    bench.options.train.reverse();
    bench.prepare().unwrap();
    let encode = |story: &String| Tokenizer::gpt2().unwrap().encode(story).unwrap();
    let expected: Vec<_> = train[4..].iter().chain(&train[..4]).map(encode).collect();
    let stream = TokenStream::open(&bench.options.out, "train").unwrap();
    assert_eq!(all_tokens(&stream), expected.join(&50_256));
}

#[test]
fn progress_counts_the_bytes_of_all() {
    let train = stories(4000);
    let mut bench = Bench::new(&train, None, TokenizerChoice::Train { vocab_size: 300 });
    cut(&mut bench, &train, &[1500, 1600]);
    let sizes = bench.options.train.iter().map(|path| fs::metadata(path).unwrap().len());
    let total: u64 = sizes.sum();
    let mut seen = Vec::<PrepareProgress>::new();
    prepare(&bench.options, &mut |now| seen.push(now)).unwrap();
    for stage in [Stage::TrainTokenizer, Stage::EncodeTrain] {
        let read: Vec<u64> = seen.iter().filter(|now| now.stage == stage).map(|now| now.bytes_read).collect();
        assert!(read.is_sorted() && read.last() == Some(&total), "{read:?} of {total}");
    }
    assert!(seen.iter().all(|now| now.bytes_total == total));
}

#[test]
fn the_file_at_fault_is_named_and_the_earlier_corpus_stays() {
    let train = stories(60);
    let mut bench = Bench::new(&train, None, TokenizerChoice::Gpt2);
    let before = bench.prepare().unwrap();
    let names = bench.names();
    cut(&mut bench, &train, &[20, 40]);
    let second = bench.options.train[1].clone();
    let broken = jsonl(&train[20..25]) + "{\"text\": 1}\n";
    let unencodable = [train[20..25].to_vec(), vec!["a".repeat(2 << 20)], train[25..40].to_vec()].concat();
    for (text, expected) in [
        (broken, "part-1.jsonl, line 6: "),
        (jsonl(&unencodable), "part-1.jsonl, story 6: "),
        (jsonl(&[String::new()]), "part-1.jsonl holds no stories"),
        (String::new(), "part-1.jsonl holds no stories"),
    ] {
        fs::write(&second, text).unwrap();
        let message = bench.prepare().unwrap_err().to_string();
        assert!(message.contains(expected) && !message.contains('\n'), "{message}");
    }
    // The stories of every file are counted from 1.
    fs::write(&second, jsonl(&train[20..40])).unwrap();
    fs::write(&bench.options.train[2], "a".repeat(2 << 20)).unwrap();
    let message = bench.prepare().unwrap_err().to_string();
    assert!(message.contains("part-2.txt, story 1: "), "{message}");
    assert_eq!((bench.names(), PrepareSummary::read(&bench.options.out).unwrap()), (names, before));
}

#[test]
fn files_that_cannot_be_opened_are_refused_before_the_work_begins() {
    let train = stories(10);
    let mut bench = Bench::new(&train, None, TokenizerChoice::Train { vocab_size: 300 });
    let damaged = bench.folder.path().join("part-1.parquet");
    fs::write(&damaged, "PAR1 and nothing else PAR1").unwrap();
    for last in [damaged, bench.folder.path().join("absent.txt"), bench.folder.path().join("part.docx")] {
        bench.options.train.push(last.clone());
        let message = prepare(&bench.options, &mut |now| panic!("{now:?}")).unwrap_err().to_string();
        assert!(message.contains(last.to_str().unwrap()) && !message.contains('\n'), "{message}");
        assert!(!bench.options.out.exists());
        bench.options.valid = bench.options.train.pop().into_iter().collect();
        let message = prepare(&bench.options, &mut |now| panic!("{now:?}")).unwrap_err().to_string();
        assert!(message.contains(last.to_str().unwrap()), "{message}");
        bench.options.valid.clear();
    }
}
