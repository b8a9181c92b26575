//! A new layout of the file is the same tokenizer. Whatever gives other ids is another tokenizer.

use super::*;
use crate::Tokenizer;
use std::path::Path;

const TEXTS: [&str; 4] = ["low lower  newest", "LOW łow wider", " the lowest\nnew <x> low", "new"];

fn tokenizer(json: &Value) -> Tokenizer {
    Tokenizer::from_json(json.to_string().as_bytes(), Path::new("t.json")).unwrap()
}

fn ids(tokenizer: &Tokenizer) -> Vec<Vec<u32>> {
    TEXTS.iter().map(|text| tokenizer.encode(text).unwrap()).collect()
}

/// A byte-level BPE with a few merges, as `tokenizers` writes it.
fn bpe() -> Value {
    let text = ["low lower lowest newest wider new the".repeat(4)];
    let trained = Tokenizer::train_bpe(text.into_iter().map(Ok), 275).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    trained.save(&path).unwrap();
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The same with something changed.
fn changed(change: impl FnOnce(&mut Value)) -> Value {
    let mut json = bpe();
    change(&mut json);
    json
}

#[test]
fn what_gives_the_same_ids_has_the_same_fingerprint() {
    let plain = tokenizer(&bpe());
    let print = plain.fingerprint().unwrap();
    let old_merges = |json: &mut Value| {
        // tokenizers before version 0.20 wrote a merge as two words in a string.
        for merge in json["model"]["merges"].as_array_mut().unwrap() {
            *merge = Value::from(format!("{} {}", merge[0].as_str().unwrap(), merge[1].as_str().unwrap()));
        }
    };
    let same: [(&str, Value); 9] = [
        ("merges as strings", changed(old_merges)),
        ("dropout, which is ignored", changed(|json| json["model"]["dropout"] = 0.1.into())),
        (
            "no prefix, in GPT-2's words",
            changed(|json| json["model"]["continuing_subword_prefix"] = "".into()),
        ),
        ("a key left out", changed(|json| drop(json["model"].as_object_mut().unwrap().remove("fuse_unk")))),
        (
            "offsets",
            changed(|json| {
                json["pre_tokenizer"]["trim_offsets"] =
                    (!json["pre_tokenizer"]["trim_offsets"].as_bool().unwrap()).into()
            }),
        ),
        ("no way back to text", changed(|json| json["decoder"] = Value::Null)),
        ("nothing around a prompt", changed(|json| json["post_processor"] = Value::Null)),
        (
            "truncation",
            changed(|json| {
                json["truncation"] = serde_json::json!({"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0});
            }),
        ),
        ("version left out", changed(|json| drop(json.as_object_mut().unwrap().remove("version")))),
    ];
    for (what, json) in same {
        let other = tokenizer(&json);
        assert_eq!(ids(&other), ids(&plain), "{what}");
        assert_eq!(other.fingerprint().unwrap(), print, "{what}");
    }
    // The same in another layout: white space, the order of keys, letters as escapes.
    let text = serde_json::to_string_pretty(&bpe()).unwrap().replace('Ġ', "\\u0120");
    let other = Tokenizer::from_json(text.as_bytes(), Path::new("t.json")).unwrap();
    assert_eq!(other.fingerprint().unwrap(), print);
    let turned: serde_json::Map<_, _> = bpe().as_object().unwrap().clone().into_iter().rev().collect();
    assert_eq!(tokenizer(&turned.into()).fingerprint().unwrap(), print);
}

#[test]
fn what_gives_other_ids_has_another_fingerprint() {
    let plain = tokenizer(&bpe());
    let swap_ids = |json: &mut Value| {
        let vocab = json["model"]["vocab"].as_object_mut().unwrap();
        let (l, w) = (vocab["l"].clone(), vocab["w"].clone());
        vocab.insert("l".into(), w);
        vocab.insert("w".into(), l);
    };
    let added = serde_json::json!({"id": 300, "content": "<x>", "single_word": false, "lstrip": false,
        "rstrip": false, "normalized": false, "special": false});
    let other: [(&str, Value); 7] = [
        ("two ids change places", changed(swap_ids)),
        (
            "the first merge is gone",
            changed(|json| drop(json["model"]["merges"].as_array_mut().unwrap().remove(0))),
        ),
        (
            "merges in another order",
            changed(|json| json["model"]["merges"].as_array_mut().unwrap().reverse()),
        ),
        (
            "letters are made small",
            changed(|json| json["normalizer"] = serde_json::json!({"type": "Lowercase"})),
        ),
        ("a blank before the text", changed(|json| json["pre_tokenizer"]["add_prefix_space"] = true.into())),
        ("words are not split", changed(|json| json["pre_tokenizer"]["use_regex"] = false.into())),
        ("a token of its own", changed(|json| json["added_tokens"].as_array_mut().unwrap().push(added))),
    ];
    for (what, json) in other {
        let other = tokenizer(&json);
        assert_ne!(other.fingerprint().unwrap(), plain.fingerprint().unwrap(), "{what}");
        // The change matters: some text has other ids.
        if what != "words are not split" {
            assert_ne!(ids(&other), ids(&plain), "{what}");
        }
    }
}

/// A tokenizer that was read, trained or built in is the same after saving.
#[test]
fn saving_changes_no_fingerprint() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    for tokenizer in [Tokenizer::gpt2().unwrap(), tokenizer(&bpe())] {
        tokenizer.save(&path).unwrap();
        let saved = Tokenizer::from_file(&path).unwrap();
        assert_eq!(saved.fingerprint().unwrap(), tokenizer.fingerprint().unwrap());
    }
}

#[test]
fn it_is_written_as_digits_and_read_again() {
    let print = Fingerprint(0x00ab_cdef_0123_4567);
    let json = serde_json::to_string(&print).unwrap();
    assert_eq!(json, "\"00abcdef01234567\"");
    assert_eq!(serde_json::from_str::<Fingerprint>(&json).unwrap(), print);
    for bad in ["\"ab\"", "\"+0abcdef01234567\"", "\"00abcdef0123456x\"", "7"] {
        assert!(serde_json::from_str::<Fingerprint>(bad).is_err(), "{bad}");
    }
}

proptest::proptest! {
    #[test]
    fn one_id_changed_is_another_row(mut ids in proptest::collection::vec(0u32..70_000, 1..50), at in 0usize..50, by in 1u32..9) {
        let sum = |ids: &[u32]| {
            let mut sum = FingerprintHasher::new();
            sum.add_ids(ids);
            sum.fingerprint()
        };
        let before = sum(&ids);
        let at = at % ids.len();
        ids[at] += by;
        proptest::prop_assert_ne!(sum(&ids), before);
    }
}
