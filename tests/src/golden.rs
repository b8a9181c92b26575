//! The results of PyTorch: the folders under `tests/fixtures/`, made by `tests/python/make_fixtures.py`.

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The fixtures that are model folders.
pub const MODELS: [&str; 8] = [
    "gqa-untied",
    "tied-headdim",
    "rope-linear",
    "rope-llama3",
    "bf16-sharded",
    "f16",
    "bare-names",
    "head-only",
];

/// The folders of `families/`, with logits, gradients and greedy text.
pub const FAMILIES: [&str; 12] = [
    "mistral",
    "mistral-window",
    "smollm2",
    "smollm3",
    "qwen2",
    "qwen2-tied",
    "qwen3",
    "qwen3-biases",
    "llama-biases",
    "yarn",
    "dynamic",
    "linear",
];

/// One folder of `tests/fixtures/`.
#[derive(Debug)]
pub struct Fixture {
    folder: PathBuf,
}

impl Fixture {
    /// The fixture of this name.
    pub fn new(name: &str) -> Self {
        Self { folder: Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name) }
    }

    /// Its path; for a model, a Hugging Face folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its `expected.json`.
    ///
    /// # Panics
    /// If there is none.
    pub fn json(&self) -> Value {
        read_json(&self.folder.join("expected.json"))
    }

    /// Its `expected.safetensors`.
    ///
    /// # Panics
    /// If there is none.
    pub fn tensors(&self) -> Tensors {
        Tensors::read(&self.folder.join("expected.safetensors"))
    }
}

/// A JSON file.
///
/// # Panics
/// If it cannot be read.
pub fn read_json(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A number in a JSON value.
///
/// # Panics
/// If it is not one.
pub fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("a number, not {value}"))
}

/// A list of numbers in a JSON value.
///
/// # Panics
/// If it is not one.
pub fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap_or_else(|| panic!("a list, not {value}")).iter().map(number).collect()
}

/// A list of token ids in a JSON value.
///
/// # Panics
/// If it is not one.
pub fn ids(value: &Value) -> Vec<u32> {
    numbers(value).into_iter().map(|id| id as u32).collect()
}

/// The tensors of one of our files, f32 or token ids. The reader is separate from the crates under test.
#[derive(Debug)]
pub struct Tensors {
    floats: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    ids: BTreeMap<String, (Vec<usize>, Vec<u32>)>,
}

impl Tensors {
    /// Those of a file.
    ///
    /// # Panics
    /// If it cannot be read.
    pub fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let length = u64::from_le_bytes(*bytes.first_chunk().expect("a header")) as usize;
        let header: BTreeMap<String, Value> =
            serde_json::from_slice(&bytes[8..8 + length]).expect("a JSON header");
        let mut tensors = Self { floats: BTreeMap::new(), ids: BTreeMap::new() };
        for (name, entry) in header.into_iter().filter(|(name, _)| name != "__metadata__") {
            let shape = numbers(&entry["shape"]).into_iter().map(|size| size as usize).collect();
            let offsets = numbers(&entry["data_offsets"]);
            let data = &bytes[8 + length..][offsets[0] as usize..offsets[1] as usize];
            match entry["dtype"].as_str() {
                Some("F32") => {
                    let values = data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
                    tensors.floats.insert(name, (shape, values.collect()));
                }
                Some("I64") => {
                    let values = data.as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes) as u32);
                    tensors.ids.insert(name, (shape, values.collect()));
                }
                other => panic!("{}: {name} is {other:?}", path.display()),
            }
        }
        tensors
    }

    /// An f32 tensor: its shape and its values, row-major.
    ///
    /// # Panics
    /// If there is none of this name.
    pub fn floats(&self, name: &str) -> (&[usize], &[f32]) {
        let (shape, values) = self.floats.get(name).unwrap_or_else(|| panic!("no tensor {name}"));
        (shape, values)
    }

    /// A tensor of token ids: its shape and its values, row-major.
    ///
    /// # Panics
    /// If there is none of this name.
    pub fn ids(&self, name: &str) -> (&[usize], &[u32]) {
        let (shape, values) = self.ids.get(name).unwrap_or_else(|| panic!("no tensor {name}"));
        (shape, values)
    }

    /// The names of the f32 tensors that begin with `prefix`, without it.
    pub fn names<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a str> {
        self.floats.keys().filter_map(move |name| name.strip_prefix(prefix))
    }
}

/// Asserts that every number is within `tolerance` of what PyTorch said, and names the worst if not.
///
/// # Panics
/// If one is not (NaN included), or the lengths differ.
#[track_caller]
pub fn assert_close(what: &str, found: &[f32], expected: &[f32], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}: as many numbers as PyTorch");
    let mut worst = (0, 0.0);
    for (index, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let difference = (f64::from(found) - f64::from(expected)).abs();
        if difference.is_nan() || difference > worst.1 {
            worst = (index, if difference.is_nan() { f64::INFINITY } else { difference });
        }
    }
    let (index, difference) = worst;
    assert!(
        difference <= tolerance,
        "{what}: number {index} is {}, PyTorch says {} ({difference:.1e} apart, {tolerance:.1e} allowed)",
        found[index],
        expected[index],
    );
}

/// Asserts that a number is within `tolerance`, relative, of what PyTorch said.
///
/// # Panics
/// If it is not.
#[track_caller]
pub fn assert_near(what: &str, found: f64, expected: f64, tolerance: f64) {
    let difference = (found / expected - 1.0).abs();
    assert!(
        difference <= tolerance,
        "{what} is {found}, PyTorch says {expected} ({difference:.1e} apart, {tolerance:.1e} allowed)"
    );
}

/// The largest absolute value.
pub fn largest(values: &[f32]) -> f64 {
    values.iter().fold(0.0, |most: f64, value| most.max(f64::from(value.abs())))
}
