//! A damaged or hostile `tokenizer.json` gives one clear line.

use super::*;

#[test]
fn a_broken_file_is_one_clear_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    let whole = LLAMA_2.inner.to_string(false).unwrap();
    let huge_id = whole.replace("\"▁▁\":290", "\"▁▁\":4000000000");
    assert_ne!(huge_id, whole);
    // 291 tokens must not allocate tables of millions of entries.
    let sparse = whole.replace("\"▁▁\":290", "\"▁▁\":16000000");
    let cases = [
        String::new(),
        "{}".into(),
        "[1, 2]".into(),
        whole[..whole.len() / 2].to_owned(),
        whole.replace("\"type\":\"BPE\"", "\"type\":\"Nonsense\""),
        whole.replace("\"type\":\"Strip\",\"content\":\" \"", "\"type\":\"Peel\""),
        huge_id,
        sparse,
    ];
    for case in cases {
        std::fs::write(&path, &case).unwrap();
        let error = Tokenizer::from_file(&path).expect_err(&case);
        assert!(matches!(error, Error::TokenizerFile { .. }), "{error:?}");
        let message = error.to_string();
        assert!(message.contains("tokenizer.json") && !message.contains('\n'), "{message}");
        assert!(message.contains("give one that"), "what to do: {message}");
    }
    assert!(matches!(Tokenizer::from_file(&folder.path().join("absent")), Err(Error::Read { .. })));
}

/// Random dropout of merges is for training a model. Here the same text always has the same ids.
#[test]
fn a_dropout_in_the_file_is_ignored() {
    let mut json: serde_json::Value = serde_json::from_str(&GPT2.inner.to_string(false).unwrap()).unwrap();
    json["model"]["dropout"] = 0.5.into();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    std::fs::write(&path, json.to_string()).unwrap();
    let tokenizer = Tokenizer::from_file(&path).unwrap();
    for text in TEXTS {
        assert_eq!(tokenizer.encode(text).unwrap(), GPT2.encode(text).unwrap());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever changes in a file, loading it returns. If it loads, using it does not panic.
    #[test]
    fn a_damaged_file_never_panics(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        let mut bytes = LLAMA_2.inner.to_string(false).unwrap().into_bytes();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        std::fs::write(&path, bytes).unwrap();
        if let Ok(tokenizer) = Tokenizer::from_file(&path) {
            let ids = tokenizer.encode("the a 亀").unwrap_or_default();
            let _ = tokenizer.decode(&ids);
        }
    }
}

/// The library trusts a decoder's numbers and a normalizer's tables. Its panics become errors here.
#[test]
fn a_file_that_makes_the_library_panic_is_an_error() {
    let strip = r#"{"type":"Strip","content":"a","start":0,"stop":5}"#;
    let tokenizer = sentencepiece("null", "null", strip);
    let a = tokenizer.inner.token_to_id("a").unwrap();
    check_harmless(&tokenizer.decode(&[a]).unwrap_err());
    let mut stream = tokenizer.stream();
    assert!(stream.push(a).is_err());
    let the = tokenizer.inner.token_to_id("▁the").unwrap();
    assert_eq!(stream.push(the).unwrap(), "▁the", "as if the token had not been there");
    assert_eq!(tokenizer.token_bytes(a), Some(0));

    // A trie with one node that points far beyond the end.
    let charsmap = r#"{"type":"Precompiled","precompiled_charsmap":"BAAAAAD8/38="}"#;
    let tokenizer = sentencepiece(charsmap, "null", "null");
    check_harmless(&tokenizer.encode("the").unwrap_err());
}

fn check_harmless(error: &Error) {
    let message = error.to_string();
    assert!(message.contains("contradicts itself") && !message.contains('\n'), "{message}");
}

/// What a folder holds in place of a `tokenizer.json` decides the advice.
#[test]
fn a_folder_without_a_tokenizer_is_told_where_to_get_it() {
    let made = "`python -c \"from transformers import AutoTokenizer as T; T.from_pretrained('.')";
    for (files, parts) in [
        (
            &["tokenizer.model", "tokenizer_config.json"][..],
            &["of tokenizer.model, in that folder", made][..],
        ),
        (&["vocab.json", "merges.txt"], &["of vocab.json and merges.txt", made]),
        (&["vocab.json"], &["copy it from where the model comes from"]),
        (&[], &["copy it from where the model comes from"]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        files.iter().for_each(|name| std::fs::write(folder.path().join(name), "x").unwrap());
        let message = Tokenizer::from_folder(folder.path()).err().unwrap().to_string();
        assert!(
            message.starts_with(&folder.path().display().to_string()) && !message.contains('\n'),
            "{message}"
        );
        assert!(message.contains("it has no tokenizer.json"), "{message}");
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
}

#[test]
fn a_git_lfs_pointer_is_told_and_not_parsed() {
    let folder = tempfile::tempdir().unwrap();
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9085657\n";
    std::fs::write(folder.path().join("tokenizer.json"), pointer).unwrap();
    let message = Tokenizer::from_folder(folder.path()).err().unwrap().to_string();
    assert!(
        message.contains("tokenizer.json is a git-lfs pointer") && message.contains("`git lfs pull`"),
        "{message}"
    );
}
