//! Each format, well-formed and broken. Broken means one clear line, never a panic.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::parquet::basic::Compression;
use ::parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::parser::parse_message_type;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

fn file(name: &str, bytes: &[u8]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    (folder, path)
}

fn read(name: &str, bytes: &[u8]) -> Result<Vec<String>> {
    let (_folder, path) = file(name, bytes);
    Corpus::open(&path)?.stories()?.collect()
}

fn message(name: &str, bytes: &[u8]) -> String {
    let message = read(name, bytes).expect_err("a fault").to_string();
    assert!(!message.contains('\n') && message.contains(name), "{message}");
    message
}

#[test]
fn txt_is_cut_at_separator_lines() {
    let pieces = ["One.\nTwo lines.", "\n \nSecond.\n\n\nafter a gap\n", "<|endoftext|>\n  Indented, last"];
    let text = pieces.join("\n<|endoftext|>\n");
    assert_eq!(
        read("a.txt", text.as_bytes()).unwrap(),
        ["One.\nTwo lines.", "Second.\n\n\nafter a gap", "  Indented, last"]
    );
    let literal = "He wrote <|endoftext|> on the wall.\n <|endoftext|>\n";
    assert_eq!(read("a.txt", literal.as_bytes()).unwrap(), [literal.trim_end()]);
    let windows = "\u{FEFF}One\r\n<|endoftext|>\r\nTwo\r\nlines\r\n<|endoftext|>";
    assert_eq!(read("a.TXT", windows.as_bytes()).unwrap(), ["One", "Two\r\nlines"]);
    assert_eq!(read("a.txt", b"").unwrap(), [""; 0]);
    assert_eq!(read("a.txt", b"\n \n<|endoftext|>\n\n").unwrap(), [""; 0]);
}

#[test]
fn txt_that_is_not_utf8_names_the_byte() {
    let bytes = b"One.\n<|endoftext|>\nTw\xFFo.\n";
    assert!(matches!(read("a.txt", bytes), Err(Error::NotUtf8 { offset: 21, .. })));
    assert!(message("a.txt", bytes).contains("byte 21"));
    // A character cut off by the separator is found where it begins.
    assert!(matches!(
        read("a.txt", b"\xEF\xBB\xBFab\xE4\xBD\n<|endoftext|>\n"),
        Err(Error::NotUtf8 { offset: 5, .. })
    ));
    // After the error there is nothing more.
    let (_folder, path) = file("a.txt", bytes);
    let mut stories = Corpus::open(&path).unwrap().stories().unwrap();
    assert_eq!(stories.next().unwrap().unwrap(), "One.");
    assert!(stories.next().unwrap().is_err());
    assert!(stories.next().is_none());
}

#[test]
fn a_file_without_separators_is_refused_before_it_fills_the_memory() {
    let (_folder, path) = file("a.txt", b"");
    fs::File::options().write(true).open(&path).unwrap().set_len(3 << 30).unwrap(); // sparse zeros: one line
    let error = Corpus::open(&path).unwrap().stories().unwrap().next().unwrap().unwrap_err();
    assert!(matches!(error, Error::StoryTooLong { limit: MAX_STORY_BYTES, .. }), "{error}");
    let jsonl = path.with_extension("jsonl");
    fs::rename(&path, &jsonl).unwrap();
    let error = Corpus::open(&jsonl).unwrap().stories().unwrap().next().unwrap().unwrap_err();
    assert!(matches!(error, Error::StoryTooLong { .. }), "{error}");
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
    let cases: [&[u8]; 10] = [
        b"{\"text\": \"ok\"}\n{\"story\": \"x\"}\n",
        b"{\"text\": \"ok\"}\n{\"text\": 7}\n",
        b"{\"text\": \"ok\"}\n{\"text\": null}\n",
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
    assert!(message("a.csv", b"text\n").contains(".jsonl"));
    assert!(message("a", b"text\n").contains(".parquet"));
    let (folder, path) = file("a.txt", b"");
    assert!(matches!(Corpus::open(&path.with_file_name("b.txt")), Err(Error::Read { .. })));
    assert!(matches!(Corpus::open(folder.path()), Err(Error::Read { .. })));
}

/// A parquet file of two row groups: a number and a string column.
fn parquet_file(schema: &str, texts: &[Option<&str>], packed: Compression) -> Vec<u8> {
    let properties = WriterProperties::builder()
        .set_compression(packed)
        .set_data_page_row_count_limit(3)
        .set_write_batch_size(2);
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
    for packed in [Compression::UNCOMPRESSED, Compression::SNAPPY] {
        let bytes = parquet_file(STRINGS, &texts, packed);
        assert_eq!(read("a.parquet", &bytes).unwrap(), expected);
        let (_folder, path) = file("a.parquet", &bytes);
        let corpus = Corpus::open(&path).unwrap();
        let mut stories = corpus.stories().unwrap();
        while stories.next().is_some() {}
        assert_eq!(stories.bytes_read(), corpus.bytes());
    }
    assert_eq!(read("a.parquet", &parquet_file(STRINGS, &[], Compression::SNAPPY)).unwrap(), [""; 0]);
}

/// As some writers declare it: a column in which nothing can be missing.
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
    let bytes = parquet_file(&other, &texts, Compression::SNAPPY);
    let found = message("a.parquet", &bytes);
    assert!(found.contains("id, story") && found.contains("rename"), "{found}");

    let properties = Arc::new(WriterProperties::builder().build());
    let schema = Arc::new(parse_message_type("message m { REQUIRED INT64 text; }").unwrap());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, properties).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<Int64Type>().write_batch(&[1, 2], None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    assert!(message("a.parquet", &writer.into_inner().unwrap()).contains("INT64"));

    let whole = parquet_file(STRINGS, &texts, Compression::SNAPPY);
    assert!(message("a.parquet", b"").contains("few"));
    assert!(message("a.parquet", &whole[..whole.len() - 1]).contains("PAR1"));
    assert!(message("a.parquet", &[0; 100]).contains("PAR1"));
    let mut lying = whole.clone();
    let at = lying.len() - 8;
    lying[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(message("a.parquet", &lying).contains("footer"));
    // The right ending on the wrong beginning.
    let mut cut = whole[..200].to_vec();
    cut.extend_from_slice(&whole[whole.len() - 8..]);
    assert!(message("a.parquet", &cut).contains("a.parquet"));
}

#[test]
fn parquet_text_that_is_not_utf8_names_the_row() {
    let mut bytes =
        parquet_file(STRINGS, &[Some("aaaa"), Some("bbbbQbbb"), Some("c")], Compression::UNCOMPRESSED);
    for at in 0..bytes.len() {
        if bytes[at..].starts_with(b"bbbbQbbb") {
            bytes[at + 4] = 0xFF;
        }
    }
    let found = message("a.parquet", &bytes);
    assert!(found.contains("row 2") && found.contains("byte 4"), "{found}");
}

fn drain(path: &Path) {
    if let Ok(stories) = Corpus::open(path).and_then(|corpus| corpus.stories()) {
        // A damaged file may still hold very many rows.
        stories.take(10_000).for_each(drop);
    }
}

/// Panics inside the parquet crate are caught; their reports would only clutter the test's output.
fn quietly(run: impl FnOnce()) {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if info.location().is_none_or(|l| !l.file().contains("parquet-")) {
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
        snappy in any::<bool>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        near_the_end in any::<bool>(),
    ) {
        let packed = if snappy { Compression::SNAPPY } else { Compression::UNCOMPRESSED };
        let mut bytes = parquet_file(STRINGS, &some_texts(), packed);
        let length = bytes.len();
        for (at, byte) in damage {
            // Most of what can go wrong is in the footer.
            let at = if near_the_end { length - 8 - at.index(length / 2) } else { at.index(length) };
            bytes[at] = byte;
        }
        let (_folder, path) = file("a.parquet", &bytes);
        quietly(|| drain(&path));
    }

    #[test]
    fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..300), kind in 0usize..3) {
        let (_folder, path) = file(["a.txt", "a.jsonl", "a.parquet"][kind], &bytes);
        drain(&path);
    }

    #[test]
    fn txt_gives_back_what_was_joined(
        stories in prop::collection::vec("[a-z ]{0,5}[a-z][a-zé \n]{0,20}[a-z]", 0..8),
    ) {
        let text = stories.join("\n<|endoftext|>\n");
        prop_assert_eq!(read("a.txt", text.as_bytes()).unwrap(), stories);
    }
}
