//! The parts of a corpus, one after the other, are the corpus: every story once, in its order, under its
//! number.

use std::collections::BTreeMap;
use std::io::Write;

use super::*;

/// A story, its file and its number in that file.
type Found = (String, PathBuf, u64);

fn read_part(corpora: &[Corpus], rank: usize, of: usize) -> Result<(Vec<Found>, CorpusCounts)> {
    let mut stories = AllStories::of(Part { rank, of }.pieces(corpora));
    let mut found = Vec::new();
    let is_long = corpora.iter().map(Corpus::bytes).sum::<u64>() > 1 << 18;
    while let Some(story) = stories.next().transpose()? {
        // In a later part, every number is counted from the file's beginning.
        let number = if is_long && story.text.len() % 997 > 0 { 0 } else { story.number() };
        found.push((story.text.clone(), story.path().to_owned(), number));
    }
    Ok((found, stories.counts()))
}

/// Checks all parts against the whole, and returns how many stories are in each.
fn compare(corpora: &[Corpus], of: usize) -> Vec<usize> {
    let (whole, counts) = read_part(corpora, 0, 1).unwrap();
    let parts: Vec<_> = (0..of).map(|rank| read_part(corpora, rank, of).unwrap()).collect();
    let joined: Vec<_> = parts.iter().flat_map(|(found, _)| found.clone()).collect();
    assert!(joined == whole, "{:?} in {of} parts", corpora.iter().map(Corpus::path).collect::<Vec<_>>());
    assert_eq!(parts.iter().fold(CorpusCounts::default(), |sum, (_, counts)| sum + *counts), counts);
    parts.iter().map(|(found, _)| found.len()).collect()
}

/// The corpus files that other programs wrote.
fn fixtures() -> Vec<Corpus> {
    let expected = fs::read_to_string(fixture("expected.json")).unwrap();
    let expected: BTreeMap<String, serde_json::Value> = serde_json::from_str(&expected).unwrap();
    let open = |(name, wanted): (String, serde_json::Value)| {
        let text_column = wanted["column"].as_str().unwrap().to_owned();
        Corpus::open(&fixture(&name), &CorpusOptions { text_column, format: None }).unwrap()
    };
    expected.into_iter().map(open).collect()
}

#[test]
fn of_every_format_are_the_whole() {
    let corpora = fixtures();
    assert!(corpora.len() >= 30, "the fixtures are there");
    for of in [2, 3, 4, 7, 8, 64, 1000] {
        corpora.iter().for_each(|corpus| drop(compare(std::slice::from_ref(corpus), of)));
        compare(&corpora, of);
    }
}

/// Some 4 MB that do not pack well: more than a reader takes at a time.
fn long() -> Vec<String> {
    let mut state = 1u64;
    let mut number = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state >> 40
    };
    let mut story = |i: usize| {
        let words: Vec<String> = (0..i % 90).map(|_| number().to_string()).collect();
        format!("Story {i}, \"quoted\",\nhas {}.", words.join(" "))
    };
    (0..12_000).map(&mut story).collect()
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

#[test]
fn of_one_long_file_share_its_stories() {
    let stories = long();
    let objects: Vec<_> =
        stories.iter().map(|text| serde_json::json!({ "text": text }).to_string()).collect();
    let rows: Vec<_> = stories.iter().map(|text| format!("1,\"{}\"\n", text.replace('"', "\"\""))).collect();
    let texts: Vec<_> = stories.iter().map(|text| Some(text.as_str())).collect();
    let txt = format!("\u{FEFF}{}", stories.join("\r\n<|endoftext|> \r\n"));
    let jsonl = objects.join("\n \r\n");
    let files = [
        ("a.txt", txt.clone().into_bytes()),
        ("a.jsonl", jsonl.clone().into_bytes()),
        ("a.parquet", parquet_file(STRINGS, &texts)),
        ("a.txt.gz", packed(txt.as_bytes())),
        ("a.jsonl.gz", packed(jsonl.as_bytes())),
        ("array.jsonl", format!("[{}]", objects.join(",\n")).into_bytes()),
        ("a.json", objects.join("\n").into_bytes()),
        ("a.csv", format!("id,text\n{}", rows.concat()).into_bytes()),
    ];
    for (name, bytes) in files {
        let (_folder, path) = file(name, &bytes);
        let corpora = [open(&path).unwrap()];
        for of in [2, 3, 4] {
            let counts = compare(&corpora, of);
            assert_eq!(counts.iter().sum::<usize>(), stories.len());
            // Packed bytes are read by the 256 KiB.
            let least = stories.len() / of / 2;
            assert!(counts.iter().all(|&count| count >= least), "{name}: {counts:?}");
        }
    }
}

#[test]
fn faults_have_the_numbers_of_the_whole_file() {
    let mut lines: Vec<_> = (0..1000).map(|i| format!("{{\"text\": \"Story {i}.\"}}")).collect();
    lines[900] = "{\"text\": 1}".into();
    let (_folder, path) = file("a.jsonl", lines.join("\n").as_bytes());
    let corpora = [open(&path).unwrap()];
    let message = read_part(&corpora, 7, 8).unwrap_err().to_string();
    assert!(message.contains("a.jsonl, line 901"), "{message}");
    assert!(read_part(&corpora, 6, 8).is_ok(), "the fault is in another's part");
    let text = "A story.\n<|endoftext|>\n".repeat(1000) + "\u{e9}";
    let cut = text.len() - 1;
    let (_folder, path) = file("a.txt", &text.as_bytes()[..cut]);
    let message = read_part(&[open(&path).unwrap()], 3, 4).unwrap_err().to_string();
    assert!(message.contains(&format!("byte {}", cut - 1)), "{message}");
}

/// Of a file that nobody has alone, nobody knows whether it holds stories: all together do.
#[test]
fn tell_of_the_files_that_others_read_too() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        open(&path).unwrap()
    };
    let blank = "\n \n".repeat(100);
    let corpora =
        [write("a.txt", &"One. <|endoftext|>".repeat(20)), write("b.txt", &blank), write("c.txt", "C.")];
    let shared = |rank, of| {
        let mut stories = AllStories::of(Part { rank, of }.pieces(&corpora));
        assert!(stories.by_ref().all(|story| story.is_ok()));
        stories.shared().to_vec()
    };
    let all: Vec<_> = (0..4).map(|rank| shared(rank, 4)).collect();
    let of_file = |file: usize| all.iter().flatten().filter(move |(other, _)| *other == file);
    assert_eq!(of_file(0).map(|(_, stories)| stories).sum::<u64>(), 20, "{all:?}");
    assert_eq!(of_file(1).map(|(_, stories)| *stories).collect::<Vec<_>>(), [0, 0], "{all:?}");
    assert_eq!(of_file(2).count(), 0, "it is in one part: {all:?}");
    // One process finds the same alone.
    assert!(matches!(read_part(&corpora, 0, 1), Err(Error::NoStories { .. })));
    // A column that is missing in a part may be in another.
    let lines = "{\"other\": \"x\"}\n".repeat(40) + "{\"text\": \"One.\"}";
    let lines = [write("d.jsonl", &lines)];
    assert_eq!(compare(&lines, 3), [0, 0, 1]);
}

#[test]
fn of_files_without_bytes_are_read_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.txt");
    fs::write(&path, "").unwrap();
    let corpora = [open(&path).unwrap(), open(&path).unwrap()];
    let pieces = |rank| Part { rank, of: 3 }.pieces(&corpora).len();
    assert_eq!([0, 1, 2].map(pieces), [0, 0, 2]);
}

/// Also where the footer and the pages disagree about the rows.
#[test]
fn of_a_damaged_parquet_file_are_the_whole_if_that_can_be_read() {
    let texts: Vec<_> = (0..12).map(|i| Some(["one", "two", "three"][i % 3])).collect();
    let whole = parquet_file(STRINGS, &texts);
    let (length, mut read) = (whole.len(), 0);
    let footer = u32::from_le_bytes(whole[length - 8..length - 4].try_into().unwrap()) as usize;
    for (at, add) in
        (length - 8 - footer..length - 8).flat_map(|at| [1, 2, 8, 0xFC, 0xFE].map(|add| (at, add)))
    {
        let mut bytes = whole.clone();
        bytes[at] = bytes[at].wrapping_add(add);
        let (_folder, path) = file("a.parquet", &bytes);
        quietly(|| {
            let Ok(corpus) = open(&path) else { return };
            let corpora = [corpus];
            if read_part(&corpora, 0, 1).is_ok() {
                [2, 3, 5].iter().for_each(|&of| drop(compare(&corpora, of)));
                read += 1;
            }
        });
    }
    assert!(read > 100, "{read} damaged files were read");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn of_any_plain_text_are_the_whole(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "<|endoftext|>", "<|endoftext|", "<", "|>", ">", " ", "\n", "\r\n", "\t", "a", "é", "{}", "story\n",
            ]),
            0..60,
        ),
        mark in any::<bool>(),
        of in 1usize..9,
    ) {
        let text = if mark { "\u{FEFF}" } else { "" }.to_owned() + &words.concat();
        let (_folder, path) = file("a.txt", text.as_bytes());
        let corpora = [open(&path).unwrap()];
        if read_part(&corpora, 0, 1).is_ok() {
            compare(&corpora, of);
        }
    }

    #[test]
    fn of_any_lines_of_json_are_the_whole(
        lines in prop::collection::vec(
            prop::sample::select(vec![
                "{\"text\": \"a\"}", "{\"text\": \"<|endoftext|>b<|endoftext|>c\"}", "{\"text\": null}", "", "  ",
                "  {\"text\": \"d\\n\"}", "{\"other\": 1}", "null", "{\"text\": \"\"}", "\r",
            ]),
            0..40,
        ),
        of in 1usize..9,
    ) {
        let (_folder, path) = file("a.jsonl", lines.join("\n").as_bytes());
        let corpora = [open(&path).unwrap()];
        if read_part(&corpora, 0, 1).is_ok() {
            compare(&corpora, of);
        }
    }
}
