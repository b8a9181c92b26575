//! GGUF files: a model goes there and comes back with every bit, and a tokenizer with every id.

#![allow(clippy::unwrap_used, reason = "in a test, to unwrap is to assert")]

use offramp_engine::{Session, Workspace};
use offramp_gguf::{Header, NewTensor, TensorType, Value as Key, write};
use offramp_model::{
    Config, Format, Formats, Gguf, Llama, RopeParameters, RopeScaling, Weights, Yarn, checkpoint,
};
use offramp_pipeline::{ModelSource, PromptOptions};
use offramp_tests::golden::{FAMILIES, Fixture, MODELS, ids, read_json};
use offramp_text::Tokenizer;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Families whose attention or scaling llama.cpp has no keys for.
const NOT_WRITTEN: [&str; 5] = [
    "families/mistral-window",
    "families/dynamic",
    "families/smollm3",
    "families/qwen2-tied",
    "families/qwen3-biases",
];

fn models() -> impl Iterator<Item = String> {
    let families = FAMILIES.iter().map(|name| format!("families/{name}"));
    MODELS.iter().map(|&name| name.to_owned()).chain(families)
}

fn export(name: &str, kind: TensorType, out: &Path) -> offramp_model::Result<Config> {
    let fixture = Fixture::new(name);
    let config = Config::read(&fixture.folder().join("config.json"))?;
    let weights = Weights::open(fixture.folder(), &config)?;
    checkpoint::export_gguf(&weights, &config, kind, (name, &[]), out)?;
    Ok(config)
}

fn logits(model: Llama, tokens: &[u32]) -> Vec<u32> {
    let (model, mut workspace) = (Arc::new(model), Workspace::new());
    let mut session = Session::new(&model, tokens.len()).unwrap();
    session.feed_each(tokens, &mut workspace).unwrap().iter().map(|logit| logit.to_bits()).collect()
}

#[test]
fn every_family_goes_there_and_comes_back_with_every_bit() {
    let mut written = 0;
    for name in models() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("model.gguf");
        let config = match export(&name, TensorType::F32, &file) {
            Ok(config) => config,
            Err(error) if NOT_WRITTEN.contains(&&name[..]) => {
                assert!(error.to_string().contains("llama.cpp "), "{name}: {error}");
                continue;
            }
            Err(error) => panic!("{name}: {error}"),
        };
        written += 1;
        let gguf = Gguf::open(&file).unwrap();
        let found = gguf.config().unwrap();
        assert_eq!(found.tensors(), config.tensors(), "{name}");
        assert_eq!((found.rope, found.context()), (config.rope, config.context()), "{name}");
        let formats = Formats::all(Format::F32);
        let tokens: Vec<u32> = (0..12).map(|i| i * 5 % config.vocab_size as u32).collect();
        let theirs = logits(Llama::load(Fixture::new(&name).folder(), &formats).unwrap(), &tokens);
        assert!(logits(Llama::from_gguf(&file, &formats).unwrap(), &tokens) == theirs, "{name}");
        // And a folder of it again.
        let folder = place.path().join("folder");
        let wanted = Formats { head: Some(Format::F32), ..formats };
        let beside = |_: &Path| Ok::<(), offramp_model::Error>(());
        checkpoint::quantize_gguf(&file, &folder, &wanted, &beside, &mut |_, _| ()).unwrap();
        assert!(logits(Llama::load(&folder, &formats).unwrap(), &tokens) == theirs, "{name}");
    }
    assert_eq!(written, MODELS.len() + FAMILIES.len() - NOT_WRITTEN.len());
}

#[test]
fn a_bf16_model_is_mapped_and_has_its_own_bits() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("model.gguf");
    export("bf16-sharded", TensorType::BF16, &file).unwrap();
    let tokens: Vec<u32> = (1..10).collect();
    let model = Llama::from_gguf(&file, &Formats::default()).unwrap();
    assert_eq!(model.formats().layers, Some(Format::Bf16));
    let folder = Llama::load(Fixture::new("bf16-sharded").folder(), &Formats::default()).unwrap();
    assert!(logits(model, &tokens) == logits(folder, &tokens));
}

/// The yarn model with other parameters, in a file with these keys beside its own.
fn yarn(file: &Path, parameters: Yarn, keys: &[(&str, f64)]) -> offramp_model::Result<Config> {
    let fixture = Fixture::new("families/yarn");
    let plain = Config::read(&fixture.folder().join("config.json"))?;
    let weights = Weights::open(fixture.folder(), &plain)?;
    let rope = RopeParameters { scaling: RopeScaling::Yarn(parameters), ..plain.rope };
    let config = Config { rope, ..plain };
    let keys = keys.iter().map(|(key, value)| (format!("llama.rope.scaling.{key}"), Key::Float(*value)));
    let keys: Vec<_> = keys.collect();
    checkpoint::export_gguf(&weights, &config, TensorType::F32, ("yarn", &keys), file)?;
    Ok(config)
}

fn found_yarn(file: &Path) -> offramp_model::Result<Yarn> {
    match Gguf::open(file)?.config()?.rope.scaling {
        RopeScaling::Yarn(yarn) => Ok(yarn),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_parameter_of_yarn_goes_there_and_comes_back() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("model.gguf");
    let config = Config::read(&Fixture::new("families/yarn").folder().join("config.json")).unwrap();
    let RopeScaling::Yarn(plain) = config.rope.scaling else { panic!("{:?}", config.rope) };
    for (number, parameters) in [
        plain,
        Yarn { attention_factor: Some(0.7), ..plain },
        Yarn { mscale: Some(1.0), mscale_all_dim: Some(0.3), ..plain },
        Yarn { mscale: Some(0.7), mscale_all_dim: Some(0.9), attention_factor: Some(1.3), ..plain },
    ]
    .into_iter()
    .enumerate()
    {
        let config = yarn(&file, parameters, &[]).unwrap();
        assert_eq!(found_yarn(&file).unwrap(), parameters);
        let folder = place.path().join(number.to_string());
        let formats = Formats { head: Some(Format::F32), ..Formats::all(Format::F32) };
        let beside = |_: &Path| Ok::<(), offramp_model::Error>(());
        checkpoint::quantize_gguf(&file, &folder, &formats, &beside, &mut |_, _| ()).unwrap();
        assert_eq!(Config::read(&folder.join("config.json")).unwrap().rope, config.rope);
        // By the keys of llama.cpp alone: its product is what cosines and sines are multiplied by.
        let (mut bytes, ours) = (std::fs::read(&file).unwrap(), b"offramp.rope_scaling");
        if let Some(at) = bytes.windows(ours.len()).position(|found| found == ours) {
            bytes[at] = b'0';
            std::fs::write(&file, &bytes).unwrap();
        }
        let found = found_yarn(&file).unwrap();
        assert_eq!((found.beta_fast, found.beta_slow), (parameters.beta_fast, parameters.beta_slow));
        let (found, expected) = (found.attention_factor(), parameters.attention_factor());
        assert!((found - expected).abs() < 1e-6, "{found} and {expected}");
    }
    for (other, word) in
        [(Yarn { truncate: false, ..plain }, "truncate"), (Yarn { beta_fast: 16.0, ..plain }, "beta_fast")]
    {
        let error = yarn(&file, other, &[]).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}

/// Keys as llama.cpp's converters write them.
#[test]
fn keys_of_yarn_are_transformers_parameters() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("model.gguf");
    let config = Config::read(&Fixture::new("families/yarn").folder().join("config.json")).unwrap();
    let RopeScaling::Yarn(plain) = config.rope.scaling else { panic!("{:?}", config.rope) };
    let usual = 0.1 * plain.factor.ln() + 1.0;
    let none = [("attn_factor", 1.0), ("yarn_attn_factor", 1.0), ("yarn_log_multiplier", 0.0)];
    for (keys, parameters) in [
        (&none[..], plain),
        (&[("yarn_ext_factor", -1.0), ("yarn_beta_fast", 32.0), ("yarn_beta_slow", 1.0)], plain),
        (
            &[("yarn_beta_fast", 8.0), ("yarn_beta_slow", 1.5)],
            Yarn { beta_fast: 8.0, beta_slow: 1.5, ..plain },
        ),
        (&[("yarn_attn_factor", usual)], plain),
        (&[("yarn_attn_factor", 0.7)], Yarn { attention_factor: Some(0.7), ..plain }),
        (&[("attn_factor", 0.5)], Yarn { attention_factor: Some(0.5 * usual), ..plain }),
        (&[("yarn_log_multiplier", 0.8)], Yarn { mscale: Some(1.0), mscale_all_dim: Some(0.8), ..plain }),
    ] {
        yarn(&file, plain, keys).unwrap();
        assert_eq!(found_yarn(&file).unwrap(), parameters, "{keys:?}");
    }
    for (keys, word) in [
        (&[("yarn_ext_factor", 0.5)][..], "yarn_ext_factor is 0.5: only 1"),
        (&[("yarn_attn_factor", f64::NAN)], "yarn_attn_factor is NaN"),
        (&[("yarn_beta_fast", f64::INFINITY)], "yarn_beta_fast is inf"),
        (&[("yarn_beta_fast", -3.0)], "beta_fast"),
    ] {
        yarn(&file, plain, keys).unwrap();
        let line = found_yarn(&file).unwrap_err().to_string();
        assert!(line.contains(word) && !line.contains('\n'), "{line}");
    }
}

/// Beside its decoded values only the input of each product is rounded, to int8.
#[test]
fn a_file_of_codes_runs_in_them() {
    let place = tempfile::tempdir().unwrap();
    let tokens: Vec<u32> = (1..10).collect();
    for (kind, format) in [(TensorType::Q8_0, Format::Q8_0), (TensorType::Q4_0, Format::Q4_0)] {
        let file = place.path().join("model.gguf");
        export("gqa-untied", kind, &file).unwrap();
        let model = Llama::from_gguf(&file, &Formats::default()).unwrap();
        assert_eq!((model.formats().layers, model.formats().head), (Some(format), Some(Format::Q8_0)));
        let floats = |bits: Vec<u32>| bits.into_iter().map(f32::from_bits).collect::<Vec<_>>();
        let found = floats(logits(model, &tokens));
        let exact = floats(logits(Llama::from_gguf(&file, &Formats::all(Format::F32)).unwrap(), &tokens));
        let largest = exact.iter().fold(0f32, |most, x| most.max(x.abs()));
        let off = found.iter().zip(&exact).fold(0f32, |most, (a, b)| most.max((a - b).abs()));
        assert!(off < 0.03 * largest, "{format}: off by {off} of {largest}");
        // A folder has no such codes, and other integers would round once more: floats are asked for.
        let folder = place.path().join("folder");
        let beside = |_: &Path| Ok::<(), offramp_model::Error>(());
        let quantize = |formats: &Formats| {
            checkpoint::quantize_gguf(&file, &folder, formats, &beside, &mut |_, _| ()).map(drop)
        };
        for wanted in [Formats::default(), Formats::all(format)] {
            let message = quantize(&wanted).unwrap_err().to_string();
            assert!(message.contains("a folder is never in") && !folder.exists(), "{message}");
        }
        std::fs::remove_file(&file).unwrap();
    }
}

/// A file without tensors, with these keys.
fn keys(path: &Path, keys: &[(&str, Key)]) -> Header {
    let keys: Vec<_> = keys.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    let mut bytes = Vec::new();
    write(&mut bytes, &keys, &[] as &[NewTensor]).unwrap();
    std::fs::write(path, &bytes).unwrap();
    Header::parse(&bytes).unwrap()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

fn whole(value: &Value) -> Key {
    Key::Numbers(ids(value).into_iter().map(f64::from).collect())
}

fn fixture(name: &str) -> Value {
    read_json(&Fixture::new("gguf").folder().join(name))
}

#[test]
fn a_sentence_piece_vocabulary_gives_sentence_pieces_ids() {
    let found = fixture("sentence-piece.json");
    let place = tempfile::tempdir().unwrap();
    let scores = found["scores"].as_array().unwrap().iter().map(|score| score.as_f64().unwrap());
    let header = keys(
        &place.path().join("a.gguf"),
        &[
            ("tokenizer.ggml.model", Key::Text("llama".to_owned())),
            ("tokenizer.ggml.tokens", Key::Texts(texts(&found["tokens"]))),
            ("tokenizer.ggml.scores", Key::Numbers(scores.collect())),
            ("tokenizer.ggml.token_type", whole(&found["token_type"])),
            ("tokenizer.ggml.bos_token_id", Key::Unsigned(found["bos_token_id"].as_u64().unwrap())),
            ("tokenizer.ggml.eos_token_id", Key::Unsigned(found["eos_token_id"].as_u64().unwrap())),
        ],
    );
    let tokenizer = Tokenizer::from_gguf(&header, Path::new("a.gguf")).unwrap();
    let bos = found["bos_token_id"].as_u64().unwrap() as u32;
    assert_eq!(tokenizer.end_of_text().map(u64::from), found["eos_token_id"].as_u64());
    for (text, expected) in texts(&found["texts"]).iter().zip(found["ids"].as_array().unwrap()) {
        let expected: Vec<u32> = std::iter::once(bos).chain(ids(expected)).collect();
        assert_eq!(tokenizer.encode_prompt(text, PromptOptions::default()).unwrap(), expected, "{text:?}");
        assert_eq!(tokenizer.decode(&expected).unwrap(), *text);
    }
}

#[test]
fn byte_level_vocabularies_give_the_ids_of_tokenizers() {
    let place = tempfile::tempdir().unwrap();
    for (pre, found) in fixture("byte-level.json").as_object().unwrap() {
        let header = keys(
            &place.path().join("a.gguf"),
            &[
                ("tokenizer.ggml.model", Key::Text("gpt2".to_owned())),
                ("tokenizer.ggml.pre", Key::Text(pre.clone())),
                ("tokenizer.ggml.tokens", Key::Texts(texts(&found["tokens"]))),
                ("tokenizer.ggml.token_type", whole(&found["token_type"])),
                // One more, of pieces that there are not: llama.cpp does not mind.
                (
                    "tokenizer.ggml.merges",
                    Key::Texts(texts(&found["merges"]).into_iter().chain(["no piece".to_owned()]).collect()),
                ),
                ("tokenizer.ggml.bos_token_id", Key::Unsigned(0)),
                ("tokenizer.ggml.add_bos_token", Key::Bool(true)),
            ],
        );
        let tokenizer = Tokenizer::from_gguf(&header, Path::new("a.gguf")).unwrap();
        for (text, expected) in texts(&found["texts"]).iter().zip(found["ids"].as_array().unwrap()) {
            let (plain, mut expected) = (PromptOptions::rendered(), ids(expected));
            assert_eq!(tokenizer.encode_prompt(text, plain).unwrap(), expected, "{pre}: {text:?}");
            if expected.first() != Some(&0) {
                expected.insert(0, 0);
            }
            assert_eq!(tokenizer.encode_prompt(text, PromptOptions::default()).unwrap(), expected, "{pre}");
        }
        // What we write is read again, by the keys of llama.cpp alone.
        let written = tokenizer.gguf_metadata(tokenizer.vocab_size() + 3, Some(0), None).unwrap();
        let own = written.iter().filter(|(key, _)| key != "tokenizer.huggingface.json");
        let own: Vec<_> = own.map(|(key, value)| (&key[..], value.clone())).collect();
        let again =
            Tokenizer::from_gguf(&keys(&place.path().join("b.gguf"), &own), Path::new("b.gguf")).unwrap();
        for text in texts(&found["texts"]) {
            let encode =
                |tokenizer: &Tokenizer| tokenizer.encode_prompt(&text, PromptOptions::default()).unwrap();
            assert_eq!(encode(&again), encode(&tokenizer), "{pre}: {text:?}");
        }
    }
}

fn refused(file: PathBuf, words: &[&str]) {
    let open = || -> Result<(), Box<dyn std::error::Error>> {
        let source = ModelSource::resolve(&file)?;
        source.load(&Formats::default())?;
        source.tokenizer()?;
        Ok(())
    };
    let line = open().unwrap_err().to_string();
    assert!(
        !line.contains(['\r', '\n']) && line.len() < 1000 && words.iter().all(|word| line.contains(word)),
        "{line}"
    );
}

#[test]
fn what_does_not_run_is_said_in_one_line() {
    let place = tempfile::tempdir().unwrap();
    let file = || place.path().join("model.gguf");
    std::fs::write(file(), b"").unwrap();
    refused(file(), &["model.gguf", "empty"]);
    std::fs::write(file(), b"GGUX").unwrap();
    refused(file(), &["model.gguf", "GGUF"]);
    keys(&file(), &[("general.architecture", Key::Text("mamba".to_owned()))]);
    refused(file(), &["mamba", "llama, qwen2"]);
    keys(&file(), &[("general.architecture", Key::Text("bitnet-b1.58".to_owned()))]);
    refused(file(), &["bitnet-b1.58", "bitnet.cpp", "square a ReLU"]);
    keys(&file(), &[("general.architecture", Key::Text("a\r\n".repeat(5000)))]);
    refused(file(), &["its architecture is a"]);
    keys(&file(), &[("general.architecture", Key::Text("llama".to_owned()))]);
    refused(file(), &["no key llama."]);
    let split = [("split.count", Key::Unsigned(2)), ("split.no", Key::Unsigned(u64::MAX))];
    keys(&file(), &split);
    refused(file(), &["model.gguf", "part of 2", "does not end in"]);
    let words = |pre: &str| {
        keys(
            &file(),
            &[
                ("tokenizer.ggml.model", Key::Text("gpt2".to_owned())),
                ("tokenizer.ggml.pre", Key::Text(pre.to_owned())),
                ("tokenizer.ggml.tokens", Key::Texts(vec!["a".to_owned()])),
            ],
        )
    };
    for pre in ["tekken", "tek\rken"] {
        let error = Tokenizer::from_gguf(&words(pre), Path::new("x.gguf")).unwrap_err().to_string();
        assert!(error.contains("tek") && error.contains("llama-bpe") && !error.contains('\r'), "{error}");
    }
    export("gqa-untied", TensorType::F32, &file()).unwrap();
    let bytes = std::fs::read(file()).unwrap();
    std::fs::write(file(), &bytes[..bytes.len() / 2]).unwrap();
    refused(file(), &["model.gguf", "download is not whole"]);
}
