//! Tokenizers in GGUF files: the vocabulary in llama.cpp's keys becomes a `tokenizer.json`, and the other way
//! round.
//!
//! A file that carries its `tokenizer.json` (`tokenizer.huggingface.json`) is read by that. Otherwise
//! `tokenizer.ggml.model` says how words are cut: `gpt2` (byte-level BPE, whose `tokenizer.ggml.pre` names
//! the splitting) or `llama` (SentencePiece).

use super::Tokenizer;
use crate::error::{Error, Result};
use offramp_files::one_line;
use offramp_gguf::{Header, Value};
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Splittings of words: llama.cpp's names for each, and Hugging Face's pre-tokenizer and normalizer.
const SPLITTINGS: [(&[&str], Splitting); 4] = [
    (&["gpt-2", "gpt2", "phi-2", "mpt", "olmo", "jais"], Splitting::Gpt2),
    (&["llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral"], Splitting::Llama3),
    (&["qwen2", "deepseek-r1-qwen", "megrez"], Splitting::Qwen2),
    (&["smollm", "refact", "command-r", "starcoder"], Splitting::Digits),
];

/// Llama 3's words: up to three digits.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Qwen2's words: one digit.
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// llama.cpp's token types.
const NORMAL: u64 = 1;
const UNKNOWN: u64 = 2;
const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;
const UNUSED: u64 = 5;
const BYTE: u64 = 6;

/// Bytes of the longest piece that is made of two: each of its cuts is looked at.
const LONGEST_PIECE: usize = 512;

/// How byte-level BPE splits words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Splitting {
    Gpt2,
    Llama3,
    Qwen2,
    /// Every digit alone, then as GPT-2.
    Digits,
}

impl Splitting {
    fn pre_tokenizer(self) -> Json {
        let bytes = |use_regex: bool| json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex });
        let split = |pattern: &str| {
            let split = json!({ "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false });
            json!({ "type": "Sequence", "pretokenizers": [split, bytes(false)] })
        };
        match self {
            Self::Gpt2 => bytes(true),
            Self::Llama3 => split(LLAMA3),
            Self::Qwen2 => split(QWEN2),
            Self::Digits => {
                let digits = json!({ "type": "Digits", "individual_digits": true });
                json!({ "type": "Sequence", "pretokenizers": [digits, bytes(true)] })
            }
        }
    }

    fn normalizer(self) -> Json {
        if self == Self::Qwen2 { json!({ "type": "NFC" }) } else { Json::Null }
    }
}

impl Tokenizer {
    /// The tokenizer in the metadata of a GGUF file; `origin` names the file in errors.
    ///
    /// # Errors
    /// [`Error::GgufTokenizer`] if there is none, or one that is not known here; as [`Tokenizer::from_json`].
    pub fn from_gguf(header: &Header, origin: &Path) -> Result<Self> {
        let fault =
            |reason: String| Error::GgufTokenizer { path: origin.to_owned(), reason: one_line(&reason) };
        if let Some(whole) = header.get("tokenizer.huggingface.json").and_then(Value::as_str) {
            return Self::from_json(whole.as_bytes(), origin);
        }
        let vocabulary = Vocabulary::read(header).map_err(fault)?;
        let json = match header.get("tokenizer.ggml.model").and_then(Value::as_str) {
            Some("gpt2") => vocabulary.byte_level(header),
            Some("llama") => vocabulary.sentence_piece(header),
            Some(other) => Err(format!("its tokenizer is {other}: gpt2 and llama are read")),
            None => Err("it has no tokenizer (tokenizer.ggml.model)".to_owned()),
        };
        let mut tokenizer = Self::from_json(json.map_err(fault)?.to_string().as_bytes(), origin)?;
        if let Some(id) = special(header, "eos_token_id").filter(|&id| tokenizer.token_bytes(id).is_some()) {
            tokenizer.set_end_of_text(id)?;
        }
        Ok(tokenizer)
    }

    /// The keys of a GGUF file for this tokenizer: its vocabulary as llama.cpp reads it, and its
    /// `tokenizer.json` as it is. `tokens` are all ids of the model, which may be more; `bos` and `eos` are
    /// its special ones.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if llama.cpp has no name for such a tokenizer.
    pub fn gguf_metadata(
        &self,
        tokens: usize,
        bos: Option<u32>,
        eos: Option<u32>,
    ) -> Result<Vec<(String, Value)>> {
        let fault = |reason: &str| Error::Tokenizer { reason: reason.to_owned() };
        let text = self.inner.to_string(false).map_err(|error| fault(&error.to_string()))?;
        let whole: Json = serde_json::from_str(&text).map_err(|error| fault(&error.to_string()))?;
        if whole["model"]["type"] != "BPE" || whole["model"]["byte_fallback"] == true {
            return Err(fault("only byte-level BPE is written to GGUF: this tokenizer is of another kind"));
        }
        let known = |splitting: &Splitting| {
            whole["pre_tokenizer"] == splitting.pre_tokenizer()
                || same_pre_tokenizer(&whole["pre_tokenizer"], *splitting)
        };
        let (names, _) = SPLITTINGS
            .into_iter()
            .find(|(_, splitting)| known(splitting))
            .ok_or_else(|| fault("llama.cpp has no name for the way in which this tokenizer splits words"))?;
        let pieces = pieces_of(&whole, tokens.max(self.vocab_size));
        let merges = whole["model"]["merges"].as_array().into_iter().flatten().map(|merge| match merge {
            Json::Array(pair) => pair.iter().filter_map(Json::as_str).collect::<Vec<_>>().join(" "),
            one => one.as_str().unwrap_or_default().to_owned(),
        });
        let adds_bos = bos.is_some_and(|bos| {
            self.encode_prompt("a", Default::default()).is_ok_and(|ids| ids.first() == Some(&bos))
        });
        let mut keys = vec![
            ("tokenizer.ggml.model", Value::Text("gpt2".to_owned())),
            ("tokenizer.ggml.pre", Value::Text(names[0].to_owned())),
            ("tokenizer.ggml.tokens", Value::Texts(pieces.iter().map(|piece| piece.0.clone()).collect())),
            (
                "tokenizer.ggml.token_type",
                Value::Numbers(pieces.iter().map(|piece| piece.1 as f64).collect()),
            ),
            ("tokenizer.ggml.merges", Value::Texts(merges.collect())),
            ("tokenizer.ggml.add_bos_token", Value::Bool(adds_bos)),
            ("tokenizer.huggingface.json", Value::Text(text)),
        ];
        for (key, id) in [("tokenizer.ggml.bos_token_id", bos), ("tokenizer.ggml.eos_token_id", eos)] {
            keys.extend(id.map(|id| (key, Value::Unsigned(id.into()))));
        }
        Ok(keys.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    }
}

/// Every id's piece in a `tokenizer.json`, and its type.
fn pieces_of(whole: &Json, count: usize) -> Vec<(String, u64)> {
    let mut pieces = vec![None; count];
    let mut put = |id: Option<u64>, piece: &str, kind: u64| {
        if let Some(place) = id.and_then(|id| pieces.get_mut(id as usize)) {
            *place = Some((piece.to_owned(), kind));
        }
    };
    let vocab = whole["model"]["vocab"].as_object();
    vocab.into_iter().flatten().for_each(|(piece, id)| put(id.as_u64(), piece, NORMAL));
    for token in whole["added_tokens"].as_array().into_iter().flatten() {
        let kind = if token["special"] == true { CONTROL } else { USER_DEFINED };
        put(token["id"].as_u64(), token["content"].as_str().unwrap_or_default(), kind);
    }
    // Ids without a piece: rows by which a vocabulary was rounded up.
    let or_padding =
        |(id, piece): (usize, Option<_>)| piece.unwrap_or_else(|| (format!("[PAD{id}]"), UNUSED));
    pieces.into_iter().enumerate().map(or_padding).collect()
}

/// Whether a pre-tokenizer splits as one of ours: files leave out keys that have their defaults.
fn same_pre_tokenizer(found: &Json, splitting: Splitting) -> bool {
    let Json::Object(ours) = splitting.pre_tokenizer() else { return false };
    match (found["type"].as_str(), splitting) {
        (Some("ByteLevel"), Splitting::Gpt2) => {
            found["add_prefix_space"] == false && found.get("use_regex").is_none_or(|regex| *regex == true)
        }
        (Some("Sequence"), _) => {
            let (Some(theirs), Some(ours)) =
                (found["pretokenizers"].as_array(), ours.get("pretokenizers").and_then(Json::as_array))
            else {
                return false;
            };
            let key = |one: &Json, key: &str| one.get(key).cloned().unwrap_or(json!(true));
            theirs.len() == ours.len()
                && theirs.iter().zip(ours).all(|(a, b)| {
                    let keys = ["pattern", "individual_digits", "use_regex", "add_prefix_space"];
                    a["type"] == b["type"] && keys.iter().all(|name| key(a, name) == key(b, name))
                })
        }
        _ => false,
    }
}

fn special(header: &Header, name: &str) -> Option<u32> {
    let id = header.get(&format!("tokenizer.ggml.{name}"))?.as_u64()?;
    u32::try_from(id).ok()
}

/// The pieces of a file.
struct Vocabulary<'a> {
    pieces: Vec<&'a str>,
    kinds: Vec<u64>,
}

impl<'a> Vocabulary<'a> {
    fn read(header: &'a Header) -> std::result::Result<Self, String> {
        let pieces = header.get("tokenizer.ggml.tokens").and_then(Value::as_texts);
        let pieces: Vec<_> =
            pieces.ok_or("it has no tokenizer.ggml.tokens")?.iter().map(String::as_str).collect();
        let kinds = match header.get("tokenizer.ggml.token_type").and_then(Value::as_numbers) {
            Some(kinds) => kinds.iter().map(|&kind| kind as u64).collect(),
            None => vec![NORMAL; pieces.len()],
        };
        if kinds.len() != pieces.len() {
            return Err(format!("it has {} tokens and {} types of tokens", pieces.len(), kinds.len()));
        }
        Ok(Self { pieces, kinds })
    }

    /// Tokens that are found in a text before it is split.
    fn added(&self) -> Vec<Json> {
        let of = |(id, (piece, &kind)): (usize, (&&str, &u64))| {
            let special = matches!(kind, CONTROL | UNKNOWN);
            (special || kind == USER_DEFINED).then(|| {
                json!({
                    "id": id, "content": piece, "special": special,
                    "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
                })
            })
        };
        self.pieces.iter().zip(&self.kinds).enumerate().filter_map(of).collect()
    }

    /// Every piece's id. Of two pieces that are the same, the first counts, as in llama.cpp.
    fn ids(&self) -> BTreeMap<&'a str, usize> {
        let mut ids = BTreeMap::new();
        for (id, piece) in self.pieces.iter().enumerate() {
            ids.entry(*piece).or_insert(id);
        }
        ids
    }

    fn byte_level(&self, header: &Header) -> std::result::Result<Json, String> {
        let known =
            SPLITTINGS.iter().flat_map(|(names, _)| names.iter()).copied().collect::<Vec<_>>().join(", ");
        let pre = header.get("tokenizer.ggml.pre").and_then(Value::as_str);
        let pre = pre.ok_or("it does not say how its tokenizer splits words (tokenizer.ggml.pre): convert the model again with a newer llama.cpp")?;
        let splitting = SPLITTINGS.iter().find(|(names, _)| names.contains(&pre)).map(|known| known.1);
        let splitting = splitting.ok_or_else(|| {
            format!("its tokenizer splits words as {pre} (tokenizer.ggml.pre): {known} are known here")
        })?;
        let merges = header.get("tokenizer.ggml.merges").and_then(Value::as_texts).unwrap_or_default();
        let ids = self.ids();
        // As llama.cpp, which never finds a pair that makes no piece.
        let makes_a_piece = |merge: &&str| {
            merge.split_once(' ').is_some_and(|(left, right)| {
                [left, right, &format!("{left}{right}")].iter().all(|piece| ids.contains_key(piece))
            })
        };
        let merges: Vec<_> = merges.iter().map(String::as_str).filter(makes_a_piece).collect();
        Ok(json!({
            "version": "1.0", "truncation": null, "padding": null,
            "added_tokens": self.added(),
            "normalizer": splitting.normalizer(),
            "pre_tokenizer": splitting.pre_tokenizer(),
            "post_processor": self.post_processor(header, false),
            "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true },
            "model": {
                "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
                "ignore_merges": splitting == Splitting::Llama3,
                "vocab": ids, "merges": merges,
            },
        }))
    }

    /// SentencePiece joins the pair of pieces whose joint has the best score, which is BPE whose merges are
    /// sorted by the scores of what they make.
    fn sentence_piece(&self, header: &Header) -> std::result::Result<Json, String> {
        let scores = header.get("tokenizer.ggml.scores").and_then(Value::as_numbers);
        let scores = scores.filter(|scores| scores.len() == self.pieces.len());
        let scores = scores.ok_or("its tokenizer has no score for each token (tokenizer.ggml.scores)")?;
        let of_text = |id: &usize| matches!(self.kinds[*id], NORMAL | USER_DEFINED);
        let ids: HashMap<&str, usize> = self.ids().into_iter().filter(|(_, id)| of_text(id)).collect();
        let mut merges = Vec::new();
        for (&piece, &id) in ids.iter().filter(|(piece, _)| piece.len() <= LONGEST_PIECE) {
            let score = scores[id];
            for (at, _) in piece.char_indices().skip(1) {
                if let (Some(&left), Some(&right)) = (ids.get(&piece[..at]), ids.get(&piece[at..])) {
                    merges.push((score, id, left, right));
                }
            }
        }
        merges.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)).then(a.2.cmp(&b.2)));
        let merges: Vec<_> =
            merges.iter().map(|&(_, _, left, right)| [self.pieces[left], self.pieces[right]]).collect();
        let has_bytes = self.kinds.contains(&BYTE);
        let unknown = self.kinds.iter().position(|&kind| kind == UNKNOWN).map(|id| self.pieces[id]);
        let adds_space =
            header.get("tokenizer.ggml.add_space_prefix").and_then(Value::as_bool).unwrap_or(true);
        let mut normalizers =
            vec![json!({ "type": "Replace", "pattern": { "String": " " }, "content": "\u{2581}" })];
        let mut decoders = vec![
            json!({ "type": "Replace", "pattern": { "String": "\u{2581}" }, "content": " " }),
            json!({ "type": "ByteFallback" }),
            json!({ "type": "Fuse" }),
        ];
        if adds_space {
            normalizers.insert(0, json!({ "type": "Prepend", "prepend": "\u{2581}" }));
            decoders.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
        }
        Ok(json!({
            "version": "1.0", "truncation": null, "padding": null,
            "added_tokens": self.added(),
            "normalizer": { "type": "Sequence", "normalizers": normalizers },
            "pre_tokenizer": null,
            "post_processor": self.post_processor(header, true),
            "decoder": { "type": "Sequence", "decoders": decoders },
            "model": {
                "type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": has_bytes, "ignore_merges": false,
                "vocab": self.ids(), "merges": merges,
            },
        }))
    }

    /// What is added before and after a prompt; `bos` is the default where the file says nothing.
    fn post_processor(&self, header: &Header, bos: bool) -> Json {
        let adds = |name: &str, default: bool| {
            header
                .get(&format!("tokenizer.ggml.add_{name}_token"))
                .and_then(Value::as_bool)
                .unwrap_or(default)
        };
        let token = |name: &str, default: bool| {
            let id = special(header, &format!("{name}_token_id")).filter(|_| adds(name, default))?;
            Some((id, *self.pieces.get(id as usize)?))
        };
        let (before, after) = (token("bos", bos), token("eos", false));
        if before.is_none() && after.is_none() {
            return Json::Null;
        }
        let one = |token: Option<(u32, &str)>| {
            token.map(|(_, piece)| json!({ "SpecialToken": { "id": piece, "type_id": 0 } }))
        };
        let text = |id: &str| json!({ "Sequence": { "id": id, "type_id": 0 } });
        let single: Vec<_> = [one(before), Some(text("A")), one(after)].into_iter().flatten().collect();
        let pair: Vec<_> =
            [one(before), Some(text("A")), Some(text("B")), one(after)].into_iter().flatten().collect();
        let tokens: BTreeMap<_, _> = [before, after]
            .into_iter()
            .flatten()
            .map(|(id, piece)| (piece, json!({ "id": piece, "ids": [id], "tokens": [piece] })))
            .collect();
        json!({ "type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": tokens })
    }
}
