//! Ranks prepare a corpus together: the files are those of one process. Here ranks are threads; the command's
//! tests have processes.

#![allow(clippy::unwrap_used, reason = "in a test, to unwrap is to assert")]

use offramp_ranks::{Ranks, threads};
use offramp_text::{CrewError, Error as TextError, PrepareOptions, TokenizerChoice};
use offramp_train::{Error, Recipe, Result, corpus, corpus_on, prepare};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use tempfile::TempDir;

/// What the ranks return, in their order, or the errors, each with its rank. An error of one ends the others.
fn on_ranks<T: Send>(
    size: usize,
    work: impl Fn(&mut Ranks) -> Result<T> + Sync,
) -> std::result::Result<Vec<T>, Vec<(usize, Error)>> {
    let (work, errors) = (&work, &Mutex::new(Vec::new()));
    let rank = |mut ranks: Ranks| {
        work(&mut ranks).unwrap_or_else(|error| {
            errors.lock().unwrap().push((ranks.rank(), error));
            panic!("this ends those that wait")
        })
    };
    let rank = &rank;
    let done: Vec<_> = thread::scope(|scope| {
        let all: Vec<_> = threads(size).into_iter().map(|ranks| scope.spawn(move || rank(ranks))).collect();
        all.into_iter().map(|thread| thread.join()).collect()
    });
    let errors = std::mem::take(&mut *errors.lock().unwrap());
    if errors.is_empty() { Ok(done.into_iter().map(|done| done.unwrap()).collect()) } else { Err(errors) }
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries.map(|e| (e.file_name().into_string().unwrap(), fs::read(e.path()).unwrap_or_default())).collect()
}

/// A folder with stories of several sizes in it.
fn place() -> TempDir {
    let place = tempfile::tempdir().unwrap();
    let story =
        |i: usize| format!("The cat number {i} saw {} birds and sang.{}", i * i % 37, " La!".repeat(i % 50));
    let text = |range: std::ops::Range<usize>| range.map(story).collect::<Vec<_>>().join("\n<|endoftext|>\n");
    for (name, range) in [("a.txt", 0..9000), ("b.txt", 0..3), ("c.txt", 3..700), ("valid.txt", 5..90)] {
        fs::write(place.path().join(name), text(range)).unwrap();
    }
    place
}

#[test]
fn ranks_prepare_the_files_of_one_process() {
    let place = place();
    let of = |name: &str| place.path().join(name);
    let fixture =
        |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/corpora").join(name);
    let trained = TokenizerChoice::Train { vocab_size: 400 };
    let file = TokenizerChoice::File(fixture("../prompts/metaspace/tokenizer.json"));
    for (train, tokenizer, shard_tokens) in [
        (vec![of("a.txt")], &file, 30_000),
        (vec![of("c.txt"), of("b.txt"), of("a.txt")], &file, 30_000),
        (vec![fixture("lines.jsonl.gz"), fixture("plain-0.txt.zst")], &file, 40),
        (vec![fixture("zstd.parquet"), fixture("second-version.parquet")], &file, 40),
        (vec![of("a.txt"), fixture("snappy.parquet")], &trained, 30_000),
    ] {
        let options = |out: &str| PrepareOptions {
            train: train.clone(),
            valid: vec![of("valid.txt")],
            reading: Default::default(),
            out: of(out),
            tokenizer: tokenizer.clone(),
            shard_tokens,
        };
        let expected = offramp_text::prepare(&options("one"), &mut |_| ()).unwrap();
        for size in [1, 2, 3, 4, 8] {
            let several = options("several");
            let work = |ranks: &mut Ranks| Ok(prepare(&several, ranks, Some(1), &mut |_| ())?);
            let done = on_ranks(size, work).unwrap();
            assert_eq!(done[0].as_ref(), Some(&expected));
            assert!(done[1..].iter().all(Option::is_none), "the first has the summary");
            assert!(files(&of("several")) == files(&of("one")), "{size} ranks, {train:?}");
            fs::remove_dir_all(of("several")).unwrap();
        }
        fs::remove_dir_all(of("one")).unwrap();
    }
}

#[test]
fn an_error_of_one_rank_is_one_error_and_leaves_nothing() {
    let place = place();
    let damaged = place.path().join("d.txt");
    fs::write(&damaged, b"Good.\n<|endoftext|>\nBad: \xFF.").unwrap();
    let options = PrepareOptions {
        train: vec![place.path().join("a.txt"), damaged],
        valid: Vec::new(),
        reading: Default::default(),
        out: place.path().join("out"),
        tokenizer: TokenizerChoice::Gpt2,
        shard_tokens: 30_000,
    };
    for size in [2, 3, 8] {
        let mut errors =
            on_ranks(size, |ranks| Ok(prepare(&options, ranks, Some(1), &mut |_| ())?)).unwrap_err();
        // Another may find its files gone.
        errors.retain(|(_, error)| !matches!(error, Error::Text(TextError::Crew(CrewError::NotFirst))));
        let [(rank, error)] = &errors[..] else { panic!("{errors:?}") };
        let line = error.to_string();
        assert!(*rank == size - 1 && line.contains("d.txt") && line.contains("byte 25"), "{rank}: {line}");
        assert!(files(&options.out).is_empty(), "{size} ranks");
    }
}

fn recipe(place: &TempDir, steps: usize) -> Recipe {
    let of = |name: &str| place.path().join(name).display().to_string();
    let text = format!(
        "[data]\ntrain = [{:?}, {:?}]\nvalid = {:?}\ntokenizer = \"bpe\"\nvocab_size = 300\n[model]\nhidden_size = 16\n\
         intermediate_size = 24\nnum_hidden_layers = 4\nnum_attention_heads = 4\nnum_key_value_heads = 2\n[training]\n\
         steps = {steps}\nbatch_size = 3\nsequence_length = 24\n[schedule]\nwarmup_steps = 3\n",
        of("a.txt"),
        of("c.txt"),
        of("valid.txt"),
    );
    Recipe::from_toml(&text, Path::new("r.toml")).unwrap()
}

#[test]
fn a_recipe_s_stories_are_prepared_by_all_ranks() {
    let place = place();
    let recipe_of_one = recipe(&place, 20);
    let run = |name: &str| place.path().join(name);
    let one = corpus(&recipe_of_one, &run("one"), false, &mut |_| ()).unwrap();
    for size in [2, 4] {
        let folder = run(&format!("of-{size}"));
        let find = |resume| {
            let find = |ranks: &mut Ranks| corpus_on(&recipe_of_one, &folder, resume, ranks, &mut |_| ());
            on_ranks(size, find).unwrap()
        };
        let found = find(false);
        let folders: Vec<PathBuf> = found.iter().map(|found| found.folder.clone()).collect();
        assert_eq!(folders, vec![folder.join("corpus"); size]);
        assert_eq!(found[0].prepared, one.prepared);
        assert!(files(&folders[0]) == files(&one.folder), "{size} ranks");
        let found = find(true);
        assert!(found.iter().all(|found| found.prepared.is_none() && found.folder == folders[0]));
    }
    // Ranks of other recipes would wait for each other.
    let other = recipe(&place, 21);
    let errors = on_ranks(2, |ranks| {
        let recipe = if ranks.is_first() { &recipe_of_one } else { &other };
        corpus_on(recipe, &run("differ"), false, ranks, &mut |_| ())
    });
    for (_, error) in errors.unwrap_err() {
        assert!(matches!(error, Error::RanksDiffer { rank: 1, what: "recipes" }), "{error}");
    }
    assert!(!run("differ").exists());
}
