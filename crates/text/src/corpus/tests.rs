//! Each format, well-formed and damaged. A damaged file gives one clear line, never a panic.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::parser::parse_message_type;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

mod naming;
mod parts;

fn file(name: &str, bytes: &[u8]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    (folder, path)
}

fn open(path: &Path) -> Result<Corpus> {
    Corpus::open(path, &CorpusOptions::default())
}

fn read(name: &str, bytes: &[u8]) -> Result<Vec<String>> {
    let (_folder, path) = file(name, bytes);
    open(&path)?.stories()?.collect()
}

fn message(name: &str, bytes: &[u8]) -> String {
    let message = read(name, bytes).expect_err("a fault").to_string();
    assert!(!message.contains('\n') && message.contains(name), "{message}");
    message
}

/// `tests/formats.rs` compares the rule itself with Python's answers.
#[test]
fn txt_is_cut_at_markers() {
    let text = "One.\nTwo lines.<|endoftext|>\n \nSecond.\n\n\nafter a gap\n<|endoftext|>\n  Indented, last";
    let expected = ["One.\nTwo lines.", "Second.\n\n\nafter a gap", "  Indented, last"];
    assert_eq!(read("a.txt", text.as_bytes()).unwrap(), expected);
    assert_eq!(read("a.txt", b"").unwrap(), [""; 0]);
    assert_eq!(read("a.txt", b"\n \n<|endoftext|>\n\n").unwrap(), [""; 0]);
}

/// A buffer may end anywhere: a marker that lies in two buffers is still one marker.
#[test]
fn a_marker_between_two_readings_is_found() {
    for before in (256 << 10) - 20..(256 << 10) + 20 {
        let text = "a".repeat(before) + "<|endoftext|>b";
        let stories = read("a.txt", text.as_bytes()).unwrap();
        assert_eq!((stories[0].len(), &*stories[1], stories.len()), (before, "b", 2));
    }
}

#[test]
fn what_was_found_is_remarked_on() {
    let remarks = |name: &str, text: &str| {
        let (_folder, path) = file(name, text.as_bytes());
        let mut stories = open(&path).unwrap().stories().unwrap();
        assert!(stories.by_ref().all(|story| story.is_ok()));
        stories.counts().remarks().join("; ")
    };
    let poem = "A line.\n".repeat(100);
    assert!(remarks("a.txt", &poem).contains("100 lines are one story"));
    assert_eq!(remarks("a.txt", &poem[8..]), "");
    assert_eq!(remarks("a.txt", &format!("{poem}<|endoftext|>{poem}")), "");
    assert!(remarks("a.txt", "One.\r\nTwo.").contains("CRLF"));
    let jsonl =
        "{\"text\": \"a\"}\nnull\n{\"text\": null}\n{}\n{\"text\": \"\"}\n{\"text\": \"<|endoftext|>\"}\n";
    assert!(remarks("a.jsonl", jsonl).contains("5 records without a text"));
    assert!(remarks("a.csv", "id,text\n1,a\n2,\n").contains("1 record without a text"));
}

#[test]
fn txt_that_is_not_utf8_names_the_byte() {
    let bytes = b"One.\n<|endoftext|>\nTw\xFFo.\n";
    assert!(matches!(read("a.txt", bytes), Err(Error::NotUtf8 { offset: 21, .. })));
    assert!(message("a.txt", bytes).contains("byte 21"));
    // A character that the separator cuts off is reported at its beginning.
    assert!(matches!(
        read("a.txt", b"\xEF\xBB\xBFab\xE4\xBD\n<|endoftext|>\n"),
        Err(Error::NotUtf8 { offset: 5, .. })
    ));
    // Nothing follows the error.
    let (_folder, path) = file("a.txt", bytes);
    let mut stories = open(&path).unwrap().stories().unwrap();
    assert_eq!(stories.next().unwrap().unwrap(), "One.");
    assert!(stories.next().unwrap().is_err());
    assert!(stories.next().is_none());
}

#[test]
fn a_file_without_separators_is_refused_before_it_fills_the_memory() {
    let (_folder, path) = file("a.txt", b"");
    fs::File::options().write(true).open(&path).unwrap().set_len(3 << 30).unwrap(); // sparse zeros: one line
    let error = open(&path).unwrap().stories().unwrap().next().unwrap().unwrap_err();
    assert!(matches!(error, Error::StoryTooLong { limit: MAX_STORY_BYTES, .. }), "{error}");
    let jsonl = path.with_extension("jsonl");
    fs::rename(&path, &jsonl).unwrap();
    let error = open(&jsonl).unwrap().stories().unwrap().next().unwrap().unwrap_err();
    assert!(matches!(error, Error::StoryTooLong { .. }), "{error}");
}

/// A file that unpacks to much more than its size is read up to the longest story and no further.
#[test]
fn a_bomb_is_refused_before_it_fills_the_memory() {
    use std::io::{Read, Write};
    let zeros = std::io::repeat(b'a').take(MAX_STORY_BYTES as u64 * 3);
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::copy(&mut { zeros }, &mut packed).unwrap();
    packed.flush().unwrap();
    let bomb = packed.finish().unwrap();
    for name in ["a.txt.gz", "a.jsonl.gz", "a.json.gz", "a.csv.gz"] {
        // JSON and CSV that begin well, with a string that never ends.
        let mut bytes = Vec::new();
        let start = match name {
            "a.csv.gz" => "text\n\"",
            "a.txt.gz" => "",
            _ => "{\"text\": \"",
        };
        let mut head = flate2::write::GzEncoder::new(&mut bytes, flate2::Compression::fast());
        head.write_all(start.as_bytes()).unwrap();
        head.finish().unwrap();
        bytes.extend_from_slice(&bomb);
        let found = message(name, &bytes);
        assert!(found.contains("longer than"), "{found}");
    }
    // A page that claims little and unpacks to much.
    let page = unpack::page(::parquet::basic::Compression::GZIP(Default::default()), &bomb, 1000);
    assert!(page.unwrap_err().to_string().contains("1000"));
    // A page that claims much: nothing is allocated for it.
    for codec in [::parquet::basic::Compression::SNAPPY, ::parquet::basic::Compression::LZ4_RAW] {
        assert!(unpack::page(codec, &bomb[..9], usize::MAX / 2).is_err());
    }
}

#[test]
fn jsonl_takes_the_text_key_of_every_line() {
    let lines = [
        "\u{FEFF}{\"text\": \"One\\n\\u00e9\", \"id\": 1}",
        "",
        "  {\"meta\": {\"text\": \"no\"}, \"text\": \" Two \"}\r",
        "{\"text\":\"\"}",
        "{\"text\":\"last\"}",
    ];
    assert_eq!(read("a.jsonl", lines.join("\n").as_bytes()).unwrap(), ["One\né", " Two ", "last"]);
    assert_eq!(read("a.jsonl", b"\n\n").unwrap(), [""; 0]);
}

#[test]
fn jsonl_faults_name_the_line() {
    let cases: [&[u8]; 9] = [
        b"{\"text\": \"ok\"}\n{\"text\": 7}\n",
        b"{\"text\": \"ok\"}\n\"a string, but no object\"\n",
        b"{\"text\": \"ok\"}\n[\"text\", 1]\n",
        b"{\"text\": \"ok\"}\n[\"a story, but no object\"]\n",
        b"{\"text\": \"ok\"}\n{\"text\": \"one\"} {\"text\": \"two\"}\n",
        b"{\"text\": \"ok\"}\n{\"text\": \"cut",
        b"{\"text\": \"ok\"}\nplain words\n",
        b"{\"text\": \"ok\"}\n{\"text\": \"\xFF\"}\n",
        b"{\"text\": \"ok\"}\n{\"text\": \"\\ud800\"}\n",
    ];
    for case in cases {
        let message = message("a.jsonl", case);
        assert!(message.contains("line 2") && !message.contains("line 1"), "{message}");
    }
    let deep = format!("{{\"text\": \"a\", \"deep\": {}", "[".repeat(100_000));
    assert!(message("a.jsonl", deep.as_bytes()).contains("line 1"));
}

#[test]
fn unknown_kinds_and_absent_files_say_so() {
    assert!(message("a.docx", b"text\n").contains("--text-format"));
    assert!(message("a", b"text\n").contains(".parquet"));
    assert!(message("a.txt.xz", b"text\n").contains("unpack it first"));
    assert!(message("a.parquet.gz", b"text\n").contains("unpack it first"));
    assert!(message("a.txt", b"PK\x03\x04").contains("zip is not read"));
    let (folder, path) = file("a.txt", b"");
    assert!(matches!(open(&path.with_file_name("b.txt")), Err(Error::Read { .. })));
    assert!(matches!(open(folder.path()), Err(Error::Read { .. })));
}

/// A parquet file of two row groups: a number and a string column.
fn parquet_file(schema: &str, texts: &[Option<&str>]) -> Vec<u8> {
    let properties = WriterProperties::builder().set_data_page_row_count_limit(3).set_write_batch_size(2);
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties.build())).unwrap();
    for texts in texts.chunks(texts.len().div_ceil(2).max(1)) {
        let mut group = writer.next_row_group().unwrap();
        while let Some(mut column) = group.next_column().unwrap() {
            let present: Vec<ByteArray> = texts.iter().flatten().map(|t| ByteArray::from(*t)).collect();
            let levels: Vec<i16> = texts.iter().map(|t| i16::from(t.is_some())).collect();
            let numbers: Vec<i64> = (0..texts.len() as i64).collect();
            match column.untyped() {
                ::parquet::column::writer::ColumnWriter::Int64ColumnWriter(writer) => {
                    writer.write_batch(&numbers, None, None).unwrap();
                }
                _ => {
                    column.typed::<ByteArrayType>().write_batch(&present, Some(&levels), None).unwrap();
                }
            }
            column.close().unwrap();
        }
        group.close().unwrap();
    }
    writer.into_inner().unwrap()
}

const STRINGS: &str = "message m { REQUIRED INT64 id; OPTIONAL BYTE_ARRAY text (UTF8); }";

fn some_texts() -> Vec<Option<&'static str>> {
    let few = [Some("One."), None, Some("Zwei, drei."), Some(""), Some("四。"), Some("One.")];
    few.iter().copied().cycle().take(50).collect()
}

#[test]
fn parquet_gives_the_text_column() {
    let texts = some_texts();
    let expected: Vec<&str> = texts.iter().flatten().copied().filter(|t| !t.is_empty()).collect();
    let bytes = parquet_file(STRINGS, &texts);
    assert_eq!(read("a.parquet", &bytes).unwrap(), expected);
    let (_folder, path) = file("a.parquet", &bytes);
    let corpus = open(&path).unwrap();
    let mut stories = corpus.stories().unwrap();
    while stories.next().is_some() {}
    assert_eq!(stories.bytes_read(), corpus.bytes());
    assert_eq!(stories.counts().skipped, texts.len() as u64 - expected.len() as u64);
    assert_eq!(read("a.parquet", &parquet_file(STRINGS, &[])).unwrap(), [""; 0]);
}

/// Some writers declare a required column.
#[test]
fn parquet_takes_a_required_column() {
    let properties = Arc::new(WriterProperties::builder().build());
    let schema = Arc::new(parse_message_type("message m { REQUIRED BYTE_ARRAY text (STRING); }").unwrap());
    let texts: Vec<String> = (0..200).map(|i| format!("Story {i}.")).collect();
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, properties).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let values: Vec<ByteArray> = texts.iter().map(|t| ByteArray::from(t.as_str())).collect();
    column.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    assert_eq!(read("a.parquet", &writer.into_inner().unwrap()).unwrap(), texts);
}

#[test]
fn parquet_faults_say_what_to_do() {
    let texts = some_texts();
    let other = STRINGS.replace("text", "story");
    let bytes = parquet_file(&other, &texts);
    let found = message("a.parquet", &bytes);
    assert!(found.contains("id, story") && found.contains("--text-column"), "{found}");

    let properties = Arc::new(WriterProperties::builder().build());
    let schema = Arc::new(parse_message_type("message m { REQUIRED INT64 text; }").unwrap());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, properties).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<Int64Type>().write_batch(&[1, 2], None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    assert!(message("a.parquet", &writer.into_inner().unwrap()).contains("INT64"));

    let whole = parquet_file(STRINGS, &texts);
    assert!(message("a.parquet", b"").contains("few"));
    assert!(message("a.parquet", &whole[..whole.len() - 1]).contains("PAR1"));
    assert!(message("a.parquet", &[0; 100]).contains("PAR1"));
    let mut lying = whole.clone();
    let at = lying.len() - 8;
    lying[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(message("a.parquet", &lying).contains("footer"));
    // A flag where a name should be. A reader of the name would take the end of the structure for a part of
    // it, and the last bytes for a list of two billion.
    let name =
        [&[0x61, 0x15, 0x02, 0x00][..], &[0x20; 19], &[0x09, 0x0A, 0xFC, 0xFF, 0xFF, 0xFF, 0xFF, 0x07]];
    let name = name.concat();
    let footer = (name.len() as u32).to_le_bytes();
    let confused = [b"PAR1", &name[..], &footer, b"PAR1"].concat();
    assert!(message("a.parquet", &confused).contains("garbled"));
    // The right ending on the wrong beginning.
    let mut cut = whole[..200].to_vec();
    cut.extend_from_slice(&whole[whole.len() - 8..]);
    assert!(message("a.parquet", &cut).contains("a.parquet"));
}

#[test]
fn parquet_text_that_is_not_utf8_names_the_row() {
    let mut bytes = parquet_file(STRINGS, &[None, Some("bbbbQbbb"), Some("c")]);
    for at in 0..bytes.len() {
        if bytes[at..].starts_with(b"bbbbQbbb") {
            bytes[at + 4] = 0xFF;
        }
    }
    let found = message("a.parquet", &bytes);
    assert!(found.contains("row 2") && found.contains("byte 4"), "{found}");
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/corpora").join(name)
}

fn drain(path: &Path) {
    if let Ok(stories) = open(path).and_then(|corpus| corpus.stories()) {
        // A damaged file may still hold very many rows.
        stories.take(10_000).for_each(drop);
    }
}

/// Catches panics of the parquet crate without printing them.
fn quietly(run: impl FnOnce()) {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if info.location().is_none_or(|l| !l.file().contains("parquet-") && !l.file().contains("ruzstd-"))
            {
                usual(info);
            }
        }));
    });
    run();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn damaged_parquet_never_panics(
        kind in any::<prop::sample::Index>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        near_the_end in any::<bool>(),
    ) {
        let kinds = ["none", "snappy", "gzip", "zstd", "lz4", "brotli", "hadoop-lz4", "second-version", "delta"];
        let mut bytes = fs::read(fixture(&format!("{}.parquet", kind.get(&kinds)))).unwrap();
        let length = bytes.len();
        for (at, byte) in damage {
            // Most faults are in the footer.
            let at = if near_the_end { length - 8 - at.index(length / 2) } else { at.index(length) };
            bytes[at] = byte;
        }
        let (_folder, path) = file("a.parquet", &bytes);
        quietly(|| drain(&path));
    }

    #[test]
    fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..300), kind in 0usize..5) {
        let name = ["a.txt", "a.jsonl", "a.json", "a.csv", "a.parquet"][kind];
        let (_folder, path) = file(name, &bytes);
        drain(&path);
    }

    #[test]
    fn damaged_packing_is_answered(
        zstd in any::<bool>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let name = if zstd { "lines.jsonl.zst" } else { "lines.jsonl.gz" };
        let mut bytes = fs::read(fixture(name)).unwrap();
        let length = bytes.len();
        damage.into_iter().for_each(|(at, byte)| bytes[at.index(length)] = byte);
        let (_folder, path) = file(name, &bytes);
        quietly(|| drain(&path));
    }

    #[test]
    fn txt_gives_back_what_was_joined(
        stories in prop::collection::vec("[a-z ]{0,5}[a-z][a-zé \n]{0,20}[a-z]", 0..8),
    ) {
        let text = stories.join("\n<|endoftext|>\n");
        prop_assert_eq!(read("a.txt", text.as_bytes()).unwrap(), stories);
    }
}
