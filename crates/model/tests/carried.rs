//! A model whose files a program carries is that of the folder.

use offramp_model::{Batch, Config, Format, Formats, Llama, Scratch, TensorSpec, checkpoint};
use std::fs;
use std::path::Path;

const CONFIG: &str = r#"{"model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 40, "max_position_embeddings": 16,
    "tie_word_embeddings": false}"#;

/// The bytes of `model.safetensors`, as a program has them: for as long as it runs.
fn carried(to: Option<Format>) -> (String, &'static [u8], tempfile::TempDir) {
    let place = tempfile::tempdir().expect("a folder");
    let config = Config::from_json(CONFIG, Path::new("config.json")).expect("a valid config");
    let values =
        |spec: &TensorSpec| (0..spec.len()).map(|i| ((i * 37 % 101) as f32 - 50.0) / 200.0).collect();
    let folder = place.path().join("f32");
    checkpoint::save(&folder, &config, &mut |spec| Vec::into(values(spec))).expect("room");
    let target = place.path().join("model");
    let formats = Formats { layers: to, head: to, ..Formats::default() };
    checkpoint::quantize(&folder, &target, &formats, &mut |_, _| ()).expect("a good folder");
    let read = |name: &str| fs::read(target.join(name)).expect("a file");
    let config = String::from_utf8(read("config.json")).expect("text");
    (config, read("model.safetensors").leak(), place)
}

fn logits(model: &Llama) -> Vec<f32> {
    let (mut hidden, mut cache, mut logits) = (model.new_hidden(), model.new_cache(8), Vec::new());
    model.embed(&[1, 39, 7], &mut hidden).expect("ids of the vocabulary");
    model.forward(0..2, &mut hidden, &mut Batch::one(&mut cache), &mut Scratch::new()).expect("room");
    model.head(&hidden, 0..3, &mut logits, &mut Scratch::new());
    logits
}

#[test]
fn it_computes_what_the_folder_does_in_every_format() {
    for to in [Format::F32, Format::Bf16, Format::Int8, Format::Int4] {
        let (config, weights, place) = carried(Some(to));
        let given =
            [None, Some(Format::Bf16)].map(|layers| Formats { layers, head: layers, ..Formats::default() });
        let float = matches!(to, Format::F32 | Format::Bf16);
        for formats in given.into_iter().filter(|formats| float || formats.layers.is_none()) {
            let here =
                Llama::from_bytes(&config, weights, Path::new("carried"), &formats).expect("good bytes");
            let there = Llama::load(&place.path().join("model"), &formats).expect("a good folder");
            assert_eq!(logits(&here), logits(&there), "{to} as {:?}", formats.layers);
        }
    }
}

#[test]
fn bytes_are_trusted_no_more_than_a_file() {
    let (config, weights, _place) = carried(Some(Format::Bf16));
    for end in [0, 7, 100, weights.len() - 1] {
        let found = Llama::from_bytes(&config, &weights[..end], Path::new("carried"), &Formats::default());
        let message = found.expect_err("they are cut off").to_string();
        assert!(message.contains("carried") && !message.contains('\n'), "{message}");
    }
    let other = config.replace("\"vocab_size\": 40", "\"vocab_size\": 41");
    let found = Llama::from_bytes(&other, weights, Path::new("carried"), &Formats::default());
    assert!(found.expect_err("another model").to_string().contains("embed_tokens"));
}
