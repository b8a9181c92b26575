//! A trained vocabulary: the same stories give the same one, it has every byte, and impossible sizes are
//! refused.

use super::*;

fn stories() -> Vec<String> {
    let names = ["Mo", "Ada", "Finn", "Uma"];
    let words = ["snail", "pond", "moon", "kite", "bread", "river", "button", "whistle"];
    let story = |i: usize| {
        let (name, a, b) = (names[i % 4], words[i * 3 % 8], words[(i * 5 + 1) % 8]);
        format!("{name} found a {a} by the {b}. \"What a {a}!\" said {name}.\nThe {b} didn't answer.")
    };
    (0..200).map(story).collect()
}

#[test]
fn training_is_deterministic_and_keeps_every_byte() {
    let train = |size| Tokenizer::train_bpe(stories().into_iter().map(Ok), size).unwrap();
    let (one, two) = (train(320), train(320));
    assert_eq!(one.inner.to_string(false).unwrap(), two.inner.to_string(false).unwrap());
    assert_eq!((one.vocab_size(), one.end_of_text()), (320, Some(0)));
    for text in TEXTS {
        let ids = one.encode(text).unwrap();
        assert_eq!(one.decode(&ids).unwrap(), *text);
        assert_eq!(ids, through_the_library(&one, text));
    }
    let smallest = train(257);
    assert_eq!(smallest.encode("abc").unwrap().len(), 3);
    let bytes = |t: &Tokenizer| stories().iter().map(|s| t.encode(s).unwrap().len()).sum::<usize>();
    assert!(bytes(&one) * 2 < bytes(&smallest), "merges were learnt");

    let folder = tempfile::tempdir().unwrap();
    one.save(&folder.path().join("tokenizer.json")).unwrap();
    let reloaded = Tokenizer::from_folder(folder.path()).unwrap();
    for story in stories() {
        assert_eq!(reloaded.encode(&story).unwrap(), one.encode(&story).unwrap());
    }
}

#[test]
fn training_refuses_what_cannot_be() {
    let error = Tokenizer::train_bpe(stories().into_iter().map(Ok), 256).unwrap_err();
    assert!(matches!(error, Error::VocabularyTooSmall { found: 256 }));
    assert!(Tokenizer::train_bpe(stories().into_iter().map(Ok), usize::MAX).is_err());
    let broken = [Ok("a".to_owned()), Err(Error::tokenizer("no"))];
    assert!(Tokenizer::train_bpe(broken.into_iter(), 300).is_err());
    // Training on nothing is no fault: the vocabulary has the bytes.
    assert_eq!(Tokenizer::train_bpe(std::iter::empty(), 300).unwrap().vocab_size(), 257);
}

/// Two tokenizers agree on ids if and only if their vocabularies are equal, however they were made.
#[test]
fn vocabularies_are_told_apart() {
    let train = |size| Tokenizer::train_bpe(stories().into_iter().map(Ok), size).unwrap();
    assert!(GPT2.has_vocabulary_of(&RELOADED) && RELOADED.has_vocabulary_of(&GPT2));
    assert!(train(300).has_vocabulary_of(&train(300)));
    assert!(!train(300).has_vocabulary_of(&train(301)) && !train(301).has_vocabulary_of(&train(300)));
    assert!(!GPT2.has_vocabulary_of(&train(300)));
    // As many tokens, with two of them exchanged.
    let json = train(300).inner.to_string(false).unwrap();
    let exchanged = json.replace("\"a\":", "\"?\":").replace("\"b\":", "\"a\":").replace("\"?\":", "\"b\":");
    assert_ne!(exchanged, json);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    std::fs::write(&path, exchanged).unwrap();
    let other = Tokenizer::from_file(&path).unwrap();
    assert_eq!(other.vocab_size(), 300);
    assert!(!other.has_vocabulary_of(&train(300)));
}

/// A picture in base64 is one word of a million letters. Training must neither learn from it nor take for
/// ever.
#[test]
fn training_is_not_held_up_by_endless_words() {
    let mut stories = stories();
    let expected = Tokenizer::train_bpe(stories.clone().into_iter().map(Ok), 300).unwrap();
    stories.insert(7, "ab".repeat(1 << 20));
    stories.insert(9, " ".repeat(1 << 20));
    let found = Tokenizer::train_bpe(stories.into_iter().map(Ok), 300).unwrap();
    assert!(found.has_vocabulary_of(&expected));
}
