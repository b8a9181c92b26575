//! Ternary models against transformers' own, at every exit: folders as it writes them, in each way that it
//! has.

#![allow(clippy::unwrap_used, reason = "in a test, to unwrap is to assert")]

use offramp_model::checkpoint::{quantize, quantize_gguf};
use offramp_model::{Batch, BitLinear, Format, Formats, Llama, Scratch};
use offramp_tests::golden::{Fixture, assert_close};
use std::path::Path;

/// Activations are rounded: where PyTorch's last bit is another, a code may be. These numbers have no such
/// place.
const TOLERANCE: f64 = 1e-5;
const FOLDERS: [&str; 3] = ["bitnet-online", "bitnet-packed", "bitnet-offline"];

#[track_caller]
fn check(what: &str, folder: &Path, name: &str) {
    check_model(what, &Llama::load(folder, &Formats::default()).unwrap(), name);
}

#[track_caller]
fn check_model(what: &str, model: &Llama, name: &str) {
    assert_eq!(model.config().bit_linear, Some(BitLinear::V1));
    assert_eq!(model.formats().layers, Some(Format::Ternary));
    let tensors = Fixture::new(name).tensors();
    let (shape, ids) = tensors.ids("input_ids");
    for exit_layer in 1..=model.config().num_hidden_layers {
        let (_, expected) = tensors.floats(&format!("logits.exit_layer_{exit_layer}"));
        let rows = ids.chunks_exact(shape[1]).zip(expected.chunks_exact(expected.len() / shape[0]));
        for (tokens, expected) in rows {
            let (mut hidden, mut cache) = (model.new_hidden(), model.new_cache(tokens.len()));
            model.embed(tokens, &mut hidden).unwrap();
            model
                .forward(0..exit_layer, &mut hidden, &mut Batch::one(&mut cache), &mut Scratch::new())
                .unwrap();
            let mut logits = Vec::new();
            model.head(&hidden, 0..tokens.len(), &mut logits, &mut Scratch::new());
            assert_close(&format!("{what}, exit {exit_layer}"), &logits, expected, TOLERANCE);
        }
    }
}

#[test]
fn folders_that_transformers_wrote_are_its_models() {
    for name in FOLDERS {
        check(name, Fixture::new(name).folder(), name);
    }
}

/// The codes of a folder of transformers, in a file that PyPI's `gguf` wrote.
#[test]
fn a_gguf_file_is_its_model() {
    let file = Fixture::new("gguf").folder().join("bitnet.gguf");
    let model = Llama::from_gguf(&file, &Formats::default()).unwrap();
    check_model("bitnet.gguf", &model, "bitnet-offline");
    let place = tempfile::tempdir().unwrap();
    for (name, format) in [("packed", Format::Ternary), ("floats", Format::F32)] {
        let folder = place.path().join(name);
        let beside = |_: &Path| Ok::<(), offramp_model::Error>(());
        quantize_gguf(&file, &folder, &Formats::all(format), &beside, &mut |_, _| ()).unwrap();
        check(name, &folder, "bitnet-offline");
    }
}

/// The other way: what is packed here of its latent weights is what it packs.
#[test]
fn folders_packed_here_are_its_models_too() {
    let place = tempfile::tempdir().unwrap();
    for name in FOLDERS {
        let (packed, formats) = (place.path().join(name), Formats::all(Format::Ternary));
        quantize(Fixture::new(name).folder(), &packed, &formats, &mut |_, _| ()).unwrap();
        check(name, &packed, name);
        let again = place.path().join(format!("{name}-again"));
        quantize(&packed, &again, &Formats::all(Format::F32), &mut |_, _| ()).unwrap();
        check(&format!("{name}, back to floats"), &again, name);
    }
}
