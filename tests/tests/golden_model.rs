//! The engine's forward pass against PyTorch's, at every exit; and against itself, bit for bit.

#![allow(clippy::unwrap_used, reason = "in a test, to unwrap is to assert")]

use offramp_engine::{Session, Workspace};
use offramp_kernels as kernels;
use offramp_model::{Batch, Format, Formats, Llama, Scratch, Weights, checkpoint};
use offramp_tests::golden::{Fixture, MODELS, assert_close, read_json};
use offramp_tests::tables::assert_passes_with_every_table;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

/// Logits are of unit size (at most 4.4), and PyTorch's own f32 answer is up to 2.7e-6 from the f64 one:
/// two honest roundings of the same numbers are within 1e-5, and a wrong epsilon is not.
const TOLERANCE: f64 = 1e-5;

/// Logits `[tokens, vocab]` of `tokens` at `exit_layer`, in one call from an empty cache.
fn logits(model: &Arc<Llama>, tokens: &[u32], exit_layer: usize) -> Vec<f32> {
    let (mut hidden, mut cache) = (model.new_hidden(), model.new_cache(tokens.len()));
    model.embed(tokens, &mut hidden).unwrap();
    model.forward(0..exit_layer, &mut hidden, &mut Batch::one(&mut cache), &mut Scratch::new()).unwrap();
    let mut logits = Vec::new();
    model.head(&hidden, 0..tokens.len(), &mut logits, &mut Scratch::new());
    logits
}

/// The sequences of a fixture, and what PyTorch says their logits `[tokens, vocab]` are at each exit.
fn sequences(name: &str) -> Vec<(Vec<u32>, Vec<Vec<f32>>)> {
    let tensors = Fixture::new(name).tensors();
    let (shape, ids) = tensors.ids("input_ids");
    let rows = ids.chunks_exact(shape[1]).enumerate().map(|(row, tokens)| {
        let exits = (1..).map_while(|e| {
            let name = format!("logits.exit_layer_{e}");
            tensors.names("logits.").find(|found| name.ends_with(found))?;
            let (_, logits) = tensors.floats(&name);
            let len = logits.len() / shape[0];
            Some(logits[row * len..][..len].to_vec())
        });
        (tokens.to_vec(), exits.collect())
    });
    rows.collect()
}

#[test]
fn logits_at_every_exit_are_pytorchs() {
    for name in MODELS {
        let model = Arc::new(Llama::load(Fixture::new(name).folder(), &Formats::all(Format::F32)).unwrap());
        for (row, (tokens, exits)) in sequences(name).into_iter().enumerate() {
            assert_eq!(exits.len(), model.config().num_hidden_layers);
            for (index, expected) in exits.iter().enumerate() {
                let what = format!("{name}, sequence {row}, exit {}, {}", index + 1, kernels::active().name);
                assert_close(&what, &logits(&model, &tokens, index + 1), expected, TOLERANCE);
            }
        }
    }
}

/// Where the folder's own format is computed in, the input of each product is rounded too.
#[test]
fn logits_of_a_bf16_folder_as_it_stands_are_nearly_pytorchs() {
    let model = Arc::new(Llama::load(Fixture::new("bf16-sharded").folder(), &Formats::default()).unwrap());
    assert_eq!(model.formats().layers, Some(Format::Bf16));
    let (tokens, exits) = sequences("bf16-sharded").remove(0);
    for (index, expected) in exits.iter().enumerate() {
        assert_close("bf16-sharded", &logits(&model, &tokens, index + 1), expected, 0.05);
    }
}

#[test]
fn every_kernels_table_gives_pytorchs_logits() {
    assert_passes_with_every_table("logits_at_every_exit_are_pytorchs");
}

#[test]
fn any_cut_through_tokens_and_layers_gives_the_same_bits() {
    for name in MODELS {
        let model = Arc::new(Llama::load(Fixture::new(name).folder(), &Formats::default()).unwrap());
        let layers = model.config().num_hidden_layers;
        let (tokens, _) = sequences(name).remove(0);
        let whole: Vec<_> = (1..=layers).map(|e| logits(&model, &tokens, e)).collect();
        for chunk in [1, 2, 5, tokens.len()] {
            // One layer at a time, with a look at the logits in between: that must disturb nothing.
            let mut walked = vec![Vec::new(); layers];
            let (mut hidden, mut cache) = (model.new_hidden(), model.new_cache(tokens.len()));
            for tokens in tokens.chunks(chunk) {
                model.embed(tokens, &mut hidden).unwrap();
                for (layer, walked) in walked.iter_mut().enumerate() {
                    model
                        .forward(
                            layer..layer + 1,
                            &mut hidden,
                            &mut Batch::one(&mut cache),
                            &mut Scratch::new(),
                        )
                        .unwrap();
                    let mut logits = Vec::new();
                    model.head(&hidden, 0..tokens.len(), &mut logits, &mut Scratch::new());
                    walked.extend(logits);
                }
            }
            assert!(walked == whole, "{name}: {chunk} tokens a call, one layer a call");
        }
    }
}

#[test]
fn truncating_the_cache_leaves_no_trace() {
    let model =
        Arc::new(Llama::load(Fixture::new("gqa-untied").folder(), &Formats::all(Format::F32)).unwrap());
    let layers = model.config().num_hidden_layers;
    let (tokens, _) = sequences("gqa-untied").remove(0);
    let (mut hidden, mut cache) = (model.new_hidden(), model.new_cache(tokens.len()));
    let mut feed = |tokens: &[u32], cache: &mut _| {
        model.embed(tokens, &mut hidden).unwrap();
        model.forward(0..layers, &mut hidden, &mut Batch::one(cache), &mut Scratch::new()).unwrap();
        let mut logits = Vec::new();
        model.head(&hidden, 0..tokens.len(), &mut logits, &mut Scratch::new());
        logits
    };
    let (prefix, rest) = tokens.split_at(7);
    feed(prefix, &mut cache);
    feed(&[3, 1, 4, 1, 5], &mut cache);
    cache.truncate(prefix.len());
    let after = feed(rest, &mut cache);
    let straight = logits(&model, &tokens, layers);
    assert!(after == straight[straight.len() - after.len()..], "the rejected tokens are still felt");
}

#[test]
fn a_session_that_changes_its_exit_at_every_token_says_what_pytorch_says() {
    for name in MODELS {
        let model = Arc::new(Llama::load(Fixture::new(name).folder(), &Formats::all(Format::F32)).unwrap());
        let (layers, vocab) = (model.config().num_hidden_layers, model.config().vocab_size);
        for (tokens, exits) in sequences(name) {
            let (mut session, mut workspace) =
                (Session::new(&model, tokens.len()).unwrap(), Workspace::new());
            for (position, token) in tokens.iter().enumerate() {
                let exit_layer = 1 + (position * position + position / 3) % layers; // up, down, and staying
                session.set_exit_layer(exit_layer).unwrap();
                let found = session.feed(&[*token], &mut workspace).unwrap();
                let expected = &exits[exit_layer - 1][position * vocab..][..vocab];
                assert_close(
                    &format!("{name}, token {position}, exit {exit_layer}"),
                    found,
                    expected,
                    TOLERANCE,
                );
            }
        }
    }
}

/// A copy of a fixture's model with another config.json.
fn with_config(name: &str, config: &Value, folder: &Path) -> Arc<Llama> {
    let weights = Fixture::new(name).folder().join("model.safetensors");
    std::fs::copy(weights, folder.join("model.safetensors")).unwrap();
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    Arc::new(Llama::load(folder, &Formats::all(Format::F32)).unwrap())
}

#[test]
fn rope_keys_old_and_new_mean_the_same() {
    for name in ["gqa-untied", "rope-linear"] {
        let fixture = Fixture::new(name);
        let mut config = read_json(&fixture.folder().join("config.json"));
        let keys = config.as_object_mut().unwrap();
        // As transformers 4.45 writes them, the type under the older of its two names.
        let mut scaling = keys.remove("rope_parameters").unwrap();
        keys.insert("rope_theta".to_string(), scaling.as_object_mut().unwrap().remove("rope_theta").unwrap());
        let kind = scaling.as_object_mut().unwrap().remove("rope_type").unwrap();
        let is_default = kind == "default";
        scaling["type"] = kind;
        keys.insert("rope_scaling".to_string(), if is_default { Value::Null } else { scaling });
        assert_same_logits(name, &config);
    }
    for name in ["tied-headdim", "rope-llama3"] {
        let fixture = Fixture::new(name);
        let mut config = read_json(&fixture.folder().join("config.json"));
        let keys = config.as_object_mut().unwrap();
        let theta = keys.remove("rope_theta").unwrap();
        let mut rope = match keys.remove("rope_scaling").unwrap() {
            Value::Null => json!({ "rope_type": "default" }),
            scaling => scaling,
        };
        rope["rope_theta"] = theta;
        keys.insert("rope_parameters".to_string(), rope);
        assert_same_logits(name, &config);
    }
}

#[track_caller]
fn assert_same_logits(name: &str, config: &Value) {
    let folder = tempfile::tempdir().unwrap();
    let rewritten = with_config(name, config, folder.path());
    let model = Arc::new(Llama::load(Fixture::new(name).folder(), &Formats::all(Format::F32)).unwrap());
    let layers = model.config().num_hidden_layers;
    let (tokens, _) = sequences(name).remove(0);
    assert!(
        logits(&rewritten, &tokens, layers) == logits(&model, &tokens, layers),
        "{name} with config.json {config}"
    );
}

#[test]
fn what_transformers_wrote_is_saved_again_without_loss() {
    for name in MODELS {
        let fixture = Fixture::new(name);
        let model = Arc::new(Llama::load(fixture.folder(), &Formats::all(Format::F32)).unwrap());
        let weights = Weights::open(fixture.folder(), model.config()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        checkpoint::save(folder.path(), model.config(), &mut |spec| {
            Cow::Owned(weights.take(spec).unwrap().as_slice().to_vec())
        })
        .unwrap();
        let again = Arc::new(Llama::load(folder.path(), &Formats::all(Format::F32)).unwrap());
        assert_eq!(again.config(), model.config(), "{name}");
        let (tokens, _) = sequences(name).remove(0);
        let layers = model.config().num_hidden_layers;
        assert!(logits(&again, &tokens, layers) == logits(&model, &tokens, layers), "{name}");
    }
}
