//! Several processes write the files of one. Here they are threads.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

use super::*;
use crate::CrewError;

/// Where the threads of a crew meet.
#[derive(Default)]
struct Meeting {
    state: Mutex<State>,
    turned: Condvar,
}

#[derive(Default)]
struct State {
    posts: BTreeMap<usize, Vec<u64>>,
    done: Vec<u64>,
    round: usize,
    failed: bool,
}

struct Member<'m> {
    rank: usize,
    size: usize,
    meeting: &'m Meeting,
    meetings: usize,
    before: &'m (dyn Fn(usize, usize) + Sync),
}

impl Crew for Member<'_> {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn threads(&self) -> usize {
        1 + self.rank % 2
    }

    fn gather(&mut self, numbers: &[u64]) -> Vec<u64> {
        assert!(numbers.iter().all(|&number| number < 1 << 53));
        self.meetings += 1;
        (self.before)(self.rank, self.meetings);
        let mut state = self.meeting.state.lock().unwrap_or_else(PoisonError::into_inner);
        let round = state.round;
        state.posts.insert(self.rank, numbers.to_vec());
        if state.posts.len() == self.size {
            state.done = std::mem::take(&mut state.posts).into_values().flatten().collect();
            state.round += 1;
            self.meeting.turned.notify_all();
        }
        while state.round == round {
            assert!(!state.failed, "another process has failed");
            state = self.meeting.turned.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.done.clone()
    }
}

/// A crew, and what it does besides.
struct Run<'r> {
    size: usize,
    /// What each is told to do.
    options: &'r (dyn Fn(usize) -> PrepareOptions + Sync),
    seen: &'r (dyn Fn(PrepareProgress) + Sync),
    /// Called for each before its meetings, which are counted from 1.
    before: &'r (dyn Fn(usize, usize) + Sync),
}

/// What every member of a crew returns; none from those that the error of another has ended.
fn prepare_in(run: &Run<'_>) -> Vec<Option<Result<Option<PrepareSummary>>>> {
    let &Run { size, options, seen, before } = run;
    let meeting = Meeting::default();
    let member = |rank| {
        let mut member = Member { rank, size, meeting: &meeting, meetings: 0, before };
        let done = prepare_together(&options(rank), &mut member, &mut |now| seen(now));
        if done.is_err() {
            meeting.state.lock().unwrap_or_else(PoisonError::into_inner).failed = true;
            meeting.turned.notify_all();
        }
        done
    };
    let member = &member;
    thread::scope(|scope| {
        let all: Vec<_> = (0..size).map(|rank| scope.spawn(move || member(rank))).collect();
        all.into_iter().map(|thread| thread.join().ok()).collect()
    })
}

/// All files of a folder, hidden ones too.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let read = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.unwrap();
        (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap_or_default())
    };
    fs::read_dir(folder).unwrap().map(read).collect()
}

fn compare_crews(options: &PrepareOptions, sizes: &[usize]) {
    let expected = prepare(options, &mut |_| ()).unwrap();
    let of_one = files(&options.out);
    for &size in sizes {
        let out = options.out.with_file_name(format!("of {size}"));
        let options = &|_| PrepareOptions { out: out.clone(), ..options.clone() };
        let done = prepare_in(&Run { size, options, seen: &|_| (), before: &|_, _| () });
        for (rank, done) in done.into_iter().enumerate() {
            let summary = done.unwrap().unwrap();
            assert_eq!(summary.as_ref(), (rank == 0).then_some(&expected), "{rank} of {size}");
        }
        let found = files(&out);
        assert_eq!(found.keys().collect::<Vec<_>>(), of_one.keys().collect::<Vec<_>>());
        assert!(found == of_one, "{size} processes");
        fs::remove_dir_all(&out).unwrap();
    }
}

const SIZES: [usize; 5] = [1, 2, 3, 4, 8];

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

/// Replaces the training stories by a file.
fn train_on(bench: &mut Bench, name: &str, bytes: &[u8]) {
    let path = bench.folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    bench.options.train = vec![path];
}

#[test]
fn write_the_files_of_one_process() {
    let (train, valid) = (stories(20_000), stories(300));
    for tokenizer in [TokenizerChoice::Gpt2, TokenizerChoice::Train { vocab_size: 400 }] {
        let mut bench = Bench::new(&train, Some(&valid), tokenizer);
        bench.options.shard_tokens = 30_000;
        compare_crews(&bench.options, &SIZES);
        cut(&mut bench, &train, &[1, 7_000, 7_003]);
        compare_crews(&bench.options, &SIZES);
    }
}

/// Also files that are read from their beginning, and entered in the middle.
#[test]
fn write_the_files_of_one_process_of_every_format() {
    let train = stories(9_000);
    let lines = jsonl(&train);
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/corpora");
    let mut bench = Bench::new(&train, Some(&stories(2)), TokenizerChoice::Gpt2);
    bench.options.shard_tokens = 50_000;
    for (name, bytes) in [
        ("a.jsonl", lines.clone().into_bytes()),
        ("a.jsonl.gz", packed(lines.as_bytes())),
        ("array.jsonl", format!("[{}]", lines.trim_end().replace('\n', ",")).into_bytes()),
    ] {
        train_on(&mut bench, name, &bytes);
        compare_crews(&bench.options, &[2, 3, 8]);
    }
    train_on(
        &mut bench,
        "a.csv",
        format!("text,id\n{}", "\"A story,\nof two lines.\",1\n".repeat(30)).as_bytes(),
    );
    let names = ["zstd.parquet", "plain-0.txt.zst", "strings.json", "delta.parquet"];
    bench.options.train.extend(names.iter().map(|name| fixtures.join(name)));
    bench.options.shard_tokens = 40;
    compare_crews(&bench.options, &SIZES);
}

/// Ids of four bytes.
#[test]
fn write_the_files_of_one_process_of_a_large_vocabulary() {
    let mut bench = Bench::new(&stories(500), None, TokenizerChoice::Train { vocab_size: 300 });
    bench.prepare().unwrap();
    let json = fs::read_to_string(bench.options.out.join("tokenizer.json")).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let far = serde_json::json!({
        "id": 66_000, "content": "<far>", "special": true,
        "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
    });
    json["added_tokens"].as_array_mut().unwrap().push(far);
    json["model"]["vocab"]["<far>"] = 66_000.into();
    let path = bench.folder.path().join("tokenizer.json");
    fs::write(&path, json.to_string()).unwrap();
    bench.options.tokenizer = TokenizerChoice::File(path);
    compare_crews(&bench.options, &[2, 3]);
    assert_eq!(PrepareSummary::read(&bench.options.out).unwrap().vocab_size, 66_001);
}

#[test]
fn the_first_shows_how_far_it_is() {
    let mut bench =
        Bench::new(&stories(9_000), Some(&stories(50)), TokenizerChoice::Train { vocab_size: 300 });
    bench.options.shard_tokens = 50_000;
    let seen = Mutex::new(Vec::new());
    let hear = |now| seen.lock().unwrap().push((thread::current().id(), now));
    let options = &|_| bench.options.clone();
    prepare_in(&Run { size: 3, options, seen: &hear, before: &|_, _| () });
    let seen = seen.into_inner().unwrap();
    assert!(seen.iter().all(|(thread, now)| *thread == seen[0].0 && now.bytes_read <= now.bytes_total));
    for (stage, processes) in
        [(Stage::TrainTokenizer, 1), (Stage::EncodeTrain, 3), (Stage::EncodeValid, 3), (Stage::Join, 1)]
    {
        let of_stage = seen.iter().map(|(_, now)| now).filter(|now| now.stage == stage);
        let last = of_stage.max_by_key(|now| now.bytes_read).unwrap();
        assert_eq!((last.processes, last.bytes_read), (processes, last.bytes_total), "{stage:?}");
    }
}

/// The error that ends a crew, and the rank that has it.
fn failure(size: usize, options: impl Fn(usize) -> PrepareOptions + Sync) -> (usize, Error) {
    failure_of(&Run { size, options: &options, seen: &|_| (), before: &|_, _| () })
}

fn failure_of(run: &Run<'_>) -> (usize, Error) {
    let all = prepare_in(run);
    let errors = all.into_iter().enumerate().filter_map(|(rank, done)| Some((rank, done?.err()?)));
    let mut reasons = errors.filter(|(_, error)| !matches!(error, Error::Crew(CrewError::NotFirst)));
    let reason = reasons.next().expect("an error");
    assert!(reasons.next().is_none(), "one process says why");
    reason
}

#[test]
fn an_error_of_one_ends_all_and_leaves_the_folder_as_it_was() {
    let train = stories(600);
    let mut bench = Bench::new(&train, None, TokenizerChoice::Gpt2);
    bench.prepare().unwrap();
    let before = files(&bench.options.out);
    let join = |stories: &[String]| stories.join(&format!("\n{SEPARATOR}\n"));
    let text = join(&train);
    let not_utf8 = [text.as_bytes(), b"\n<|endoftext|>\nlast \xFF story\n"].concat();
    let mut unencodable = train.clone();
    unencodable.push("a".repeat(2 << 20));
    for (bytes, expected) in [
        (not_utf8, format!("byte {}", text.len() + 20)),
        (join(&unencodable).into_bytes(), "a.txt, story 601: ".to_owned()),
        (b"\n \n\n".repeat(100), "a.txt holds no stories".to_owned()),
    ] {
        train_on(&mut bench, "a.txt", &bytes);
        for size in [2, 4] {
            let (_, error) = failure(size, |_| bench.options.clone());
            let message = error.to_string();
            assert!(message.contains(&expected) && !message.contains('\n'), "{message}");
            assert!(files(&bench.options.out) == before, "{size} processes, {message}");
        }
    }
    // What no record has, and nobody has seen alone.
    train_on(&mut bench, "a.jsonl", "{\"story\": \"One.\"}\n".repeat(50).as_bytes());
    let (rank, error) = failure(3, |_| bench.options.clone());
    assert!(rank == 0 && matches!(error, Error::NoColumn { .. }), "{error}");
    // Damage that all come across on the way to their parts.
    let mut damaged = packed(jsonl(&stories(9_000)).as_bytes());
    damaged.truncate(damaged.len() / 3);
    train_on(&mut bench, "a.jsonl.gz", &damaged);
    let (_, error) = failure(4, |_| bench.options.clone());
    assert!(error.to_string().contains("a.jsonl.gz"), "{error}");
    assert!(files(&bench.options.out) == before);
}

#[test]
fn processes_that_see_something_else_are_refused() {
    let train = stories(40);
    let bench = Bench::new(&train, None, TokenizerChoice::Gpt2);
    let other = Bench::new(&train[1..], None, TokenizerChoice::Gpt2);
    let of = |bench: &Bench| bench.options.clone();
    let (_, error) = failure(3, |rank| {
        let train = if rank == 2 { other.options.train.clone() } else { bench.options.train.clone() };
        PrepareOptions { train, ..of(&bench) }
    });
    assert!(error.to_string().contains("process 2 has other files of stories than the first"), "{error}");
    let (rank, error) = failure(3, |rank| {
        let out = if rank == 1 { other.options.out.clone() } else { bench.options.out.clone() };
        PrepareOptions { out, ..of(&bench) }
    });
    assert!(matches!(error, Error::Crew(CrewError::NotShared { rank: 1, .. })) && rank == 1, "{error}");
    // A folder that another run has left there is not the one either.
    fs::create_dir_all(&other.options.out).unwrap();
    std::mem::forget(offramp_files::SharedFolder::create(&other.options.out).unwrap());
    bench.prepare().unwrap();
    let tokenizer = Tokenizer::from_folder(&bench.options.out).unwrap();
    tokenizer.save_in(&other.options.out.join(".offramp-shared.partial")).unwrap();
    let (_, error) = failure(3, |rank| {
        let out = if rank == 1 { other.options.out.clone() } else { bench.options.out.clone() };
        PrepareOptions { out, ..of(&bench) }
    });
    assert!(error.to_string().contains("process 1 does not write into the folder"), "{error}");
}

/// A network's disk may lose what was written.
#[test]
fn a_part_that_has_changed_is_refused() {
    let bench = Bench::new(&stories(400), None, TokenizerChoice::Gpt2);
    let path = bench.options.out.join(".offramp-shared.partial").join("train-part-1");
    let changes: [fn(&mut Vec<u8>); 5] = [
        |bytes| bytes.truncate(bytes.len() - 1),
        |bytes| bytes.push(0),
        |bytes| *bytes.last_mut().unwrap() ^= 1,
        |bytes| bytes[..8].fill(0xFF),   // stories
        |bytes| bytes[8..16].fill(0xFF), // tokens of the first
    ];
    for change in changes {
        let before = |rank, meeting| {
            if (rank, meeting) == (1, 3) {
                let mut bytes = fs::read(&path).unwrap();
                change(&mut bytes);
                fs::write(&path, bytes).unwrap();
            }
        };
        let options = &|_| bench.options.clone();
        let (rank, error) = failure_of(&Run { size: 3, options, seen: &|_| (), before: &before });
        assert!(rank == 0 && error.to_string().contains("is not what a process wrote"), "{error}");
        assert_eq!(bench.names(), BTreeSet::new());
    }
}

#[test]
fn a_pipe_is_read_by_the_first_alone() {
    let bench = Bench::new(&stories(3), None, TokenizerChoice::Gpt2);
    assert!(!bench.options.read_a_stream());
    let options = PrepareOptions { valid: vec!["-".into()], ..bench.options.clone() };
    assert!(options.read_a_stream());
}
