//! Ternary models: what they compute, what their folders hold, and which folders are refused.

use offramp_kernels::bit_linear::{absmean, ternary};
use offramp_model::{
    Batch, BitLinear, Config, Error, Format, Formats, Llama, Scratch, TensorSpec, Weights, checkpoint,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const FAMILY: [BitLinear; 3] = [BitLinear::V1, BitLinear::V2, BitLinear::V3];

fn config(bit_linear: Option<BitLinear>) -> Config {
    let json = json!({
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 75,
        "max_position_embeddings": 32, "eos_token_id": 3, "rms_norm_eps": 1e-5,
    });
    let config = Config::from_json(&json.to_string(), Path::new("config.json")).expect("a valid config");
    Config { bit_linear, ..config }
}

fn values(spec: &TensorSpec) -> Vec<f32> {
    let mut state = spec.name.bytes().fold(7u32, |state, byte| state.wrapping_mul(31) + u32::from(byte));
    let mut uniform = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    let mut bell = || (uniform() + uniform() + uniform() + uniform()) * 0.2;
    (0..spec.len()).map(|_| if spec.shape.len() == 1 { 1.0 + bell() } else { bell() }).collect()
}

struct Place(tempfile::TempDir);

impl Place {
    /// With the weights that ternary ones are made of in `latent/`.
    fn new(bit_linear: Option<BitLinear>) -> Self {
        let place = Self(tempfile::tempdir().expect("a folder"));
        let saved =
            checkpoint::save(&place.path("latent"), &config(bit_linear), &mut |spec| values(spec).into());
        saved.expect("room for a small model");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn quantize(&self, from: &str, to: &str, formats: Formats) -> Result<checkpoint::Quantized, Error> {
        checkpoint::quantize(&self.path(from), &self.path(to), &formats, &mut |done, total| {
            assert!(done <= total);
        })
    }

    fn load(&self, name: &str) -> Llama {
        Llama::load(&self.path(name), &Formats::default()).expect("a good folder")
    }

    #[track_caller]
    fn refuses(&self, name: &str, words: &[&str]) {
        let error = Llama::load(&self.path(name), &Formats::default()).expect_err("a bad folder");
        says(&error, words);
    }

    fn json(&self, file: &str) -> Value {
        serde_json::from_slice(&fs::read(self.path(file)).expect("a file")).expect("JSON")
    }
}

#[track_caller]
fn says(error: &Error, words: &[&str]) {
    let message = error.to_string();
    assert!(!message.contains('\n') && words.iter().all(|word| message.contains(word)), "{message}");
}

fn ternary_formats(head: Option<Format>) -> Formats {
    Formats { layers: Some(Format::Ternary), head, ..Formats::default() }
}

fn logits(model: &Llama) -> Vec<f32> {
    let (mut hidden, mut cache, mut logits) = (model.new_hidden(), model.new_cache(16), Vec::new());
    model.embed(&[1, 74, 33, 0, 64, 31, 32], &mut hidden).expect("ids of the vocabulary");
    model.forward(0..2, &mut hidden, &mut Batch::one(&mut cache), &mut Scratch::new()).expect("room");
    model.head(&hidden, 0..7, &mut logits, &mut Scratch::new());
    logits
}

/// The largest difference, in the largest value.
fn difference(found: &[f32], expected: &[f32]) -> f32 {
    let most = expected.iter().fold(0f32, |most, x| most.max(x.abs()));
    found.iter().zip(expected).fold(0f32, |worst, (a, b)| worst.max((a - b).abs())) / most
}

/// A ternary Llama is the Llama of the weights that its codes stand for, but for the rounding of activations.
#[test]
fn a_llama_in_ternary_is_that_of_its_rounded_weights() {
    let place = Place::new(None);
    let head = Some(Format::F32);
    let model = Llama::load(&place.path("latent"), &ternary_formats(head)).expect("a good folder");
    assert_eq!(model.formats(), ternary_formats(head));
    let rounded = Llama::from_weights(config(None), |spec| {
        let mut weights = values(spec);
        if spec.shape.len() == 2 && spec.name.contains("layers") {
            let step = absmean(&weights);
            let mut codes = vec![0i8; weights.len()];
            ternary(&weights, step, &mut codes);
            weights = codes.into_iter().map(|code| f32::from(code) * step).collect();
        }
        Ok(weights)
    });
    let found = difference(&logits(&model), &logits(&rounded.expect("memory")));
    assert!(found > 0.0 && found < 0.03, "{found}");
    // The head is int8 unless it is asked for otherwise, and never ternary.
    let model = Llama::load(&place.path("latent"), &ternary_formats(None)).expect("a good folder");
    assert_eq!(model.formats().head, Some(Format::Int8));
    let error = Llama::load(&place.path("latent"), &ternary_formats(Some(Format::Ternary)));
    says(&error.expect_err("a ternary head"), &["head", "int8, int4, bf16 or f32"]);
    says(&model.draft_head(Some(Format::Ternary), None).expect_err("a ternary head"), &["head"]);
}

#[test]
fn a_packed_folder_is_the_model_that_it_was_made_of() {
    for bit_linear in FAMILY {
        let place = Place::new(Some(bit_linear));
        let latent = place.load("latent");
        assert_eq!(latent.formats(), ternary_formats(Some(Format::F32)));
        let done = place.quantize("latent", "packed", ternary_formats(None)).expect("a good folder");
        assert_eq!(done.formats, ternary_formats(Some(Format::F32)));
        assert!(done.bytes_after < done.bytes_before / 2, "{done:?}");
        let packed = place.load("packed");
        assert_eq!(packed.config(), latent.config());
        assert_eq!(packed.formats(), latent.formats());
        assert_eq!(packed.bytes(), latent.bytes());
        // A step went through its inverse: its last bit may be another.
        let name = bit_linear.name();
        assert!(difference(&logits(&packed), &logits(&latent)) < 1e-5, "{name}");
        // A copy of it, and a narrower head.
        place.quantize("packed", "again", Formats::default()).expect("a good folder");
        assert!(difference(&logits(&place.load("again")), &logits(&packed)) < 1e-5, "{name}");
        let head = ternary_formats(Some(Format::Bf16));
        place.quantize("packed", "bf16-head", head).expect("a good folder");
        assert_eq!(place.load("bf16-head").formats(), head);
        assert_eq!(place.json("bf16-head/config.json")["dtype"], "bfloat16");
        // And back to floats; in bf16 steps are rounded, and codes of 4 bits are soon others.
        for (format, most) in [(Format::F32, 1e-5), (Format::Bf16, 0.5)] {
            let to = format!("{format}-again");
            place.quantize("packed", &to, Formats::all(format)).expect("a good folder");
            assert_eq!(
                place.json(&format!("{to}/config.json"))["quantization_config"]["quantization_mode"],
                "online"
            );
            let head = Formats { head: Some(Format::F32), ..Formats::default() };
            let again = Llama::load(&place.path(&to), &head).expect("a good folder");
            let found = difference(&logits(&again), &logits(&packed));
            assert!(found < most, "{name} in {format}: {found}");
        }
    }
}

#[test]
fn a_packed_folder_says_what_it_is() {
    let place = Place::new(Some(BitLinear::V1));
    place.quantize("latent", "packed", ternary_formats(None)).expect("a good folder");
    let config = place.json("packed/config.json");
    assert_eq!((&config["model_type"], &config["dtype"]), (&json!("bitnet"), &json!("float32")));
    let block = &config["quantization_config"];
    assert_eq!((&block["quant_method"], &block["linear_class"]), (&json!("bitnet"), &json!("bitlinear")));
    let tensors = header(&place.path("packed/model.safetensors")).0;
    let name = "model.layers.1.self_attn.k_proj.weight";
    assert_eq!(tensors[name]["shape"], json!([8, 64]));
    assert_eq!(tensors[name]["dtype"], "U8");
    assert_eq!(tensors[&format!("{name}_scale")]["shape"], json!([1]));
    let parsed = Config::read(&place.path("packed/config.json")).expect("a config");
    let weights = Weights::open(&place.path("packed"), &parsed).expect("good weights");
    let matrices: usize = parsed
        .tensors()
        .iter()
        .filter(|spec| spec.shape.len() == 2 && spec.name.contains("layers"))
        .map(TensorSpec::len)
        .sum();
    assert_eq!(weights.formats()["TERNARY"], matrices as u64);
    let spec = TensorSpec::new(name, &[32, 64]);
    says(&weights.take(&spec).expect_err("packed"), &["the weights are ternary: take the float model"]);
    // The rotated ones are nothing that transformers knows.
    let place = Place::new(Some(BitLinear::V2));
    place.quantize("latent", "packed", ternary_formats(None)).expect("a good folder");
    let config = place.json("packed/config.json");
    assert_eq!(config["model_type"], "bitskip");
    assert_eq!(config["quantization_config"]["activation_bits"], 4);
}

fn header(path: &Path) -> (BTreeMap<String, Value>, usize, Vec<u8>) {
    let bytes = fs::read(path).expect("a file");
    let data = 8 + u64::from_le_bytes(*bytes.first_chunk().expect("a length")) as usize;
    (serde_json::from_slice(&bytes[8..data]).expect("JSON"), data, bytes)
}

/// Both of transformers' classes, and weights that it has unpacked, are one model if their scales are read as
/// meant.
#[test]
fn every_kind_of_bitnet_is_read() {
    let place = Place::new(Some(BitLinear::V1));
    place.quantize("latent", "packed", ternary_formats(None)).expect("a good folder");
    let expected = logits(&place.load("packed"));
    let (weights, config) = (place.path("packed/model.safetensors"), place.path("packed/config.json"));
    let (tensors, data, mut bytes) = header(&weights);
    for (_, tensor) in tensors.iter().filter(|(name, _)| name.ends_with("weight_scale")) {
        let start = data + tensor["data_offsets"][0].as_u64().expect("an offset") as usize;
        let scale = f32::from_le_bytes(*bytes[start..].first_chunk().expect("a float"));
        bytes[start..start + 4].copy_from_slice(&(1.0 / scale).to_le_bytes());
    }
    fs::write(&weights, &bytes).expect("room");
    let mut json = place.json("packed/config.json");
    json["quantization_config"]["linear_class"] = json!("autobitlinear");
    fs::write(&config, json.to_string()).expect("room");
    assert!(difference(&logits(&place.load("packed")), &expected) < 1e-5);
    // Read as the other class they are another model.
    json["quantization_config"]["linear_class"] = json!("bitlinear");
    fs::write(&config, json.to_string()).expect("room");
    assert!(difference(&logits(&place.load("packed")), &expected) > 0.1);
}

#[test]
fn a_packed_folder_that_lies_is_refused() {
    let place = Place::new(Some(BitLinear::V1));
    place.quantize("latent", "packed", ternary_formats(None)).expect("a good folder");
    let (weights, config) = (place.path("packed/model.safetensors"), place.path("packed/config.json"));
    let (tensors, data, bytes) = header(&weights);
    let offset = |name: &str| data + tensors[name]["data_offsets"][0].as_u64().expect("an offset") as usize;
    let name = "model.layers.1.mlp.down_proj.weight"; // [64, 128], packed [16, 128]
    let with = |at: usize, new: &[u8], words: &[&str]| {
        let mut bytes = bytes.clone();
        bytes[at..at + new.len()].copy_from_slice(new);
        fs::write(&weights, &bytes).expect("room");
        place.refuses("packed", words);
    };
    // Bits 4 and 5 of packed row 1: row 1 + 2 · 16.
    with(offset(name) + 128 + 7, &[0b01_11_01_01], &[name, "the code 3 at index 4231", "export"]);
    let scale = format!("{name}_scale");
    for (bad, words) in [(0.0f32, "is 0e0"), (-1.5, "is -1.5e0"), (1e-40, "scale is above 0")] {
        with(offset(&scale), &bad.to_le_bytes(), &[&scale, words]);
    }
    for bad in [f32::NAN, f32::INFINITY] {
        with(offset(&scale), &bad.to_le_bytes(), &[&scale, "at index 0"]);
    }
    for len in [data + 1, bytes.len() - 1] {
        fs::write(&weights, &bytes[..len]).expect("room");
        place.refuses("packed", &["model.safetensors", "damaged"]);
    }
    fs::write(&weights, &bytes).expect("room");
    let with_config = |change: &dyn Fn(&mut Value), words: &[&str]| {
        let mut json: Value = place.json("packed/config.json");
        let good = json.clone();
        change(&mut json);
        fs::write(&config, json.to_string()).expect("room");
        place.refuses("packed", words);
        fs::write(&config, good.to_string()).expect("room");
    };
    let key = "quantization_config";
    with_config(
        &|json| json[key]["linear_class"] = json!("linear"),
        &["linear_class", "bitlinear or autobitlinear"],
    );
    with_config(
        &|json| {
            json[key]["linear_class"] = json!("autobitlinear");
            json[key]["quantization_mode"] = json!("later");
        },
        &["quantization_mode", "online or offline"],
    );
    with_config(
        &|json| {
            json[key]["linear_class"] = json!("autobitlinear");
            json[key]["quantization_mode"] = json!("online");
        },
        &["has shape [16, 64], expected [64, 64]"],
    );
    with_config(&|json| json["intermediate_size"] = json!(132), &["has shape"]);
    with_config(&|json| json["intermediate_size"] = json!(130), &["cannot be packed", "multiples of 4"]);
    place.load("packed");
}

#[test]
fn formats_that_make_no_sense_are_refused_in_a_line() {
    let place = Place::new(Some(BitLinear::V3));
    for wanted in [Format::F32, Format::Bf16, Format::Int8, Format::Int4] {
        let error = Llama::load(&place.path("latent"), &Formats::all(wanted)).expect_err("ternary layers");
        says(&error, &["bitskip-v3 are ternary, not", wanted.name(), "leave the format out"]);
    }
    let refused = |place: &Place, formats: Formats, words: &[&str]| {
        says(&place.quantize("latent", "x", formats).expect_err("refused"), words);
        assert!(!place.path("x").exists());
    };
    refused(&place, Formats::all(Format::Int4), &["are ternary, not int4"]);
    refused(&place, ternary_formats(Some(Format::Int8)), &["f32 or bf16, not int8", "--head-format"]);
    refused(&place, ternary_formats(Some(Format::Ternary)), &["head"]);
    let plain = Place::new(None);
    refused(&plain, ternary_formats(None), &["not trained to be ternary", "--format ternary"]);
    let sizes = Config { intermediate_size: 130, ..config(Some(BitLinear::V1)) };
    checkpoint::save(&place.path("odd"), &sizes, &mut |spec| values(spec).into()).expect("room");
    let error = place.quantize("odd", "x", ternary_formats(None)).expect_err("no quarters");
    says(&error, &["mlp.gate_proj.weight", "cannot be packed"]);
}

#[test]
fn random_weights_of_the_family_are_as_good_as_others() {
    for bit_linear in FAMILY {
        let formats = Formats { head: Some(Format::Int4), ..Formats::default() };
        let model = Llama::random(config(Some(bit_linear)), 1, &formats).expect("memory");
        assert_eq!(model.formats(), ternary_formats(Some(Format::Int4)));
        assert!(logits(&model).iter().all(|logit| logit.is_finite()));
    }
    let model = Llama::random(config(None), 1, &ternary_formats(None)).expect("memory");
    // Two bits a weight: strips of 32 rows, blocks of 64.
    let matrices = 2 * (64 * 64 * 2 + 32 * 64 * 2 + 128 * 64 * 3) / 4;
    let head = offramp_kernels::strips::StripFormat::Int8.bytes(75, 64).expect("few");
    let (norms, row) = (5 * 64 * 4, 64 * 2);
    assert_eq!(model.bytes_per_token(2), (matrices + norms + row + head) as u64);
}
