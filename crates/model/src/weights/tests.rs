mod bf16;
mod gguf;
mod names;

use super::*;
use crate::run_folder::WEIGHTS_INDEX;
use serde_json::{Value, json};
use std::fs;

/// Two layers' worth of names would prove no more than one.
fn config(tied: bool) -> Config {
    let json = json!({
        "model_type": "llama", "hidden_size": 4, "intermediate_size": 6, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 5, "tie_word_embeddings": tied,
    });
    Config::from_json(&json.to_string(), Path::new("config.json")).unwrap()
}

/// A tensor of a file in the making.
#[derive(Clone)]
struct Tensor {
    name: String,
    dtype: &'static str,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

fn tensor(name: &str, dtype: &'static str, shape: &[usize], bytes: Vec<u8>) -> Tensor {
    Tensor { name: name.to_owned(), dtype, shape: shape.to_vec(), bytes }
}

/// The values that stand in every file here: exact in all three number formats.
fn values(spec: &TensorSpec) -> Vec<f32> {
    (0..spec.len()).map(|i| (i as f32 + spec.name.len() as f32) / 8.0 - 4.0).collect()
}

fn encoded(spec: &TensorSpec, dtype: &'static str) -> Tensor {
    let upper = |x: f32| (x.to_bits() >> 16) as u16;
    let half = |x: f32| match x {
        0.0 => 0,
        // Sign, exponent moved from bias 127 to 15, mantissa cut from 23 bits to 10.
        x => {
            let bits = x.to_bits();
            (bits >> 16 & 0x8000 | ((bits >> 23 & 0xff) - 112) << 10 | bits >> 13 & 0x3ff) as u16
        }
    };
    let one = |x: f32| match dtype {
        "F32" => x.to_le_bytes().to_vec(),
        "F16" => half(x).to_le_bytes().to_vec(),
        "BF16" => upper(x).to_le_bytes().to_vec(),
        other => panic!("{other}"),
    };
    tensor(&spec.name, dtype, &spec.shape, values(spec).into_iter().flat_map(one).collect())
}

fn model(config: &Config, dtype: &'static str) -> Vec<Tensor> {
    config.tensors().iter().map(|spec| encoded(spec, dtype)).collect()
}

/// A safetensors file by the format's definition; `padding` spaces decide how values are aligned.
fn file(tensors: &[Tensor], padding: usize) -> Vec<u8> {
    let mut start = 0;
    let entries = tensors.iter().map(|tensor| {
        let end = start + tensor.bytes.len();
        let info = json!({ "dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [start, end] });
        start = end;
        format!("{}:{info}", json!(tensor.name))
    });
    let entries: Vec<String> = entries.collect(); // by hand, so that names can come twice
    let mut header = format!("{{{}}}", entries.join(","));
    header.extend(std::iter::repeat_n(' ', (8 - header.len() % 8) % 8 + padding));
    let data = tensors.iter().flat_map(|tensor| tensor.bytes.clone());
    (header.len() as u64).to_le_bytes().into_iter().chain(header.into_bytes()).chain(data).collect()
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn with(tensors: &[Tensor]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.write(WEIGHTS, &file(tensors, 0));
        folder
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.0.path().join(name), bytes).unwrap();
    }

    fn open(&self, config: &Config) -> Result<Weights> {
        Weights::open(self.0.path(), config)
    }

    /// The error, in one line that names what it should.
    #[track_caller]
    fn refuses(&self, config: &Config, names: &[&str]) -> String {
        let error = self.open(config).and_then(|weights| {
            config.tensors().iter().try_for_each(|spec| {
                let (read, taken) = (weights.read(spec, &mut vec![0.0; spec.len()]), weights.take(spec));
                assert_eq!(read.is_ok(), taken.is_ok(), "{}", spec.name);
                taken.map(drop)
            })
        });
        let message = error.expect_err("a bad file").to_string();
        assert!(!message.contains('\n') && names.iter().all(|name| message.contains(name)), "{message}");
        message
    }
}

fn assert_holds(weights: &Weights, config: &Config, mapped: bool) {
    for spec in config.tensors() {
        let storage = weights.take(&spec).unwrap();
        assert_eq!(storage.as_slice(), values(&spec), "{}", spec.name);
        assert_eq!(storage.is_mapped(), mapped, "{}", spec.name);
    }
}

#[test]
fn every_number_format_gives_the_same_values() {
    let config = config(false);
    for dtype in ["F32", "F16", "BF16"] {
        let weights = Folder::with(&model(&config, dtype)).open(&config).unwrap();
        assert_holds(&weights, &config, dtype == "F32");
        assert_eq!(weights.formats(), BTreeMap::from([(dtype.to_owned(), config.parameter_count())]));
    }
}

#[test]
fn values_off_their_alignment_are_copied() {
    let config = config(false);
    for padding in 1..4 {
        let folder = Folder::with(&[]);
        folder.write(WEIGHTS, &file(&model(&config, "F32"), padding));
        assert_holds(&folder.open(&config).unwrap(), &config, false);
    }
}

/// Whatever their format and wherever they stand, and in any order.
#[test]
fn values_are_read_into_a_buffer_as_they_are_taken() {
    let config = config(false);
    for (dtype, padding) in [("F32", 0), ("F32", 3), ("F16", 0), ("BF16", 1)] {
        let folder = Folder::with(&[]);
        folder.write(WEIGHTS, &file(&model(&config, dtype), padding));
        let weights = folder.open(&config).unwrap();
        let mut all: Vec<_> =
            config.tensors().into_iter().map(|spec| (vec![7.0; spec.len()], spec)).collect();
        for (found, spec) in all.iter_mut().rev() {
            weights.read(spec, found).unwrap();
            assert_eq!(*found, values(spec), "{} in {dtype}", spec.name);
        }
        assert!(weights.read(&TensorSpec::new("other", &[1]), &mut [0.0]).is_err());
    }
}

#[test]
fn wrong_tensors_are_named() {
    let config = config(false);
    let good = model(&config, "F32");
    let refuses = |change: &dyn Fn(&mut Vec<Tensor>), names: &[&str]| {
        let mut tensors = good.clone();
        change(&mut tensors);
        Folder::with(&tensors).refuses(&config, &[names, &["model.safetensors"]].concat());
    };
    let name = "model.layers.0.self_attn.k_proj.weight";
    let at = good.iter().position(|tensor| tensor.name == name).unwrap();
    refuses(&|tensors| drop(tensors.remove(at)), &["no tensor", name, "[2, 4]"]);
    refuses(&|tensors| tensors[at].shape = vec![4, 2], &[name, "has shape [4, 2], expected [2, 4]"]);
    refuses(
        &|tensors| tensors.push(tensor("lm_head.bias", "F32", &[5], vec![0; 20])),
        &["lm_head.bias", "[5]"],
    );
    refuses(&|tensors| tensors[at] = tensor(name, "F64", &[2, 4], vec![0; 64]), &[name, "type F64"]);
    refuses(&|tensors| tensors[at] = tensor(name, "I8", &[2, 4], vec![0; 8]), &[name, "type I8"]);
    refuses(&|tensors| tensors.push(good[at].clone()), &[name, "twice"]);
}

/// Names come from the file, and go to a terminal.
#[test]
fn a_name_that_would_spoil_the_line_is_escaped_and_cut() {
    let config = config(false);
    let good = model(&config, "F32");
    for name in ["two\nlines", "a\r\u{1b}[2Jb", &"long".repeat(100_000)] {
        let refuses = |tensors: &[Tensor]| {
            let message = Folder::with(tensors).refuses(&config, &["model.safetensors"]);
            assert!(message.len() < 500 && !message.contains(char::is_control), "{message}");
        };
        let stranger = tensor(name, "F32", &[1], vec![0; 4]);
        refuses(&[&good[..], std::slice::from_ref(&stranger)].concat());
        refuses(&[&good[..], &[stranger.clone(), stranger.clone()]].concat());
        // A shape that its bytes belie, which the parser finds.
        refuses(&[&good[..], &[Tensor { shape: vec![2], ..stranger }]].concat());
        let index = sharded(&config, &|index| index["weight_map"][name] = json!("../x"));
        let message = index.refuses(&config, &[WEIGHTS_INDEX]);
        assert!(message.len() < 500 && !message.contains(char::is_control), "{message}");
        let index = sharded(&config, &|index| index["weight_map"][name] = json!("a\nb"));
        let message = index.refuses(&config, &[WEIGHTS_INDEX]);
        assert!(message.len() < 500 && !message.contains(char::is_control), "{message}");
        let index = sharded(&config, &|index| {
            index["weight_map"][name] = json!("model-00001-of-00002.safetensors");
        });
        let message = index.refuses(&config, &[WEIGHTS_INDEX]);
        assert!(message.len() < 500 && !message.contains(char::is_control), "{message}");
    }
}

#[test]
fn values_that_are_no_numbers_are_named() {
    let config = config(false);
    let name = "model.layers.0.mlp.up_proj.weight";
    for (dtype, bytes) in [
        ("F32", f32::NAN.to_le_bytes().to_vec()),
        ("F32", f32::NEG_INFINITY.to_le_bytes().to_vec()),
        ("F16", 0x7c00u16.to_le_bytes().to_vec()),
        ("BF16", 0xffc1u16.to_le_bytes().to_vec()),
    ] {
        let mut tensors = model(&config, dtype);
        let values = &mut tensors.iter_mut().find(|tensor| tensor.name == name).unwrap().bytes;
        for index in [17, 20] {
            values[index * bytes.len()..][..bytes.len()].copy_from_slice(&bytes);
        }
        Folder::with(&tensors).refuses(&config, &["model.safetensors", name, "at index 17"]);
    }
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let config = config(false);
    let folder = Folder::with(&[]);
    let whole = file(&model(&config, "F32"), 0);
    for len in 0..whole.len() {
        folder.write(WEIGHTS, &whole[..len]);
        folder.refuses(&config, &["model.safetensors", "damaged"]);
    }
    folder.write(WEIGHTS, &[&whole[..], &[0; 4]].concat());
    folder.refuses(&config, &["model.safetensors", "its tensors do not end where the file does"]);
}

#[test]
fn a_header_that_lies_is_refused() {
    let config = config(false);
    let folder = Folder::with(&[]);
    let lies = |header: &str, data: usize| {
        let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &vec![0; data]].concat();
        folder.write(WEIGHTS, &bytes);
        folder.refuses(&config, &["model.safetensors"])
    };
    for length in [1 << 20, 1 << 40, u64::MAX] {
        folder.write(WEIGHTS, &[&length.to_le_bytes()[..], b"{}"].concat());
        folder.refuses(&config, &[&format!("the header should be {length} bytes long, but only 2 follow")]);
    }
    let one = |shape: &str, offsets: &str| {
        format!(r#"{{"model.norm.weight":{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}}}"#)
    };
    lies(&one("[4]", "[0, 1000000000000000000]"), 16);
    lies(&one("[1000000000000000000]", "[0, 16]"), 16);
    lies(&one("[4611686018427387904, 4]", "[0, 16]"), 16);
    lies(&one("[4]", "[16, 0]"), 16);
    lies(&one("[4]", "[4, 20]"), 20);
    lies(&one("[-4]", "[0, 16]"), 16);
    lies(&one("[4]", "[0, 16]").replace("F32", "F33"), 16);
    lies("", 0);
    lies("[]", 0);
    lies("{}", 0);
    lies("{", 0);
    lies("\u{ff}", 0);
    lies(&"[".repeat(200_000), 0);
}

/// Half of the model in each of two shards, and the index that `change` makes of the right one.
fn sharded(config: &Config, change: &dyn Fn(&mut Value)) -> Folder {
    let folder = Folder(tempfile::tempdir().unwrap());
    let tensors = model(config, "BF16");
    let mut map = serde_json::Map::new();
    for (number, tensors) in tensors.chunks(tensors.len().div_ceil(2)).enumerate() {
        let name = format!("model-0000{}-of-00002.safetensors", number + 1);
        folder.write(&name, &file(tensors, 0));
        map.extend(tensors.iter().map(|tensor| (tensor.name.clone(), json!(name))));
    }
    let mut index = json!({ "metadata": { "total_size": 1 }, "weight_map": map });
    change(&mut index);
    folder.write(WEIGHTS_INDEX, index.to_string().as_bytes());
    folder
}

#[test]
fn shards_are_one_model() {
    let config = config(false);
    assert_holds(&sharded(&config, &|_| ()).open(&config).unwrap(), &config, false);
}

#[test]
fn an_index_that_lies_is_refused() {
    let config = config(false);
    let norm = "model.norm.weight";
    let refuses = |change: &dyn Fn(&mut Value), names: &[&str]| {
        sharded(&config, change).refuses(&config, names);
    };
    let escapes = [
        "../model.safetensors",
        "/etc/passwd",
        "a/../b.safetensors",
        "..",
        ".",
        "",
        "./",
        "a\\b",
        "x/",
        "C:\\x",
    ];
    for path in escapes {
        refuses(
            &|index| index["weight_map"][norm] = json!(path),
            &[WEIGHTS_INDEX, norm, "files within this folder"],
        );
    }
    // A fuzzer's: the line that names it stays one that somebody reads.
    let long = "n".repeat(3000);
    refuses(
        &|index| index["weight_map"][norm] = json!(long),
        &[WEIGHTS_INDEX, norm, "files within this folder"],
    );
    let folder = sharded(&config, &|index| index["weight_map"][norm] = json!(long));
    assert!(folder.open(&config).unwrap_err().to_string().len() < 600);
    let first = "model-00001-of-00002.safetensors";
    refuses(&|index| index["weight_map"][norm] = json!(first), &[WEIGHTS_INDEX, norm, first, "is not"]);
    refuses(&|index| index["weight_map"][norm] = json!("absent.safetensors"), &["absent.safetensors"]);
    refuses(&|index| drop(index["weight_map"].as_object_mut().unwrap().remove(norm)), &[WEIGHTS_INDEX, norm]);
    refuses(&|index| index["weight_map"] = json!({}), &[WEIGHTS_INDEX, "no tensor"]);
    refuses(&|index| index["weight_map"] = json!([]), &[WEIGHTS_INDEX, "not an index"]);
    refuses(&|index| index["weight_map"][norm] = json!(3), &[WEIGHTS_INDEX, "not an index"]);
}

#[test]
fn a_tensor_in_two_shards_is_refused() {
    let config = config(false);
    let folder = sharded(&config, &|_| ());
    let tensors = model(&config, "F32");
    folder.write("model-00001-of-00002.safetensors", &file(&tensors, 0));
    folder.refuses(&config, &[WEIGHTS_INDEX, "does not place there"]);
}

#[test]
fn a_folder_without_weights_says_what_was_looked_for() {
    let folder = Folder(tempfile::tempdir().unwrap());
    folder.refuses(&config(false), &[WEIGHTS, WEIGHTS_INDEX]);
    fs::create_dir(folder.0.path().join(WEIGHTS)).unwrap();
    folder.refuses(&config(false), &[WEIGHTS, "not a regular file"]);
}

#[test]
fn a_shape_of_many_sizes_is_cut() {
    let config = config(false);
    for at in [0, 3] {
        let mut tensors = model(&config, "F32");
        let values = tensors[at].bytes.len() / 4;
        tensors[at].shape = [&[values][..], &[1; 10_000]].concat();
        assert!(Folder::with(&tensors).refuses(&config, &[&tensors[at].name, "has shape ["]).len() < 500);
        tensors[at].name = "stranger".to_owned();
        tensors.push(encoded(&config.tensors()[at], "F32"));
        assert!(Folder::with(&tensors).refuses(&config, &["stranger ["]).len() < 500);
    }
}

/// Opening a pipe that nobody writes to would wait for ever.
#[cfg(unix)]
#[test]
fn a_pipe_is_refused_and_not_waited_for() {
    let config = config(false);
    for name in [WEIGHTS, WEIGHTS_INDEX] {
        let folder = Folder(tempfile::tempdir().unwrap());
        let made = std::process::Command::new("mkfifo").arg(folder.0.path().join(name)).status();
        assert!(made.unwrap().success());
        folder.refuses(&config, &[name, "not a regular file"]);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    assert!(Config::read(&path).unwrap_err().to_string().contains("not a regular file"));
}

#[test]
fn a_file_of_other_tensors_is_read_by_its_specs() {
    let specs = [TensorSpec::new("moment", &[2, 3]), TensorSpec::new("empty", &[0, 3])];
    let folder = Folder::with(&[encoded(&specs[0], "F32"), encoded(&specs[1], "F32")]);
    let path = folder.0.path().join(WEIGHTS);
    let weights = Weights::open_file(&path, &specs).unwrap();
    assert_eq!(weights.take(&specs[0]).unwrap().as_slice(), values(&specs[0]));
    assert!(weights.take(&specs[1]).unwrap().as_slice().is_empty());
    assert!(Weights::open_file(&path, &specs[..1]).unwrap_err().to_string().contains("empty"));
    assert!(weights.take(&TensorSpec::new("other", &[1])).is_err());
}
