//! Codes of a GGUF file run as they are: the same whole numbers, the same scales.

use super::super::Kept;
use crate::Batch;
use crate::config::Config;
use crate::format::{Format, Formats};
use crate::gguf::{Gguf, RowOrder, llama_cpp};
use crate::layout::Layout;
use crate::llama::Llama;
use crate::scratch::Scratch;
use crate::source::{Source, storage};
use crate::storage::Storage;
use crate::tensor::{HEAD, TensorKind, TensorSpec};
use crate::weights::Weights;
use offramp_gguf::{NewTensor, TensorType, Value, write};
use offramp_kernels::bf16;
use offramp_kernels::strips::{STRIP, unpack};
use serde_json::json;
use std::path::{Path, PathBuf};

/// What a file of these tensors is read as. Rows have `width` values, `width · 2` after the gate; q and k are
/// permuted, and neither k's rows nor the vocabulary's fill their strips.
fn config(width: usize, tied: bool) -> Config {
    let json = json!({
        "model_type": "llama", "hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": 1,
        "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": width / 4, "vocab_size": 75,
        "tie_word_embeddings": tied,
    });
    Config::from_json(&json.to_string(), Path::new("config.json")).unwrap()
}

fn keys(config: &Config) -> Vec<(String, Value)> {
    let whole = |key: &str, number: usize| (format!("llama.{key}"), Value::Unsigned(number as u64));
    vec![
        ("general.architecture".to_owned(), Value::Text("llama".to_owned())),
        whole("block_count", 1),
        whole("context_length", 64),
        whole("embedding_length", config.hidden_size),
        whole("feed_forward_length", config.intermediate_size),
        whole("attention.head_count", 4),
        whole("attention.head_count_kv", 1),
        whole("attention.key_length", config.head_dim),
        ("llama.attention.layer_norm_rms_epsilon".to_owned(), Value::Float(1e-5)),
    ]
}

fn numbers(seed: u32) -> impl FnMut() -> u32 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 8
    }
}

/// Whole blocks of any codes; the places of scales are filled by `scale`.
fn blocks(kind: TensorType, count: usize, mut scale: impl FnMut() -> u16) -> Vec<u8> {
    let (mut next, bytes) = (numbers(count as u32), kind.block_bytes());
    let at = if kind.block() == 256 { bytes - 2 } else { 0 };
    let mut all = vec![0; count * bytes];
    for block in all.chunks_exact_mut(bytes) {
        // No code 3: of 00, 01 and 10 two bits each.
        let two_bits =
            |next: &mut dyn FnMut() -> u32| (0..4).fold(0, |byte, _| byte << 2 | (next() % 3) as u8);
        let byte = |next: &mut dyn FnMut() -> u32| match kind {
            TensorType::TQ2_0 => two_bits(next),
            _ => next() as u8,
        };
        block.iter_mut().for_each(|place| *place = byte(&mut next));
        block[at..at + 2].copy_from_slice(&scale().to_le_bytes());
    }
    all
}

/// Writes a model whose matrices are such blocks, and opens it.
fn opened(path: &Path, config: &Config, kind: TensorType, bytes: &dyn Fn(&TensorSpec) -> Vec<u8>) -> Weights {
    let specs = config.tensors();
    let is_matrix = |spec: &TensorSpec| spec.kind() == TensorKind::Matrix;
    let tensors = specs.iter().map(|spec| NewTensor {
        name: llama_cpp(&spec.name).unwrap(),
        shape: spec.shape.clone(),
        kind: if is_matrix(spec) { kind } else { TensorType::F32 },
    });
    let mut file = Vec::new();
    let mut placed = write(&mut file, &keys(config), &tensors.collect::<Vec<_>>()).unwrap();
    for spec in &specs {
        let norm = || 1f32.to_le_bytes().repeat(spec.len());
        placed.bytes(&if is_matrix(spec) { bytes(spec) } else { norm() }).unwrap();
        placed.end().unwrap();
    }
    std::fs::write(path, file).unwrap();
    Weights::of_gguf(Gguf::open(path).unwrap(), config).unwrap()
}

fn place() -> (tempfile::TempDir, PathBuf) {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("model.gguf");
    (place, path)
}

/// Finite halves of every kind: below 2⁻¹⁴, negative, the largest, zeros.
fn halves(seed: u32) -> impl FnMut() -> u16 {
    let mut next = numbers(seed);
    move || match next() % 8 {
        0 => [0x0001, 0x83ff, 0x7bff, 0x8000, 0x0000][next() as usize % 5],
        _ => (next() as u16 & 0x83ff) | ((next() % 31) as u16) << 10,
    }
}

fn matrices(config: &Config) -> impl Iterator<Item = TensorSpec> {
    config.tensors().into_iter().filter(|spec| spec.kind() == TensorKind::Matrix)
}

/// The values of a matrix in strips.
fn values(weights: &Weights, spec: &TensorSpec, format: Format) -> Vec<f32> {
    let (strips, width): (Storage<u8>, _) = (storage(weights, spec, format).unwrap(), spec.shape[1]);
    let format = format.strips().unwrap();
    let mut found = vec![f32::NAN; spec.len()];
    let each = strips.as_slice().chunks_exact(format.strip_bytes(width));
    each.zip(found.chunks_mut(STRIP * width)).for_each(|(strip, rows)| unpack(format, strip, width, rows));
    found
}

fn decoded(weights: &Weights, spec: &TensorSpec) -> Vec<u32> {
    let mut values = vec![0.0; spec.len()];
    weights.values(spec).unwrap()(0, &mut values).unwrap();
    values.into_iter().map(f32::to_bits).collect()
}

/// 96 is no multiple of 64, and the blocks of ternary codes have 256 values.
#[test]
fn codes_in_strips_are_the_files_bit_for_bit() {
    for (kind, own, width) in [
        (TensorType::Q8_0, Format::Q8_0, 96),
        (TensorType::Q5_0, Format::Q8_0, 96),
        (TensorType::Q4_0, Format::Q4_0, 96),
        (TensorType::TQ1_0, Format::Q4_0, 256),
        (TensorType::TQ2_0, Format::Q4_0, 256),
    ] {
        let ((_place, path), config) = (place(), config(width, false));
        let weights =
            opened(&path, &config, kind, &|spec| blocks(kind, spec.len() / kind.block(), halves(7)));
        for spec in matrices(&config) {
            assert_eq!(weights.format(&spec).unwrap(), own, "{kind:?} {}", spec.name);
            assert!(!weights.is_mapped(&spec), "strips take memory");
            let expected = decoded(&weights, &spec);
            // Fewer bits go into more as well.
            for format in [own, Format::Q8_0] {
                let found = values(&weights, &spec, format).into_iter().map(f32::to_bits);
                assert!(found.eq(expected.iter().copied()), "{kind:?} as {format}, {}", spec.name);
            }
        }
        let runs = weights.runs(&config).unwrap();
        assert_eq!(runs.len(), 1);
        assert_eq!((&runs[0].stored, runs[0].format, runs[0].kept), (&kind.name(), own, Kept::Codes));
    }
}

/// What an encoder of floats writes into a file is what our packing makes of the same floats.
#[test]
fn floats_are_quantized_as_in_a_file() {
    for (kind, format) in [(TensorType::Q8_0, Format::Q8_0), (TensorType::Q4_0, Format::Q4_0)] {
        let ((_place, path), config) = (place(), config(96, false));
        let mut next = numbers(3);
        // Many magnitudes, ties, zeros, and what is lost in a half.
        let mut value = || match next() % 16 {
            0 => 0.0,
            1 => (next() % 64) as f32 / 2.0 - 16.0,
            power => (next() as f32 / (1 << 23) as f32 - 1.0) * 2f32.powi(3 * power as i32 - 40),
        };
        let floats: Vec<f32> = (0..75 * 96).map(|_| value()).collect();
        let is_head = |spec: &TensorSpec| spec.name == HEAD;
        let weights = opened(&path, &config, kind, &|spec| {
            let zeros = vec![0.0; spec.len()];
            let mut bytes = Vec::new();
            kind.encode(if is_head(spec) { &floats } else { &zeros }, &mut bytes);
            bytes
        });
        let spec = config.head_tensor();
        let file: Storage<u8> = storage(&weights, &spec, format).unwrap();
        let layout = Layout::new(&spec, format);
        let mut packed = vec![0; layout.bytes().unwrap()];
        let give = |first: usize, out: &mut [f32]| {
            out.copy_from_slice(&floats[first..][..out.len()]);
            Ok(())
        };
        layout.encode(&give, 0, &mut packed).unwrap();
        assert!(file.as_slice() == packed, "{format}");
    }
}

fn logits(model: &Llama) -> Vec<f32> {
    let (mut hidden, mut cache, mut logits) = (model.new_hidden(), model.new_cache(8), Vec::new());
    model.embed(&[1, 39, 74], &mut hidden).unwrap();
    model.forward(0..1, &mut hidden, &mut Batch::one(&mut cache), &mut Scratch::new()).unwrap();
    model.head(&hidden, 0..3, &mut logits, &mut Scratch::new());
    logits
}

/// Root of the mean squared difference, in that of what is expected.
fn difference(found: &[f32], expected: &[f32]) -> f32 {
    let square = |values: &mut dyn Iterator<Item = f32>| values.map(|x| x * x).sum::<f32>();
    let differences = square(&mut found.iter().zip(expected).map(|(a, b)| a - b));
    (differences / square(&mut expected.iter().copied())).sqrt()
}

/// Only the input is rounded beside the decoded floats: to int8, with a scale for 32 of them, or for the row.
#[test]
fn a_ternary_file_of_one_step_runs_in_it() {
    for kind in [TensorType::TQ1_0, TensorType::TQ2_0] {
        let ((_place, path), config) = (place(), config(256, false));
        let step = bf16::from_f32(0.03).to_f32();
        let half = offramp_kernels::f16::from_f32(step).to_bits();
        let of_matrix = |spec: &TensorSpec| blocks(kind, spec.len() / 256, || half);
        let weights = opened(&path, &config, kind, &of_matrix);
        for spec in matrices(&config) {
            let expected = if spec.is_in_layer() { Format::Ternary } else { Format::Q4_0 };
            assert_eq!(weights.format(&spec).unwrap(), expected, "{}", spec.name);
            let codes = weights.ternary(&spec).unwrap();
            assert_eq!(codes.step, step);
            let found = codes.codes.iter().map(|&code| (f32::from(code) * step).to_bits());
            assert!(found.eq(decoded(&weights, &spec)), "{kind:?} {}", spec.name);
        }
        let runs: Vec<_> =
            weights.runs(&config).unwrap().into_iter().map(|runs| (runs.format, runs.kept)).collect();
        assert_eq!(runs, [(Format::Q4_0, Kept::Codes), (Format::Ternary, Kept::Codes)]);
        let exact = logits(&Llama::from_gguf(&path, &Formats::all(Format::F32)).unwrap());
        for layers in [None, Some(Format::Ternary), Some(Format::Q4_0)] {
            let model = Llama::from_gguf(&path, &Formats { layers, ..Formats::default() }).unwrap();
            assert_eq!(model.formats().layers, layers.or(Some(Format::Ternary)));
            let found = difference(&logits(&model), &exact);
            assert!(found < 0.02, "{kind:?} as {layers:?}: {found}");
        }
    }
    // The code 3, which stands for 2, is in no ternary strip.
    let ((_place, path), config) = (place(), config(256, false));
    let with_two = |spec: &TensorSpec| {
        let mut bytes = blocks(TensorType::TQ2_0, spec.len() / 256, || 0x3c00);
        bytes[1] |= 0b1100;
        bytes
    };
    let weights = opened(&path, &config, TensorType::TQ2_0, &with_two);
    for spec in matrices(&config) {
        assert_eq!(weights.format(&spec).unwrap(), Format::Q4_0);
        let found = values(&weights, &spec, Format::Q4_0).into_iter().map(f32::to_bits);
        assert!(found.eq(decoded(&weights, &spec)), "{}", spec.name);
    }
}

#[test]
fn a_tied_head_of_codes_is_the_embedding() {
    for (kind, format) in [(TensorType::Q8_0, Format::Q8_0), (TensorType::Q4_0, Format::Q4_0)] {
        let ((_place, path), config) = (place(), config(96, true));
        let of_matrix = |spec: &TensorSpec| blocks(kind, spec.len() / 32, || 0x1c00);
        let weights = opened(&path, &config, kind, &of_matrix);
        let model = Llama::from_gguf(&path, &Formats::default()).unwrap();
        assert!(model.lm_head().shares(model.embed_tokens()), "{format}");
        assert_eq!((model.formats().layers, model.formats().head), (Some(format), Some(format)));
        let mut hidden = model.new_hidden();
        model.embed(&[33], &mut hidden).unwrap();
        let row = &decoded(&weights, &config.embedding_tensor())[33 * 96..][..96];
        assert!(hidden.stream.iter().map(|x| x.to_bits()).eq(row.iter().copied()), "{format}");
        // Rows that draft are the head's, bit for bit, and so are their logits.
        let (mut all, mut some, mut scratch) = (Vec::new(), Vec::new(), Scratch::new());
        let head = model.draft_head(None, Some(&[3, 40, 74])).unwrap();
        model.head(&hidden, 0..1, &mut all, &mut scratch);
        model.draft_logits(&head, &hidden, 0..1, &mut some, &mut scratch);
        assert!([3, 40, 74].iter().all(|&token: &usize| all[token].to_bits() == some[token].to_bits()));
        assert_eq!(model.usual_draft_format(), (format == Format::Q8_0).then_some(Format::Int4));
    }
}

#[test]
fn a_scale_that_is_no_number_is_refused_with_its_place() {
    for kind in [TensorType::Q8_0, TensorType::Q4_0, TensorType::TQ2_0] {
        let width = if kind.block() == 256 { 256 } else { 96 };
        let ((_place, path), config) = (place(), config(width, false));
        let spec = config.tensors().into_iter().find(|spec| spec.name.contains("k_proj")).unwrap();
        for (bits, said) in [(0x7c00, "inf"), (0xfc00, "-inf"), (0x7e01, "NaN")] {
            let of_matrix = |other: &TensorSpec| {
                let mut bytes = blocks(kind, other.len() / kind.block(), || 0x3c00);
                let (blocks, at) =
                    (width / kind.block(), if width == 256 { kind.block_bytes() - 2 } else { 0 });
                // The second of the file's rows is the first of the second half of the model's.
                let row = usize::from(other.name == spec.name) * (blocks * kind.block_bytes() + at);
                if row > 0 {
                    bytes[row..row + 2].copy_from_slice(&u16::to_le_bytes(bits));
                }
                bytes
            };
            opened(&path, &config, kind, &of_matrix);
            let message = Llama::from_gguf(&path, &Formats::default()).unwrap_err().to_string();
            let order = RowOrder::of(&config, &spec.name);
            let index = format!("{}", order.origin(1) * width);
            for word in [&path.to_string_lossy()[..], "k_proj", said, &index] {
                assert!(message.contains(word), "{kind:?}: {message}, without {word}");
            }
        }
    }
}
