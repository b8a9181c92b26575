//! Ids equal tiktoken's, before and after saving as `tokenizer.json`. Words equal the library's. Text
//! survives encoding and decoding, in one piece or token by token.

use std::path::PathBuf;
use std::sync::LazyLock;

use proptest::prelude::*;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

use super::words::words;
use super::*;

mod files;
mod training;

static GPT2: LazyLock<Tokenizer> = LazyLock::new(|| Tokenizer::gpt2().unwrap());
static TIKTOKEN: LazyLock<tiktoken_rs::CoreBPE> = LazyLock::new(|| tiktoken_rs::r50k_base().unwrap());

/// GPT-2's tokenizer written to a `tokenizer.json` and read again.
static RELOADED: LazyLock<Tokenizer> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    GPT2.save(&folder.path().join("tokenizer.json")).unwrap();
    Tokenizer::from_folder(folder.path()).unwrap()
});

const TEXTS: &[&str] = &[
    "",
    " ",
    "\n",
    "Once upon a time, there was a snail called Mo. Mo couldn't hurry, and didn't want to.",
    "I'm sure she'll say we've what they'd've said; it's 'tis, 'twas and Y'ALL'S",
    "'s't're've'm'll'd 'S'T ''s '",
    "two  spaces   three    four\ttab\t\ttabs \t mixed",
    "line\nline\n\nparagraph\n\n\n  indented\r\nwindows\r\n\r\n",
    "trailing spaces   ",
    "   leading",
    "1 22 333 4444 ½ ² Ⅷ ४२ 3.14159 1,000,000",
    "🐢🐌 👩‍👩‍👧‍👦 🇸🇪 🏳️‍🌈 ❤️",
    "昔々、あるところに小さな亀がいました。你好，世界！안녕하세요",
    "e\u{301} vs é; a\u{30A}\u{323}; Z\u{35B}\u{321}a\u{337}l\u{338}go",
    "Ελλάδα, Россия, עברית, العربية, ไทย, हिन्दी",
    "\u{A0}no\u{A0}break\u{2003}em\u{3000}ideographic\u{200B}zero\u{FEFF}mark",
    "\u{85}next\u{2028}line\u{2029}paragraph\u{1C}fs\u{B}vt\u{C}ff",
    "<|endoftext|> in the middle <|endoftext|>",
    "{\"json\": [1, 2.5e-3, null]} <html attr='x'>&amp;</html> a_b-c.d@e#f$g%h^i&j*k",
    "ﬁ ligature Ω Ω K K İ ı ß ẞ ǅ",
];

#[test]
fn ids_equal_tiktokens() {
    assert_eq!((GPT2.vocab_size(), GPT2.end_of_text()), (50_257, Some(50_256)));
    assert_eq!((RELOADED.vocab_size(), RELOADED.end_of_text()), (50_257, Some(50_256)));
    for text in TEXTS {
        check_against_tiktoken(text);
    }
    let long = TEXTS.join(" ").repeat(20);
    check_against_tiktoken(&long);
}

#[test]
fn every_block_of_unicode_is_encoded_as_tiktoken_does() {
    let mut text = String::new();
    for code in (0..0x3_0000u32).filter(|c| c % 7 == 0 || *c < 0x3000) {
        text.extend(char::from_u32(code));
        if code % 64 == 0 {
            text.push(' ');
        }
    }
    check_against_tiktoken(&text);
}

fn check_against_tiktoken(text: &str) {
    let expected = TIKTOKEN.encode_ordinary(text);
    assert_eq!(GPT2.encode(text).unwrap(), expected, "{text:?}");
    assert_eq!(RELOADED.encode(text).unwrap(), expected, "{text:?}");
    assert_eq!(through_the_library(&RELOADED, text), expected, "{text:?}");
    assert_eq!(RELOADED.decode(&expected).unwrap(), text);
}

fn through_the_library(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    tokenizer.inner.encode(text, false).unwrap().get_ids().to_vec()
}

fn words_of_the_library(text: &str) -> Vec<String> {
    let mut pieces = PreTokenizedString::from(text);
    tokenizers::pre_tokenizers::byte_level::ByteLevel::default()
        .add_prefix_space(false)
        .pre_tokenize(&mut pieces)
        .unwrap();
    let splits = pieces.get_splits(OffsetReferential::Original, OffsetType::Byte);
    splits.into_iter().map(|(_, (from, to), _)| text[from..to].to_owned()).collect()
}

/// Text with much of what decides word splitting: spaces of all kinds, quotes, letters, digits, marks.
fn any_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        3 => "[a-zA-Z]{1,8}",
        2 => "[ \t\n\r\u{A0}\u{2003}]{1,4}",
        2 => "'(s|t|re|ve|m|ll|d|x|)",
        1 => "[0-9٤²½]{1,5}",
        1 => "[.,!?\u{301}\u{FE0F}_-]{1,3}",
        1 => "\\PC{1,6}",
        1 => any::<String>().prop_map(|s| s.chars().take(8).collect()),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_text_has_tiktokens_ids(text in any_text()) {
        check_against_tiktoken(&text);
    }

    #[test]
    fn words_are_the_librarys(text in any_text()) {
        let ours: Vec<String> = words(&text).map(str::to_owned).collect();
        prop_assert_eq!(ours, words_of_the_library(&text));
    }

    #[test]
    fn a_stream_says_what_decode_says(ids in prop::collection::vec(0u32..50_257, 0..40)) {
        check_stream(&GPT2, &ids);
        prop_assert_eq!(GPT2.decode(&ids).unwrap(), GPT2.inner.decode(&ids, true).unwrap());
    }

    #[test]
    fn a_stream_of_lone_bytes_says_what_decode_says(ids in prop::collection::vec(0u32..256, 0..60)) {
        check_stream(&GPT2, &ids);
        prop_assert_eq!(GPT2.decode(&ids).unwrap(), GPT2.inner.decode(&ids, true).unwrap());
    }

    #[test]
    fn sentencepiece_conventions_hold(text in any_text(), ids in prop::collection::vec(0u32..400, 0..40)) {
        for tokenizer in [&*LLAMA_2, &*METASPACE] {
            // Their alphabets lack some characters and some ids.
            let ids: Vec<u32> = ids.iter().map(|id| id % tokenizer.vocab_size() as u32).collect();
            check_stream(tokenizer, &ids);
            check_stream(tokenizer, &tokenizer.encode(&text).unwrap());
        }
        let ids = LLAMA_2.encode(&text).unwrap();
        prop_assert_eq!(LLAMA_2.decode(&ids).unwrap(), LLAMA_2.inner.decode(&ids, true).unwrap());
        prop_assert_eq!(LLAMA_2.decode(&ids).unwrap(), text.as_str());
        let ids = METASPACE.encode(&text).unwrap();
        prop_assert_eq!(METASPACE.decode(&ids).unwrap(), METASPACE.inner.decode(&ids, true).unwrap());
    }
}

/// What a stream returns never ends within a character, and adds up to the whole text.
fn check_stream(tokenizer: &Tokenizer, ids: &[u32]) {
    let mut stream = tokenizer.stream();
    let mut text = String::new();
    for &id in ids {
        text.push_str(&stream.push(id).unwrap());
    }
    text.push_str(&stream.finish());
    assert_eq!(text, tokenizer.decode(ids).unwrap());
}

#[test]
fn a_stream_waits_for_whole_characters_and_for_no_more() {
    let ids = GPT2.encode("Hi 🐢!").unwrap();
    let mut stream = GPT2.stream();
    let shown: Vec<String> = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
    assert_eq!(shown.concat(), "Hi 🐢!");
    assert!(shown.iter().all(|s| !s.contains('\u{FFFD}')), "{shown:?}");
    assert_eq!(shown[0], "Hi");
    assert_eq!(stream.finish(), "");

    let mut stream = GPT2.stream();
    let half = &GPT2.encode("🐢").unwrap()[..1];
    assert_eq!(stream.push(half[0]).unwrap(), "");
    assert_eq!(stream.finish(), "\u{FFFD}");
}

#[test]
fn token_bytes_add_up_to_the_text() {
    for text in TEXTS {
        let ids = GPT2.encode(text).unwrap();
        let bytes: usize = ids.iter().map(|&id| GPT2.token_bytes(id).unwrap()).sum();
        assert_eq!(bytes, text.len(), "{text:?}");
    }
    assert_eq!(GPT2.token_bytes(50_256), Some(0));
    assert_eq!(GPT2.token_bytes(50_257), None);
    // A "▁" put before a text is a byte that the text does not have.
    let ids = LLAMA_2.encode("ab 亀").unwrap();
    let bytes: usize = ids.iter().map(|&id| LLAMA_2.token_bytes(id).unwrap()).sum();
    assert_eq!(bytes, "ab 亀".len() + 1);
}

/// Whatever a tokenizer puts before a text, the bytes of a stream are those of its texts.
#[test]
fn the_bytes_of_a_stream_are_those_of_its_texts() {
    let prefixed = r#"{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true}"#;
    let mut json: serde_json::Value = serde_json::from_str(&GPT2.inner.to_string(false).unwrap()).unwrap();
    json["pre_tokenizer"] = serde_json::from_str(prefixed).unwrap();
    let prefixed = Tokenizer::from_json(json.to_string().as_bytes(), Path::new("prefixed")).unwrap();
    let texts = ["the the 亀", "a", "亀", "\nthe", "z the", "the  the"];
    for (tokenizer, adds) in [(&*GPT2, false), (&prefixed, true), (&*LLAMA_2, true), (&*METASPACE, true)] {
        let stories = texts.iter().map(|text| Ok((*text).to_owned()));
        let stream =
            crate::TokenStream::from_stories(stories, Path::new("texts"), tokenizer, u64::MAX).unwrap();
        let mut ids = vec![tokenizer.end_of_text().unwrap(); stream.len() as usize + 1];
        stream.read(0, &mut ids[1..]).unwrap();
        let bytes = |pair: &[u32]| tokenizer.token_bytes_after(pair[0], pair[1]).unwrap() as u64;
        assert_eq!(ids.windows(2).map(bytes).sum::<u64>(), stream.utf8_bytes());
        // An earlier version counted one byte more for every text.
        let alone: usize = ids.iter().map(|&id| tokenizer.token_bytes(id).unwrap()).sum();
        let added = if adds { texts.len() as u64 } else { 0 };
        assert_eq!(alone as u64, stream.utf8_bytes() + added);
    }
}

#[test]
fn special_tokens_are_neither_read_from_text_nor_shown_in_it() {
    let ids = GPT2.encode("a<|endoftext|>b").unwrap();
    assert!(!ids.contains(&50_256), "{ids:?}");
    assert_eq!(GPT2.decode(&ids).unwrap(), "a<|endoftext|>b");
    assert_eq!(GPT2.decode(&[64, 50_256, 65]).unwrap(), "ab");
}

#[test]
fn ids_beyond_the_vocabulary_are_refused() {
    let error = GPT2.decode(&[64, 50_257]).unwrap_err();
    assert!(matches!(error, Error::UnknownToken { id: 50_257, vocab_size: 50_257 }));
    let mut stream = GPT2.stream();
    assert!(stream.push(u32::MAX).is_err());
    assert_eq!(stream.push(64).unwrap(), "a");
}

#[test]
fn endless_runs_are_encoded() {
    for text in [" ".repeat(1_000_000), "a".repeat(500_000), " \n".repeat(500_000)] {
        let ids = GPT2.encode(&text).unwrap();
        assert_eq!(GPT2.decode(&ids).unwrap(), text);
    }
}

#[test]
fn what_would_fill_the_memory_is_refused() {
    let words = "a".repeat((1 << 20) + 1);
    assert!(matches!(GPT2.encode(&words), Err(Error::TextTooLong { limit: 1_048_576, .. })));
    assert!(GPT2.encode(&"a ".repeat(3 << 20)).is_ok());
    assert!(matches!(LLAMA_2.encode(&"a ".repeat(3 << 20)), Err(Error::TextTooLong { .. })));
}

/// Merges for a few words, with `▁` for spaces, bytes as `<0x..>`, and Llama 2's decoder.
static LLAMA_2: LazyLock<Tokenizer> = LazyLock::new(|| {
    let decoder = r#"{"type":"Sequence","decoders":[
        {"type":"Replace","pattern":{"String":"▁"},"content":" "},
        {"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]}"#;
    let normalizer = r#"{"type":"Sequence","normalizers":[
        {"type":"Prepend","prepend":"▁"},{"type":"Replace","pattern":{"String":" "},"content":"▁"}]}"#;
    sentencepiece(normalizer, "null", decoder)
});

/// The same in the older notation.
static METASPACE: LazyLock<Tokenizer> = LazyLock::new(|| {
    let metaspace = r#"{"type":"Metaspace","replacement":"▁","prepend_scheme":"always","split":true}"#;
    let decoder = format!(r#"{{"type":"Sequence","decoders":[{{"type":"ByteFallback"}},{metaspace}]}}"#);
    sentencepiece("null", metaspace, &decoder)
});

fn sentencepiece(normalizer: &str, pre_tokenizer: &str, decoder: &str) -> Tokenizer {
    let mut vocab = Vocab::default();
    let mut add = |token: &str| {
        let id = vocab.len() as u32;
        vocab.entry(token.to_owned()).or_insert(id);
    };
    ["<unk>", "<s>", "</s>"].into_iter().for_each(&mut add);
    (0..=255).for_each(|byte| add(&format!("<0x{byte:02X}>")));
    ('a'..='z').chain(['▁']).for_each(|c| add(&c.to_string()));
    ["▁a", "th", "the", "▁the", "▁▁"].into_iter().for_each(&mut add);
    let merges = [("▁", "a"), ("t", "h"), ("th", "e"), ("▁", "the"), ("▁", "▁")];
    let merges = merges.map(|(a, b)| (a.to_owned(), b.to_owned())).to_vec();
    let model = BPE::builder()
        .vocab_and_merges(vocab, merges)
        .byte_fallback(true)
        .unk_token("<unk>".into())
        .build()
        .unwrap();
    let mut inner = tokenizers::Tokenizer::new(model);
    let special = ["<unk>", "<s>", "</s>"].map(|t| tokenizers::AddedToken::from(t, true));
    inner.add_special_tokens(&special);
    let mut json: serde_json::Value = serde_json::from_str(&inner.to_string(false).unwrap()).unwrap();
    for (key, value) in [("normalizer", normalizer), ("pre_tokenizer", pre_tokenizer), ("decoder", decoder)] {
        json[key] = serde_json::from_str(value).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tokenizer.json"), json.to_string()).unwrap();
    Tokenizer::from_folder(folder.path()).unwrap()
}

#[test]
fn sentencepiece_streams_keep_their_spaces() {
    for tokenizer in [&*LLAMA_2, &*METASPACE] {
        assert_eq!(tokenizer.end_of_text(), Some(2));
        let ids = tokenizer.encode("the the 亀").unwrap();
        let mut stream = tokenizer.stream();
        let shown: Vec<String> = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
        assert_eq!(&shown[..2], ["the", " the"]);
        // A run of byte tokens becomes text as a whole. The end of the stream ends it too.
        assert_eq!((shown.concat().as_str(), stream.finish().as_str()), ("the the ", "亀"));
    }
}

#[test]
fn a_decoder_left_to_the_library_still_streams() {
    let wordpiece = r#"{"type":"WordPiece","prefix":"\u0023\u0023","cleanup":true}"#;
    let tokenizer = sentencepiece("null", "null", wordpiece);
    assert!(matches!(tokenizer.spelling, Spelling::Library(_)));
    let ids = [tokenizer.inner.token_to_id("the").unwrap(), tokenizer.inner.token_to_id("a").unwrap()];
    check_stream(&tokenizer, &ids);
    assert_eq!(tokenizer.decode(&ids).unwrap(), "the a");
    assert_eq!(tokenizer.token_bytes(ids[1]), Some(2));
    assert_eq!(tokenizer.token_bytes(1), Some(0));
    assert_eq!(tokenizer.token_bytes(100_000), None);
    assert!(tokenizer.decode(&[100_000]).is_err());
}

/// `tests/python/check_card.py` compares this with transformers.
#[test]
fn transformers_is_told_what_it_would_guess() {
    let read = |tokenizer: &Tokenizer| {
        serde_json::from_str::<serde_json::Value>(&tokenizer.transformers_json(512)).unwrap()
    };
    let json = read(&GPT2);
    assert_eq!(
        json["tokenizer_class"], "PreTrainedTokenizerFast",
        "no class of its own, by the model's type"
    );
    assert_eq!(json["model_input_names"], serde_json::json!(["input_ids", "attention_mask"]));
    assert_eq!((&json["eos_token"], &json["model_max_length"]), (&"<|endoftext|>".into(), &512.into()));
    assert_eq!(json["clean_up_tokenization_spaces"], false, "decoding gives a text back as it was");
    assert_eq!(read(&LLAMA_2)["eos_token"], "</s>");
}

#[test]
fn real_stories_survive() {
    let path =
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data/tinystories/valid.txt"));
    if !path.exists() {
        println!("skipped: no TinyStories at {}", path.display());
        return;
    }
    let stories = crate::Corpus::open(&path, &Default::default()).unwrap().stories().unwrap();
    for story in stories.take(50) {
        let story = story.unwrap();
        let ids = GPT2.encode(&story).unwrap();
        assert_eq!(GPT2.decode(&ids).unwrap(), story);
        assert_eq!(ids, TIKTOKEN.encode_ordinary(&story));
        check_stream(&GPT2, &ids);
    }
}
