//! Number formats: what a model computes in each, and what a quantised folder is.

use offramp_kernels::strips::StripFormat;
use offramp_model::{Batch, Config, Format, Formats, Llama, Scratch, TensorSpec, Weights, checkpoint};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// Widths that fill neither strips nor blocks.
fn config(tied: bool) -> Config {
    let json = json!({
        "model_type": "llama", "hidden_size": 72, "intermediate_size": 100, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 18, "vocab_size": 75,
        "max_position_embeddings": 32, "tie_word_embeddings": tied, "eos_token_id": 3,
    });
    Config::from_json(&json.to_string(), Path::new("config.json")).expect("a valid config")
}

/// Values of both signs and many sizes, as those of a trained matrix are.
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
    /// With a float model in `f32/`.
    fn new(tied: bool) -> Self {
        let place = Self(tempfile::tempdir().expect("a folder"));
        let saved = checkpoint::save(&place.path("f32"), &config(tied), &mut |spec| values(spec).into());
        saved.expect("room for a small model");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn quantize(&self, from: &str, to: &str, formats: Formats) -> checkpoint::Quantized {
        let (mut last, mut all) = (0, 0);
        let done = checkpoint::quantize(&self.path(from), &self.path(to), &formats, &mut |done, total| {
            assert!(done > last && done <= total, "progress goes on, to its end");
            (last, all) = (done, total);
        });
        assert_eq!(last, all);
        done.expect("a good folder")
    }

    fn load(&self, name: &str, formats: Formats) -> Llama {
        Llama::load(&self.path(name), &formats).expect("a good folder")
    }

    #[track_caller]
    fn refuses(&self, name: &str, words: &[&str]) {
        let error = Llama::load(&self.path(name), &Formats::default()).expect_err("a bad folder");
        let message = error.to_string();
        assert!(!message.contains('\n') && words.iter().all(|word| message.contains(word)), "{message}");
    }

    fn json(&self, file: &str) -> Value {
        serde_json::from_slice(&fs::read(self.path(file)).expect("a file")).expect("JSON")
    }
}

fn formats(layers: Format, head: Format) -> Formats {
    Formats { layers: Some(layers), head: Some(head), ..Formats::default() }
}

fn logits(model: &Llama) -> Vec<f32> {
    let (mut hidden, mut cache, mut logits) = (model.new_hidden(), model.new_cache(16), Vec::new());
    model.embed(&[1, 74, 33, 0, 64, 31, 32], &mut hidden).expect("ids of the vocabulary");
    model.forward(0..2, &mut hidden, &mut Batch::one(&mut cache), &mut Scratch::new()).expect("room");
    model.head(&hidden, 0..7, &mut logits, &mut Scratch::new());
    logits
}

/// Root of the mean squared difference, in that of what is expected.
fn difference(found: &[f32], expected: &[f32]) -> f32 {
    let square = |values: &mut dyn Iterator<Item = f32>| values.map(|x| x * x).sum::<f32>();
    let differences = square(&mut found.iter().zip(expected).map(|(a, b)| a - b));
    (differences / square(&mut expected.iter().copied())).sqrt()
}

/// What no folder holds.
const OF_FILES: [(Format, Format); 4] = [
    (Format::Q8_0, Format::Q8_0),
    (Format::Q4_0, Format::Q8_0),
    (Format::Q4_0, Format::Bf16),
    (Format::Int8, Format::Q4_0),
];

const PAIRS: [(Format, Format); 9] = [
    (Format::F32, Format::F32),
    (Format::Bf16, Format::Bf16),
    (Format::Int8, Format::Int8),
    (Format::Int4, Format::Int4),
    (Format::Int4, Format::Int8),
    (Format::Int8, Format::Bf16),
    (Format::Bf16, Format::Int4),
    (Format::F32, Format::Int8),
    (Format::Int8, Format::F32),
];

/// What a misplaced code, scale or row would miss by far: its logits would differ by more than 1.
#[test]
fn every_format_computes_nearly_the_same() {
    for tied in [false, true] {
        let place = Place::new(tied);
        let exact = logits(&place.load("f32", Formats::default()));
        for (layers, head) in PAIRS.into_iter().chain(OF_FILES) {
            let model = place.load("f32", formats(layers, head));
            assert_eq!(model.formats(), formats(layers, head));
            let bound = |format| -> f32 {
                match format {
                    Format::F32 => 0.0,
                    Format::Bf16 => 0.015,
                    Format::Int8 | Format::Q8_0 => 0.04,
                    Format::Int4 | Format::Q4_0 => 0.35,
                    Format::Ternary => unreachable!("see tests/ternary.rs"),
                }
            };
            let (found, most) = (difference(&logits(&model), &exact), bound(layers).max(bound(head)));
            assert!(found <= most, "{layers} with a head in {head}, tied {tied}: {found}");
            assert!(
                most == 0.0 || found > most / 100.0,
                "{layers} with a head in {head}: {found} is too good"
            );
        }
    }
}

/// A bf16 folder's embedding is what a quantised folder keeps, so that both are the same model.
#[test]
fn a_quantized_folder_is_what_quantizing_while_loading_gives() {
    for tied in [false, true] {
        let place = Place::new(tied);
        place.quantize("f32", "bf16", Formats::all(Format::Bf16));
        for (layers, head) in PAIRS {
            let (name, formats) = (format!("{layers}-{head}"), formats(layers, head));
            let done = place.quantize("bf16", &name, formats);
            assert_eq!((done.formats, done.bytes_before > 0), (formats, true));
            let bytes = fs::metadata(place.path(&name).join("model.safetensors")).expect("a file").len();
            assert_eq!(done.bytes_after, bytes);
            let (folder, memory) = (place.load(&name, Formats::default()), place.load("bf16", formats));
            assert_eq!(folder.formats(), formats, "tied {tied}");
            assert_eq!(folder.config(), &config(tied));
            assert!(logits(&folder) == logits(&memory), "{name}, tied {tied}");
            // Asked for what it holds it is the same once more, and so is a copy of it.
            assert!(logits(&place.load(&name, formats)) == logits(&folder), "{name}, tied {tied}");
            place.quantize(&name, &format!("{name}-again"), Formats::default());
            let file = |name: &str| fs::read(place.path(name).join("model.safetensors")).expect("a file");
            assert!(file(&name) == file(&format!("{name}-again")), "{name}, tied {tied}");
        }
    }
}

#[test]
fn strips_lie_on_cache_lines_under_their_tensors_names() {
    let place = Place::new(true);
    fs::write(place.path("f32/tokenizer.json"), "{}").expect("room");
    place.quantize("f32", "int4", formats(Format::Int4, Format::Int8));
    let bytes = fs::read(place.path("int4/model.safetensors")).expect("a file");
    let length = u64::from_le_bytes(*bytes.first_chunk().expect("a length")) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).expect("JSON");
    let expect = |name: &str, dtype: &str, shape: &[usize]| {
        assert_eq!(
            (&header[name]["dtype"], &header[name]["shape"]),
            (&json!(dtype), &json!(shape)),
            "{name}"
        );
        let start = header[name]["data_offsets"][0].as_u64().expect("an offset") as usize;
        assert!(dtype != "U8" || (8 + length + start).is_multiple_of(64), "{name} at {start}");
    };
    expect("model.embed_tokens.weight", "BF16", &[75, 72]);
    expect("model.norm.weight", "F32", &[72]);
    expect("model.layers.1.mlp.down_proj.weight", "U8", &[3, StripFormat::Int4.strip_bytes(100)]);
    expect("model.layers.1.self_attn.k_proj.weight", "U8", &[2, StripFormat::Int4.strip_bytes(72)]);
    expect("lm_head.weight", "U8", &[3, StripFormat::Int8.strip_bytes(72)]);
    assert_eq!(fs::read(place.path("int4/tokenizer.json")).expect("a copy"), b"{}");
    assert_eq!(place.json("int4/generation_config.json"), place.json("f32/generation_config.json"));
    let expected = json!({
        "quant_method": "offramp", "strip_rows": 32,
        "layers": { "format": "int4", "bits": 4, "block_size": 32, "scales": "bf16" },
        "head": { "format": "int8", "bits": 8, "block_size": 64, "scales": "bf16" },
    });
    assert_eq!(place.json("int4/config.json")["quantization_config"], expected);
    let config = Config::read(&place.path("int4/config.json")).expect("a config");
    let weights = Weights::open(&place.path("int4"), &config).expect("good weights");
    let counts = weights.formats();
    assert_eq!(counts["INT8"], 75 * 72);
    assert_eq!(counts["INT4"] + counts["BF16"] + counts["F32"], config.parameter_count());
}

#[test]
fn integers_become_floats_again_but_never_other_integers() {
    for tied in [false, true] {
        let place = Place::new(tied);
        place.quantize("f32", "int8", Formats::all(Format::Int8));
        let quantized = logits(&place.load("int8", Formats::default()));
        for (format, dtype, most) in [(Format::F32, "float32", 0.03), (Format::Bf16, "bfloat16", 0.035)] {
            let name = format.name().to_owned() + "-again";
            place.quantize("int8", &name, Formats::all(format));
            let config = place.json(&format!("{name}/config.json"));
            assert_eq!((&config["torch_dtype"], &config["dtype"]), (&json!(dtype), &json!(dtype)));
            assert!(config.get("quantization_config").is_none());
            let again = place.load(&name, Formats::default());
            assert_eq!(again.formats(), Formats { head: Some(format), ..Formats::all(format) });
            let found = difference(&logits(&again), &quantized);
            assert!(found <= most, "{format}: {found}");
            let memory = place.load("int8", Formats::all(format));
            assert!(difference(&logits(&memory), &logits(&again)) < 0.005);
        }
        let message = |error: offramp_model::Error| {
            let message = error.to_string();
            assert!(
                message.contains("int8: quantize the float model") && !message.contains('\n'),
                "{message}"
            );
        };
        let int4 = Formats::all(Format::Int4);
        message(Llama::load(&place.path("int8"), &int4).expect_err("twice"));
        message(
            checkpoint::quantize(&place.path("int8"), &place.path("x"), &int4, &mut |_, _| ())
                .expect_err("twice"),
        );
        assert!(!place.path("x").exists());
    }
}

#[test]
fn nothing_is_written_over() {
    let place = Place::new(false);
    let int8 = Formats::all(Format::Int8);
    for to in ["f32", "."] {
        let refused = checkpoint::quantize(&place.path("f32"), &place.path(to), &int8, &mut |_, _| ());
        assert!(refused.expect_err("it is there").to_string().contains("is there already"));
    }
    place.quantize("f32", "new/folder", int8);
}

#[test]
fn training_does_not_start_from_integers() {
    let place = Place::new(false);
    place.quantize("f32", "int8", Formats::all(Format::Int8));
    let config = Config::read(&place.path("int8/config.json")).expect("a config");
    let weights = Weights::open(&place.path("int8"), &config).expect("good weights");
    for spec in config.tensors() {
        let (read, taken) = (weights.read(&spec, &mut vec![0.0; spec.len()]), weights.take(&spec));
        let floats = spec.shape.len() == 1 || spec.name.contains("embed");
        assert_eq!((read.is_ok(), taken.is_ok()), (floats, floats), "{}", spec.name);
        if let Err(error) = read {
            assert!(error.to_string().contains("the weights are int8: take the float model"), "{error}");
        }
    }
}

#[test]
fn a_quantized_folder_that_lies_is_refused() {
    let place = Place::new(false);
    place.quantize("f32", "int8", Formats::all(Format::Int8));
    let (weights, config) = (place.path("int8/model.safetensors"), place.path("int8/config.json"));
    let bytes = fs::read(&weights).expect("a file");
    let text = fs::read_to_string(&config).expect("a file");
    let data = 8 + u64::from_le_bytes(*bytes.first_chunk().expect("a length")) as usize;

    for len in [0, 7, data - 1, data + 1, bytes.len() - 1] {
        fs::write(&weights, &bytes[..len]).expect("room");
        place.refuses("int8", &["model.safetensors", "damaged"]);
    }
    // The first tensor's first block ends with its scales: that of row 3.
    let mut spoilt = bytes.clone();
    spoilt[data + 64 * 32 + 2 * 3..][..2].copy_from_slice(&[0x80, 0x7f]);
    fs::write(&weights, &spoilt).expect("room");
    let name = "model.layers.0.self_attn.q_proj.weight";
    place.refuses("int8", &[name, "is inf at index 216"]); // 3 · 72
    let floats = Formats::all(Format::F32);
    Llama::load(&place.path("int8"), &floats).expect_err("nor is it made floats");

    let with_header = |from: &str, to: &str| {
        let header = String::from_utf8(bytes[8..data].to_vec()).expect("text");
        assert!(header.contains(from) && from.len() == to.len());
        let header = header.replacen(from, to, 1).into_bytes();
        fs::write(&weights, [&bytes[..8], &header, &bytes[data..]].concat()).expect("room");
    };
    let shape = format!("[3,{}]", StripFormat::Int8.strip_bytes(72));
    with_header(&shape, &format!("[{},3]", StripFormat::Int8.strip_bytes(72)));
    place.refuses("int8", &["has shape", "expected [3, 4224]"]);
    with_header("\"U8\"", "\"I8\"");
    place.refuses("int8", &["is of type I8", "as quantization_config in config.json says"]);

    fs::write(&weights, &bytes).expect("room");
    place.load("int8", Formats::default());
    let with_config = |change: &dyn Fn(&mut Value), words: &[&str]| {
        let mut json: Value = serde_json::from_str(&text).expect("JSON");
        change(&mut json);
        fs::write(&config, json.to_string()).expect("room");
        place.refuses("int8", words);
    };
    let key = "quantization_config";
    with_config(&|json| json[key] = Value::Null, &[name, "has shape [3, 4224], expected [72, 72]"]);
    with_config(&|json| json[key]["layers"]["format"] = json!("int3"), &[key, "f32, bf16, int8 or int4"]);
    with_config(
        &|json| json[key]["quant_method"] = json!("gptq"),
        &["quantization_config.quant_method is \"gptq\": it must be \"offramp\""],
    );
    with_config(
        &|json| json[key]["layers"]["block_size"] = json!(128),
        &[key, "quantize the float model again"],
    );
    let int4 = json!({ "format": "int4", "bits": 4, "block_size": 32, "scales": "bf16" });
    with_config(
        &|json| json[key]["layers"] = int4.clone(),
        &[name, "has shape [3, 4224], expected [3, 1728]"],
    );
    with_config(&|json| json["hidden_size"] = json!(76), &["has shape"]);
}

#[test]
fn random_weights_depend_on_the_seed_alone() {
    use offramp_kernels::rayon::ThreadPoolBuilder;
    for (layers, head) in PAIRS {
        let made = |seed, threads| {
            let pool = ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
            pool.install(|| Llama::random(config(true), seed, &formats(layers, head)).expect("memory"))
        };
        let model = made(1, 1);
        assert_eq!(model.formats(), formats(layers, head));
        assert!(logits(&model) == logits(&made(1, 3)) && logits(&model) != logits(&made(2, 1)));
        assert!(logits(&model).iter().all(|logit| logit.is_finite()));
    }
    let model = Llama::random(config(false), 1, &Formats::default()).expect("memory");
    let mut hidden = model.new_hidden();
    model.embed(&(0..75).collect::<Vec<_>>(), &mut hidden).expect("ids of the vocabulary");
    let mean_square = hidden.as_slice().iter().map(|x| x * x).sum::<f32>() / hidden.as_slice().len() as f32;
    assert!((mean_square.sqrt() / 0.02 - 1.0).abs() < 0.03, "{mean_square}");
    assert!(hidden.as_slice().iter().sum::<f32>().abs() / 5400.0 < 0.001);

    let most = (1usize << 31) - 4;
    let huge = Config { hidden_size: most, vocab_size: 1 << 8, num_hidden_layers: 1, ..config(false) };
    let error = Llama::random(Config { head_dim: 2, ..huge }, 1, &Formats::default());
    let error = error.expect_err("2 TB").to_string();
    assert!(
        error.starts_with("the model's weights: ") && error.contains("GB of memory are needed"),
        "{error}"
    );
}

#[test]
fn bytes_are_those_that_are_held_and_read() {
    let matrices = 2 * [(72, 72), (36, 72), (36, 72), (72, 72), (100, 72), (100, 72), (72, 100)]
        .map(|(rows, width)| StripFormat::Int4.bytes(rows, width).expect("few"))
        .iter()
        .sum::<usize>();
    let (norms, embedding) = (5 * 72 * 4, 75 * 72 * 2);
    let head = StripFormat::Int8.bytes(75, 72).expect("few");
    for tied in [false, true] {
        let model = Llama::random(config(tied), 1, &formats(Format::Int4, Format::Int8)).expect("memory");
        assert_eq!(model.bytes(), (matrices + norms + embedding + head) as u64);
        assert_eq!(model.bytes_per_token(2), (matrices + norms + 72 * 2 + head) as u64);
        let model = Llama::random(config(tied), 1, &formats(Format::Int4, Format::Bf16)).expect("memory");
        let apart = if tied { 0 } else { embedding };
        assert_eq!(model.bytes(), (matrices + norms + embedding + apart) as u64);
    }
}
