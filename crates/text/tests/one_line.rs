//! A message may quote a file of any content, and stays one readable line.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use offramp_text::{Corpus, CorpusOptions, Error, TokenStream, Tokenizer};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;
use serde_json::json;

/// Line breaks, a terminal's control codes, and a very long text.
fn names() -> [String; 4] {
    ["two\nlines".into(), "a\r\u{1b}[2Jb".into(), "c\u{9b}2Jd".into(), "long".repeat(100_000)]
}

#[track_caller]
fn assert_legible(error: Error) {
    let message = error.to_string();
    assert!(!message.chars().any(char::is_control) && message.len() < 1000, "{message:?}");
}

#[test]
fn a_manifests_words_stay_in_the_line() {
    let folder = tempfile::tempdir().unwrap();
    let refuse = |key: &str, value: serde_json::Value| {
        let split = json!({
            "sources": [], "stories": 1, "tokens": 1, "utf8_bytes": 1, "shards": ["a"],
        });
        let mut manifest = json!({
            "format": "offramp-corpus", "version": 2, "tokenizer": "gpt2", "vocab_size": 9, "train": split,
        });
        *manifest.pointer_mut(key).unwrap() = value;
        fs::write(folder.path().join("corpus.json"), manifest.to_string()).unwrap();
        assert_legible(TokenStream::open(folder.path(), "train").unwrap_err());
    };
    for name in names() {
        refuse("/format", json!(name));
        refuse("/vocab_size", json!(name));
        refuse("/train/stories", json!(name));
        refuse("/train/shards", json!([format!("../{name}")]));
        if name.len() < 100 {
            refuse("/train/shards", json!([name])); // a file of this folder that is not there
        }
    }
}

#[test]
fn a_tables_columns_stay_in_the_line() {
    for name in names() {
        let column = Type::primitive_type_builder(&name, parquet::basic::Type::BYTE_ARRAY).build().unwrap();
        let table = Type::group_type_builder("table").with_fields(vec![Arc::new(column)]).build().unwrap();
        let writer =
            SerializedFileWriter::new(Vec::new(), Arc::new(table), Arc::new(WriterProperties::new()))
                .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        fs::write(&path, writer.into_inner().unwrap()).unwrap();
        assert_legible(Corpus::open(&path, &CorpusOptions::default()).unwrap().stories().err().unwrap());
    }
}

#[test]
fn a_tokenizers_words_stay_in_the_line() {
    for name in names() {
        for text in [json!({ "model": name }), json!({ "version": name }), json!(name)] {
            assert_legible(
                Tokenizer::from_json(text.to_string().as_bytes(), Path::new("t.json")).unwrap_err(),
            );
        }
    }
}
