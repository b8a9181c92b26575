//! Ternary models as GGUF files of llama.cpp's `bitnet`, there and back, and those that it does not know.

#![allow(clippy::unwrap_used, reason = "in a test, to unwrap is to assert")]

use offramp_engine::{Session, Workspace};
use offramp_gguf::{TensorType, Value};
use offramp_model::checkpoint::{export_gguf, quantize, quantize_gguf, save};
use offramp_model::{BitLinear, Config, Format, Formats, Gguf, Llama, Weights};
use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

const CONFIG: &str = r#"{"model_type": "llama", "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 64, "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": true}"#;

/// A folder of the weights from which ternary ones are made.
fn folder(place: &Path, tied: bool) -> (Config, Weights) {
    let config = Config::from_json(CONFIG, Path::new("config.json")).unwrap();
    let config = Config { bit_linear: Some(BitLinear::V1), tie_word_embeddings: tied, ..config };
    let mut state = 7u32;
    let mut random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    save(place, &config, &mut |spec| {
        let norm = spec.name.contains("norm");
        Cow::Owned((0..spec.len()).map(|_| if norm { 1.0 + random() / 4.0 } else { random() }).collect())
    })
    .unwrap();
    let weights = Weights::open(place, &config).unwrap();
    (config, weights)
}

fn logits(model: Llama) -> Vec<f32> {
    let (model, mut workspace) = (Arc::new(model), Workspace::new());
    let tokens: Vec<u32> = (0..20).map(|i| i * 7 % 64).collect();
    let mut session = Session::new(&model, tokens.len()).unwrap();
    session.feed_each(&tokens, &mut workspace).unwrap().to_vec()
}

/// The packed codes of a folder, by their tensors' names.
fn codes(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let bytes = std::fs::read(folder.join("model.safetensors")).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let packed = header.as_object().unwrap().iter().filter(|(_, tensor)| tensor["dtype"] == "U8");
    let place =
        |tensor: &serde_json::Value, end: usize| tensor["data_offsets"][end].as_u64().unwrap() as usize;
    let of = |tensor| bytes[8 + length..][place(tensor, 0)..place(tensor, 1)].to_vec();
    let found: Vec<_> = packed.map(|(name, tensor)| (name.clone(), of(tensor))).collect();
    assert_eq!(found.len(), 14, "seven of each layer");
    found
}

#[test]
fn a_ternary_model_goes_there_and_comes_back() {
    let place = tempfile::tempdir().unwrap();
    let (config, weights) = folder(&place.path().join("latent"), true);
    let expected = logits(Llama::load(&place.path().join("latent"), &Formats::default()).unwrap());
    let file = place.path().join("model.gguf");
    let packed_here = place.path().join("packed");
    quantize(&place.path().join("latent"), &packed_here, &Formats::all(Format::Ternary), &mut |_, _| ())
        .unwrap();
    let packed = |name: &str| {
        let folder = place.path().join(name);
        let beside = |_: &Path| Ok::<(), offramp_model::Error>(());
        quantize_gguf(&file, &folder, &Formats::all(Format::Ternary), &beside, &mut |_, _| ()).unwrap();
        folder
    };
    // In 16 bits a step is rounded, and activations round to other codes then: those of weights are the same.
    use TensorType::{BF16, F16, F32, Q8_0, TQ2_0};
    for kind in [F32, F16, BF16, Q8_0, TQ2_0] {
        export_gguf(&weights, &config, kind, ("ternary", &[]), &file).unwrap();
        let gguf = Gguf::open(&file).unwrap();
        assert_eq!(gguf.header().get("general.architecture").and_then(Value::as_str), Some("bitnet"));
        let found = gguf.config().unwrap();
        assert_eq!((found.bit_linear, found.tensors()), (config.bit_linear, config.tensors()));
        let model = Llama::from_gguf(&file, &Formats::default()).unwrap();
        assert_eq!(model.formats().layers, Some(Format::Ternary), "{kind:?}");
        assert!(kind != F32 || logits(model) == expected);
        assert!(codes(&packed(&kind.name())) == codes(&packed_here), "{kind:?}");
    }
    export_gguf(&weights, &config, F32, ("ternary", &[]), &file).unwrap();
    let found = logits(Llama::load(&packed("again"), &Formats::default()).unwrap());
    let most = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(most < 1e-4, "the scale beside packed codes is one over the step: {most}");
    let ternary = Weights::of_gguf(Gguf::open(&file).unwrap(), &Gguf::open(&file).unwrap().config().unwrap());
    let matrix = config.tensors().into_iter().find(|spec| spec.name.contains("up_proj")).unwrap();
    let error = ternary.unwrap().read(&matrix, &mut vec![0.0; matrix.len()]).unwrap_err().to_string();
    assert!(error.contains("ternary") && error.contains("float model"), "{error}");
    let wanted = Formats::all(Format::Int8);
    let error = Llama::from_gguf(&file, &wanted).unwrap_err().to_string();
    assert!(error.contains("int8") && !error.contains('\n'), "{error}");
}

#[test]
fn what_is_no_such_model_is_said_in_one_line() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("model.gguf");
    let (config, weights) = folder(&place.path().join("tied"), true);
    let refused = |error: offramp_model::Error, words: &[&str]| {
        let line = error.to_string();
        assert!(!line.contains('\n') && words.iter().all(|word| line.contains(word)), "{line}");
    };
    let load = || Llama::from_gguf(&file, &Formats::default()).unwrap_err();
    let q4_0 = export_gguf(&weights, &config, TensorType::Q4_0, ("ternary", &[]), &file);
    refused(q4_0.unwrap_err(), &["q4_0", "tq2_0"]);
    let (untied, of_untied) = folder(&place.path().join("untied"), false);
    let untied = export_gguf(&of_untied, &untied, TensorType::F32, ("ternary", &[]), &file);
    refused(untied.unwrap_err(), &["no head but its embedding"]);
    let rotated = Config { bit_linear: Some(BitLinear::V3), ..config.clone() };
    let rotated = export_gguf(&weights, &rotated, TensorType::F32, ("ternary", &[]), &file);
    refused(rotated.unwrap_err(), &["rotated"]);
    let act = [("bitnet.hidden_activation".to_owned(), Value::Text("relu2".to_owned()))];
    export_gguf(&weights, &config, TensorType::F32, ("ternary", &act), &file).unwrap();
    refused(load(), &["model.gguf", "hidden_act", "relu2"]);
    export_gguf(&weights, &config, TensorType::F32, ("ternary", &[]), &file).unwrap();
    // A value that is not ternary.
    let mut bytes = std::fs::read(&file).unwrap();
    let gguf = Gguf::open(&file).unwrap();
    let tensor = gguf.header().tensors.iter().find(|tensor| tensor.name == "blk.1.ffn_up.weight").unwrap();
    bytes[tensor.bytes.start + 40..][..4].copy_from_slice(&0.125f32.to_le_bytes());
    std::fs::write(&file, &bytes).unwrap();
    refused(load(), &["model.gguf", "layers.1.mlp.up_proj", "1.25e-1 at index 10", "TQ2_0"]);
}
