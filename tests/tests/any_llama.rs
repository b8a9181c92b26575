//! The table of README's "Any Llama you have": every source × family × format that it names runs, and has the
//! numbers of the same weights in another place. `crates/cli/tests/command/hub.rs` has the hub's rows, which
//! are the same files after a download.

#![allow(clippy::unwrap_used, reason = "in a test, to unwrap is to assert")]

use offramp_engine::{Session, Workspace};
use offramp_gguf::{Header, NewTensor, TensorType, Value as Key, write};
use offramp_model::{Config, Format, Formats, Llama, TensorKind, Weights, checkpoint};
use offramp_pipeline::ModelSource;
use offramp_tests::golden::{Fixture, read_json};
use offramp_tests::repository::read;
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

/// What the table calls each family, and a fixture with its config.
const FAMILIES: [(&str, &str); 7] = [
    ("Llama", "gqa-untied"),
    ("Mistral", "families/mistral"),
    ("SmolLM2", "families/smollm2"),
    ("SmolLM3", "families/smollm3"),
    ("Qwen2", "families/qwen2"),
    ("Qwen2.5", "families/qwen2"),
    ("Qwen3", "families/qwen3"),
];

/// A model of a family with rows of whole blocks, and random weights.
struct Model {
    place: TempDir,
    config: Config,
}

/// Numbers without a pattern.
fn noise(seed: u64) -> impl Iterator<Item = u64> {
    let mut state = seed;
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    })
}

impl Model {
    fn new(fixture: &str) -> Self {
        let mut config = read_json(&Fixture::new(fixture).folder().join("config.json"));
        for (key, value) in [
            ("hidden_size", json!(256)),
            ("intermediate_size", json!(256)),
            ("num_hidden_layers", json!(4)),
            ("num_attention_heads", json!(4)),
            ("num_key_value_heads", json!(2)),
            ("head_dim", json!(64)),
            ("vocab_size", json!(40)),
        ] {
            config[key] = value;
        }
        // The layers' own kinds are those of a model of this depth.
        for key in ["layer_types", "no_rope_layers", "no_rope_layer_interval"] {
            config.as_object_mut().unwrap().remove(key);
        }
        let place = tempfile::tempdir().unwrap();
        let config = Config::from_json(&config.to_string(), Path::new("config.json")).unwrap();
        let mut seed = 0;
        checkpoint::save(&place.path().join("folder"), &config, &mut |spec| {
            seed += 1;
            let is_norm = spec.kind() == TensorKind::Norm;
            let value = |n: u64| (n % 2001) as f32 / 20_000.0 - 0.05;
            noise(seed).take(spec.len()).map(|n| if is_norm { 1.0 + value(n) } else { value(n) }).collect()
        })
        .unwrap();
        Self { place, config }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// A GGUF file whose matrices are in `kind`, and one with the same values in F32.
    fn gguf(&self, kind: TensorType) -> [PathBuf; 2] {
        let plain = self.path("plain.gguf");
        if !plain.exists() {
            let weights = Weights::open(&self.path("folder"), &self.config).unwrap();
            checkpoint::export_gguf(&weights, &self.config, TensorType::F32, ("x", &[]), &plain).unwrap();
        }
        let bytes = fs::read(&plain).unwrap();
        let header = Header::parse(&bytes).unwrap();
        let keys: Vec<(String, Key)> = header.metadata.clone().into_iter().collect();
        let (mut coded, mut decoded) = (Vec::new(), Vec::new());
        for (seed, tensor) in header.tensors.iter().enumerate() {
            let values: Vec<f32> =
                bytes[tensor.bytes.clone()].as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
            // The embedding runs in its own format whatever is asked for; here it is the same in both files.
            let is_coded = tensor.shape.len() == 2 && tensor.name != "token_embd.weight";
            let kind = if is_coded { kind } else { TensorType::F32 };
            let mut block = Vec::new();
            match kind.is_float() {
                true => values.iter().for_each(|&value| kind.encode(&[value], &mut block)),
                // Whatever their places mean: scales below 2⁻⁴, small codes.
                false => {
                    let len = values.len() / kind.block() * kind.block_bytes();
                    block.extend(noise(seed as u64).take(len).map(|n| (n % 0x2c) as u8));
                }
            }
            let mut values = values;
            kind.decode(&block, &mut values);
            let named = |kind| NewTensor { name: tensor.name.clone(), shape: tensor.shape.clone(), kind };
            coded.push((named(kind), block));
            let floats = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            decoded.push((named(TensorType::F32), floats));
        }
        let file = |name: &str, tensors: Vec<(NewTensor, Vec<u8>)>| {
            let (infos, data): (Vec<_>, Vec<_>) = tensors.into_iter().unzip();
            let mut bytes = Vec::new();
            let mut placed = write(&mut bytes, &keys, &infos).unwrap();
            for data in data {
                placed.bytes(&data).unwrap();
                placed.end().unwrap();
            }
            fs::write(self.path(name), bytes).unwrap();
            self.path(name)
        };
        [file("coded.gguf", coded), file("decoded.gguf", decoded)]
    }
}

/// The logits of a few tokens, as bits.
fn logits(path: &Path, formats: &Formats) -> Vec<u32> {
    let model: Llama = ModelSource::resolve(path).unwrap().load(formats).unwrap();
    let (model, mut workspace) = (Arc::new(model), Workspace::new());
    let tokens = [1, 7, 30, 2, 39, 7];
    let mut session = Session::new(&model, tokens.len()).unwrap();
    let logits = session.feed_each(&tokens, &mut workspace).unwrap();
    assert!(logits.iter().all(|logit| logit.is_finite()), "{}", path.display());
    logits.iter().map(|logit| logit.to_bits()).collect()
}

#[test]
fn every_family_runs_from_a_gguf_file_in_every_format() {
    let floats = Formats::all(Format::F32);
    for (family, fixture) in FAMILIES {
        let model = Model::new(fixture);
        for kind in TensorType::ALL {
            let [coded, decoded] = model.gguf(kind);
            assert!(logits(&coded, &floats) == logits(&decoded, &floats), "{family} in {}", kind.name());
            logits(&coded, &Formats::default());
        }
    }
}

#[test]
fn every_family_runs_from_a_folder_in_every_format() {
    for (family, fixture) in FAMILIES {
        let model = Model::new(fixture);
        let folder = model.path("folder");
        let plain = logits(&folder, &Formats::default());
        assert!(plain == logits(&folder, &Formats::all(Format::F32)), "{family}");
        for (format, most) in [(Format::Bf16, 0.02), (Format::Int8, 0.05), (Format::Int4, 0.4)] {
            let out = model.path(format.name());
            checkpoint::quantize(&folder, &out, &Formats::all(format), &mut |_, _| ()).unwrap();
            let off = distance(&logits(&out, &Formats::default()), &plain);
            assert!(off < most, "{family} in {format}: off by {off}");
        }
        // Half floats, as many checkpoints have them.
        let text = fs::read(folder.join("model.safetensors")).unwrap();
        let halves = model.path("f16");
        fs::create_dir(&halves).unwrap();
        fs::copy(folder.join("config.json"), halves.join("config.json")).unwrap();
        fs::write(halves.join("model.safetensors"), in_halves(&text)).unwrap();
        let off = distance(&logits(&halves, &Formats::default()), &plain);
        assert!(off < 0.01, "{family} in f16: off by {off}");
    }
}

/// How far apart two lists of bits of floats are, beside the length of the second.
fn distance(found: &[u32], expected: &[u32]) -> f32 {
    let float = |bits: &u32| f32::from_bits(*bits);
    let difference: f32 = found.iter().zip(expected).map(|(a, b)| (float(a) - float(b)).powi(2)).sum();
    (difference / expected.iter().map(|b| float(b).powi(2)).sum::<f32>()).sqrt()
}

/// A safetensors file of `f32` as one of `f16`.
fn in_halves(file: &[u8]) -> Vec<u8> {
    let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let mut header: serde_json::Value = serde_json::from_slice(&file[8..8 + length]).unwrap();
    for (_, tensor) in header.as_object_mut().unwrap().iter_mut().filter(|(name, _)| *name != "__metadata__")
    {
        tensor["dtype"] = json!("F16");
        let offsets = tensor["data_offsets"].as_array_mut().unwrap();
        offsets.iter_mut().for_each(|offset| *offset = json!(offset.as_u64().unwrap() / 2));
    }
    let header = header.to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    for value in file[8 + length..].as_chunks().0 {
        TensorType::F16.encode(&[f32::from_le_bytes(*value)], &mut bytes);
    }
    bytes
}

/// A row of the table: its cells.
fn row(source: &str) -> Vec<String> {
    let text = read("README.md");
    let line = text.lines().find(|line| line.starts_with(&format!("| {source}"))).unwrap().to_owned();
    line.split('|').map(|cell| cell.trim().to_owned()).collect()
}

#[test]
fn the_tables_cells_are_those_that_are_held() {
    let folder = row("a folder, or the hub's safetensors");
    let families: Vec<&str> = FAMILIES.iter().map(|(family, _)| *family).collect();
    assert!(folder[2].starts_with(&families.join(", ")), "{}", folder[2]);
    assert!(folder[3].starts_with("f32, f16, bf16; ternary"), "golden_bitnet.rs holds these");
    let gguf = row("a GGUF file, or the hub's");
    let mut named: Vec<&str> = gguf[3].split(", ").collect();
    let mut held: Vec<String> = TensorType::ALL.iter().map(|kind| kind.name()).collect();
    named.sort_unstable();
    held.sort_unstable();
    assert_eq!(named, held);
}
