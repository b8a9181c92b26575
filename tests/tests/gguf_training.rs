//! Training that begins from a GGUF file: with the bits of a folder, from rounded values, without the file
//! when it goes on; and files from which none begins.

#![allow(clippy::unwrap_used, reason = "in a test, to unwrap is to assert")]

use offramp_gguf::TensorType;
use offramp_model::journal::{self, Record};
use offramp_model::{Format, Formats};
use offramp_pipeline::{ModelSource, export_gguf, quantize};
use offramp_text::{PrepareOptions, TokenizerChoice, prepare};
use offramp_train::{Event, Job, Recipe, run, tokenizer_named};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use tempfile::TempDir;

const SIZES: &str = "[model]\nhidden_size = 32\nintermediate_size = 64\nnum_hidden_layers = 4\nnum_attention_heads = 4\n\
    num_key_value_heads = 2\n";
const REST: &str = "[training]\nsteps = 8\nbatch_size = 3\nsequence_length = 24\nseed = 9\n[optimizer]\n\
    learning_rate = 1e-2\n[schedule]\nwarmup_steps = 2\n[validation]\nevery = 4\n[checkpoint]\nevery = 4\n";

/// A folder with a corpus, and a run on it whose model is a GGUF file, too.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        place.prepare("corpus", TokenizerChoice::Train { vocab_size: 280 });
        place.train(&place.recipe(SIZES), "first");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn stories(&self) -> PathBuf {
        let story = |i: usize| format!("The cat number {i} saw {} birds and sang.", (i * i) % 37);
        let path = self.path("train.txt");
        fs::write(&path, (0..120).map(story).collect::<Vec<_>>().join("\n<|endoftext|>\n")).unwrap();
        path
    }

    fn prepare(&self, name: &str, tokenizer: TokenizerChoice) {
        let train = self.stories();
        let (valid, out) = (vec![train.clone()], self.path(name));
        let (train, reading, shard_tokens) = (vec![train], Default::default(), 1 << 20);
        let options = PrepareOptions { train, valid, reading, out, tokenizer, shard_tokens };
        prepare(&options, &mut |_| ()).unwrap();
    }

    fn export(&self, kind: TensorType, name: &str) -> PathBuf {
        let file = self.path(name);
        export_gguf(&ModelSource::Folder(self.path("first/model")), kind, &file).unwrap();
        file
    }

    fn text(&self, begin: &str) -> String {
        format!("[data]\ncorpus = {:?}\n{begin}{REST}", self.path("corpus"))
    }

    fn recipe(&self, begin: &str) -> Recipe {
        Recipe::from_toml(&self.text(begin), Path::new("r.toml")).unwrap()
    }

    fn begins_from(&self, checkpoint: &Path) -> Recipe {
        self.recipe(&format!("[start]\ncheckpoint = {checkpoint:?}\n"))
    }

    fn job<'a>(&self, recipe: &'a Recipe, folder: &str, stop: &'a AtomicBool) -> Job<'a> {
        let (corpus, folder) = (self.path("corpus"), self.path(folder));
        Job { recipe, corpus, folder, resume: false, best: false, stop }
    }

    /// Trains, and returns the formats that the run says were rounded.
    fn train(&self, recipe: &Recipe, folder: &str) -> Vec<String> {
        let (stop, mut rounded) = (AtomicBool::new(false), Vec::new());
        run(&self.job(recipe, folder, &stop), &mut |event| {
            if let Event::Rounded { formats, .. } = event {
                rounded = formats.to_vec();
            }
        })
        .unwrap();
        rounded
    }

    /// The bytes of a run's model, and its losses to the bit.
    fn outcome(&self, folder: &str) -> (Vec<Vec<u8>>, Vec<u64>) {
        let file = |name: &str| fs::read(self.path(folder).join("model").join(name)).unwrap();
        let files = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"].map(file);
        let records = journal::read(&self.path(folder).join("journal.jsonl")).unwrap();
        let losses = records.iter().filter_map(|record| match record {
            Record::Step(step) => Some(step.final_loss.to_bits()),
            _ => None,
        });
        (files.into(), losses.collect())
    }
}

#[test]
fn a_run_from_a_gguf_file_has_the_bits_of_one_from_its_folder() {
    let place = Place::new();
    let file = place.export(TensorType::F32, "first.gguf");
    assert!(place.train(&place.begins_from(&place.path("first/model")), "folder").is_empty());
    assert!(place.train(&place.begins_from(&file), "file").is_empty(), "floats are not rounded");
    let outcome = place.outcome("folder");
    assert_eq!(outcome.1.len(), 8);
    assert!(place.outcome("file") == outcome);
    // Stopped, it goes on without the file.
    let (recipe, stop) = (place.begins_from(&file), AtomicBool::new(false));
    run(&place.job(&recipe, "halves", &stop), &mut |event| {
        stop.store(matches!(event, Event::Step { record, .. } if record.step == 3), Ordering::Relaxed);
    })
    .unwrap();
    fs::remove_file(&file).unwrap();
    let (kept, stop) = (place.path("halves/recipe.toml"), AtomicBool::new(false));
    let recipe = Recipe::read_for_run(&kept, &place.path("halves")).unwrap();
    run(&Job { resume: true, ..place.job(&recipe, "halves", &stop) }, &mut |_| ()).unwrap();
    assert!(place.outcome("halves") == outcome);
}

#[test]
fn a_run_from_codes_begins_from_their_values_and_says_so() {
    let place = Place::new();
    for (kind, exact) in [(TensorType::Q8_0, false), (TensorType::BF16, true)] {
        let file = place.export(kind, &format!("{}.gguf", kind.name()));
        let folder = place.path(&format!("of-{}", kind.name()));
        let formats = Formats { head: Some(Format::F32), ..Formats::all(Format::F32) };
        quantize(&ModelSource::Gguf(file.clone()), &folder, &formats, &mut |_, _| ()).unwrap();
        let name = |what: &str| format!("{what}-{}", kind.name());
        let rounded = if exact { Vec::new() } else { vec![kind.name().to_owned()] };
        assert_eq!(place.train(&place.begins_from(&file), &name("file")), rounded);
        place.train(&place.begins_from(&folder), &name("folder"));
        assert!(place.outcome(&name("file")) == place.outcome(&name("folder")), "{}", kind.name());
    }
}

/// Stories are prepared with the file's tokenizer, which is also that of `prepare --tokenizer`.
#[test]
fn the_files_tokenizer_makes_its_corpus() {
    let place = Place::new();
    let file = place.export(TensorType::F32, "first.gguf");
    let (stories, start) = (place.stories(), format!("[start]\ncheckpoint = {file:?}\n"));
    let text = format!("[data]\ntrain = {stories:?}\n{start}{REST}");
    let recipe = Recipe::from_toml(&text, Path::new("r.toml")).unwrap();
    let made = offramp_train::corpus(&recipe, &place.path("own"), false, &mut |_| ()).unwrap();
    let own = fs::read(made.folder.join("tokenizer.json")).unwrap();
    assert!(own == fs::read(place.path("corpus/tokenizer.json")).unwrap());
    // The run has kept what it needs.
    let own = place.path("own");
    fs::rename(&file, place.path("moved.gguf")).unwrap();
    let absent = Recipe::from_toml(&text, Path::new("r.toml")).unwrap_err().to_string();
    assert!(absent.contains("first.gguf"), "{absent}");
    fs::write(own.join("recipe.toml"), &text).unwrap();
    fs::write(own.join("start.json"), fs::read(place.path("first/model/config.json")).unwrap()).unwrap();
    let recipe = Recipe::read_for_run(&own.join("recipe.toml"), &own).unwrap();
    let kept = offramp_train::corpus(&recipe, &own, true, &mut |_| ()).unwrap();
    assert_eq!((kept.folder, kept.prepared), (own.join("corpus"), None));
    fs::rename(place.path("moved.gguf"), &file).unwrap();
    place.prepare("again", tokenizer_named(file.to_str().unwrap()).unwrap());
    let (recipe, stop) = (place.begins_from(&file), AtomicBool::new(false));
    let job = Job { corpus: place.path("again"), ..place.job(&recipe, "run", &stop) };
    run(&job, &mut |_| ()).unwrap();
}

#[test]
fn what_no_run_begins_from_is_said_in_one_line() {
    let place = Place::new();
    let file = place.export(TensorType::F32, "first.gguf");
    let refused = |checkpoint: &Path, data: &str, words: &[&str]| {
        let text = place.text(&format!("[start]\ncheckpoint = {checkpoint:?}\n"));
        let corpus = format!("corpus = {:?}", place.path("corpus"));
        let text = if data.is_empty() { text } else { text.replace(&corpus, data) };
        let stop = AtomicBool::new(false);
        let begin = |text: &str| {
            let recipe = Recipe::from_toml(text, Path::new("r.toml"))?;
            run(&place.job(&recipe, "refused", &stop), &mut |_| ())
        };
        let line = begin(&text).unwrap_err().to_string();
        assert!(!line.contains('\n') && words.iter().all(|word| line.contains(word)), "{line}");
        assert!(!place.path("refused").join("model").exists());
    };
    refused(&place.path("absent.gguf"), "", &["absent.gguf", "there is nothing there"]);
    let bytes = fs::read(&file).unwrap();
    for (name, bytes) in [("empty", &b""[..]), ("short", &bytes[..100]), ("cut", &bytes[..bytes.len() - 9])] {
        let path = place.path(&format!("{name}.gguf"));
        fs::write(&path, bytes).unwrap();
        refused(&path, "", &[path.to_str().unwrap()]);
    }
    let other = place.path("other.gguf");
    let at = bytes.windows(5).position(|five| five == b"llama").unwrap();
    fs::write(&other, [&bytes[..at], b"mamba", &bytes[at + 5..]].concat()).unwrap();
    refused(&other, "", &["other.gguf", "its architecture is mamba"]);
    let bpe = "train = \"t.txt\"\ntokenizer = \"bpe\"\nvocab_size = 280";
    refused(&file, bpe, &["data.tokenizer is \"bpe\"", "first.gguf"]);
    place.prepare("corpus", TokenizerChoice::Train { vocab_size: 270 });
    refused(&file, "", &["another tokenizer", "first.gguf", "--tokenizer"]);
}
